"""Lexemes: the vectorized cut is that of a slow reference, and formatting changes nothing."""

import keyword

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from slow_lexemes import code, lexemes

from codegen25.data.lexemes import KEYWORDS, Lexemes, Stream, grams

PIECES = [
    "self", ".", "Self.", "0", "0.5", "1.", "x", "if", "IF", "_a1", "#", "# ", " #", "//", " // ", "\n", "\r\n", "\v",
    "\\n", "\\\\n", "\\u0041", "\\u000a", "\\xe9", "\\x23", "\\", '"', "'", "é", "\0", "\t", " ", "&lt;", "&amp;lt;",
    "&", "(", ")", ",", "==", "a_very_long_name_of_more_than_sixteen_letters", "\f", "\x85", "𝄞", "\ud800",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=30).map("".join)


def written(stream: Stream) -> list[str]:
    return [one.decode() for one in stream.raw(0, len(stream))]


@settings(max_examples=600)
@given(texts, st.booleans())
@example("", False)
@example("self.x 0 . 0.5 self . self.y", False)
@example("'# a'\\n b", True)
def test_lexemes_are_those_of_the_reference(text: str, slashes: bool) -> None:
    made, slow = Lexemes(text, slashes=slashes), lexemes(text, slashes=slashes)
    assert written(made.all) == [one.text for one in slow]
    assert made.all.names.tolist() == [one.name for one in slow]
    assert written(made.words()) == [one.text for one in slow if one.is_word()]
    views = code(text, slashes=slashes)
    assert [written(view) for view in made.code()] == [[one.text for one in view] for view in views]
    assert [view.names.tolist() for view in made.code()] == [[one.name for one in view] for view in views]


@given(st.lists(st.sampled_from(["aa", "AA", "ab", "b", "aaaaaaaaa", "aaaaaaaab", "a" * 17, "."]), max_size=20))
def test_equal_lexemes_have_equal_hashes(parts: list[str]) -> None:
    stream = Lexemes(" ".join(parts)).all
    for at, one in enumerate(parts):
        for there, other in enumerate(parts):
            assert (stream.hashes[at] == stream.hashes[there]) == (one.lower() == other.lower())


@given(st.lists(st.integers(0, 2**64 - 1), max_size=40), st.integers(1, 17))
def test_grams_are_polynomials(values: list[int], n: int) -> None:
    step = 0xD1342543DE82EF95
    slow = [
        sum(value * step ** (n - 1 - place) for place, value in enumerate(values[at : at + n])) % 2**64
        for at in range(len(values) - n + 1)
    ]
    assert grams(np.array(values, dtype=np.uint64), n).tolist() == slow


def test_keywords_are_no_names() -> None:
    assert sorted(KEYWORDS.split()) == sorted(keyword.kwlist)
    assert not Lexemes(KEYWORDS).all.names.any()
    assert Lexemes("if_ i f iff Whilee").all.names.all()


def test_renamed() -> None:
    stream = Lexemes("a = b.c + a * 2").all
    assert stream.renamed(0, stream.names) == [0, b"=", 1, b".", b"c", b"+", 0, b"*", b"2"]
    assert Lexemes("n = 'n of m' + n").all.unquoted().tolist() == [True, False, False, False, False, False, True]


@pytest.mark.parametrize("text", ["one\ntwo\nthree", "one\n\\ntwo\nthree", "# one\r\n\r\nthree"])
def test_lines_count_from_one(text: str) -> None:
    stream = Lexemes(text).all
    assert stream.line(len(stream) - 1) == 3
