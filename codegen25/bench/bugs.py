"""Solutions with a bug in them, made by one small change each, drawn by a seed."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping

Problem = Mapping[str, str]
# What is looked for, and what takes its place. Some changes change nothing that a test sees, some never end.
_SWAPS = (
    (r" \+ ", " - "), (r" - ", " + "), (r" \* ", " + "), (r" // ", " / "), (r" % ", " // "), (r" == ", " != "),
    (r" != ", " == "), (r" < ", " <= "), (r" <= ", " < "), (r" > ", " >= "), (r" >= ", " > "), (r" and ", " or "),
    (r" or ", " and "), (r"\bnot ", ""), (r"\bTrue\b", "False"), (r"\bFalse\b", "True"), (r"\b0\b", "1"),
    (r"\b1\b", "2"), (r"\b2\b", "1"), (r"\bmax\b", "min"), (r"\bmin\b", "max"), (r"\bsorted\(", "list("),
    (r"\brange\(", "range(1, "), (r"\.append\(", ".extend("), (r"\[::-1\]", ""), (r"return .+", "return None"),
    (r"return .+", "pass"), (r"return (.+)", r"return (\1,)"), (r"return (.+)", r"return str(\1)"),
    (r":\n", "\n"), (r"\)", ""), (r"\bif \b", "while "),
)  # fmt: skip


def bugs(solution: str, rng: random.Random) -> Iterator[str]:
    """Endlessly: the solution with one place changed, a line lost, or its end missing."""
    changes: list[Callable[[], str]] = [lambda: _without_a_line(solution, rng), lambda: _cut(solution, rng)]
    for pattern, instead in _SWAPS:
        for found in re.finditer(pattern, solution):
            changed = solution[: found.start()] + found.expand(instead) + solution[found.end() :]
            changes += [lambda changed=changed: changed]  # type: ignore[misc]
    while True:
        yield rng.choice(changes)()


def _without_a_line(solution: str, rng: random.Random) -> str:
    lines = solution.splitlines(keepends=True)
    del lines[rng.randrange(len(lines))]
    return "".join(lines)


def _cut(solution: str, rng: random.Random) -> str:
    return solution[: rng.randrange(len(solution))]


def planted(problems: Mapping[str, Problem], seed: int) -> list[tuple[Problem, str]]:
    """One for each problem."""
    rng = random.Random(f"codegen25 planted {seed}")
    return [(problem, next(bugs(problem["canonical_solution"], rng))) for problem in problems.values()]


def mixed(problems: Mapping[str, Problem], count: int, seed: int) -> list[tuple[Problem, str]]:
    """`count` samples of all problems in turn: one in four is the canonical solution, the others have a bug."""
    rng = random.Random(f"codegen25 mixed {seed}")
    named = list(problems.values())
    chosen = [named[number % len(named)] for number in range(count)]
    return [
        (p, p["canonical_solution"] if rng.random() < 0.25 else next(bugs(p["canonical_solution"], rng)))
        for p in chosen
    ]
