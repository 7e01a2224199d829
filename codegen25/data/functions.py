"""The functions of a Python file as short documents of their own.

A short document lets a training example hold a whole span together with its end, which long files rarely do.
"""

from __future__ import annotations

import ast
import textwrap
import warnings

MIN_LINES, MAX_LINES = 3, 80


def _definitions(body: list[ast.stmt]) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Top-level functions and classes, and the methods of those classes, in the order of the file."""
    found: list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef] = []
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(node)
        elif isinstance(node, ast.ClassDef):
            found += [node, *_definitions(node.body)]
    return found


def functions(source: str) -> list[str]:
    """Complete `def` and `class` blocks of top-level functions, classes and methods, decorators and docstrings kept.

    Each is dedented, ends in a newline, parses by itself and has MIN_LINES to MAX_LINES lines. A class short enough to
    be given whole also yields its methods. A block that dedenting would change inside a string (a literal reaching
    left of the block's indent) is left out. Raises SyntaxError when the source does not parse.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the sources' own invalid escapes are not ours to report
        tree = ast.parse(source)
    # As the parser counts lines: form feeds and Unicode separators do not end one, which str.splitlines would say.
    lines = source.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    blocks = []
    for node in _definitions(tree.body):
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        last = node.end_lineno or node.lineno
        if not MIN_LINES <= last - first + 1 <= MAX_LINES:
            continue
        block = textwrap.dedent("\n".join(lines[first - 1 : last])) + "\n"
        if _same(block, node):
            blocks.append(block)
    return blocks


def _same(block: str, node: ast.AST) -> bool:
    """Whether the block parses to the node it was cut from, docstring indents aside."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(block).body
    except SyntaxError:
        return False
    return len(body) == 1 and type(body[0]) is type(node) and getattr(body[0], "name", "") == getattr(node, "name", "")
