"""The layout of holes and spans against the model card's string, its reading against a grammar, and window fitting."""

from __future__ import annotations

import re
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from codegen25 import infill
from codegen25.errors import CodegenError
from codegen25.infill import Holes
from codegen25.tokenizer import family

TOKENIZER = family()
NAMES = ["<mask_1>", "<mask_2>", "<sep>", "<eom>", "<|endoftext|>", "<mask_"]
WORDS = ["def f(x):\n", "    return x\n", "\n", "\n\n", "\r\n", "\x0c", "x", " = 1", "π", "👧", "\t", "  ", "a b c d e"]
PLAIN = st.lists(st.sampled_from(WORDS), max_size=12).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="<"), max_size=20
)
HOSTILE = st.lists(st.sampled_from([*WORDS, *NAMES]), max_size=12).map("".join)
SPANS = st.lists(st.lists(st.integers(0, 50255), max_size=5), min_size=1, max_size=4)


def encoded(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER.encode(text))


def controls(ids: list[int]) -> list[int]:
    return [id for id in ids if TOKENIZER.is_control(id)]


# ------------------------------------------------------------------------------------------------------------ layout


@pytest.mark.parametrize(
    "prefix, suffix, ids",
    [
        ("prefix", "suffix", [40290, 51199, 37333, 844, 50256, 50317, 51199]),
        (
            "def hello_world():\n    ",
            "    return name",
            [4299, 23748, 62, 6894, 33529, 198, 50284, 51199, 50285, 1441, 1438, 50256, 50317, 51199],
        ),
    ],
)
def test_publishers_vectors(prefix: str, suffix: str, ids: list[int]) -> None:
    assert infill.prompt(TOKENIZER, Holes((encoded(prefix), encoded(suffix)), ((),))) == ids


@given(PLAIN, PLAIN, PLAIN)
def test_one_hole_is_the_cards_string(prefix: str, suffix: str, tail: str) -> None:
    card = f"{prefix}<mask_1>{suffix}<|endoftext|><sep><mask_1>"
    expected = TOKENIZER.encode(card, allow_control=True)
    holes = Holes((encoded(prefix), encoded(suffix)), ((),))
    assert infill.prompt(TOKENIZER, holes) == expected
    anchored = Holes(holes.parts, (encoded(tail),))
    assert infill.prompt(TOKENIZER, anchored) == expected + TOKENIZER.encode(tail)


@given(st.lists(PLAIN, min_size=2, max_size=5), st.data())
def test_many_holes_are_numbered_in_both_halves(parts: list[str], data: st.DataObject) -> None:
    spans = data.draw(st.lists(PLAIN, min_size=len(parts) - 1, max_size=len(parts) - 1))
    around = parts[0] + "".join(f"<mask_{n}>{part}" for n, part in enumerate(parts[1:], 1))
    answers = "".join(f"<mask_{n}>{span}<eom>" for n, span in enumerate(spans, 1))
    ids = infill.context(TOKENIZER, list(map(encoded, parts))) + infill.answer(TOKENIZER, list(map(encoded, spans)))
    assert ids == TOKENIZER.encode(f"{around}<|endoftext|><sep>{answers}<|endoftext|>", allow_control=True)
    assert len(ids) == sum(map(len, map(encoded, parts + spans))) + infill.overhead(len(spans))
    cut = infill.context(TOKENIZER, list(map(encoded, parts)), whole=False)
    assert cut == TOKENIZER.encode(f"{around}<sep>", allow_control=True)


def test_answers_can_be_asked_for_one_by_one() -> None:
    spans = [encoded("a = 1"), encoded(""), encoded("    b")]
    one_by_one = [
        id for hole, span in enumerate(spans) for id in [*infill.opening(TOKENIZER, hole, span), TOKENIZER.eom]
    ]
    assert [*one_by_one, TOKENIZER.eot] == infill.answer(TOKENIZER, spans)


def test_more_holes_than_masks() -> None:
    most = len(TOKENIZER.masks)
    assert len(infill.context(TOKENIZER, [()] * (most + 1))) == most + 2
    with pytest.raises(CodegenError, match=f"{most + 1} holes.*{most} masks"):
        infill.context(TOKENIZER, [()] * (most + 2))
    with pytest.raises(CodegenError, match="masks"):
        infill.answer(TOKENIZER, [()] * (most + 1))


@given(st.lists(HOSTILE, min_size=2, max_size=4), st.data())
def test_text_cannot_open_a_hole(parts: list[str], data: st.DataObject) -> None:
    tails = data.draw(st.lists(HOSTILE, min_size=len(parts) - 1, max_size=len(parts) - 1))
    ids = infill.prompt(TOKENIZER, infill.fit(TOKENIZER, parts, tails, 4096))
    masks = list(TOKENIZER.masks[: len(tails)])
    assert controls(ids) == [*masks, TOKENIZER.eot, TOKENIZER.sep, masks[0]]


# ------------------------------------------------------------------------------------------------------------- parse


@given(SPANS)
def test_parse_inverts_answer(spans: list[list[int]]) -> None:
    ids = infill.answer(TOKENIZER, spans)[1:]
    assert infill.parse(TOKENIZER, ids) == [(span, "stop") for span in spans]


@given(SPANS, st.data())
def test_a_cut_answer_says_length(spans: list[list[int]], data: st.DataObject) -> None:
    ids = infill.answer(TOKENIZER, spans)[1:-1]
    cut = data.draw(st.integers(0, len(ids) - 1))
    parsed = infill.parse(TOKENIZER, ids[:cut])
    whole = parsed[:-1] if cut == 0 or ids[cut - 1] != TOKENIZER.eom else parsed
    assert whole == [(span, "stop") for span in spans[: len(whole)]]
    assert [id for span, _ in parsed for id in span] == [id for id in ids[:cut] if not TOKENIZER.is_control(id)]
    if whole != parsed:
        assert parsed[-1][1] == "length" and spans[len(whole)][: len(parsed[-1][0])] == parsed[-1][0]


def parsed_by_grammar(ids: list[int]) -> list[tuple[list[int], str]]:
    """Spans by a regular expression over one letter per id: t text, m mask, e <eom>, x what ends everything."""
    kinds = {TOKENIZER.eom: "e", TOKENIZER.eot: "x", TOKENIZER.sep: "x"} | dict.fromkeys(TOKENIZER.masks, "m")
    letters = "".join(kinds.get(id, "t") for id in ids)
    spans: list[tuple[list[int], str]] = []
    for match in re.compile(r"(t*)(em|m|e|x|$)").finditer(letters):
        spans.append((ids[match.start(1) : match.end(1)], "stop" if match[2].startswith("e") else "length"))
        if match[2] not in ("em", "m"):
            break
    return spans


@given(
    st.lists(
        st.sampled_from([5, 6, 7, TOKENIZER.eom, TOKENIZER.eot, TOKENIZER.sep, *TOKENIZER.masks[:3], 50295]),
        max_size=14,
    )
)
def test_parse_of_anything(ids: list[int]) -> None:
    assert infill.parse(TOKENIZER, ids) == parsed_by_grammar(ids)


def test_stops() -> None:
    stops = infill.stops(TOKENIZER)
    assert {50318, 50256, 51199, 51198, 50319} <= stops and not stops & set(range(50256))


# -------------------------------------------------------------------------------------------------------- split_tail


@given(PLAIN | HOSTILE, st.integers(0, 6))
def test_split_tail(before: str, lines: int) -> None:
    head, tail = infill.split_tail(before, lines)
    assert head + tail == before
    count = len(before.splitlines())
    assert len(tail.splitlines()) == min(lines, count)
    assert len(head.splitlines()) == count - min(lines, count)  # so the border is a line start
    assert infill.split_tail(before, None) == ("", before)


def test_split_tail_counts_the_cursors_line_once_it_has_begun() -> None:
    assert infill.split_tail("a\nb\nc", 1) == ("a\nb\n", "c")
    assert infill.split_tail("a\nb\n", 1) == ("a\n", "b\n")
    assert infill.split_tail("a\nb\n", 0) == ("a\nb\n", "")


# ----------------------------------------------------------------------------------------------------------- fitting


def borders(text: str) -> set[int]:
    return {0, *accumulate(map(len, text.splitlines(keepends=True)))}


def assert_end_of(text: str, ids: tuple[int, ...], room: int) -> None:
    """`ids` spell an end of `text` that begins at a line start, or fill the room from inside the last line."""
    spelled = TOKENIZER.decode_bytes(ids)
    assert text.encode().endswith(spelled)
    starts = {len(text[border:].encode()) for border in borders(text)}
    assert (len(spelled) in starts and (spelled or not text)) or len(ids) == room
    if len(spelled) not in starts:
        assert len(TOKENIZER.encode(text.splitlines(keepends=True)[-1])) > room


def assert_beginning_of(text: str, ids: tuple[int, ...], room: int) -> None:
    spelled = TOKENIZER.decode_bytes(ids)
    assert text.encode().startswith(spelled)
    ends = {len(text[:border].encode()) for border in borders(text)}
    assert (len(spelled) in ends and (spelled or not text)) or len(ids) == room
    if len(spelled) not in ends:
        assert len(TOKENIZER.encode(text.splitlines(keepends=True)[0])) > room


@given(st.lists(PLAIN | HOSTILE, min_size=2, max_size=4), st.integers(-3, 120), st.data())
def test_fit(parts: list[str], budget: int, data: st.DataObject) -> None:
    tails = data.draw(st.lists(PLAIN, min_size=len(parts) - 1, max_size=len(parts) - 1))
    kept = sum(len(encoded(text)) for text in [*parts[1:-1], *tails]) + infill.overhead(len(tails))
    if kept > budget:
        with pytest.raises(CodegenError, match=f"{kept - budget} tokens over the window of {budget}"):
            infill.fit(TOKENIZER, parts, tails, budget)
        return
    holes = infill.fit(TOKENIZER, parts, tails, budget)
    assert holes.parts[1:-1] == tuple(map(encoded, parts[1:-1])) and holes.tails == tuple(map(encoded, tails))
    # With what closes every span, a whole answer of no further text fits too.
    assert len(infill.prompt(TOKENIZER, holes)) + 2 * len(tails) <= budget
    head, suffix = holes.parts[0], holes.parts[-1]
    room = budget - kept
    assert len(head) + len(suffix) <= room
    assert_end_of(parts[0], head, room - len(suffix))
    assert_beginning_of(parts[-1], suffix, max(room - len(encoded(parts[0])), room // 4))
    if len(encoded(parts[0])) + len(encoded(parts[-1])) <= room:
        assert (head, suffix) == (encoded(parts[0]), encoded(parts[-1]))


@given(PLAIN | HOSTILE, st.integers(-2, 40))
@example("", -1)
@example("x", 0)
def test_trimming(text: str, budget: int) -> None:
    assert_end_of(text, tuple(infill.trim_left(TOKENIZER, text, budget)), max(0, budget))
    assert_beginning_of(text, tuple(infill.trim_right(TOKENIZER, text, budget)), max(0, budget))


def test_trimming_keeps_as_many_lines_as_fit() -> None:
    text = Path(infill.__file__).read_text()
    lines = text.splitlines(keepends=True)
    for budget in (50, 300, 1000):
        fitting = [n for n in range(len(lines) + 1) if len(TOKENIZER.encode("".join(lines[-n:] * (n > 0)))) <= budget]
        assert infill.trim_left(TOKENIZER, text, budget) == TOKENIZER.encode("".join(lines[-fitting[-1] :]))
        fitting = [n for n in range(len(lines) + 1) if len(TOKENIZER.encode("".join(lines[:n]))) <= budget]
        assert infill.trim_right(TOKENIZER, text, budget) == TOKENIZER.encode("".join(lines[: fitting[-1]]))


def test_the_head_gives_way_to_a_quarter_for_the_suffix() -> None:
    line = "x = 1\n"
    assert len(encoded(line)) == 4
    holes = infill.fit(TOKENIZER, [line * 100, line * 100], [""], 86)
    assert list(map(len, holes.parts)) == [60, 20]
    holes = infill.fit(TOKENIZER, [line * 3, line * 100], [""], 86)
    assert list(map(len, holes.parts)) == [12, 68]
    holes = infill.fit(TOKENIZER, [line * 100, line * 3], [""], 86)
    assert list(map(len, holes.parts)) == [68, 12]
