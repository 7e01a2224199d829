"""A text as lexemes: its words and its signs, hashed, without anything that formatting changes.

A word is a run of ASCII letters, digits and underscores. The other printable characters are signs, but for those
that formatters move (quotes, parentheses, commas, semicolons, backslashes) and `#`, which like white space and all
beyond ASCII only part words. What JSON or a string literal escapes stands for what it means, however often it was
escaped; what HTML does, once. So a text keeps its lexemes when it is re-indented, wrapped, quoted, commented out or
put into a notebook.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codegen25.data.shingles import Hashes, mixed

Flags = NDArray[np.bool_]
Places = NDArray[np.intp]

_PARTS, _WORD, _SIGN = 0, 1, 2


def _class(byte: int) -> int:
    if not 32 < byte < 127 or byte in b"(),;\\'\"`#":
        return _PARTS
    return _WORD if chr(byte).isalnum() or byte == ord("_") else _SIGN


_CLASSES = bytes(map(_class, range(256)))
# Python's as of 3.11; a list that came with the interpreter would change with it.
KEYWORDS = (
    "False None True and as assert async await break class continue def del elif else except finally for from global "
    "if import in is lambda nonlocal not or pass raise return try while with yield"
)
_ENTITIES = ((b"&lt;", b"<"), (b"&gt;", b">"), (b"&quot;", b'"'), (b"&#34;", b'"'), (b"&#39;", b"'"), (b"&amp;", b"&"))
_ESCAPE = re.compile(rb"\\(?:[nrt]|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2})")
_STRING = re.compile(rb"""(?<!\w)[rbu]{0,2}("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')""", re.IGNORECASE)
# An escaped line feed: it ends a comment, and is not counted as a line of the file.
_SOFT_LINE_FEED = b"\v"
_LINE_END = bytes(byte in b"\n\r\v" for byte in range(256))
_BEFORE_COMMENT = bytes(byte in b"\0 \t\n\r\v\"'" for byte in range(256))
# Words are loaded eight bytes at a time, with room for that at both ends of the text.
_LOAD = 8
_ROOM = bytes(_LOAD)
_MASKS = np.array([(1 << 8 * length) - 1 for length in range(_LOAD + 1)], dtype=np.uint64)
_BASE, _STEP = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1342543DE82EF95)
_NAME = np.uint64(1)


def _escaped(found: re.Match[bytes]) -> bytes:
    """What an escape means, in as many bytes."""
    escape = found.group()
    code = {b"n": 10, b"r": 13, b"t": 9}.get(escape[1:2]) or int(escape[2:], 16)
    meant = _SOFT_LINE_FEED if code in (10, 13) else bytes([code]) if 32 < code < 127 else b" "
    return meant.rjust(len(escape))


def plain(text: str) -> bytes:
    """UTF-8 with escapes undone, every byte in its place."""
    data = text.encode(errors="surrogatepass")
    for entity, sign in _ENTITIES if b"&" in data else ():
        data = data.replace(entity, sign.ljust(len(entity)))
    return _ESCAPE.sub(_escaped, data) if b"\\" in data else data


def grams(hashes: Hashes, n: int) -> Hashes:
    """The hash of the `n` values from each place on: polynomials, made by doubling (Karp and Rabin, 1987)."""
    if hashes.size < n:
        return hashes[:0]
    found, length = hashes, 1
    for bit in f"{n:b}"[1:]:
        found = found[:-length] * _power(length) + found[length:]
        length *= 2
        if bit == "1":
            found = found[:-1] * _STEP + hashes[length:]
            length += 1
    return found


def _power(exponent: int) -> np.uint64:
    return np.uint64(pow(int(_STEP), exponent, 1 << 64))


@dataclass(frozen=True)
class Stream:
    """Some of a text's lexemes, in order: where each starts in `data` and how long it is, its hash, and `names`.

    A name is a word that somebody chose and may choose otherwise: no keyword, number or attribute. Hashes are of lower
    case; those of words longer than sixteen letters leave out some in the middle, so equal ones are to be compared.
    """

    data: bytes
    starts: Places
    lengths: Places
    hashes: Hashes
    names: Flags

    def take(self, chosen: Flags) -> Stream:
        return Stream(self.data, self.starts[chosen], self.lengths[chosen], self.hashes[chosen], self.names[chosen])

    def __len__(self) -> int:
        return len(self.starts)

    def raw(self, at: int, count: int) -> list[bytes]:
        """The lexemes as they are written."""
        places = zip(self.starts[at : at + count].tolist(), self.lengths[at : at + count].tolist(), strict=True)
        return [self.data[start : start + length] for start, length in places]

    def exact(self, at: int, count: int) -> list[bytes]:
        """The lexemes in lower case."""
        return [one.lower() for one in self.raw(at, count)]

    def renamed(self, at: int, names: Flags) -> list[bytes | int]:
        """As many lexemes as `names` has flags; names that it marks as their order of appearance (Baker, 1993)."""
        order: dict[bytes, int] = {}
        marked = names & self.names[at : at + names.size]
        named = zip(self.raw(at, names.size), marked.tolist(), strict=True)
        return [order.setdefault(one, len(order)) if name else one.lower() for one, name in named]

    def unquoted(self) -> Flags:
        """The names that are not words of a string on one line; in an f-string they may be names."""
        spans = [found.span() for found in _STRING.finditer(self.data)]
        starts, ends = np.array([(0, 0), *spans], dtype=np.intp).T
        flags: Flags = self.names & (self.starts >= ends[np.searchsorted(starts, self.starts, side="right") - 1])
        return flags

    def skeleton(self) -> Hashes:
        """The hashes with all names alike."""
        return np.where(self.names, _NAME, self.hashes)

    def line(self, at: int) -> int:
        """The line of the text that a lexeme stands in, from 1."""
        return self.data.count(b"\n", 0, int(self.starts[at])) + 1


class Lexemes:
    """The lexemes of a text, and which of them a view holds.

    Comments start with `#`, and with `slashes` at `//` too, behind white space or a quote; they end with their line.
    In code `self.` counts for nothing, so that a function made a method calls itself as before; nor does a 0 beside
    a point, which formatters add to `1.` and `.5`.
    """

    def __init__(self, text: str, *, slashes: bool = False) -> None:
        data = _ROOM + plain(text) + _ROOM
        raw = np.frombuffer(data, dtype=np.uint8)
        classes = np.frombuffer(data.translate(_CLASSES), dtype=np.uint8)
        self._words, starts, lengths = _cut(classes)
        hashes = _hashes(data.lower(), starts, lengths)
        selfs = _followed(hashes, _SELF, _DOT)
        names = _names(raw[starts], hashes, self._words, selfs)
        self.all = Stream(data, starts, lengths, hashes, names)
        self._idle = selfs | _behind(selfs) | _followed(hashes, _ZERO, _DOT) | _behind(_followed(hashes, _DOT, _ZERO))
        self._commented = _commented(data, starts, slashes=slashes)

    def words(self) -> Stream:
        """The words alone, whether code or prose."""
        return self.all.take(self._words)

    def code(self) -> list[Stream]:
        """Everything, for code may stand in a comment; and, where there are any, everything but comments."""
        whole = self.all.take(~self._idle)
        return [whole, self.all.take(~(self._idle | self._commented))] if self._commented.any() else [whole]


def _cut(classes: NDArray[np.uint8]) -> tuple[Flags, Places, Places]:
    """Of every lexeme: whether it is a word, where it starts, how many bytes it has."""
    in_word = classes == _WORD
    edges = np.flatnonzero(in_word[1:] != in_word[:-1]) + 1
    firsts, ends = edges[::2], edges[1::2]
    signs = np.flatnonzero(classes == _SIGN)
    starts = np.concatenate([firsts, signs])
    order = np.argsort(starts, kind="stable")
    lengths = np.concatenate([ends - firsts, np.ones(signs.size, dtype=np.intp)])
    return order < firsts.size, starts[order], lengths[order]


def _hashes(data: bytes, starts: Places, lengths: Places) -> Hashes:
    """Of the length, the first eight bytes and the last eight."""
    loads = np.ndarray((len(data) - _LOAD + 1,), dtype="<u8", buffer=data, strides=(1,))
    first = loads[starts] & _MASKS[np.minimum(lengths, _LOAD)]
    hashes = (first ^ (lengths.astype(np.uint64) * _STEP)) * _BASE
    long = np.flatnonzero(lengths > _LOAD)
    hashes[long] ^= mixed(loads[starts[long] + lengths[long] - _LOAD].astype(np.uint64))
    return mixed(hashes)


def _word_hash(word: str) -> int:
    data = _ROOM + word.lower().encode() + _ROOM
    return int(_hashes(data, np.array([_LOAD]), np.array([len(word)]))[0])


_DOT, _SELF, _ZERO = (np.uint64(_word_hash(word)) for word in (".", "self", "0"))
_SLOT_SHIFT = np.uint64(52)
_SLOTS = np.zeros(1 << 12, dtype=np.uint64)
for _keyword in KEYWORDS.split():
    _SLOTS[_word_hash(_keyword) >> 52] = _word_hash(_keyword)


def _followed(hashes: Hashes, one: np.uint64, other: np.uint64) -> Flags:
    """Where the one stands before the other."""
    found: Flags = hashes == one
    found[:-1] &= hashes[1:] == other
    found[-1:] = False
    return found


def _behind(flags: Flags) -> Flags:
    """Each flag one place later."""
    return np.append(False, flags[:-1])[: flags.size]


def _names(first: NDArray[np.uint8], hashes: Hashes, words: Flags, selfs: Flags) -> Flags:
    """Words that are no keyword, no number and no attribute but one of `self`."""
    keyword = _SLOTS[(hashes >> _SLOT_SHIFT).astype(np.intp)] == hashes
    names: Flags = words & (first > ord("9")) & ~keyword
    dots = (hashes == _DOT) & ~_behind(selfs)
    return names & ~_behind(dots)


def _commented(data: bytes, starts: Places, *, slashes: bool) -> Flags:
    """Which lexemes stand in a comment."""
    raw = np.frombuffer(data, dtype=np.uint8)
    opens = raw == ord("#")
    if slashes:
        opens[:-1] |= (raw[:-1] == ord("/")) & (raw[1:] == ord("/"))
    marks = np.flatnonzero(opens)
    marks = marks[np.frombuffer(_BEFORE_COMMENT, dtype=np.bool_)[raw[marks - 1]]]
    if not marks.size:
        return np.zeros(starts.size, dtype=np.bool_)
    line_ends = np.append(np.flatnonzero(np.frombuffer(data.translate(_LINE_END), dtype=np.bool_)), raw.size)
    ends = line_ends[np.searchsorted(line_ends, marks)]
    last = np.searchsorted(marks, starts, side="right") - 1
    commented: Flags = (last >= 0) & (starts < ends[last])
    return commented
