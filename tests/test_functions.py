"""Functions are cut out of a file whole, and parse alone."""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen25.data import functions

SAMPLE = '''
import functools


@functools.cache
@staticmethod
def first(n):
    """Doc."""
    return n


def short(): return 1


class Box:
    """A box."""

    def open(self):
        # a comment
        text = """
        inside
        """
        return text

    async def close(self):
        await self
        return None

    def flush(self):
        return """
left of the block
"""


if True:
    def hidden(a):
        b = a
        return b
'''


def test_functions_of_a_sample() -> None:
    found = functions.functions(SAMPLE)
    first, box, opened, closed = found
    assert first.startswith("@functools.cache\n@staticmethod\ndef first(n):\n") and '"""Doc."""' in first
    assert box.startswith("class Box:") and "left of the block" in box
    assert opened.startswith("def open(self):\n    # a comment\n")
    assert closed == "async def close(self):\n    await self\n    return None\n"


def test_functions_by_length() -> None:
    def lines(n: int) -> str:
        return "def f():\n" + "    x = 1\n" * (n - 1)

    assert [len(functions.functions(lines(n))) for n in (2, 3, 80, 81)] == [0, 1, 1, 0]


def test_a_form_feed_does_not_shift_the_lines() -> None:
    source = "x = 'a\\\u2028b'\n\x0c\ndef f(a):\n    b = a\n    return b\n"
    assert functions.functions(source) == ["def f(a):\n    b = a\n    return b\n"]


@pytest.mark.parametrize("module", ["textwrap", "bisect", "dataclasses", "argparse", "typing", "collections"])
def test_functions_of_the_standard_library_stand_alone(module: str) -> None:
    source = inspect.getsource(importlib.import_module(module))
    found = functions.functions(source)
    assert found
    definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    names = {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, definition)}
    for block in found:
        (node,) = ast.parse(block).body
        assert isinstance(node, definition) and node.name in names
        assert functions.MIN_LINES <= block.count("\n") <= functions.MAX_LINES
        assert block == textwrap.dedent(block) and block.endswith("\n")


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4), st.sampled_from(["    ", "\t", "  "])), max_size=6))
def test_functions_finds_what_was_written(specs: list[tuple[bool, int, str]]) -> None:
    blocks, source = [], ""
    for number, (method, statements, indent) in enumerate(specs):
        block = f"def f{number}(a):\n" + f"{indent}a += {number}\n" * (statements + 1)
        blocks.append(block)
        source += f"class C{number}:\n{textwrap.indent(block, indent)}\n" if method else block + "\n"
    assert [b for b in functions.functions(source) if b.startswith("def")] == blocks


def test_functions_of_what_does_not_parse() -> None:
    with pytest.raises(SyntaxError):
        functions.functions("def f(:\n")
