"""Texts as symbols that survive reformatting and renaming: one for every lexeme, and the same one for all names.

What is found so is compared again, with the names told apart: a name may stand for another one, but for no third
(Baker, 1993).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from codegen25.attribute.suffixes import Ends, Ids
from codegen25.data.lexemes import Lexemes, Stream

END, NAME, FIRST = 0, 1, 2
_ALPHABET = np.uint64((1 << 16) - FIRST)


def stream(text: str) -> Stream:
    """The lexemes of a text, comments included, that are compared."""
    return Lexemes(text).code()[0]


def symbols(lexemes: Stream) -> Ids:
    """uint16 [lexemes]. Different lexemes may have the same symbol, one pair in 65,534: what is found is compared."""
    found = (lexemes.hashes % _ALPHABET).astype(np.uint16) + np.uint16(FIRST)
    return np.where(lexemes.names, np.uint16(NAME), found).astype(np.uint16)


def symbols_of(texts: Iterable[str]) -> tuple[Ids, Ends]:
    """The symbols of documents, each followed by `END`, and where each ends."""
    parts: list[Ids] = []
    ends: list[int] = []
    total = 0
    for text in texts:
        parts += [symbols(stream(text)), np.array([END], np.uint16)]
        total += parts[-2].size + 1
        ends.append(total)
    return np.concatenate(parts) if parts else np.empty(0, np.uint16), np.array(ends, np.uint64)


def same_run(one: Stream, at: int, other: Stream, its_at: int, count: int) -> int:
    """How many of `count` lexemes from these two places on are the same, but for names that others stand for.

    A name that stands for another always does, except where it stands for itself: words of comments and strings are
    taken for names, and nobody renames those.
    """
    ours: dict[bytes, bytes] = {}
    theirs: dict[bytes, bytes] = {}
    pairs = zip(one.raw(at, count), other.raw(its_at, count), _flags(one, at, count), strict=False)
    for place, (mine, its, is_name) in enumerate(pairs):
        same = mine.lower() == its.lower()
        if not same and not (is_name and ours.setdefault(mine, its) == its and theirs.setdefault(its, mine) == mine):
            return place
    return min(count, len(one) - at, len(other) - its_at)


def _flags(lexemes: Stream, at: int, count: int) -> NDArray[np.bool_]:
    return lexemes.names[at : at + count]
