"""Scores of samples with how sure they are: pass@k, and intervals of 95 % over the choice of tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Z = 1.959963984540054  # of the normal distribution: 95 % lie within so many standard deviations
RESAMPLES = 10_000
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A share from 0 to 1 and its interval."""

    value: float
    low: float
    high: float


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that one of `k` samples passes, drawn without replacement from `n` of which `c` pass.

    1 - C(n - c, k) / C(n, k), as a product: unbiased and without large numbers (Chen et al., 2021). `k` is at most `n`.
    """
    assert 0 <= c <= n and 1 <= k <= n
    if n - c < k:
        return 1.0
    missed: float = math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))
    return 1.0 - missed


def wilson(passed: int, n: int) -> Estimate:
    """The share `passed` of `n` with Wilson's score interval (1927), which also holds near 0 and 1."""
    share, z2 = passed / n, Z * Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At 0 and at n one end is exact, which rounding must not hide.
    return Estimate(share, 0.0 if passed == 0 else middle - half, 1.0 if passed == n else middle + half)


def bootstrap(values: Sequence[float], seed: int = 0) -> Estimate:
    """The mean of one value per task, with the percentile interval of means of tasks drawn again (Efron, 1979)."""
    per_task = np.asarray(values, dtype=np.float64)
    low, high = np.quantile(_means(per_task, seed), [0.025, 0.975])
    return Estimate(float(per_task.mean()), float(low), float(high))


def paired_bootstrap(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Estimate:
    """The mean of `first - second` over the same tasks, which are drawn in pairs."""
    return bootstrap(np.subtract(first, second).tolist(), seed)


def ratio_bootstrap(above: Sequence[float], below: Sequence[float], seed: int = 0) -> Estimate:
    """The sum of `above` over the sum of `below`, of files that are drawn again in pairs."""
    tops, bottoms = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    low, high = np.quantile(_means(tops, seed) / _means(bottoms, seed), [0.025, 0.975])
    return Estimate(float(tops.sum() / bottoms.sum()), float(low), float(high))


def _means(values: Floats, seed: int) -> Floats:
    rng, n = np.random.default_rng(seed), len(values)
    rows = max(1, 2_000_000 // n)  # of tasks drawn again, as many at a time as fit in some MB
    blocks = [min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows)]
    return np.concatenate([values[rng.integers(n, size=(count, n))].mean(axis=1) for count in blocks])


def mcnemar(first_only: int, second_only: int) -> float:
    """The exact two-sided p-value of McNemar's test (1947): tasks that one of two passes and the other does not."""
    n, fewer = first_only + second_only, min(first_only, second_only)
    as_rare: int = sum(math.comb(n, i) for i in range(fewer + 1))
    return min(1.0, float(Fraction(2 * as_rare, 1 << n)))
