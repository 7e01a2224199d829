"""Spans of every kind lie inside the text, in order and apart, with the borders and the lengths of their kind."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import hostile
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from codegen25.tokenizer import Tokenizer, family
from codegen25.train import spans
from codegen25.train.spans import ANCHOR_LINES, DENSE_LINES, MISSING_LINES, Span, line_starts, token_borders

Draw = Callable[[str, int, float, random.Random], list[Span]]


def tokens(text: str, holes: int, share: float, rng: random.Random) -> list[Span]:
    return spans.tokens(token_borders(family(), text), holes, share, rng)


KINDS: dict[str, Draw] = {
    "character": spans.characters,
    "token": tokens,
    "line": spans.lines,
    "cursor": spans.cursors,
    "dense": lambda text, holes, _, rng: spans.dense(text, holes, rng),
}
kinds = st.sampled_from(sorted(KINDS))
texts = hostile.texts.filter(bool)
seeds = st.integers(0, 2**32)


@given(texts, kinds, st.integers(1, 40), st.sampled_from([0.0, 0.1, 0.5, 1.0]), seeds)
def test_in_order_apart_and_inside(text: str, kind: str, holes: int, share: float, seed: int) -> None:
    found = KINDS[kind](text, holes, share, random.Random(seed))
    assert 1 <= len(found) <= holes
    assert all(0 <= start < end <= len(text) for start, end in found)
    assert all(before[1] < after[0] for before, after in pairwise(found)), "a character stands between two spans"


@given(texts, st.integers(1, 9), seeds)
def test_borders_are_of_the_kind(text: str, holes: int, seed: int) -> None:
    lines = {*slow_line_starts(text), len(text)}
    assert all({*span} <= lines for span in spans.lines(text, holes, 0.5, random.Random(seed)))
    assert all({*span} <= lines for span in spans.dense(text, holes, random.Random(seed)))
    assert all(start in lines for start, _ in spans.cursors(text, holes, 0.5, random.Random(seed)))


def slow_line_starts(text: str) -> list[int]:
    return [0, *(i + 1 for i, c in enumerate(text) if c == "\n" and i + 1 < len(text))]


@given(hostile.texts)
def test_line_starts(text: str) -> None:
    assert line_starts(text) == slow_line_starts(text)


def slow_token_borders(tokenizer: Tokenizer, text: str) -> list[int]:
    """By decoding every beginning of the ids: one that ends inside a character does not decode."""
    ids, borders = tokenizer.encode(text), []
    for count in range(len(ids) + 1):
        try:
            borders.append(len(tokenizer.decode_bytes(ids[:count]).decode()))
        except UnicodeDecodeError:
            continue
    return borders


@given(hostile.texts.filter(lambda text: len(text) < 2000), st.sampled_from([family(), tiny.tokenizer()]))
def test_token_borders(text: str, tokenizer: Tokenizer) -> None:
    assert token_borders(tokenizer, text) == slow_token_borders(tokenizer, text)


@given(st.integers(1, 300), st.sampled_from([spans.characters, spans.lines]), st.integers(1, 8), seeds)
def test_all_spans_together_keep_the_share(units: int, draw: Draw, holes: int, seed: int) -> None:
    """Of lines of one character each, a span of characters is about as long as one of lines."""
    text = "\n" * units
    covered = sum(end - start for start, end in draw(text, holes, 0.5, random.Random(seed)))
    assert covered <= max(holes, units * 0.5)


def test_lengths_are_log_uniform() -> None:
    rng = random.Random(1)
    lengths = [end - start for _ in range(3000) for start, end in spans.characters("x" * 1000, 1, 0.25, rng)]
    assert min(lengths) <= 2 and 200 < max(lengths) <= 250
    assert sum(length <= 16 for length in lengths) / 3000 == pytest.approx(0.5, abs=0.05)


def test_several_holes_are_found_room_for() -> None:
    rng = random.Random(2)
    found = [len(spans.lines("x\n" * 60, 4, 0.5, rng)) for _ in range(300)]
    assert sum(count == 4 for count in found) > 290


def test_dense_spans_cover_half_while_the_masks_suffice() -> None:
    rng, text = random.Random(3), "x\n" * 200
    covered = [sum(end - start for start, end in spans.dense(text, 99, rng)) / len(text) for _ in range(300)]
    assert sum(covered) / 300 == pytest.approx(0.5, abs=0.02)
    assert max(end - start for start, end in spans.dense(text, 99, rng)) <= 2 * DENSE_LINES
    firsts = {spans.dense(text, 5, rng)[0][0] for _ in range(300)}
    assert len(spans.dense(text, 5, rng)) == 5 and max(firsts) > 100, "too few masks are spread over the text"


@given(texts.filter(str.strip), seeds)
def test_a_cursor_is_drawn_inside_a_span_that_begins_at_a_line(text: str, seed: int) -> None:
    (start, end), cursor = spans.draw_cursor(text, random.Random(seed))
    assert 0 <= start <= cursor < end <= len(text), "something is missing at the cursor"
    assert start == 0 or text[start - 1] == "\n"
    assert text[start:cursor].count("\n") <= ANCHOR_LINES
    assert text[cursor:end].count("\n") <= MISSING_LINES
    assert text[end - 1] == "\n" or text[end : end + 1] in ("", "\n", "\r"), "what is missing goes to the end of a line"
