"""Positions and changes: the fast way and the slow one, which encodes what stands in front of every character."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen25.serve.lsp_text import Place, changed, offset, units, with_lf

CODECS = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2), "utf-32": ("utf-32-le", 4)}
# Ends of lines, what only looks like one, and characters of every width.
TEXT = st.text(st.sampled_from("ab \n\r\x0b\x0c\x85\u2028é€𐐷🙂"), max_size=24)
# A CR that the next piece makes a CRLF of would be two ends of lines for us and one for the client.
WHOLE = TEXT.filter(lambda text: not (text.startswith("\n") or text.endswith("\r")))
PLACE = st.builds(Place, st.integers(0, 6), st.integers(0, 12))
ENCODING = st.sampled_from(sorted(CODECS))


def width(text: str, encoding: str) -> int:
    codec, size = CODECS[encoding]
    return len(text.encode(codec)) // size


def slow_offset(text: str, place: Place, encoding: str) -> int:
    """The last place of the line that is not behind the wanted one, in a text with line ends of all kinds."""
    starts = [0, *(found.end() for found in re.finditer(r"\r\n|\n|\r", text))]
    if place.line >= len(starts):
        return len(text)
    start = starts[place.line]
    line = re.split(r"\r\n|\n|\r", text[start:])[0]
    fits = [index for index in range(len(line) + 1) if width(line[:index], encoding) <= place.units]
    return start + fits[-1]


def slow_changed(text: str, new: str, start: Place, end: Place, encoding: str) -> str:
    first = slow_offset(text, start, encoding)
    return text[:first] + new + text[max(first, slow_offset(text, end, encoding)) :]


@given(TEXT, PLACE, ENCODING)
def test_an_offset_is_the_slow_ones(text: str, place: Place, encoding: str) -> None:
    assert (
        text[: slow_offset(text, place, encoding)].replace("\r\n", "\n").replace("\r", "\n")
        == (with_lf(text)[: offset(with_lf(text), place, encoding)])
    )


@given(WHOLE, st.lists(st.tuples(WHOLE, PLACE, PLACE), max_size=4), ENCODING)
def test_changes_keep_the_text_the_clients(text: str, edits: list[tuple[str, Place, Place]], encoding: str) -> None:
    """The client's text keeps its line ends, ours has LF; they stay the same text."""
    theirs, ours = text, with_lf(text)
    for new, start, end in edits:
        edited = slow_changed(theirs, new, start, end, encoding)
        ours = changed(ours, new, start, end, encoding)
        if edited.count("\r\n") > (theirs + "|" + new).count("\r\n"):
            return  # a deletion has joined a CR and an LF
        theirs = edited
        assert ours == with_lf(theirs)


@given(TEXT, ENCODING)
def test_units_are_those_of_the_codec(text: str, encoding: str) -> None:
    assert units(text, encoding) == width(text, encoding)


@pytest.mark.parametrize(
    ("encoding", "behind"),
    [
        ("utf-8", {3: 0, 4: 1, 5: 2, 99: 2}),
        ("utf-16", {1: 0, 2: 1, 3: 2, 99: 2}),
        ("utf-32", {1: 1, 2: 2, 99: 2}),
    ],
)
def test_an_astral_character(encoding: str, behind: dict[int, int]) -> None:
    assert {at: offset("🙂x\nnext", Place(0, at), encoding) for at in behind} == behind


def test_half_a_character_has_a_width() -> None:
    """JSON can hold a lone surrogate."""
    assert [units("\ud800", encoding) for encoding in ("utf-8", "utf-16", "utf-32")] == [3, 1, 1]
