"""Bugs planted into a function: one small edit of its text, after which it parses and means something else.

The edits are classical mutation operators (DeMillo, Lipton and Sayward, 1978, "Hints on Test Data Selection"), made in
the text rather than in the tree, so that layout and comments stay and only the bug tells the two versions apart.
"""

from __future__ import annotations

import ast
import random
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

_OTHER_COMPARISON = {
    "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==",
    "is": "is not", "is not": "is", "in": "not in", "not in": "in",
}  # fmt: skip
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
    ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip
_OTHER_OPERATOR = {"+": "-", "-": "+", "*": "+", "/": "*", "//": "/", "%": "//", "**": "*", "<<": ">>", ">>": "<<",
                   "&": "|", "|": "&"}  # fmt: skip
_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**",
    ast.LShift: "<<", ast.RShift: ">>", ast.BitAnd: "&", ast.BitOr: "|",
}  # fmt: skip
# What never runs, or is no behaviour of the function.
_SKIPPED_FIELDS = frozenset({"annotation", "returns", "decorator_list", "type_params"})


@dataclass(frozen=True)
class Bug:
    """A function with a bug in it, and what kind of bug that is."""

    source: str
    kind: str


@dataclass(frozen=True)
class _Edit:
    """Bytes [start, end) of the source become `text`."""

    kind: str
    start: int
    end: int
    text: bytes


def plant(source: str, rng: random.Random) -> Bug | None:
    """A version of a function that parses to another tree; None when no edit of ours makes one.

    Every kind of bug that fits is as likely as another. Raises SyntaxError when `source` does not parse.
    """
    tree = _parse(source)
    wanted = ast.dump(tree)
    by_kind: dict[str, list[_Edit]] = {}
    for edit in _Editor(source, tree).edits():
        by_kind.setdefault(edit.kind, []).append(edit)
    kinds = sorted(by_kind)
    rng.shuffle(kinds)
    for kind in kinds:
        edit = rng.choice(by_kind[kind])
        data = source.encode()
        changed = (data[: edit.start] + edit.text + data[edit.end :]).decode()
        try:
            is_other = ast.dump(_parse(changed)) != wanted
        except SyntaxError:
            continue
        if is_other:
            return Bug(changed, kind)
    return None


def _parse(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the source's own doubtful literals
        return ast.parse(source)


class _Editor:
    """All edits of one source."""

    def __init__(self, source: str, tree: ast.Module) -> None:
        self._data = source.encode()
        self._tree = tree
        self._starts = [0, *(found.end() for found in re.finditer(rb"\r\n|\r|\n", self._data))]
        self._locals = _local_names(tree)

    def edits(self) -> Iterator[_Edit]:
        for node in _running(self._tree):
            match node:
                case ast.Compare():
                    yield from self._comparisons(node)
                case ast.BinOp() | ast.AugAssign():
                    yield from self._operators(node)
                case ast.BoolOp(values=[left, right]):
                    old = "and" if isinstance(node.op, ast.And) else "or"
                    yield from self._between(left, right, old, "or" if old == "and" else "and", "boolean operator")
                case ast.Constant():
                    yield from self._constants(node)
                case ast.Name(ctx=ast.Load()) if node.id in self._locals:
                    yield from (
                        self._replaced(node, name, "wrong variable") for name in self._locals if name != node.id
                    )
                case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
                    yield _Edit("lost return", self._start(node), self._start(value), b"")
                case ast.If() | ast.While():
                    yield from self._conditions(node.test)
                case ast.Call():
                    yield from self._arguments(node)
                case ast.Break():
                    yield self._replaced(node, "continue", "loop exit")
                case ast.Continue():
                    yield self._replaced(node, "break", "loop exit")

    def _start(self, node: ast.expr | ast.stmt) -> int:
        return self._starts[node.lineno - 1] + node.col_offset

    def _end(self, node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._starts[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: ast.expr) -> bytes:
        return self._data[self._start(node) : self._end(node)]

    def _replaced(self, node: ast.expr | ast.stmt, text: str, kind: str) -> _Edit:
        return _Edit(kind, self._start(node), self._end(node), text.encode())

    def _between(self, left: ast.expr, right: ast.expr, old: str, new: str, kind: str) -> Iterator[_Edit]:
        """The operator `old` between two operands becomes `new`. Found in a comment it changes nothing, and is void."""
        start = self._end(left)
        pattern = r"\s+".join(map(re.escape, old.split())).encode()
        found = re.search(pattern, self._data[start : self._start(right)])
        if found:
            yield _Edit(kind, start + found.start(), start + found.end(), new.encode())

    def _comparisons(self, node: ast.Compare) -> Iterator[_Edit]:
        for (left, right), op in zip(pairwise([node.left, *node.comparators]), node.ops, strict=True):
            old = _COMPARISONS[type(op)]
            yield from self._between(left, right, old, _OTHER_COMPARISON[old], "comparison")

    def _operators(self, node: ast.BinOp | ast.AugAssign) -> Iterator[_Edit]:
        left, right = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.target, node.value)
        old = _OPERATORS.get(type(node.op))
        if old and not any(_is_text(one) for one in (left, right)):  # text knows + and % alone
            yield from self._between(left, right, old, _OTHER_OPERATOR[old], "arithmetic operator")

    def _constants(self, node: ast.Constant) -> Iterator[_Edit]:
        if isinstance(node.value, bool):
            yield self._replaced(node, str(not node.value), "wrong constant")
        elif isinstance(node.value, int) and self._text(node) == str(node.value).encode():
            yield self._replaced(node, str(node.value + 1), "off by one")
            if node.value > 0:
                yield self._replaced(node, str(node.value - 1), "off by one")

    def _conditions(self, test: ast.expr) -> Iterator[_Edit]:
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            yield _Edit("negated condition", self._start(test), self._start(test.operand), b"")
        elif isinstance(test, ast.Name | ast.Attribute | ast.Call | ast.Subscript):
            yield _Edit("negated condition", self._start(test), self._start(test), b"not ")

    def _arguments(self, node: ast.Call) -> Iterator[_Edit]:
        for left, right in pairwise(node.args):
            if any(isinstance(one, ast.Starred | ast.GeneratorExp) for one in (left, right)):
                continue
            start, end = self._start(left), self._end(right)
            gap = self._data[self._end(left) : self._start(right)]
            yield _Edit("swapped arguments", start, end, self._text(right) + gap + self._text(left))


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of what runs. Inside f-strings, older Pythons do not tell where a node stands."""
    for name, value in ast.iter_fields(tree):
        if name in _SKIPPED_FIELDS:
            continue
        for node in value if isinstance(value, list) else [value]:
            if isinstance(node, ast.AST) and not isinstance(node, ast.JoinedStr):
                yield node
                yield from _running(node)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


def _local_names(tree: ast.Module) -> list[str]:
    """Parameters and assigned names, in the order of the alphabet; not those of comprehensions, which end with them."""
    names = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign | ast.For | ast.AsyncFor):
            targets = [node.target]
        for target in targets:
            names |= {one.id for one in ast.walk(target) if isinstance(one, ast.Name)}
    return sorted(names - {"self", "cls"})
