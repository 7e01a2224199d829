"""Planted bugs: the text parses, means something else, and differs in one place of what runs."""

from __future__ import annotations

import argparse
import ast
import difflib
import heapq
import inspect
import io
import random
import statistics
import textwrap
import tokenize
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen25.data import bugs
from codegen25.data.bugs import plant
from codegen25.data.functions import functions

MODULES = (argparse, difflib, heapq, statistics, textwrap, ast)
FUNCTIONS = [f for module in MODULES for f in functions(inspect.getsource(module)) if not f.startswith("class")]
KINDS = {
    "comparison", "arithmetic operator", "boolean operator", "wrong constant", "off by one", "wrong variable",
    "lost return", "negated condition", "swapped arguments", "loop exit",
}  # fmt: skip


def words(source: str, *kinds: int) -> Counter[str]:
    found = tokenize.generate_tokens(io.StringIO(source).readline)
    return Counter(token.string for token in found if token.type in kinds)


@given(st.sampled_from(FUNCTIONS), st.integers(0, 2**32))
def test_any_function_of_the_standard_library(source: str, seed: int) -> None:
    bug = plant(source, random.Random(seed))
    if bug is None:
        return
    assert bug.kind in KINDS
    assert ast.dump(ast.parse(bug.source)) != ast.dump(ast.parse(source))
    lines, changed = source.split("\n"), bug.source.split("\n")
    assert len(lines) == len(changed), "layout stays"
    differing = [number for number, pair in enumerate(zip(lines, changed, strict=True)) if pair[0] != pair[1]]
    assert bug.kind == "swapped arguments" or len(differing) == 1
    kept = (tokenize.COMMENT, tokenize.STRING)
    assert words(source, *kept) == words(bug.source, *kept), "neither comments nor texts are touched"
    assert bug == plant(source, random.Random(seed)), "a function of the generator alone"


def test_most_functions_can_have_a_bug_and_every_kind_is_met() -> None:
    rng = random.Random(0)
    found = [plant(source, rng) for source in FUNCTIONS for _ in range(2)]
    assert sum(bug is None for bug in found) < len(found) * 0.1
    assert {bug.kind for bug in found if bug} == KINDS


def planted(source: str) -> set[str]:
    """The lines that planting changes, as they become."""
    found = set()
    for seed in range(300):
        bug = plant(source, random.Random(seed))
        assert bug is not None
        found |= set(bug.source.split("\n")) - set(source.split("\n"))
    return {line.strip() for line in found}


@pytest.mark.parametrize(
    ("line", "becomes"),
    [
        ("x = 1 < (2)", {"x = 1 <= (2)", "x = 2 < (2)", "x = 0 < (2)", "x = 1 < (3)", "x = 1 < (1)"}),
        ("x = a() is  not b()", {"x = a() is b()"}),
        ("x = a() not in b()", {"x = a() in b()"}),
        ("x = 'é𓀀' == b()", {"x = 'é𓀀' != b()"}),
        ("x = a() and b()", {"x = a() or b()"}),
        ("x += a()", {"x -= a()"}),
        ("x = a() // b()", {"x = a() / b()"}),
        ("x = not True", {"x = not False"}),
        ("return a()", {"a()"}),
        ("x = f('a', b())", {"x = f(b(), 'a')"}),
        ("x = 0x10 + a()", {"x = 0x10 - a()"}),
    ],
)
def test_edits(line: str, becomes: set[str]) -> None:
    assert planted(f"def f():\n    {line}\n") == becomes


def test_conditions_loops_and_variables() -> None:
    source = "def f(old, new):\n    while a():\n        if not b():\n            break\n    return old\n"
    assert planted(source) == {"while not a():", "if b():", "continue", "return new", "old"}


@pytest.mark.parametrize(
    "source",
    [
        "def f() -> None:\n    pass\n",
        "def f(x: 1 < 2 = None) -> 3:\n    '''4 < 5'''\n",
        "@g(1 < 2)\ndef f():\n    return None\n",
        "def f():\n    x = f'{1 + 2}'\n",
        "def f():\n    x = 'a %s' % g() + 'b'\n",
    ],
)
def test_nothing_to_plant(source: str) -> None:
    assert plant(source, random.Random(0)) is None


def test_an_operator_in_a_comment_is_not_the_operator() -> None:
    source = "def f():\n    return (a()  # <\n            < b())\n"
    for seed in range(50):
        bug = plant(source, random.Random(seed))
        assert bug is None or bug.kind == "lost return"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_line_ends(end: str) -> None:
    source = end.join(["def f(a):", "    b = 'é'", "    return a", ""])
    found = {plant(source, random.Random(seed)) for seed in range(50)}
    assert found == {
        bugs.Bug(source.replace("return a", "return b"), "wrong variable"),
        bugs.Bug(source.replace("return a", "a"), "lost return"),
    }


def test_what_does_not_parse() -> None:
    with pytest.raises(SyntaxError):
        plant("def f(:", random.Random(0))
