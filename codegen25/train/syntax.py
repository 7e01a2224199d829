"""Spans that are nodes of a syntax tree: an expression, a statement, a block, a definition.

Trees are tree-sitter's, which also parses what was cut out of the middle of a file. A place is drawn in the text, then
one of the nodes around it: long constructs are met as often as they fill the text, and every depth is as likely.
(Cutting out one node is the single-node masking of Gong et al., 2025, "Structure-Aware Fill-in-the-Middle
Pretraining for Code"; their way to draw it is another.)
"""

from __future__ import annotations

import random
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from codegen25.errors import CodegenError
from codegen25.train.spans import Span, apart

if TYPE_CHECKING:
    import tree_sitter

# A language of the corpus (StarCoderData's names): the wheel's module, and the function in it.
GRAMMARS = {
    "c": ("tree_sitter_c", "language"),
    "c++": ("tree_sitter_cpp", "language"),
    "go": ("tree_sitter_go", "language"),
    "java": ("tree_sitter_java", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "python": ("tree_sitter_python", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "typescript": ("tree_sitter_typescript", "language_tsx"),  # the corpus does not tell TSX from TypeScript
}


def nodes(text: str, language: str, holes: int, share: float, rng: random.Random) -> list[Span]:
    """Up to `holes` spans that are named nodes, each at most its part of the share of the characters.

    None at all where every node at the places drawn is longer. `language` is one of GRAMMARS. Raises CodegenError
    when its grammar is not installed.
    """
    from tree_sitter import Parser

    data = text.encode()
    root = Parser(grammar(language)).parse(data).root_node
    most = max(1, int(len(data) * share / holes))

    def draw() -> Span | None:
        found = _around(root, rng.randrange(len(data)), most)
        if not found:
            return None
        start, end = rng.choice(found)
        return _characters(data, start), _characters(data, end)

    return apart(draw, holes)


def _around(root: tree_sitter.Node, at: int, most: int) -> list[tuple[int, int]]:
    """The byte ranges of the named nodes around a byte that are not empty and at most `most` long, each range once."""
    ranges: list[tuple[int, int]] = []
    node = root.named_descendant_for_byte_range(at, at + 1)
    while node is not None and node.end_byte - node.start_byte <= most:
        if node.end_byte > node.start_byte and ranges[-1:] != [(node.start_byte, node.end_byte)]:
            ranges.append((node.start_byte, node.end_byte))
        node = node.parent
    return ranges


def _characters(data: bytes, at: int) -> int:
    return at if data.isascii() else len(data[:at].decode())


@cache
def grammar(language: str) -> tree_sitter.Language:
    """tree-sitter's grammar of a language in GRAMMARS. Raises CodegenError when it is not installed."""
    module, function = GRAMMARS[language]
    try:
        from tree_sitter import Language

        return Language(getattr(import_module(module), function)())
    except ImportError as error:
        raise CodegenError(
            f"syntax spans of {language} need {error.name}; install the extra: pip install 'codegen25[syntax]'"
        ) from error
