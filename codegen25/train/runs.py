"""Runs as they were written down (`record.py`), read back: also one in progress, or cut off in mid-line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codegen25.errors import CodegenError
from codegen25.train.curves import smoothed
from codegen25.train.record import LOG, RUN

# A point of a curve: tokens learned by then, and a value.
Point = tuple[float, float]


@dataclass(frozen=True)
class Run:
    """What a run's folder says. `steps` and `evaluations` are the lines of its log, in order."""

    name: str
    settings: Mapping[str, Any]
    starts: tuple[Mapping[str, Any], ...]
    steps: tuple[Mapping[str, Any], ...]
    evaluations: tuple[Mapping[str, Any], ...]

    @property
    def last(self) -> Mapping[str, Any]:
        """The newest step; empty where none was taken."""
        return self.steps[-1] if self.steps else {}

    @property
    def loss(self) -> float | None:
        """The running mean of the loss at the end, nats a token."""
        losses = smoothed(self.curve("loss"))
        return losses[-1][1] if losses else None

    def newest(self) -> dict[str, float]:
        """What was measured last, by its dotted names."""
        return {name: points[-1][1] for name, points in self.measured().items()}

    def curve(self, key: str) -> list[Point]:
        """A number of the steps that were taken, over tokens."""
        return [
            (float(line["tokens"]), float(line[key]))
            for line in self.steps
            if "skipped" not in line and _is_number(line.get(key)) and _is_number(line.get("tokens"))
        ]

    def measured(self) -> dict[str, list[Point]]:
        """The numbers of the evaluations by their dotted names, over tokens."""
        found: dict[str, list[Point]] = {}
        for line in self.evaluations:
            for name, value in flat(line["evaluation"]):
                if _is_number(value) and _is_number(line.get("tokens")):
                    found.setdefault(name, []).append((float(line["tokens"]), float(value)))
        return found

    def samples(self) -> list[tuple[int, str, str]]:
        """The texts among the evaluations: step, dotted name, text; the newest first."""
        return [
            (int(line.get("step", 0)), name, value)
            for line in reversed(self.evaluations)
            for name, value in flat(line["evaluation"])
            if isinstance(value, str)
        ]


def flat(value: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """What lies in objects and lists, by dotted names; items of lists are numbered from 1."""
    pairs: Iterator[tuple[str, Any]]
    if isinstance(value, Mapping):
        pairs = ((str(key), one) for key, one in value.items())
    elif isinstance(value, list):
        pairs = ((str(number), one) for number, one in enumerate(value, 1))
    else:
        yield above, value
        return
    for key, one in pairs:
        yield from flat(one, f"{above}.{key}" if above else key)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_run(folder: Path) -> Run:
    """Raises `CodegenError` when `folder` is no run's, or a line other than the last is no line of a log."""
    record = folder / RUN
    try:
        said = json.loads(record.read_text(encoding="utf-8"))
        settings, starts = dict(said["settings"]), tuple(map(dict, said["starts"]))
    except FileNotFoundError as error:
        raise CodegenError(f"{folder}: has no {RUN}; name the --out of a `codegen25 train`") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CodegenError(f"{record}: cannot be read ({error}); name the --out of a `codegen25 train`") from error
    lines = list(_lines(folder / LOG))
    evaluations = tuple(line for line in lines if isinstance(line.get("evaluation"), Mapping))
    steps = tuple(line for line in lines if "evaluation" not in line)
    return Run(folder.resolve().name, settings, starts, steps, evaluations)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log; the last may be half written, and there may be none yet."""
    try:
        pieces = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    for number, piece in enumerate(pieces[:-1], 1):
        try:
            line = json.loads(piece)
            if not isinstance(line, dict):
                raise ValueError("no object")
        except ValueError as error:
            raise CodegenError(f"{path}:{number}: not a line of a training log ({error}); remove the line") from error
        yield line
