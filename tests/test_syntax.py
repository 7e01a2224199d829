"""Syntax spans are nodes of the tree, by the language's own parser where Python has one."""

from __future__ import annotations

import ast
import random

import hostile
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen25.data.languages import known
from codegen25.errors import CodegenError
from codegen25.train import syntax
from codegen25.train.syntax import GRAMMARS, nodes

PYTHON = '''class Größe:
    """Eine 🙂 Größe."""

    def __init__(self, wert: int = 0) -> None:
        self.wert = wert * 2 + len("é𓀀")

    def doppelt(self) -> int:
        if self.wert > 3:
            return [x for x in range(self.wert)][-1]
        return self.wert
'''


def python_nodes(source: str) -> set[tuple[int, int]]:
    """Where statements and expressions begin and end, in characters, by Python's own parser."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def character(line: int, column: int) -> int:
        return len(source.encode()[: starts[line - 1] + column].decode())

    return {
        (character(node.lineno, node.col_offset), character(node.end_lineno, node.end_col_offset))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.expr, ast.stmt)) and node.end_lineno and node.end_col_offset is not None
    }


def test_spans_are_what_python_says_is_a_node() -> None:
    drawn = {span for seed in range(3000) for span in nodes(PYTHON, "python", 1, 1.0, random.Random(seed))}
    wanted = python_nodes(PYTHON)
    assert len(wanted - drawn) <= 4, "nearly every node is met; single letters are rare"
    others = {PYTHON[start:end] for start, end in drawn - wanted}
    assert {"doppelt", "(self)", "é𓀀", "wert: int = 0"} <= others, "names, parameters, what a string holds"


@given(hostile.texts, st.sampled_from(sorted(GRAMMARS)), st.integers(1, 6), st.sampled_from([0.1, 0.5, 1.0]))
def test_any_text_in_any_language(text: str, language: str, holes: int, share: float) -> None:
    text = text[:3000] or "x"
    found = nodes(text, language, holes, share, random.Random(0))
    assert len(found) <= holes
    assert all(0 <= start < end <= len(text) for start, end in found)
    assert all(len(text[start:end].encode()) <= max(1, len(text.encode()) * share) for start, end in found)
    assert found == nodes(text, language, holes, share, random.Random(0))


def test_nothing_where_every_node_is_too_long() -> None:
    assert nodes("x" * 100, "python", 1, 0.5, random.Random(0)) == []


def test_languages_are_those_of_the_corpus_and_their_grammars_are_installed() -> None:
    for language in GRAMMARS:
        assert known(language)
        assert syntax.grammar(language).abi_version > 0


def test_a_grammar_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GRAMMARS, "zig", ("tree_sitter_zig_absent", "language"))
    with pytest.raises(CodegenError, match=r"syntax spans of zig need tree_sitter_zig_absent; .*codegen25\[syntax\]"):
        nodes("const x = 1;", "zig", 1, 0.5, random.Random(0))
