"""Runs to look at: one HTML page with their curves, what was measured on the way, their settings, and samples.

The page stands on its own and runs nothing (`data/charts.py`). Runs may still be in progress.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codegen25.data.charts import card, escape, page, table, tiles
from codegen25.data.document import write_text
from codegen25.data.plain import short
from codegen25.train.curves import figure, value
from codegen25.train.forecast import TIMES, Forecast, forecast
from codegen25.train.runs import Point, Run, flat

# Of what the steps say: title, and whether its axis begins at zero and a mean is drawn.
CURVES = {
    "loss": ("Loss, nats a token", False, True),
    "rate": ("Learning rate", True, False),
    "tokens_per_second": ("Tokens a second", True, True),
    "mfu": ("Share of the measured peak", True, True),
    "norm": ("Norm of the gradient", True, True),
}
SAMPLES = 24  # texts that are shown of a run


def write_report(runs: Sequence[Run], path: Path) -> None:
    """Write the page. Raises OSError when the disk refuses."""
    named = _named(runs)
    summaries = {name: summary(run) for name, run in named.items()}
    title = "Run" if len(runs) == 1 else f"{len(runs)} runs"
    parts = [
        _head(title, named, summaries),
        '<div class="cards">',
        *_steps(named),
        *_measured(named),
        *_forecasts(summaries),
        "</div>",
        *_samples(named),
        *_settings(named),
    ]
    write_text(path, [page(title, "\n".join(parts))])


def _named(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by name; where two have one name, numbered."""
    counts = Counter(run.name for run in runs)
    seen: Counter[str] = Counter()
    named = {}
    for run in runs:
        seen[run.name] += 1
        named[run.name if counts[run.name] == 1 else f"{run.name} ({seen[run.name]})"] = run
    return named


def _head(title: str, named: dict[str, Run], summaries: dict[str, dict[str, Any]]) -> str:
    parts = []
    for name, run in named.items():
        found = summaries[name]
        loss, speed = ("-" if found[key] is None else value(found[key]) for key in ("loss", "tokens_per_second"))
        values = {
            "steps": f"{found['step']:,} of {_planned(run)}",
            "tokens": short(found["tokens"]),
            "loss, smoothed": loss,
            "tokens a second": speed,
            "starts": f"{len(run.starts)}",
        }
        if skipped := sum("skipped" in line for line in run.steps):
            values["steps skipped"] = f"{skipped:,}"
        parts.append(
            f'<h2 style="margin:1.4rem 0 -.8rem">{escape(name)}</h2>\n<div class="tiles">\n{tiles(values)}\n</div>'
        )
    return f"<header>\n<h1>{escape(title)}</h1>\n" + "\n".join(parts) + "\n</header>"


def _planned(run: Run) -> str:
    steps = dict(flat(run.settings)).get("train.steps")
    return f"{steps:,}" if isinstance(steps, int) else "?"


def _steps(named: dict[str, Run]) -> list[str]:
    found = []
    for key, (title, zero, smooth) in CURVES.items():
        drawn = figure({name: run.curve(key) for name, run in named.items()}, zero=zero, smooth=smooth)
        if drawn:
            found.append(card(title, drawn, "Over tokens." if key == "loss" else ""))
    return found


def _measured(named: dict[str, Run]) -> list[str]:
    """A figure for each first name of what was measured, a curve for each run and rest of the name."""
    groups: dict[str, dict[str, list[Point]]] = {}
    for name, run in named.items():
        for dotted, points in run.measured().items():
            first, _, rest = dotted.partition(".")
            label = " ".join(filter(None, [name if len(named) > 1 else "", rest])) or first
            groups.setdefault(first, {})[label] = points
    return [card(first.replace("_", " "), figure(curves), "Held-out, over tokens.") for first, curves in groups.items()]


def _forecasts(summaries: dict[str, dict[str, Any]]) -> list[str]:
    """What more tokens would bring each run, where its losses tell."""
    rows = []
    for name, one in summaries.items():
        if found := one["forecast"]:
            rows.append([escape(name), short(found["tokens"]), f"{found['loss']:.3f}", *map(_told, found["more"])])
    note = (
        "The loss before decay, by a power law through the losses at the highest rate, with the interval of eight in "
        "ten fits to losses drawn with replacement, and the hours from here at the run's speed."
    )
    head = ["run", "tokens", "loss", *(f"{times} times the tokens" for times in TIMES)]
    return [card("What more tokens would bring", table(head, rows, numbers=(1, 2)), note)] if rows else []


def summary(run: Run) -> dict[str, Any]:
    """A run in numbers. Losses are training losses in nats a token; `forecast` is None where they are too few."""
    speeds = run.curve("tokens_per_second")
    speed = sum(y for _, y in speeds) / len(speeds) if speeds else None
    law, last = forecast(run), run.last
    return {
        "run": run.name, "step": last.get("step", 0), "tokens": last.get("tokens", 0), "tokens_per_second": speed,
        "loss": run.loss, "measured": run.newest(),
        "forecast": None if law is None else {
            "tokens": law.last, "loss": law.at(law.last), "floor": law.floor, "scale": law.scale,
            "exponent": law.exponent, "more": [_expected(law, times, speed) for times in TIMES],
        },
    }  # fmt: skip


def _expected(law: Forecast, times: int, speed: float | None) -> dict[str, Any]:
    low, high = law.interval(times * law.last)
    hours = (times - 1) * law.last / speed / 3600 if speed else None
    return {"times": times, "loss": law.at(times * law.last), "low": low, "high": high, "hours": hours}


def _told(expected: dict[str, Any]) -> str:
    after = f" in {expected['hours']:.2g} h" if expected["hours"] else ""
    return f"{expected['loss']:.3f} ({expected['low']:.3f} to {expected['high']:.3f}){after}"


def _samples(named: dict[str, Run]) -> list[str]:
    rows = [
        [escape(name), f"{step:,}", escape(what), f'<pre class="mono" style="white-space:pre-wrap">{_text(text)}</pre>']
        for name, run in named.items()
        for step, what, text in run.samples()[:SAMPLES]
    ]
    return [card("Samples", table(["run", "step", "", "text"], rows, numbers=(1,)))] if rows else []


def _text(text: str) -> str:
    """A text of several lines as HTML."""
    return "\n".join(escape(line.expandtabs(4)) for line in text.split("\n"))


def _settings(named: dict[str, Run]) -> list[str]:
    """What the runs differ in first; what they have in common folded away."""
    said = {name: _said(run) for name, run in named.items()}
    keys = list(dict.fromkeys(key for one in said.values() for key in one))
    rows = {key: [said[name].get(key, "-") for name in named] for key in keys}
    head = ["setting", *named]

    def cells(keys: Sequence[str]) -> str:
        return table(head, [[escape(key), *(f"<code>{escape(v)}</code>" for v in rows[key])] for key in keys])

    differing = [key for key in keys if len(set(rows[key])) > 1]
    common = [key for key in keys if key not in differing]
    found = []
    if differing:
        found.append(card("Settings that differ", cells(differing)))
    summary = "common to all" if len(named) > 1 else "all"
    folded = f"<details open><summary>{summary}</summary>{cells(common)}</details>"
    return [*found, card("Settings", folded)] if common else found


def _said(run: Run) -> dict[str, str]:
    """The settings, and what is known of the newest start."""
    start: dict[str, Any] = dict(run.starts[-1]) if run.starts else {}
    pairs = [*flat(run.settings), *(("start." + key, one) for key, one in flat(start))]
    return {key: json.dumps(one, ensure_ascii=False) for key, one in pairs}
