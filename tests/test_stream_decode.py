"""Streaming decode: whole characters only, and nothing lost."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from codegen25.tokenizer import family

IDS = st.lists(st.integers(0, 51199), max_size=30)
# Bytes of the single-byte tokens: these make broken and interrupted characters likely.
BYTE_IDS = st.lists(st.integers(0, 255), max_size=12)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(IDS | BYTE_IDS)
@settings(max_examples=300, deadline=None)
@example([51199, 50318])
@example([])
def test_the_emissions_join_to_decode(ids: list[int]) -> None:
    stream = family().stream()
    pieces = [stream.push(id) for id in ids]
    assert "".join(pieces) + stream.flush() == family().decode(ids)


@given(TEXT)
@settings(max_examples=200, deadline=None)
def test_text_streams_without_a_broken_character(text: str) -> None:
    tokenizer = family()
    stream = tokenizer.stream()
    ids = [tokenizer.tokens_starting_with(bytes([byte]))[0] for byte in text.encode()]  # one token per byte
    assert tokenizer.decode_bytes(ids) == text.encode()
    seen = ""
    for count, id in enumerate(ids, start=1):
        seen += stream.push(id)
        assert seen == tokenizer.decode_bytes(ids[:count]).decode(errors="ignore")
    assert seen == text
    assert stream.flush() == ""


def test_a_part_is_held_back_until_the_character_is_whole() -> None:
    tokenizer = family()
    stream = tokenizer.stream()
    ids = [tokenizer.tokens_starting_with(bytes([byte]))[0] for byte in "π👍".encode()]
    assert [stream.push(id) for id in ids] == ["", "π", "", "", "", "👍"]


def test_a_part_at_the_end_is_written_as_a_replacement() -> None:
    tokenizer = family()
    stream = tokenizer.stream()
    first = tokenizer.tokens_starting_with(b"\xf0")[0]
    assert stream.push(first) == ""
    assert stream.flush() == "\ufffd"
    assert stream.push(tokenizer.control["<eom>"]) == "<eom>"
