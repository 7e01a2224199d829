"""What a typist gets: nothing that stands behind the cursor already, however the answer comes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen25.serve import brackets
from codegen25.serve.ask import Lines
from codegen25.serve.tidy import Tidy


def tidied(prefix: str, answer: str, suffix: str, lines: Lines = "any", least_indent: int = 0) -> str:
    tidy = Tidy(prefix, suffix, lines=lines, least_indent=least_indent)
    return tidy.push(answer) + tidy.finish()


@pytest.mark.parametrize(
    ("prefix", "answer", "suffix", "kept"),
    [
        # a line that is the next one
        ("def f():\n    x = 1\n    ", "y = 2\n    return y\n", "\n    return y\n", "y = 2\n"),
        ("def f():\n    ", "return 1", "\n    return 1\n", ""),
        ("a = [\n", "    1,\n    2,\n]\n", "]\n", "    1,\n    2,\n"),
        ("x = 1\n", "y = 2\nz = 3\nw = 4\n", "\n\nz = 3\n", "y = 2\n"),
        # other indentation is another line
        ("if a:\n    ", "b()\n    c()\n", "\nc()\n", "b()\n    c()\n"),
        # brackets that are there already
        ("print(", "a, b)", ")\n", "a, b"),
        ("print(", "a, (b))", ")\n", "a, (b)"),
        ("f(g(", "x)", ")\n", "x)"),
        ("f(g(", "x))", ")\n", "x)"),
        ("f(g(", "x))", "))\n", "x"),
        ("x = {'a': [1, ", "2]}", "]}\n", "2"),
        ("foo(\n    a,\n    ", "b,\n)\nbar()\n", "\n)\n", "b,\n"),
        ("def f(", "a, b):", "):\n", "a, b"),
        ("x = (1 + 2)", ")", "\n", ""),
        ("print(", "')', a)", ")\n", "')', a"),
        # the rest of the line
        ("x = ", "a + b", " + b\n", "a"),
        ('print("', 'hello")', '")\n', "hello"),
        # nothing to cut
        ("print(", "a, b)", "\n", "a, b)"),
        ("s = 'it", "'s)", "\n", "'s)"),
        ("# it's (", "fine)", "\n", "fine)"),
    ],
)
def test_what_stands_behind_is_not_said_again(prefix: str, answer: str, suffix: str, kept: str) -> None:
    assert tidied(prefix, answer, suffix) == kept


@pytest.mark.parametrize(
    ("prefix", "suffix", "lines", "answer", "kept"),
    [
        ("x = ", "", "one", "1\ny = 2\n", "1"),
        ("x = ", "\n", "auto", "1\ny = 2\n", "1"),
        ("def f():", "\n", "auto", "\n    return 1\n    more\n", "\n    return 1"),
        ("def f():\n    ", "\n", "auto", "a = 1\n    return a\n\ndef g():\n    pass\n", "a = 1\n    return a\n\n"),
        ("def f():\n    ", "\n", "block", "a = 1\nb = 2\n", "a = 1\n"),
        ("", "", "block", "import a\nimport b\n", "import a\nimport b\n"),
    ],
)
def test_modes(prefix: str, suffix: str, lines: Lines, answer: str, kept: str) -> None:
    assert tidied(prefix, answer, suffix, lines) == kept


def test_least_indent_is_llama_vims() -> None:
    assert tidied("    a\n", "    b\n  c\n", "", least_indent=4) == "    b\n"


CODE = st.lists(
    st.sampled_from(
        ["x", " ", "    ", "\n", "\n    ", "(", ")", "[", "]", "{", "}", "'", '"', "#", "return x", "f(", "), ", "\\"]
    ),
    max_size=14,
).map("".join)


@given(
    prefix=CODE, answer=CODE, suffix=CODE, cuts=st.lists(st.integers(0, 40)),
    lines=st.sampled_from(["any", "one", "block", "auto"]), least=st.sampled_from([0, 4]),
)  # fmt: skip
def test_pieces_make_no_difference(
    prefix: str, answer: str, suffix: str, cuts: list[int], lines: Lines, least: int
) -> None:
    tidy = Tidy(prefix, suffix, lines=lines, least_indent=least)
    places = sorted({0, len(answer), *(cut for cut in cuts if cut < len(answer))})
    out = "".join(tidy.push(answer[a:b]) for a, b in itertools.pairwise(places)) + tidy.finish()
    assert out == tidied(prefix, answer, suffix, lines, least)
    assert answer.startswith(out)


@given(CODE, CODE)
def test_an_answer_closes_nothing_that_is_closed_behind(prefix: str, answer: str) -> None:
    """By a slow count: of brackets alone, without strings and comments."""
    prefix, answer = ("".join(c for c in text if c in "()[]{}x\n") for text in (prefix, answer))
    try:
        stack = brackets.open_in(prefix)
    except brackets.Unclear:
        return
    closing = "".join(brackets.OPENS[bracket] for bracket in reversed(stack))
    kept = tidied(prefix, answer, closing)
    depth = lowest = 0
    for char in kept:
        depth += (char in "([{") - (char in ")]}")
        lowest = min(lowest, depth)
    assert lowest == 0


@pytest.mark.parametrize(
    ("text", "stack"),
    [
        ("f(a, [", ["(", "["]),
        ("x = '(' + (", ["("]),
        ("# (\nf(", ["("]),
        ("def g():\n    s = '''\n(\n'''\n    return {", ["{"]),
        ("f(\ndef g():\n    h[", ["["]),  # an unfinished call above does not count
        ("))", []),
    ],
)
def test_open_brackets(text: str, stack: list[str]) -> None:
    assert brackets.open_in(text) == stack


@pytest.mark.parametrize(
    ("text", "closing"),
    [(")\n", [")"]), ("), x(y)\n", [")"]), ("\n)\n}\nfoo)", [")", "}"]), ("x\n", []), ("(a)\n", [])],
)
def test_closing_brackets(text: str, closing: list[str]) -> None:
    assert brackets.closed_by(text) == closing
