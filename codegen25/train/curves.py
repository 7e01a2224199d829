"""Curves of several runs in one figure, as inline SVG that takes its ink from the page (`data/charts.py`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from codegen25.data.charts import escape
from codegen25.data.plain import short

Point = tuple[float, float]
# Legible on a light page and on a dark one.
COLORS = ("#3d85c6", "#d9822b", "#3f9e6e", "#c2504f", "#8a6fd0", "#8c8c8c", "#b0852f", "#2fa3a3")
WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 10, 30
POINTS = 300  # of a curve; more are averaged in groups
TICKS = 5


def thinned(points: Sequence[Point], most: int = POINTS) -> list[Point]:
    """At most `most` points, each the mean of a run of neighbours."""
    size = -(-len(points) // most) if points else 1
    groups = (points[start : start + size] for start in range(0, len(points), size))
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def smoothed(points: Sequence[Point], weight: float = 0.9) -> list[Point]:
    """The exponential mean of the values, its start not biased towards zero (Kingma and Ba, 2015)."""
    out, mean, total = [], 0.0, 0.0
    for x, y in points:
        mean, total = weight * mean + (1 - weight) * y, weight * total + (1 - weight)
        out.append((x, mean / total))
    return out


def ticks(low: float, high: float, count: int = TICKS) -> list[float]:
    """About `count` round numbers from `low` to `high`."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def figure(curves: Mapping[str, Sequence[Point]], *, zero: bool = False, smooth: bool = False) -> str:
    """Curves by name, and a legend with their last values; `zero`: the axis begins there.

    `smooth`: every curve also as its running mean, the values themselves faint behind. Values that are no finite
    numbers are left out; "" when nothing is left.
    """
    known = {
        name: [p for p in points if math.isfinite(p[0]) and math.isfinite(p[1])] for name, points in curves.items()
    }
    known = {name: points for name, points in known.items() if points}
    if not known:
        return ""
    lines = {name: smoothed(points) if smooth else points for name, points in known.items()}
    frame = _Frame(known, lines, zero)
    parts = [frame.axes()]
    for number, (name, points) in enumerate(lines.items()):
        color = COLORS[number % len(COLORS)]
        if smooth:
            parts.append(frame.line(thinned(known[name]), color, 0.25))
        parts.append(frame.line(thinned(points), color, 1.0))
    legend = "".join(
        f'<span><i class="key" style="background:{COLORS[number % len(COLORS)]}"></i>{escape(name)} '
        f'<b class="soft">{value(points[-1][1])}</b></span> &nbsp; '
        for number, (name, points) in enumerate(lines.items())
    )
    view = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" style="display:block;width:100%;height:auto">'
    return f"{view}\n" + "\n".join(parts) + f'\n</svg>\n<p class="note" style="margin:.4rem 0 0">{legend}</p>'


def value(number: float) -> str:
    """A number as it stands on an axis."""
    if abs(number) >= 1000:
        return short(number)
    return f"{number:.4g}"


class _Frame:
    """Where values lie in the picture."""

    def __init__(self, known: Mapping[str, Sequence[Point]], lines: Mapping[str, Sequence[Point]], zero: bool) -> None:
        xs = [x for points in known.values() for x, _ in points]
        ys = sorted(y for points in lines.values() for _, y in points)
        self.x = _widened(min(0.0, *xs), max(0.0, *xs), 0.0)
        self.y = _widened(min(0.0, ys[0]) if zero else ys[0], ys[-1], 0.05)

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (min(max(y, self.y[0]), self.y[1]) - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def line(self, points: Sequence[Point], color: str, opacity: float) -> str:
        places = [self.at(*point) for point in points]
        if len(places) == 1:
            x, y = places[0]
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}" opacity="{opacity}"/>'
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        style = f'fill="none" stroke="{color}" stroke-width="1.8" stroke-linejoin="round" opacity="{opacity}"'
        return f'<polyline points="{path}" {style}/>'

    def axes(self) -> str:
        text = 'font-size="12" style="fill:var(--soft)"'
        rule = 'style="stroke:var(--line)"'
        parts = []
        for tick in ticks(*self.y):
            _, y = self.at(self.x[0], tick)
            parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" {rule}/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" {text}>{value(tick)}</text>')
        for tick in ticks(*self.x):
            x, _ = self.at(tick, self.y[0])
            end = "end" if x > WIDTH - RIGHT - 20 else "middle"
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 10}" text-anchor="{end}" {text}>{short(tick)}</text>')
        return "\n".join(parts)


def _widened(low: float, high: float, margin: float) -> tuple[float, float]:
    """A range with `margin` of itself on both sides (but not below a zero); never an empty one."""
    size = high - low
    if size <= 1e-9 * max(1.0, abs(low), abs(high)):
        return low - 0.05 * (abs(low) or 1.0), high + 0.05 * (abs(high) or 1.0)
    return low - margin * size if low else 0.0, high + margin * size
