"""Which texts of a corpus nano's two courses read: `multi` files of every language, `mono` above all short functions.

A short document lets an example of a small window hold a hole with all that is around it, and a function that stands
alone and says what it does is what a completion is asked for most. The rest is there so that nothing is forgotten.
"""

from __future__ import annotations

import ast
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from codegen25.data.document import Document
from codegen25.data.functions import Block, Definition, definitions
from codegen25.errors import CodegenError

Course = Literal["multi", "mono"]

# Characters of a function.
SHORTEST, LONGEST = 120, 1200
MIN_LINES = 6
# No code, or the same few lines over and over.
NOT_READ = frozenset({"html", "assembly", "cmake", "fortran", "text"})
PROSE = frozenset({"markdown", "restructuredtext"})
# The share of the described functions that is `multi`'s; the rest is `mono`'s.
MULTI = 0.3
# What goes with them, for each: further functions, files of Python, of each other language, of each kind of prose.
WITH: Mapping[Course, tuple[float, float, float, float]] = {
    "multi": (0.4, 0.3, 0.15, 0.025),
    "mono": (0.5, 0.125, 0.0, 0.0),
}


@dataclass(frozen=True)
class Sorted:
    """The texts of a corpus, each sort in an order that a seed decides: functions that are described and stand alone,
    further functions, methods and classes, and whole files by language."""

    described: list[str] = field(default_factory=list)
    further: list[str] = field(default_factory=list)
    files: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def sort(documents: Iterable[Document], rng: random.Random) -> Sorted:
    """Every text of the corpus, once."""
    found, seen = Sorted(), set[str]()
    for document in documents:
        found.files[document.language].append(document.content)
        if document.language != "python":
            continue
        for definition in _definitions(document.content):
            block = definition.block
            if block is None or block.text in seen or not SHORTEST <= len(block.text) <= LONGEST:
                continue
            seen.add(block.text)
            (found.described if is_described(block) else found.further).append(block.text)
    for texts in (found.described, found.further, *found.files.values()):
        rng.shuffle(texts)
    return found


def is_described(block: Block) -> bool:
    """Whether it is a function with a docstring that returns something and belongs to no class."""
    node = block.node
    if not isinstance(node, ast.FunctionDef) or node.decorator_list or block.text.count("\n") < MIN_LINES:
        return False
    names = {argument.arg for argument in node.args.args}
    returns = any(isinstance(inner, ast.Return) and inner.value for inner in ast.walk(node))
    return bool(ast.get_docstring(node)) and returns and not names & {"self", "cls"}


def course(documents: Iterable[Document], kind: Course, seed: int) -> list[str]:
    """The texts of a course, in an order that `seed` decides. The two courses of one seed share no text.

    Raises CodegenError when there is no described function for it.
    """
    rng = random.Random(seed)
    found = sort(documents, rng)
    border = int(len(found.described) * MULTI)
    described = found.described[:border] if kind == "multi" else found.described[border:]
    if not described:
        raise CodegenError(
            f"the corpus has {len(found.described)} functions with a docstring that belong to no class and return "
            f"something, too few for {kind}; name a larger corpus"
        )

    def beside(texts: Sequence[str], place: int) -> Sequence[str]:
        """So many for each described function; those of `mono` lie behind those of `multi`."""
        first = int(WITH["multi"][place] * border) if kind == "mono" else 0
        return texts[first : first + int(WITH[kind][place] * len(described))]

    texts = [*described, *beside(found.further, 0)]
    for language in sorted(found.files.keys() - NOT_READ):
        texts += beside(found.files[language], 1 if language == "python" else 3 if language in PROSE else 2)
    rng.shuffle(texts)
    return texts


def _definitions(source: str) -> list[Definition]:
    try:
        return definitions(source)
    except (SyntaxError, ValueError, RecursionError):  # a corpus may hold what another Python reads
        return []
