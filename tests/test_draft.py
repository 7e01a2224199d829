"""Drafts against searches from the front to the back, and their lengths against trying all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen25.engine.draft import LONGEST_MATCH, PLACES, REMEMBERED, SURE_MATCH, Earlier, Lookup, Suffixes
from codegen25.engine.pace import (
    CHUNK_SECONDS,
    SMALLEST_CHUNK,
    Acceptance,
    Chunk,
    StepCost,
    draft_length,
    expected_tokens,
)

FEW = st.lists(st.integers(0, 2), max_size=80)


def naive_find(text: Sequence[int], ids: Sequence[int]) -> tuple[int, int]:
    """Every place of `text` with something behind it, from the last to the first."""
    alone = [place for place in range(1, len(text)) if text[place - 1] == ids[-1]]
    if not alone or len(ids) < 2:
        return bool(alone), max(alone, default=0)
    places = [p for p in range(len(text) - 1, 1, -1) if list(text[p - 2 : p]) == list(ids[-2:])]
    best = (1, max(alone))
    for place in places[:PLACES]:
        most = min(LONGEST_MATCH, len(ids), place)
        length = max(n for n in range(2, most + 1) if list(text[place - n : place]) == list(ids[len(ids) - n :]))
        best = max(best, (length, place), key=lambda found: found[0])
    return best


@given(FEW, FEW.filter(bool))
def test_the_longest_match_and_the_latest_of_equal_ones(text: list[int], ids: list[int]) -> None:
    assert Suffixes(text).find(ids) == naive_find(text, ids)
    assert Suffixes(text + ids).find(ids) == naive_find(text + ids, ids)


@given(FEW.filter(bool), st.lists(FEW, max_size=3), st.integers(1, 9), st.data())
def test_lookup_grows_with_its_text(ids: list[int], related: list[list[int]], limit: int, data: st.DataObject) -> None:
    own, shortest = Suffixes(), data.draw(st.integers(1, 4))
    lookup, other = Lookup(own, related, shortest), Lookup(own, related)
    for end in sorted(data.draw(st.sets(st.integers(1, len(ids))))):
        if data.draw(st.booleans()):
            other.propose(ids[:end], limit)
        found = [(naive_find(text, ids[:end]), text) for text in (ids[:end], *related)]
        (length, place), text = max(found, key=lambda match: match[0][0])
        assert list(lookup.propose(ids[:end], limit)) == (text[place : place + limit] if length >= shortest else [])


def test_lookup_without_anything_like_it() -> None:
    assert list(Lookup(Suffixes(), [[7, 8, 9]]).propose([1, 2, 3], 5)) == []
    assert list(Lookup(Suffixes(), [[2, 3]]).propose([1, 2, 3], 5)) == []  # nothing stands behind it there
    assert list(Lookup(Suffixes(), [[]]).propose([1], 5)) == []


def test_an_earlier_answer_is_taken_up_where_its_author_is() -> None:
    earlier = Earlier()
    prompt, answer = list(range(100, 140)), [1, 2, 3, 4, 5]
    earlier.remember(prompt, answer)
    for typed in range(5):
        assert list(earlier.propose(prompt + answer[:typed], 9)) == answer[typed:]
        assert list(earlier.propose(prompt + answer[:typed], 2)) == answer[typed : typed + 2]
    assert list(earlier.propose(prompt + answer, 9)) == []
    assert list(earlier.propose([*prompt, 1, 9], 9)) == []
    assert list(earlier.propose(prompt[-SURE_MATCH:], 9)) == answer
    assert list(earlier.propose([0, *prompt[1 - SURE_MATCH :]], 9)) == []  # too little is the same
    earlier.remember(prompt, [7, 8])
    assert list(earlier.propose(prompt, 9)) == [7, 8]
    earlier.remember(prompt, [])
    assert list(earlier.propose(prompt, 9)) == [7, 8]


def test_short_prompts_have_earlier_answers_too() -> None:
    earlier = Earlier()
    earlier.remember([5, 6], [1, 2])
    assert list(earlier.propose([5, 6], 9)) == [1, 2]
    assert list(earlier.propose([9, 5, 6], 9)) == []


def test_old_answers_are_forgotten() -> None:
    earlier = Earlier()
    for n in range(1000, 1000 + 5 * REMEMBERED):
        earlier.remember([n, 5, n], [6, 7])
        assert len(earlier._all.ids) < 3 * REMEMBERED * 6
    assert list(earlier.propose([n, 5, n], 9)) == [6, 7] and list(earlier.propose([1000, 5, 1000], 9)) == []


# ------------------------------------------------------------------------------------------------------------- pace


def costs(seconds: dict[int, float]) -> StepCost:
    cost = StepCost()
    for tokens, each in seconds.items():
        cost.record(tokens, each)
    return cost


def test_without_measurements_drafts_are_as_long_as_they_are_promising() -> None:
    assert [draft_length(rate, 30, 1, 0, StepCost()) for rate in (0.0, 0.2, 0.5, 1.0)] == [0, 0, 1, 30]
    assert 5 < draft_length(0.9, 30, 1, 0, StepCost()) < 15


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.7, 0.95, 1.0])
@pytest.mark.parametrize("others", [0.0, 5.0])
def test_the_length_has_the_most_tokens_per_second(rate: float, others: float) -> None:
    seconds = {1: 3.0, 2: 3.1, 3: 3.5, 4: 3.6, 5: 4.4, 6: 5.0, 7: 5.1, 8: 5.1, 16: 11.0}
    cost, known = costs(seconds), [float(np.interp(n, [*seconds], [*seconds.values()])) for n in range(14)]
    speeds = [(others + sum(rate**n for n in range(k + 1))) / known[1 + k] for k in range(13)]
    assert speeds[draft_length(rate, 12, 1, others, cost)] == pytest.approx(max(speeds), rel=0.02)


def test_no_drafts_where_they_do_not_pay() -> None:
    assert draft_length(0.2, 12, 1, 0, costs({1: 1.0, 2: 1.9, 4: 3.6})) == 0
    assert draft_length(0.9, 9, 1, 0, costs({1: 1.0, 2: 1.9, 4: 3.6})) == 9  # what is unknown looks cheap
    assert draft_length(0.0, 12, 1, 0, costs({1: 1.0, 2: 1.01})) == 0


def test_an_expected_step() -> None:
    assert expected_tokens(0, 5) == 1 and expected_tokens(0.5, 2) == pytest.approx(1.75)
    assert expected_tokens(1, 4) == pytest.approx(5, rel=0.01)


def test_costs_follow_and_forget_outliers() -> None:
    cost = costs({1: 1.0, 8: 2.0})
    cost.record(8, 1000.0)
    assert cost.seconds(np.array([8]))[0] < 2.5
    for _ in range(60):
        cost.record(8, 6.0)
    assert cost.seconds(np.array([8]))[0] == pytest.approx(6, rel=0.01)
    assert cost.seconds(np.array([1, 32])).tolist() == pytest.approx([1, 12], rel=0.01)


def test_a_slow_step_does_not_scare_for_ever() -> None:
    cost = costs({1: 1.0, 2: 1.1, 9: 50.0})
    assert draft_length(0.9, 8, 1, 0, cost) == 1
    for _ in range(70):
        cost.record(1, 1.0)
        cost.record(2, 1.1)
    assert draft_length(0.9, 8, 1, 0, cost) == 8


def test_chunks_of_prompts_take_as_long_as_may_be_waited() -> None:
    assert Chunk(256, 10**8).tokens == 256
    assert Chunk(256, 7 * 10**9).tokens == SMALLEST_CHUNK
    assert Chunk(10, 7 * 10**9).tokens == 10
    chunk = Chunk(256, 10**8)
    for _ in range(30):
        chunk.record(64, 64 * CHUNK_SECONDS / 100)
        chunk.record(2, 100.0)  # says nothing about prompts
    assert chunk.tokens == 96
    for _ in range(30):
        chunk.record(96, 0.01)
    assert chunk.tokens == 256


def test_acceptance_is_what_happened_lately() -> None:
    acceptance = Acceptance(0.6)
    assert acceptance.rate == 0.6
    for _ in range(50):
        acceptance.record(4, 4)
    assert acceptance.rate > 0.9
    for _ in range(50):
        acceptance.record(4, 0)
    assert acceptance.rate < 0.2
