"""Suffixes and searches are those of slow references, and no match crosses the border of a document."""

from __future__ import annotations

import numpy as np
import pytest
import slow_suffixes
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen25._native import longest_matches, occurrences
from codegen25.attribute.search import LIMIT, Searchable, maximal
from codegen25.attribute.suffixes import sort_suffixes

END, BLANK = 50256, 220
LEFT_OUT = frozenset({END, BLANK})
alphabet = st.sampled_from([0, 1, 255, 256, 257, BLANK, 50257, 65535])
documents = st.lists(st.lists(alphabet, max_size=12), min_size=1, max_size=5)


def flags() -> np.ndarray:
    marked = np.zeros(1 << 16, np.bool_)
    marked[list(LEFT_OUT)] = True
    return marked


def searchable(texts: list[list[int]]) -> Searchable:
    ids = np.array([id for text in texts for id in (*text, END)], np.uint16)
    ends = np.cumsum([len(text) + 1 for text in texts]).astype(np.uint64)
    return Searchable(ids, ends, sort_suffixes(ids, flags()))


@settings(max_examples=100)
@given(documents)
def test_suffixes_are_sorted(texts: list[list[int]]) -> None:
    one = searchable(texts)
    assert one.places.tolist() == slow_suffixes.sorted_suffixes(one.ids.tolist(), LEFT_OUT)
    assert one.places.dtype == np.uint32


@settings(max_examples=100)
@given(documents, st.lists(alphabet, min_size=1, max_size=20), st.integers(1, 25))
def test_longest_matches_and_intervals_are_those_of_the_reference(
    texts: list[list[int]], query: list[int], limit: int
) -> None:
    one, ids = searchable(texts), np.array(query, np.uint16)
    starts = np.array([n for n, id in enumerate(query) if id not in LEFT_OUT], np.uint32)
    wanted = [slow_suffixes.longest(texts, query, start, LEFT_OUT) for start in starts.tolist()]
    assert one.longest(ids, starts, limit).tolist() == [min(length, limit) for length in wanted]
    if query[0] not in LEFT_OUT:
        first, last = one.interval(ids)
        assert last - first == slow_suffixes.stands(texts, query, LEFT_OUT)
        found, places = one.locate(np.arange(first, last))
        for document, place in zip(found.tolist(), places.tolist(), strict=True):
            start = place - int(one.ends[document - 1]) if document else place
            assert texts[document][start : start + len(query)] == query


@settings(max_examples=100)
@given(st.lists(documents, min_size=1, max_size=3), st.lists(alphabet, min_size=1, max_size=25), st.integers(0, 4))
def test_maximal_spans_over_several_shards(shards: list[list[list[int]]], query: list[int], least: int) -> None:
    starts = np.array([n for n, id in enumerate(query) if id not in LEFT_OUT], np.uint32)
    found = maximal([searchable(texts) for texts in shards], np.array(query, np.uint16), starts, max(least, 1))
    everything = [text for texts in shards for text in texts]
    assert found == slow_suffixes.maximal(everything, query, LEFT_OUT, least)


def test_a_match_longer_than_the_limit_is_whole() -> None:
    text = np.random.default_rng(0).integers(0, 200, 3 * LIMIT).tolist()
    one = searchable([text, text[5:]])
    query = np.array([7, *text[1:], 7], np.uint16)
    starts = np.arange(query.size, dtype=np.uint32)
    spans = maximal([one], query, starts, LIMIT)
    assert spans == [(1, 3 * LIMIT)]


def test_a_text_that_repeats_itself_takes_no_quadratic_time() -> None:
    one = searchable([[1, 2] * 50_000])
    query = np.array([1, 2] * 100_000, np.uint16)
    spans = maximal([one], query, np.arange(query.size, dtype=np.uint32), 10)
    assert spans[0] == (0, 100_000)
    assert spans[-1][1] == query.size
    assert len(spans) < 20


def test_places_beyond_the_text_are_no_match_and_no_crash() -> None:
    ids, wild = np.array([1, 2, END], np.uint16), np.array([2**32 - 1, 0, 3, 1], np.uint32)
    query, starts = np.array([1, 2], np.uint16), np.array([0, 1], np.uint32)
    assert all(0 <= length <= 2 for length in longest_matches(ids, wild, query, starts, 10).tolist())
    assert all(0 <= rank <= 4 for rank in occurrences(ids, wild, query))


def test_a_start_beyond_the_query_is_refused() -> None:
    empty = np.empty(0, np.uint32)
    with pytest.raises(ValueError, match="beyond"):
        longest_matches(np.array([1], np.uint16), empty, np.array([1], np.uint16), np.array([1], np.uint32), 10)
    assert longest_matches(np.array([1], np.uint16), empty, np.array([1], np.uint16), empty, 10).size == 0


def test_nothing_stands_in_no_documents() -> None:
    one = searchable([[]])
    assert one.places.size == 0
    assert maximal([one], np.array([1, 2], np.uint16), np.array([0, 1], np.uint32), 1) == []
    assert maximal([], np.array([1, 2], np.uint16), np.array([0, 1], np.uint32), 1) == []
