"""What a benchmark reports: two numbers, their ratio, and the bar that it has to meet. Plain data and arithmetic."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from codegen25.errors import UsageError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What all benchmarks are told. `cache` holds models and peers; `say` tells a person of progress, or nobody."""

    cache: Path
    threads: int
    rounds: int
    peers: tuple[str, ...]
    say: Say

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise UsageError(f"--threads {self.threads}: at least one is needed")
        if self.rounds < 1:
            raise UsageError(f"--rounds {self.rounds}: at least one is needed")


@dataclass(frozen=True)
class Bar:
    """What `ours / peer` has to be: `Bar(">=", 2.5)`."""

    sense: Literal[">=", "<="]
    value: float

    def met(self, ratio: float) -> bool:
        return ratio >= self.value if self.sense == ">=" else ratio <= self.value

    def __str__(self) -> str:
        return f"{self.sense} {self.value:g}"


@dataclass(frozen=True)
class Figure:
    """One comparison. `ours` and `peer` hold a number per round, in `unit`; both are judged by their medians.

    `peer` is empty where the peer could not run; `note` then says why. It may be ourselves in another mode, or a limit
    of the machine: `peer_name` says what.
    """

    name: str
    unit: str
    ours: Sequence[float]
    peer: Sequence[float]
    peer_name: str
    bar: Bar | None = None
    note: str = ""
    more: dict[str, Any] = field(default_factory=dict)  # fields of its own in the JSON

    @property
    def ratio(self) -> float | None:
        """Median of ours over median of the peer; None without either, or where the peer's is 0."""
        if not self.ours or not self.peer or not (peer := statistics.median(self.peer)):
            return None
        ratio = statistics.median(self.ours) / peer
        return ratio if math.isfinite(ratio) else None

    @property
    def holds(self) -> bool | None:
        """Whether the bar is met; None where there is none, or no ratio."""
        return None if self.bar is None or self.ratio is None else self.bar.met(self.ratio)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": _median(self.ours),
            "ours_rounds": [_short(value) for value in self.ours],
            "peer": _median(self.peer),
            "peer_rounds": [_short(value) for value in self.peer],
            "peer_name": self.peer_name,
            "ratio": None if self.ratio is None else _short(self.ratio),
            "bar": None if self.bar is None else str(self.bar),
            "holds": self.holds,
            "note": self.note,
        } | self.more


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _median(values: Sequence[float]) -> float | None:
    return _short(statistics.median(values)) if values else None


def _cell(values: Sequence[float], unit: str) -> str:
    """The median, and how far the rounds lie apart."""
    if not values:
        return "-"
    middle = f"{_number(statistics.median(values))} {unit}"
    return middle if len(values) == 1 else f"{middle} ({_number(min(values))}-{_number(max(values))})"


def _number(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(figures: Sequence[Figure]) -> str:
    """For a person: a line per figure, under a heading, and the notes behind it."""
    rows = [("figure", "ours", "peer", "", "ratio", "bar", "holds")]
    for figure in figures:
        ratio = "-" if figure.ratio is None else f"{figure.ratio:.2f}"
        bar = "" if figure.bar is None else str(figure.bar)
        holds = "" if figure.holds is None else "yes" if figure.holds else "NO"
        ours, peer = _cell(figure.ours, figure.unit), _cell(figure.peer, figure.unit)
        rows.append((figure.name, ours, peer, figure.peer_name, ratio, bar, holds))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"{figure.name}: {figure.note}" for figure in figures if figure.note]
    return "\n".join(lines) + "\n"
