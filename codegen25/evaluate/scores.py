"""What verdicts say: scores with intervals, per column and between two columns over the same tasks, and their table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from codegen25.evaluate.generate import COMPLETION, LEFT_TO_RIGHT
from codegen25.evaluate.judging import Judged
from codegen25.evaluate.passk import Estimate, bootstrap, mcnemar, paired_bootstrap, pass_at_k, wilson
from codegen25.evaluate.tasks import TaskSet


@dataclass(frozen=True)
class Score:
    """A column's score. Shares are from 0 to 1, and means over tasks where tasks have several samples.

    `pass_at` by k, for every k that all tasks have samples for. `exact`: equal to the canonical solution but for line
    feeds at the end; None without one. `ended`: the model itself ended the answer; None where that says nothing.
    """

    judged: Judged
    tasks: TaskSet
    ks: tuple[int, ...]

    @cached_property
    def passes(self) -> dict[str, list[bool]]:
        """By task, which of its samples passed."""
        found: dict[str, list[bool]] = {}
        for sample, verdict in zip(self.judged.column.samples, self.judged.verdicts, strict=True):
            found.setdefault(sample.task_id, []).append(verdict.status == "passed")
        return found

    @cached_property
    def pass_at(self) -> dict[int, Estimate]:
        fewest = min(map(len, self.passes.values()))
        return {k: self._pass_at(k) for k in self.ks if k <= fewest}

    def _pass_at(self, k: int) -> Estimate:
        values = [pass_at_k(len(passed), sum(passed), k) for passed in self.passes.values()]
        if all(value in (0, 1) for value in values):  # as with one sample of each task: a share of tasks
            return wilson(round(sum(values)), len(values))
        return bootstrap(values)

    @cached_property
    def outcomes(self) -> dict[str, int]:
        return dict(Counter(verdict.status for verdict in self.judged.verdicts).most_common())

    @cached_property
    def exact(self) -> float | None:
        known = self.tasks.by_id
        pairs = [(s.text, known[s.task_id].canonical_solution) for s in self.judged.column.samples if not s.is_solution]
        if not pairs or not all(canonical for _, canonical in pairs):
            return None
        return fmean(text.rstrip("\n") == canonical.rstrip("\n") for text, canonical in pairs)

    @cached_property
    def ended(self) -> float | None:
        reasons = [sample.finish_reason for sample in self.judged.column.samples]
        if self.judged.column.protocol in (COMPLETION, LEFT_TO_RIGHT) or not all(reasons):
            return None
        return fmean(reason == "stop" for reason in reasons)

    def as_json(self) -> dict[str, Any]:
        column = self.judged.column
        return {
            "name": column.name, "protocol": column.protocol, "rule": column.rule,
            "tasks": len(self.passes), "samples": len(column.samples),
            "pass": {str(k): vars(estimate) for k, estimate in self.pass_at.items()},
            "exact": self.exact, "ended": self.ended, "outcomes": self.outcomes,
        }  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """`first` minus `second`, in pass@1 over the `tasks` that both have; `p` by McNemar where each has one sample."""

    first: str
    second: str
    tasks: int
    difference: Estimate
    first_only: int | None
    second_only: int | None
    p: float | None

    def as_json(self) -> dict[str, Any]:
        return vars(self) | {"difference": vars(self.difference)}


def compare(first: Score, second: Score) -> Comparison | None:
    """None when they share no task."""
    shared = [name for name in first.passes if name in second.passes]
    if not shared:
        return None
    ours, theirs = ([fmean(score.passes[name]) for name in shared] for score in (first, second))
    single = all(len(score.passes[name]) == 1 for score in (first, second) for name in shared)
    name, other = first.judged.column.name, second.judged.column.name
    difference = paired_bootstrap(ours, theirs)
    if not single:
        return Comparison(name, other, len(shared), difference, None, None, None)
    first_only = sum(a > b for a, b in zip(ours, theirs, strict=True))
    second_only = sum(a < b for a, b in zip(ours, theirs, strict=True))
    p = mcnemar(first_only, second_only)
    return Comparison(name, other, len(shared), difference, first_only, second_only, p)


def comparisons(scores: Sequence[Score]) -> list[Comparison]:
    """Infilling with left-to-right under the same rule; samples from anywhere, and all others, with the first."""
    pairs = []
    for score in scores[1:]:
        column = score.judged.column
        baseline = scores[0]
        if scores[0].judged.column.protocol == LEFT_TO_RIGHT:
            same = [s for s in scores if _is_baseline(s, column.rule)]
            if column.protocol == LEFT_TO_RIGHT or not same:
                continue
            baseline = same[0]
        pairs.append(compare(score, baseline))
    return [pair for pair in pairs if pair is not None]


def _is_baseline(score: Score, rule: str) -> bool:
    return score.judged.column.protocol == LEFT_TO_RIGHT and score.judged.column.rule == rule


# --------------------------------------------------------------------------------------------------------------- tables


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def shown(estimate: Estimate) -> str:
    return f"{percent(estimate.value)} [{percent(estimate.low)}, {percent(estimate.high)}]"


def score_rows(scores: Sequence[Score]) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a table of scores, in percent."""
    ks = sorted({k for score in scores for k in score.pass_at})
    head = ["", "tasks", *(f"pass@{k} [95 %]" for k in ks), "exact", "ended itself", "outcomes"]
    rows = []
    for score in scores:
        cells = [shown(score.pass_at[k]) if k in score.pass_at else "-" for k in ks]
        outcomes = ", ".join(f"{name} {count}" for name, count in score.outcomes.items())
        name, tasks = score.judged.column.name, str(len(score.passes))
        rows.append([name, tasks, *cells, percent(score.exact), percent(score.ended), outcomes])
    return head, rows


def comparison_rows(pairs: Sequence[Comparison]) -> tuple[list[str], list[list[str]]]:
    head = ["pass@1, points", "tasks", "difference [95 %]", "only the first", "only the second", "p (McNemar)"]
    rows = []
    for pair in pairs:
        counts = ["-" if count is None else str(count) for count in (pair.first_only, pair.second_only)]
        p = "-" if pair.p is None else f"{pair.p:.2g}"
        rows.append([f"{pair.first} - {pair.second}", str(pair.tasks), shown(pair.difference), *counts, p])
    return head, rows


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns set one under the other for a terminal."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    return "".join(line.rstrip() + "\n" for line in lines)


def report_json(tasks: TaskSet, scores: Sequence[Score], **origin: Any) -> dict[str, Any]:
    """One object of everything but the samples."""
    return {
        "set": tasks.name, "tasks": len(tasks.tasks), **origin,
        "scores": [score.as_json() for score in scores],
        "comparisons": [pair.as_json() for pair in comparisons(scores)],
    }  # fmt: skip
