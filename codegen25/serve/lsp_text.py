"""Texts that a client of the language server has open, and positions in them.

https://microsoft.github.io/language-server-protocol/specifications/lsp/3.18/specification/#textDocuments. Lines end in
LF, CRLF or CR and nothing else (`str.splitlines` knows more ends, which would put every line behind a form feed off by
one). All three are kept as LF: a position counts lines and units in a line, so none of them moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

# In units of an encoding, of one character.
_WIDTHS: Mapping[str, Callable[[str], int]] = {
    "utf-8": lambda char: len(char.encode(errors="surrogatepass")),
    "utf-16": lambda char: 1 + (char > "\uffff"),
    "utf-32": lambda char: 1,
}


@dataclass(frozen=True)
class Place:
    """Between two characters: a line and units of the session's encoding in it, both from 0."""

    line: int
    units: int


def with_lf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def units(text: str, encoding: str) -> int:
    return len(text) if text.isascii() else sum(map(_WIDTHS[encoding], text))


def offset(text: str, place: Place, encoding: str) -> int:
    """Characters of `text` (with LF) in front of a place.

    What is past the end of a line is its end, past the last line the end of the text, and inside a character in front
    of it. Whoever sends these is a little behind or ahead of us; that is no reason to answer nothing.
    """
    lines = text.split("\n", place.line + 1)
    if len(lines) <= place.line:
        return len(text)
    start = sum(map(len, lines[: place.line])) + place.line
    return start + _index(lines[place.line], place.units, encoding)


def _index(line: str, wanted: int, encoding: str) -> int:
    if line.isascii():
        return min(wanted, len(line))
    width = _WIDTHS[encoding]
    for index, char in enumerate(line):
        wanted -= width(char)
        if wanted < 0:
            return index
    return len(line)


def changed(text: str, new: str, start: Place, end: Place, encoding: str) -> str:
    """`text` with `new` in the place of what stands between two places; an end in front of the start is the start."""
    first = offset(text, start, encoding)
    return text[:first] + with_lf(new) + text[max(first, offset(text, end, encoding)) :]
