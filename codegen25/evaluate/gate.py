"""The gate of a model: single-line infilling by three protocols on a seeded subset of the tasks, all greedy.

    left-to-right   the text before the hole is the prompt; ends with the first line that is not blank
    infill          plain infilling: the hole stands at the cursor; ends with `<eom>`
    anchored        the hole stands some lines before the cursor, which are handed back; ends with `<eom>`

Generating and judging are apart: samples are appended to a JSONL file as they come, and what is in it is not made
again. The infilling samples are judged twice, as they stand (`eom`) and cut after their first line (`line`), which is
the stop rule that left-to-right has. The length of the true solution is never used.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codegen25.complete import Completion, Model
from codegen25.errors import CodegenError, UsageError
from codegen25.evaluate.judge import LIMITS, Limits, Verdict, judge, program
from codegen25.evaluate.singleline import Task

LEFT_TO_RIGHT = "left-to-right"
INFILL = "infill"
ANCHORED = "anchored"
# Blank lines that a left-to-right answer may begin with.
MAX_BLANK_LINES = 3


@dataclass(frozen=True)
class Sample:
    """An answer to a task. `finish` is `stop` for an infilling that `<eom>` ended. `run` tells settings apart."""

    task_id: str
    completion: str
    protocol: str
    finish: str
    run: str = ""


Generate = Callable[[list[Task]], list[Sample]]
Notice = Callable[[str], None]


def subset(tasks: Sequence[Task], count: int, seed: int) -> list[Task]:
    """`count` of the tasks drawn by `seed`, in their order. A larger subset of the same seed holds the smaller one."""
    if not 1 <= count <= len(tasks):
        raise UsageError(f"--tasks is {count}; choose from 1 to {len(tasks)}")
    order = list(range(len(tasks)))
    random.Random(seed).shuffle(order)
    return [tasks[i] for i in sorted(order[:count])]


def first_line(text: str) -> str:
    """The text up to its first line that is not blank, closed by a line feed."""
    blank = len(text) - len(text.lstrip())
    end = text.find("\n", blank)
    return (text if end < 0 else text[:end]).removesuffix("\n") + "\n"


def generators(model: Model, *, anchor_lines: int | None, max_tokens: int) -> dict[str, Generate]:
    """The three protocols on a model, by name."""

    def infilling(protocol: str, anchor: int | None) -> Generate:
        def generate(tasks: list[Task]) -> list[Sample]:
            pairs = [(task.prompt, task.suffix) for task in tasks]
            return _samples(tasks, protocol, model.infill_batch(pairs, anchor=anchor, max_tokens=max_tokens))

        return generate

    def left_to_right(tasks: list[Task]) -> list[Sample]:
        return _lines(model, tasks, max_tokens)

    return {LEFT_TO_RIGHT: left_to_right, INFILL: infilling(INFILL, 0), ANCHORED: infilling(ANCHORED, anchor_lines)}


def _samples(tasks: Sequence[Task], protocol: str, completions: Sequence[Completion]) -> list[Sample]:
    return [
        Sample(task.task_id, completion.text, protocol, completion.finish_reason)
        for task, completion in zip(tasks, completions, strict=True)
    ]


def _lines(model: Model, tasks: list[Task], max_tokens: int) -> list[Sample]:
    """One line each. A stop string ends at any line feed, so what came out blank is continued behind it."""
    done: dict[str, Sample] = {}
    blank = ""
    waiting = tasks
    while waiting:
        prompts = [task.prompt + blank for task in waiting]
        samples = _samples(waiting, LEFT_TO_RIGHT, model.complete_batch(prompts, max_tokens=max_tokens, stop=("\n",)))
        again = []
        for task, sample in zip(waiting, samples, strict=True):
            if sample.finish == "stop" and not sample.completion.strip() and len(blank) < MAX_BLANK_LINES:
                again.append(task)
            text = blank + sample.completion
            done[task.task_id] = Sample(task.task_id, text, LEFT_TO_RIGHT, sample.finish)
        waiting = again
        blank += "\n"
    return [done[task.task_id] for task in tasks]


# ------------------------------------------------------------------------------------------------------------- samples


def read_samples(path: Path) -> list[Sample]:
    """The samples of a file, [] when there is none. A last line without its line feed was interrupted and is left out.

    Raises CodegenError for a line that is no sample.
    """
    if not path.exists():
        return []
    samples = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            samples.append(Sample(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise CodegenError(f"{path}:{number}: not a sample ({error}); remove the file to generate again") from error
    return samples


def generate_all(
    tasks: Sequence[Task],
    protocols: Mapping[str, Generate],
    path: Path,
    *,
    run: str,
    batch: int = 8,
    notice: Notice = lambda line: None,
) -> dict[str, list[Sample]]:
    """A sample of every task by every protocol, in order; those that `path` lacks are made and appended to it.

    Raises CodegenError when `path` holds samples of another run (other weights or settings).
    """
    existing = read_samples(path)
    if any(sample.run != run for sample in existing):
        raise CodegenError(f"{path}: holds samples of other weights or settings; remove it or choose another --out")
    _drop_interrupted_line(path)
    done = {(sample.protocol, sample.task_id): sample for sample in existing}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="\n") as file:
        for protocol, generate in protocols.items():
            missing = [task for task in tasks if (protocol, task.task_id) not in done]
            for start in range(0, len(missing), batch):
                for sample in generate(missing[start : start + batch]):
                    sample = Sample(**{**asdict(sample), "run": run})
                    done[protocol, sample.task_id] = sample
                    file.write(json.dumps(asdict(sample)) + "\n")
                file.flush()
                notice(f"{protocol}: {len(tasks) - len(missing) + min(start + batch, len(missing))}/{len(tasks)}")
    return {protocol: [done[protocol, task.task_id] for task in tasks] for protocol in protocols}


def _drop_interrupted_line(path: Path) -> None:
    if path.exists():
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with path.open("r+b") as file:
                file.truncate(whole)


def run_id(folder: Path, settings: Mapping[str, Any]) -> tuple[str, str]:
    """(what tells samples apart: 12 hexadecimal digits of weights and settings, SHA-256 of the model's files)."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()) if folder.is_dir() else [folder]:  # a GGUF file is a model by itself
        if file.is_file():
            with file.open("rb") as data:
                digest.update(f"{file.name}\0{hashlib.file_digest(data, 'sha256').hexdigest()}\n".encode())
    weights = digest.hexdigest()
    return hashlib.sha256(f"{weights}{json.dumps(settings, sort_keys=True)}".encode()).hexdigest()[:12], weights


# -------------------------------------------------------------------------------------------------------------- scores


def columns(protocol: str) -> tuple[str, ...]:
    """The stop rules that a protocol's samples are scored by."""
    return ("line",) if protocol == LEFT_TO_RIGHT else ("eom", "line")


def scores(
    tasks: Sequence[Task], samples: Mapping[str, Sequence[Sample]], *, run_code: bool, limits: Limits = LIMITS
) -> dict[str, Any]:
    """Per protocol: the share `ended_by_eom` (None left to right), and per stop rule `exact` and `pass@1`.

    Exact compares with the true line, line feeds at the end aside. `pass@1` is None without `run_code`: nothing runs.
    """
    texts = {
        (protocol, column): [s.completion if column == "eom" else first_line(s.completion) for s in answers]
        for protocol, answers in samples.items()
        for column in columns(protocol)
    }
    verdicts: dict[tuple[str, str], list[Verdict]] = {}
    if run_code:
        programs = [program(task, text) for key in texts for task, text in zip(tasks, texts[key], strict=True)]
        all_verdicts = list(judge(programs, limits=limits, route="unsafe"))
        n = len(tasks)
        verdicts = {key: all_verdicts[i * n : (i + 1) * n] for i, key in enumerate(texts)}
    out: dict[str, Any] = {}
    for protocol, answers in samples.items():
        ended = sum(sample.finish == "stop" for sample in answers) / len(tasks)
        out[protocol] = {"ended_by_eom": None if protocol == LEFT_TO_RIGHT else ended} | {
            column: _column(tasks, texts[protocol, column], verdicts.get((protocol, column)))
            for column in columns(protocol)
        }
    return out


def _column(tasks: Sequence[Task], texts: Sequence[str], verdicts: Sequence[Verdict] | None) -> dict[str, Any]:
    is_exact = [
        text.rstrip("\n") == task.canonical_solution.rstrip("\n") for task, text in zip(tasks, texts, strict=True)
    ]
    column: dict[str, Any] = {"exact": sum(is_exact) / len(tasks), "pass@1": None, "verdicts": None}
    if verdicts is not None:
        column["pass@1"] = sum(verdict.status == "passed" for verdict in verdicts) / len(tasks)
        column["verdicts"] = {task.task_id: verdict.status for task, verdict in zip(tasks, verdicts, strict=True)}
    return column


HEADER = (
    "| model | tasks | left-to-right | infill, to `<eom>` | infill, line | anchored, to `<eom>` | anchored, line "
    "| `<eom>` infill / anchored | bits per byte | span nats plain / anchored / left-to-right |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def table_row(report: Mapping[str, Any]) -> str:
    """A row of the table under `HEADER`: `pass@1 / exact` in percent; `-` for what was not measured."""
    protocols, likelihood = report["protocols"], report["likelihood"]

    def cell(protocol: str, column: str) -> str:
        scored = protocols[protocol][column]
        return f"{_percent(scored['pass@1'])} / {_percent(scored['exact'])}"

    cells = [report["model"], str(report["tasks"]), cell(LEFT_TO_RIGHT, "line")]
    cells += [cell(protocol, column) for protocol in (INFILL, ANCHORED) for column in ("eom", "line")]
    cells.append(" / ".join(_percent(protocols[protocol]["ended_by_eom"]) for protocol in (INFILL, ANCHORED)))
    if likelihood is None:
        cells += ["-", "-"]
    else:
        spans = likelihood["span_nats"]
        cells.append(f"{likelihood['bits_per_byte']:.3f}")
        cells.append(f"{spans['plain']:.2f} / {spans['anchored']:.2f} / {spans['left_to_right']:.2f}")
    return "| " + " | ".join(cells) + " |"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
