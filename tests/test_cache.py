"""The prefix cache against a search through all that was put into it, on a backend that only keeps ids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen25.config import ModelConfig
from codegen25.engine.backend import Logits, Row
from codegen25.engine.cache import MOST_ENTRIES, PrefixCache


class Ids:
    """A backend of lists. A byte per token of all sequences."""

    config = ModelConfig(8, 8, 8, 1, 1, 1, 8, 64)

    def __init__(self) -> None:
        self.held: dict[int, list[int]] = {}
        self.made = 0

    @property
    def cache_bytes(self) -> int:
        return sum(map(len, self.held.values()))

    def new(self) -> int:
        return self.holding([])

    def holding(self, ids: Sequence[int]) -> int:
        self.made += 1
        self.held[self.made] = list(ids)
        return self.made

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        raise AssertionError("the cache runs nothing")

    def fork(self, sequence: int) -> int:
        return self.holding(self.held[sequence])

    def truncate(self, sequence: int, length: int) -> None:
        assert length <= len(self.held[sequence])
        del self.held[sequence][length:]

    def length(self, sequence: int) -> int:
        return len(self.held[sequence])

    def free(self, sequence: int) -> None:
        del self.held[sequence]


def common_beginning(a: list[int], b: list[int]) -> list[int]:
    differing = [n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y]
    return a[: min([*differing, len(a), len(b)])]


# Few ids, so that much is common; among them some whose bytes are ordered otherwise than they are.
IDS = st.lists(st.sampled_from([0, 1, 255, 256, 65536]), max_size=7)


@given(st.lists(st.tuples(st.sampled_from(["put", "take"]), IDS.filter(bool)), max_size=30))
def test_the_longest_common_prefix_is_taken(actions: list[tuple[str, list[int]]]) -> None:
    backend = Ids()
    cache = PrefixCache(backend, 10**9)
    everything: list[list[int]] = []  # that is in the cache or the beginning of something in it
    for action, ids in actions:
        before = {s: list(held) for s, held in backend.held.items()}
        if action == "put":
            cache.put(backend.holding(ids), ids)
            everything.append(ids)
            continue
        longest = max((len(common_beginning(ids, known)) for known in everything), default=0)
        sequence, length = cache.take(ids)
        assert backend.held[sequence] == ids[:length] and length == min(longest, len(ids) - 1)
        if sequence in before:  # handed over: it is in the cache no more
            everything = [known for known in everything if known != common_beginning(known, ids)]
            assert sequence not in cache._used.values()
        backend.free(sequence)
    assert sorted(backend.held) == sorted(cache._used.values())
    assert sorted(backend.held.values()) == [np.frombuffer(key, ">u4").tolist() for key in cache._keys]
    cache.clear()
    assert not backend.held


def test_what_a_prompt_goes_on_from_is_handed_over() -> None:
    backend = Ids()
    cache = PrefixCache(backend, 100)
    sequence = backend.holding([1, 2, 3])
    cache.put(sequence, [1, 2, 3])
    assert cache.take([1, 2, 3, 4]) == (sequence, 3)
    assert cache.take([1, 2, 3, 4])[1] == 0


@pytest.mark.parametrize("prompt, common", [([1, 2, 3], 2), ([1, 2, 9, 9], 2), ([1], 0), ([2, 2], 0)])
def test_what_goes_another_way_is_forked(prompt: list[int], common: int) -> None:
    """The last token of a prompt always runs: somebody needs its logits."""
    backend = Ids()
    cache = PrefixCache(backend, 100)
    cache.put(backend.holding([1, 2, 3]), [1, 2, 3])
    sequence, length = cache.take(prompt)
    assert (backend.held[sequence], length) == (prompt[:common], common)
    assert len(cache) == 1 and [1, 2, 3] in backend.held.values()


def test_of_busy_sequences_a_fork_is_cut_where_they_have_more() -> None:
    backend = Ids()
    cache = PrefixCache(backend, 100)
    cache.put(backend.holding([1, 2, 3]), [1, 2, 3])
    busy = [(backend.holding(ids), ids) for ids in ([1, 2, 3, 4, 5], [1, 2], [9])]
    sequence, length = cache.take([1, 2, 3, 4, 6], busy)
    assert (backend.held[sequence], length) == ([1, 2, 3, 4], 4) and len(cache) == 1
    sequence, length = cache.take([1, 2, 4], busy)
    assert (backend.held[sequence], length) == ([1, 2], 2)
    # With as much in common, what is idle comes first, and is handed over.
    sequence, length = cache.take([1, 2, 3, 7], busy)
    assert (backend.held[sequence], length) == ([1, 2, 3], 3) and len(cache) == 0
    assert [backend.held[each] for each, _ in busy] == [[1, 2, 3, 4, 5], [1, 2], [9]]
    sequence, length = cache.take([8, 8], busy)
    assert (backend.held[sequence], length) == ([], 0)


def test_the_least_recently_used_goes_first() -> None:
    backend = Ids()
    cache = PrefixCache(backend, 9)
    for first in (1, 2, 3):
        cache.put(backend.holding([first] * 3), [first] * 3)
    backend.free(cache.take([1, 1, 9])[0])
    cache.put(backend.holding([4]), [4])
    cache.shrink()
    assert sorted(backend.held.values()) == [[1] * 3, [3] * 3, [4]]
    cache.put(backend.holding([3]), [3])  # that is in the cache already, and used now
    running = backend.holding([5] * 5)
    cache.shrink()
    assert sorted(backend.held.values()) == [[3] * 3, [4], [5] * 5]
    backend.free(running)


def test_nothing_is_kept_without_a_budget_and_no_more_than_so_many() -> None:
    backend = Ids()
    cache = PrefixCache(backend, 0)
    cache.put(backend.holding([1]), [1])
    cache.put(backend.holding([]), [])
    cache.shrink()
    assert not backend.held
    cache = PrefixCache(backend, 10**9)
    for n in range(MOST_ENTRIES + 9):
        cache.put(backend.holding([n, 0]), [n, 0])
    cache.shrink()
    assert len(cache) == len(backend.held) == MOST_ENTRIES and [8, 0] not in backend.held.values()
