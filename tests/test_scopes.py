"""What Python's rules say of texts with holes: held to the compiler, and to real files that lose a line."""

from __future__ import annotations

import ast
import bisect
import heapq
import math
import shlex
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen25.scopes import beginnings, faults

FILES = [Path(str(module.__file__)).read_text(encoding="utf-8") for module in (bisect, heapq, shlex, textwrap)]


@pytest.mark.parametrize(
    "text, count",
    [
        ("import os\nprint(os.name)\n", 0),
        ("print(name)\nname = 1\n", 1),
        ("def f():\n    total += 1\n    return total, rest, rest\n", 3),
        ("from os import *\nprint(name)\n", 0),
        ("return 1\n", 1),
        ("for i in []:\n    pass\nbreak\n", 1),
        ("def f(a, a): pass\n", math.inf),
        ("x = (\n", math.inf),
        ("x = '\0'\n", math.inf),
        ("print '\\d'\n", math.inf),
        ("x = '\\d'\n", 0),
        ("", 0),
    ],
)
def test_faults(text: str, count: float) -> None:
    assert faults(text) == count


@pytest.mark.parametrize(
    "text",
    ["(" * 10_000, "x = " + "-" * 100_000 + "1\n", "x = " + "1 + " * 20_000 + "1\n", "a" * 10**6],
    ids=["brackets", "signs", "sums", "name"],
)
def test_what_is_deep_or_long_ends(text: str) -> None:
    assert faults(text) in (0, 1, math.inf)


def test_nested_finally_is_not_compiled() -> None:
    """A compiler writes each of these twice, and all that is in it."""
    levels = 90
    text = "".join(f"{' ' * n}try:\n{' ' * n} pass\n{' ' * n}finally:\n" for n in range(levels))
    assert faults(text + " " * levels + "pass\n") == 0


@given(st.sampled_from(FILES), st.data())
def test_it_parses_where_the_compiler_says_so(text: str, data: st.DataObject) -> None:
    lines = text.splitlines(keepends=True)
    at = data.draw(st.integers(0, len(lines) - 1))
    damaged = "".join(lines[:at] + lines[at + 1 :])
    try:
        compile(damaged, "<source>", "exec", dont_inherit=True)
    except SyntaxError:
        # `return` and `break` in a wrong place are counted, what else is refused is infinite.
        assert faults(damaged) > 0
    else:
        assert faults(damaged) < math.inf


# ------------------------------------------------------------------------------------------------------- how it begins


@pytest.mark.parametrize("text", FILES, ids=["bisect", "heapq", "shlex", "textwrap"])
def test_a_line_that_is_missed_is_begun(text: str) -> None:
    """Lines of real files without which a name is bound nowhere, or a block is opened by nothing."""
    lines = text.splitlines(keepends=True)
    missed = begun = 0
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Assign | ast.For | ast.Import):
            continue
        line, before, behind = lines[node.lineno - 1], "".join(lines[: node.lineno - 1]), "".join(lines[node.lineno :])
        if isinstance(node, ast.For) or (node.end_lineno == node.lineno and 0 < faults(before + behind) < math.inf):
            missed += 1
            begun += any(line.startswith(one) for one in beginnings(before, behind))
    assert begun >= 0.75 * missed, f"{begun} of {missed}"


@pytest.mark.parametrize(
    "before, behind, found",
    [
        ("def f(xs):\n", "    for x in xs:\n        total += x\n    return total\n", ["    total ="]),
        ("def f(a):\n    if a:\n        return 0\n", "    return b\n", ["        b =", "    b ="]),
        ("", "print(math.pi)\n", ["import math", "math ="]),
        ("def f(p):\n", "    return token\n", ["    token ="]),
        ("def f(p):\n", "    return x, y\n", ["    x =", "    y =", "    x, y ="]),
        ("def f(d):\n", "        print(key, value)\n", ["    for key, value in"]),
        ("def f(d):\n", "        print(d)\n", ["    if", "    while", "    for"]),
        ("def f(d):\n", "        return 1\n    return g(d)\n", ["    def g(", "    def"]),
        ("def f(d):\n", "        break\n", ["    while", "    for"]),
        ("def f(n):\n    try:\n        n()\n", "        return 2\n", ["    except"]),
        ("def f(n):\n", "        n()\n    except OSError:\n        n()\n", ["    try:"]),
        ("def f(n):\n", "        n()\n    elif n:\n        n()\n", ["    if"]),
        ("def f(n):\n", "        n()\n    else:\n        n()\n", ["    if", "    while", "    for"]),
        ("", "    return is_prime(k)\n\nprint(is_prime(3))\n", ["def is_prime(k", "def is_prime(", "def"]),
        ("class A:\n", "        return self.b\n", ["    def"]),
        ("def f(d):\n\t", "\n\treturn d\n", []),
        ("def f(d):\n\t", "\n\treturn e\n", ["e ="]),
        ("def f(d):\n    ", "\n    return e\n", ["e ="]),
        ("def f(d):\n", "    return d\n", []),
        ("x = ", "\nprint(y)\n", []),
        ("f(", ")\n", []),
        ("def f(:\n", "    return y\n", []),
    ],
)
def test_beginnings(before: str, behind: str, found: list[str]) -> None:
    assert beginnings(before, behind) == found


@given(st.text("ab:=\n \t#(", max_size=30), st.text("ab:=\n \t#(", max_size=30))
def test_any_texts(before: str, behind: str) -> None:
    for one in beginnings(before, behind):
        assert one.strip() and "\n" not in one


def test_nothing_is_run(tmp_path: Path) -> None:
    assert faults(f"open({str(tmp_path / 'made')!r}, 'w')\n") == 0
    assert not list(tmp_path.iterdir())
