"""Shingles: the hashed word n-grams of a text, by which near copies are told (Broder 1997).

A word is a run of ASCII letters, digits and underscores, or of characters beyond ASCII: bytes of UTF-8 say so alone,
and no table of Unicode that changes with the release of Python. White space and punctuation count for nothing. Hashes
are polynomials modulo 2^64 in the style of Karp and Rabin, over a table of random numbers for bytes: sums up to each
byte give the hash of every word at once. Words of a thousand characters can be made to collide; code has no cause to.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Unsigned = TypeVar("Unsigned", bound=np.unsignedinteger[Any])

# Odd, so that they have inverses modulo 2^64; otherwise as good as any.
BYTE_BASE = 0x9E3779B97F4A7C15
WORD_BASE = 0xD1342543DE82EF95
INVERSE = pow(BYTE_BASE, -1, 1 << 64)
BYTES = np.frombuffer(hashlib.shake_128(b"shingles").digest(8 * 256), dtype="<u8").astype(np.uint64)
_IN_WORD = bytes(byte >= 0x80 or chr(byte).isalnum() or byte == ord("_") for byte in range(256))


def ngrams(text: str, n: int) -> Hashes:
    """The distinct hashes of every `n` neighbouring words, ascending.

    A text of fewer words has one, of all its words; one without any word has the hash of its characters; an empty
    one has none.
    """
    data = text.encode()
    if not data:
        return np.empty(0, dtype=np.uint64)
    words = _words(data)
    n = min(n, words.size)
    grams = words[: words.size - n + 1].copy()
    for place in range(1, n):
        grams *= np.uint64(WORD_BASE)
        grams += words[place : words.size - n + 1 + place]
    return distinct(mixed(grams))


def _words(data: bytes) -> Hashes:
    """The hash of every word, in order: its bytes' numbers times powers of the base, the first byte's times 1."""
    inside = np.frombuffer(b"\0" + data.translate(_IN_WORD) + b"\0", dtype=np.bool_)
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, ends = (edges[::2], edges[1::2]) if edges.size else (np.array([0]), np.array([len(data)]))
    powers, inverses = _powers((len(data) - 1).bit_length())
    sums = np.zeros(len(data) + 1, dtype=np.uint64)
    np.cumsum(BYTES[np.frombuffer(data, dtype=np.uint8)] * powers[: len(data)], out=sums[1:])
    return mixed((sums[ends] - sums[starts]) * inverses[starts])


@cache
def _powers(bits: int) -> tuple[Hashes, Hashes]:
    """The first 2^`bits` powers of the base, and of its inverse."""
    return _series(BYTE_BASE, 1 << bits), _series(INVERSE, 1 << bits)


def _series(base: int, count: int) -> Hashes:
    series = np.full(count, base, dtype=np.uint64)
    series[0] = 1
    return np.multiply.accumulate(series)


def mixed(values: Hashes) -> Hashes:
    """Every bit of a value spread over all of it, one to one (the end of SplitMix64; Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def distinct(values: NDArray[Unsigned]) -> NDArray[Unsigned]:
    """Each value once, ascending."""
    values = np.sort(values)
    first = np.ones(values.size, dtype=np.bool_)
    first[1:] = values[1:] != values[:-1]
    return values[first]
