"""Which near copies there truly are among some files, by comparing all pairs, and what a choice of files leaves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pairs = Mapping[tuple[int, int], float]


def true_pairs(sets: Sequence[NDArray[Any]], threshold: float) -> dict[tuple[int, int], float]:
    """The Jaccard similarity of every pair (a, b), a < b, that reaches the threshold.

    `sets` hold distinct values. Each set is intersected with all others at once: over the lists of who has a value.
    """
    sizes = np.array([one.size for one in sets])
    values, which = np.unique(np.concatenate([*sets]), return_inverse=True)
    owners = np.repeat(np.arange(len(sets)), sizes)[np.argsort(which, kind="stable")]
    counts = np.bincount(which, minlength=values.size)
    firsts = np.cumsum(counts) - counts
    ends = np.cumsum(sizes)
    found = {}
    for a, (end, size) in enumerate(zip(ends, sizes, strict=True)):
        mine = which[end - size : end]
        shared = np.bincount(owners[_ranges(firsts[mine], counts[mine])], minlength=len(sets))
        similarity = shared / np.maximum(size + sizes - shared, 1)
        found.update({(a, int(b)): float(similarity[b]) for b in np.flatnonzero(similarity >= threshold) if b > a})
    return found


def _ranges(firsts: NDArray[Any], counts: NDArray[Any]) -> NDArray[Any]:
    """first, first + 1, … of each range, one range after the other."""
    places: NDArray[Any] = np.repeat(firsts - (np.cumsum(counts) - counts), counts)
    return places + np.arange(places.size)


def recall(pairs: Pairs, kept: Collection[int]) -> float:
    """The share of pairs of near copies of which at most one is kept; 1 where there are none."""
    inside = set(kept)
    return 1 - sum(a in inside and b in inside for a, b in pairs) / len(pairs) if pairs else 1.0


def precision(pairs: Pairs, kept: Collection[int], dropped: Collection[int]) -> float:
    """The share of what was dropped that has a near copy among what is kept; 1 where nothing was dropped."""
    inside = set(kept)
    known = {a for pair in pairs for a, b in (pair, pair[::-1]) if b in inside}
    return len(known.intersection(dropped)) / len(dropped) if dropped else 1.0
