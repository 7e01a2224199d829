"""Summaries of a list of numbers. One line is still to be written: `codegen25 infill examples/stats.py --at 10`."""

from collections.abc import Sequence


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean of `values`."""
    if not values:
        raise ValueError("the mean of no values is not defined")
    


def median(values: Sequence[float]) -> float:
    """The middle of the sorted values, or the mean of the two in the middle."""
    if not values:
        raise ValueError("the median of no values is not defined")
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2 == 0:
        low, high = ordered[middle - 1], ordered[middle]
        return (low + high) / 2
    else:
        return ordered[middle]


def variance(values: Sequence[float]) -> float:
    """The mean squared distance from the mean."""
    center = mean(values)
    return mean([(value - center) ** 2 for value in values])
