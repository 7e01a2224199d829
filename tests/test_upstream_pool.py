"""Which upstream a prompt goes to, and when one is out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen25.errors import UsageError
from codegen25.serve.upstream import FAILURES, Failed, Upstream, address
from codegen25.serve.upstream_pool import BLOCK, SLACK, Pool, beginnings


def up(count: int) -> Pool:
    pool = Pool([f"http://host-{number}/v1" for number in range(count)])
    for one in pool.all:
        one.came_up("m", constrains=True, gives_ids=True)
    return pool


def test_sessions_stay_where_they_are() -> None:
    """What somebody types goes to one upstream, what somebody else types to the other, if it is less busy."""
    pool = up(3)
    prompts = [[1000 * user + n for n in range(300)] for user in range(6)]
    first = [pool.choose(prompt) for prompt in prompts]
    assert {id(one) for one in first} == {id(one) for one in pool.all}
    for grown in range(1, 40):
        assert [pool.choose([*prompt, *range(grown)]) for prompt in prompts] == first
    assert pool.affine == 6 * 39


def test_a_session_leaves_one_that_is_overloaded() -> None:
    pool = up(2)
    prompt = list(range(10 * BLOCK))
    first = pool.choose(prompt)
    assert first is not None
    first.under_way = SLACK
    assert pool.choose(prompt) is first
    first.under_way = SLACK + 1
    assert pool.choose(prompt) is not first
    first.under_way = 0
    assert pool.choose(prompt) is not first, "the other one has it now, too, and served it last"


def test_a_beginning_that_all_share_is_no_session() -> None:
    pool = up(2)
    licence = list(range(2 * BLOCK))
    chosen = [pool.choose([*licence, *(n + 1 + number * 7919 for n in range(6 * BLOCK))]) for number in range(8)]
    assert [chosen.count(one) for one in pool.all] == [4, 4]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200), st.booleans(), st.integers(0, 9)), max_size=60))
def test_choices_hold_their_rule(steps: list[tuple[int, int, bool, int]]) -> None:
    """Against the rule by itself: up, not tried if others are, the least load but for a fair share more."""
    pool = up(4)
    for which, length, is_up, load in steps:
        pool.all[which].is_up, pool.all[which].under_way = is_up, load
        prompt = [length // 3 + n for n in range(length)]
        tried = [pool.all[(which + 1) % 4]]
        chosen = pool.choose(prompt, tried)
        possible = [one for one in pool.all if one.is_up]
        possible = [one for one in possible if one not in tried] or possible
        if chosen is None:
            assert not possible
            continue
        least = min(one.under_way for one in possible)
        assert chosen in possible and chosen.under_way <= 2 * least + SLACK
        again = pool.choose(prompt)
        assert again is not None and again.is_up


@given(st.lists(st.integers(0, 5), max_size=200), st.lists(st.integers(0, 5), max_size=200))
def test_equal_hashes_are_equal_beginnings(a: list[int], b: list[int]) -> None:
    shared = sum(x == y for x, y in zip(beginnings(a), beginnings(b), strict=False))
    same = next((n for n in range(min(len(a), len(b))) if a[n] != b[n]), min(len(a), len(b)))
    if len(a) >= BLOCK and len(b) >= BLOCK:
        assert shared == same // BLOCK


def test_failures_in_a_row() -> None:
    one = Upstream("http://x/v1")
    one.came_up("m", constrains=False, gives_ids=False)
    for _ in range(5):
        assert [one.failed(Failed("500")) for _ in range(FAILURES - 1)] == [False] * (FAILURES - 1)
        one.answered()
    assert one.is_up
    assert [one.failed(Failed("500")) for _ in range(FAILURES)] == [*[False] * (FAILURES - 1), True]
    assert not one.is_up and one.why == "500"
    one.came_up("m", constrains=False, gives_ids=False)
    assert one.failed(Failed("no time", is_hard=True)) and not one.is_up


@pytest.mark.parametrize("url", ["http://a", "http://a/", "http://a:8000", "https://a/v1", "http://a/openai/v1/"])
def test_addresses(url: str) -> None:
    assert address(url).endswith("/v1") and not address(url).endswith("//v1")


@pytest.mark.parametrize("url", ["", "a", "ftp://a", "http://", "http://a:x", "http://a?x=1", "http://a b"])
def test_no_addresses(url: str) -> None:
    with pytest.raises(UsageError, match="--upstream"):
        address(url)
