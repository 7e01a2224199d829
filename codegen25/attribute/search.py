"""Looking a text up in one shard, by its suffixes: longest matches, how often they stand there, and where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codegen25._native import longest_matches, occurrences
from codegen25.attribute.suffixes import Ends, Ids, Places

# Ids that matches are compared by at first. Those that are longer are found one by one; see `maximal`.
LIMIT = 512
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Searchable:
    """Ids of documents in a row, where each ends, and the sorted places; what is looked for holds no end."""

    ids: Ids
    ends: Ends
    places: Places

    def longest(self, query: Ids, starts: Places, limit: int = LIMIT) -> Numbers:
        """[starts]: how many ids from each start of the query on stand here in a row, at most `limit`.

        Binary search: O(L log N) steps for L starts in N places, each of at most `limit` comparisons.
        """
        found: Numbers = longest_matches(self.ids, self.places, query, starts, limit)
        return found

    def interval(self, query: Ids) -> tuple[int, int]:
        """The ranks, from and to, of the suffixes that begin with the query."""
        first, last = occurrences(self.ids, self.places, query)
        return int(first), int(last)

    def locate(self, ranks: Numbers) -> tuple[Numbers, Numbers]:
        """The documents that suffixes of these ranks stand in, and their places in the shard."""
        places = self.places[ranks].astype(np.int64)
        return np.searchsorted(self.ends, places.astype(np.uint64), side="right").astype(np.int64), places


def maximal(shards: list[Searchable], query: Ids, starts: Places, least: int) -> list[tuple[int, int]]:
    """The maximal spans of the query that stand in one of the shards, as (start, end), of `least` ids or more.

    A span is maximal when no longer one holds it. Spans begin at `starts`, ascending. Of two spans that are longer than
    `LIMIT` and have more than that in common only the first is named: so a megabyte that repeats itself takes no
    quadratic time.
    """
    if not starts.size or not shards:
        return []
    lengths = np.max([shard.longest(query, starts) for shard in shards], axis=0)
    spans: list[tuple[int, int]] = []
    reached = 0
    for place in np.flatnonzero(lengths >= least).tolist():
        start, length = int(starts[place]), int(lengths[place])
        if start + length <= reached:
            continue
        if length == LIMIT:
            one = starts[place : place + 1]
            length = max(int(shard.longest(query, one, query.size)[0]) for shard in shards)
        reached = start + length
        spans.append((start, reached))
    return spans
