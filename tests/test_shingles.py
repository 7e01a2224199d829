"""Shingles: equal to a slow reference, equal where the words are, different where they are not."""

from __future__ import annotations

import hashlib
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen25.data.shingles import BYTE_BASE, WORD_BASE, distinct, mixed, ngrams

WORD = re.compile(r"[0-9A-Za-z_\u0080-\U0010ffff]+")
M64 = (1 << 64) - 1
# Short words from a small alphabet, so that texts share some; anything at all between and among them.
WORDS = st.lists(st.sampled_from(["a", "b", "ab", "aab", "self", "_x1", "é", "数", "x" * 70]), max_size=40)
GAPS = st.sampled_from([" ", "\n", "\t", "(", ") -> ", ".", "'\0'", "~" * 30])
CODE = st.builds(lambda words, gap: gap.join(words), WORDS, GAPS)
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


def _number(byte: int) -> int:
    table = hashlib.shake_128(b"shingles").digest(8 * 256)
    return int.from_bytes(table[8 * byte : 8 * byte + 8], "little")


def _mixed(value: int) -> int:
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & M64
    value = (value ^ value >> 27) * 0x94D049BB133111EB & M64
    return value ^ value >> 31


def _reference(text: str, n: int) -> list[int]:
    """By the definition, one byte and one word at a time."""
    words = WORD.findall(text) or [text] * bool(text)
    hashes = []
    for word in words:
        total = 0
        for byte in reversed(word.encode()):
            total = total * BYTE_BASE + _number(byte) & M64
        hashes.append(_mixed(total))
    n = min(n, len(hashes))
    grams = set()
    for at in range(len(hashes) - n + 1 if hashes else 0):
        total = 0
        for value in hashes[at : at + n]:
            total = total * WORD_BASE + value & M64
        grams.add(_mixed(total))
    return sorted(grams)


def _grams(text: str, n: int) -> set[tuple[str, ...]]:
    """The n-grams themselves, hashed by nobody."""
    words = WORD.findall(text) or [text] * bool(text)
    n = min(n, len(words))
    return {tuple(words[at : at + n]) for at in range(len(words) - n + 1 if words else 0)}


@given(CODE | ANY, st.integers(1, 7))
def test_as_the_definition_says(text: str, n: int) -> None:
    found = ngrams(text, n)
    assert found.dtype == np.uint64
    assert found.tolist() == _reference(text, n)


@given(CODE | ANY, CODE | ANY, st.integers(1, 6))
def test_two_texts_share_hashes_as_they_share_n_grams(one: str, other: str, n: int) -> None:
    a, b = ngrams(one, n), ngrams(other, n)
    assert a.size == len(_grams(one, n))
    assert np.intersect1d(a, b).size == len(_grams(one, n) & _grams(other, n))


@given(WORDS.filter(bool), GAPS, GAPS)
def test_what_is_between_words_counts_for_nothing(words: list[str], gap: str, other: str) -> None:
    assert np.array_equal(ngrams(gap.join(words), 5), ngrams(other + other.join(words) + "\r\n", 5))


@pytest.mark.parametrize("text, count", [("", 0), (" ", 1), ("\n\n", 1), ("((", 1), ("one", 1), ("a b c d", 1),
                                         ("a b c d e", 1), ("a b c d e f", 2), ("a " * 1000, 1)])  # fmt: skip
def test_short_texts(text: str, count: int) -> None:
    assert ngrams(text, 5).size == count


def test_texts_without_words_are_told_apart() -> None:
    texts = ["\n", "\n\n", "[]", "{}", "()", "( )", "#!", "\0"]
    assert len({ngrams(text, 5)[0] for text in texts}) == len(texts)


def test_order_and_place_of_words_matter() -> None:
    texts = ["a b c d e", "e d c b a", "ab c d e", "a bc d e", "b a c d e", "aa b c d e", "a b c d", "a b c d e_"]
    assert len({ngrams(text, 5)[0] for text in texts}) == len(texts)


def test_the_same_on_every_machine() -> None:
    """Parts that other machines made are reused, so these numbers must not change unnoticed."""
    assert [f"{value:016x}" for value in ngrams("def f(x):\n    return x + 1  # é", 5)] == [
        "27f4bbe734679074",
        "57a775cb3fbbbc79",
        "a93de106a2b6e080",
    ]


def test_long_words_and_long_texts() -> None:
    """Regular texts are where weak polynomials meet: one letter apart, doubled, in the pattern of Thue and Morse."""
    morse = "a"
    for _ in range(8):
        morse += morse.translate({97: "b", 98: "a"})
    texts = [morse, morse.translate({97: "b", 98: "a"}), "a" * 4096, "b" + "a" * 4095, "a" * 4095 + "b", "ab" * 2048]
    assert len({ngrams(text, 5)[0] for text in texts}) == len(texts)
    numbers = " ".join(str(number) for number in range(200_000))
    assert ngrams(numbers, 1).size == 200_000 and ngrams(numbers, 5).size == 199_996


@given(st.lists(st.integers(0, M64)))
def test_each_value_once_ascending(values: list[int]) -> None:
    array = np.array(values, dtype=np.uint64)
    assert distinct(array).tolist() == sorted(set(values))
    assert [int(value) for value in mixed(array)] == [_mixed(value) for value in values]


def test_hashes_are_spread_evenly() -> None:
    """Halves of them are hashes too, and MinHash takes the least."""
    hashes = ngrams(" ".join(f"name_{number}" for number in range(60_000)), 5)
    for shift in (0, 16, 32, 48):
        counts = np.bincount(((hashes >> np.uint64(shift)) & np.uint64(0xFF)).astype(np.int64), minlength=256)
        assert abs(counts / (hashes.size / 256) - 1).max() < 0.35
    assert all(a < b for a, b in pairwise(hashes.tolist()))
