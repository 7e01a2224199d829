"""The counts of a corpus as one figure, by matplotlib. The same counts give the same bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from codegen25.data.plain import binary, plain, short
from codegen25.errors import CodegenError

# Bars of a group.
ROWS = 10
# Room for a label beyond the longest bar.
ROOM = 1.25
KEPT, GONE = "#2f6fb3", "#d9a441"
ENDINGS = (".svg", ".png")


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw what `stats` found. Raises CodegenError when the file is no SVG or PNG, or cannot be written."""
    if path.suffix.lower() not in ENDINGS:
        raise CodegenError(f"{path}: a plot is an image; name a file that ends in .svg or .png")
    # Labels are names that somebody made up: a dollar sign in them begins no formula.
    with mpl.rc_context({"svg.hashsalt": "codegen25", "svg.fonttype": "path", "text.parse_math": False}):
        figure = Figure(figsize=(12, 8), layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.15))
        FigureCanvasAgg(figure)
        axes = figure.subplots(2, 2)
        _bars(axes[0, 0], "Tokens by language", {name: one["tokens"] for name, one in found["languages"].items()})
        _bars(axes[0, 1], "Tokens by licence", {name: one["tokens"] for name, one in found["licenses"].items()})
        _funnel(axes[1, 0], found)
        _lengths(axes[1, 1], found["lengths"])
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    ending = path.suffix.lower()[1:]
    try:
        figure.savefig(
            aside, format=ending, dpi=150, metadata={"Date": None} if ending == "svg" else {"Software": None}
        )
        aside.replace(path)
    except OSError as error:
        raise CodegenError(f"{path}: cannot be written ({error.strerror}); name another file") from None
    finally:
        aside.unlink(missing_ok=True)


def _clean(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontweight="bold")
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)


def _bars(axes: Axes, title: str, values: dict[str, int]) -> None:
    """Bars from the largest down; what has no bar of its own is one."""
    shown = dict(list(values.items())[:ROWS])
    if rest := sum(values.values()) - sum(shown.values()):
        shown[f"{len(values) - ROWS} others"] = rest
    names = [_label(name) for name in shown]
    bars = axes.barh(range(len(shown)), list(shown.values()), color=KEPT)
    axes.bar_label(bars, [f" {short(value)}" for value in shown.values()])
    axes.set_yticks(range(len(shown)), names)
    axes.set_ylim(max(len(shown), ROWS) - 0.5, -0.5)
    axes.set_xlim(0, ROOM * max([1, *shown.values()]))
    axes.set_xticks([])
    _clean(axes, title)


def _label(name: str) -> str:
    """Letters that the figure's own font has, and not too many of them."""
    text = plain(name).encode("ascii", "backslashreplace").decode() or "-"
    return text if len(text) <= 32 else f"{text[:31]}…"


def _funnel(axes: Axes, found: dict[str, Any]) -> None:
    rows = [{"stage": "files", "dropped": 0, "left": found["files"]}, *found["funnel"]]
    places = range(len(rows))
    axes.barh(places, [row["left"] for row in rows], color=KEPT)
    bars = axes.barh(places, [row["dropped"] for row in rows], left=[row["left"] for row in rows], color=GONE)
    labels = [f" {row['left']:,}" + (f"  (-{row['dropped']:,})" if row["dropped"] else "") for row in rows]
    axes.bar_label(bars, labels)
    axes.set_yticks(places, [_label(row["stage"]) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, ROOM * max(1, found["files"]))
    axes.set_xticks([])
    _clean(axes, "Files left after each stage")


def _lengths(axes: Axes, lengths: dict[str, int]) -> None:
    axes.bar(range(len(lengths)), list(lengths.values()), width=0.9, color=KEPT)
    axes.set_xticks(range(len(lengths)), [binary(int(length)) for length in lengths])
    axes.set_yticks([])
    axes.set_xlabel("tokens, from this many on")
    _clean(axes, "Documents by length")
