"""The functions of a Python file as short documents of their own.

A short document lets a training example hold a whole span together with its end, which long files rarely do.
"""

from __future__ import annotations

import ast
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

MIN_LINES, MAX_LINES = 3, 80

Node = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Block:
    """A definition by itself: its text, dedented and with a newline at its end, and the tree of that text."""

    text: str
    node: Node


@dataclass(frozen=True)
class Definition:
    """A `def` or `class` inside a file: its node in the file's tree, and the lines of the file."""

    node: Node
    lines: Sequence[str]

    @property
    def first(self) -> int:
        """Its first line, from 1, decorators included."""
        return min([self.node.lineno, *(decorator.lineno for decorator in self.node.decorator_list)])

    @property
    def last(self) -> int:
        return self.node.end_lineno or self.node.lineno

    @cached_property
    def block(self) -> Block | None:
        """The block cut out; None when dedenting would change it inside a string that reaches left of its indent."""
        text = textwrap.dedent("\n".join(self.lines[self.first - 1 : self.last])) + "\n"
        try:
            body = _parse(text).body
        except SyntaxError:
            return None
        if len(body) != 1 or not isinstance(body[0], Node) or type(body[0]) is not type(self.node):
            return None
        return Block(text, body[0]) if body[0].name == self.node.name else None


def _definitions(body: list[ast.stmt]) -> list[Node]:
    """Top-level functions and classes, and the methods of those classes, in the order of the file."""
    found: list[Node] = []
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(node)
        elif isinstance(node, ast.ClassDef):
            found += [node, *_definitions(node.body)]
    return found


def definitions(source: str) -> list[Definition]:
    """Top-level functions, classes and methods of MIN_LINES to MAX_LINES lines. Raises SyntaxError."""
    tree = _parse(source)
    # As the parser counts lines: form feeds and Unicode separators do not end one, which str.splitlines would say.
    lines = source.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    found = [Definition(node, lines) for node in _definitions(tree.body)]
    return [one for one in found if MIN_LINES <= one.last - one.first + 1 <= MAX_LINES]


def functions(source: str) -> list[str]:
    """Complete `def` and `class` blocks of top-level functions, classes and methods, decorators and docstrings kept.

    Each is dedented, ends in a newline, parses by itself and has MIN_LINES to MAX_LINES lines. A class short enough to
    be given whole also yields its methods. A block that dedenting would change inside a string (a literal reaching
    left of the block's indent) is left out. Raises SyntaxError when the source does not parse.
    """
    return [one.block.text for one in definitions(source) if one.block]


def _parse(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the sources' own invalid escapes are not ours to report
        return ast.parse(source)
