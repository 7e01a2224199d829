"""Suffix arrays and longest matches the slow way: what the fast ones are held equal to."""

from __future__ import annotations

from collections.abc import Sequence


def sorted_suffixes(ids: Sequence[int], left_out: frozenset[int]) -> list[int]:
    """The places of a text in the order of their suffixes, but for those of ids in `left_out`."""
    return sorted(
        (place for place in range(len(ids)) if ids[place] not in left_out), key=lambda place: list(ids[place:])
    )


def stands(documents: Sequence[Sequence[int]], query: Sequence[int], left_out: frozenset[int]) -> int:
    """How often the query stands inside a document, from a place on that is not left out."""
    wanted = list(query)
    return sum(
        list(one[at : at + len(wanted)]) == wanted
        for one in documents
        for at in range(len(one))
        if one[at] not in left_out
    )


def longest(documents: Sequence[Sequence[int]], query: Sequence[int], start: int, left_out: frozenset[int]) -> int:
    """How many ids from `start` on stand inside a document in a row."""
    length = 0
    while start + length < len(query) and stands(documents, query[start : start + length + 1], left_out):
        length += 1
    return length


def maximal(
    documents: Sequence[Sequence[int]], query: Sequence[int], left_out: frozenset[int], least: int
) -> list[tuple[int, int]]:
    """All spans that stand inside a document, begin at an id that is not left out, and lie in no other."""
    starts = [start for start in range(len(query)) if query[start] not in left_out]
    spans = {(start, start + longest(documents, query, start, left_out)) for start in starts}
    kept = {
        (start, end)
        for start, end in spans
        if not any(a <= start and end <= b for a, b in spans if (a, b) != (start, end))
    }
    return sorted((start, end) for start, end in kept if end - start >= max(least, 1))
