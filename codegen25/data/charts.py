"""Charts as HTML and inline SVG, and the style of the page they stand on; names that are shown are escaped here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape as _escape

from codegen25.data.plain import plain

# Of a column chart, in the units of its own view.
_HEIGHT, _COLUMN, _GAP = 100, 10, 1

STYLE = """
:root { color-scheme: light dark; --page: #fbfaf8; --card: #fff; --ink: #1c1e21; --soft: #646a73; --line: #e4e2dd;
  --track: #efede8; --kept: #2f6fb3; --gone: #d08b2c; }
@media (prefers-color-scheme: dark) { :root { --page: #141619; --card: #1c1f24; --ink: #e8e9eb; --soft: #9aa1ab;
  --line: #2d3138; --track: #272b31; --kept: #6ba6e0; --gone: #e0a955; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; -webkit-text-size-adjust: 100%; }
main { max-width: 76rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { margin: 0; font-size: 1.9rem; letter-spacing: -.02em; }
h2 { margin: 0 0 .9rem; font-size: 1.02rem; }
p { margin: .3rem 0 0; }
.soft, caption, .note { color: var(--soft); }
.note { margin: -.6rem 0 .9rem; font-size: .87rem; }
code, .mono { font: .86em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .8rem; margin: 1.6rem 0; }
.cards { columns: 2 27rem; column-gap: 1rem; margin-bottom: 1rem; }
.tile, .card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem 1.1rem;
  min-width: 0; }
.card { break-inside: avoid; margin-bottom: 1rem; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.25; letter-spacing: -.02em; white-space: nowrap; }
.tile span { color: var(--soft); font-size: .87rem; }
.bars { display: grid; grid-template-columns: fit-content(38%) minmax(3rem, 1fr) max-content; gap: .42rem .8rem;
  align-items: center; margin: 0; }
.bars .row { display: contents; } .bars .row > * { min-width: 0; }
.bars .name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bars .value { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bars .value i { font-style: normal; color: var(--soft); margin-left: .4rem; display: inline-block; min-width: 3.3rem; }
.bars .track { display: flex; height: .85rem; background: var(--track); border-radius: 3px; overflow: hidden; }
.kept { background: var(--kept); fill: var(--kept); } .gone { background: var(--gone); fill: var(--gone); }
.key { display: inline-block; width: .7rem; height: .7rem; border-radius: 2px; margin: 0 .3rem 0 .1rem; }
svg.columns { display: block; width: 100%; height: 9rem; }
svg.columns rect { fill: var(--kept); }
.ticks { display: flex; color: var(--soft); font-size: .78rem; border-top: 1px solid var(--line); padding-top: .2rem; }
.ticks span { flex: 1 1 0; min-width: 0; text-align: center; white-space: nowrap; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: .87rem; }
th, td { padding: .4rem .8rem .4rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
details summary { cursor: pointer; color: var(--kept); }
details ul { margin: .3rem 0 .2rem; padding-left: 1.1rem; }
@media (max-width: 34rem) { main { padding-top: 1.2rem; } h1 { font-size: 1.5rem; }
  .bars { display: block; } .bars .row { display: grid; grid-template-columns: 1fr max-content; gap: .1rem .6rem;
  margin-bottom: .5rem; } .bars .track { grid-column: 1 / -1; grid-row: 2; }
  .bars .value i { min-width: 0; } .bars .value i:empty { display: none; }
  th, td { padding-right: .6rem; } }
"""


def escape(text: str) -> str:
    """Text as HTML, in an element or in an attribute; what is not printable as Python writes it."""
    return _escape(plain(text))


def page(title: str, body: str) -> str:
    """A whole page, which needs nothing from elsewhere and runs nothing."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def card(title: str, content: str, note: str = "") -> str:
    """A titled part of the page; `content` is HTML, and `note` HTML that explains it."""
    explained = f'<p class="note">{note}</p>\n' if note else ""
    return f'<section class="card">\n<h2>{escape(title)}</h2>\n{explained}{content}\n</section>'


def tiles(values: Mapping[str, str]) -> str:
    """The figures to be seen first, by what they count."""
    return "\n".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for name, value in values.items()
    )


def bar(name: str, kept: float, gone: float, value: str, small: str | None = None) -> str:
    """A row of a bar chart: two parts of the full width, each from 0 to 1, and the value in words."""
    parts = "".join(
        f'<span class="{kind}" style="width:{100 * part:.2f}%"></span>'
        for kind, part in (("kept", kept), ("gone", gone))
        if part > 0
    )
    said = escape(value) + ("" if small is None else f"<i>{escape(small)}</i>")
    label = escape(name) or "-"
    cells = {"name": label, "track": parts, "value": said}
    inside = "".join(f'<div class="{kind}">{cell}</div>' for kind, cell in cells.items())
    return f'<div class="row" title="{label}">{inside}</div>'


def bars(rows: Sequence[str]) -> str:
    return '<div class="bars">\n' + "\n".join(rows) + "\n</div>"


def columns(values: Mapping[str, int], every: int = 1) -> str:
    """A column chart of counts by label, of which every so many are written."""
    most = max([1, *values.values()])
    rects = []
    for number, (label, count) in enumerate(values.items()):
        height = _HEIGHT * count / most
        place = f'x="{number * _COLUMN + _GAP / 2}" y="{_HEIGHT - height:.2f}"'
        size = f'width="{_COLUMN - _GAP}" height="{height:.2f}"'
        rects.append(f"<rect {place} {size}><title>{escape(label)}: {count:,}</title></rect>")
    view = f"0 0 {_COLUMN * max(1, len(values))} {_HEIGHT}"
    ticks = [f"<span>{escape(label) if n % every == 0 else ''}</span>" for n, label in enumerate(values)]
    return (
        f'<svg class="columns" viewBox="{view}" preserveAspectRatio="none" role="img">\n'
        + "\n".join(rects)
        + f'\n</svg>\n<div class="ticks">{"".join(ticks)}</div>'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of HTML cells; `numbers` are columns that are set to the right."""

    def cells(tag: str, row: Sequence[str]) -> str:
        right = ["" if place not in numbers else ' class="number"' for place in range(len(row))]
        return "<tr>" + "".join(f"<{tag}{c}>{cell}</{tag}>" for c, cell in zip(right, row, strict=True)) + "</tr>"

    body = "\n".join(cells("td", row) for row in rows)
    header = cells("th", [escape(name) for name in head])
    return f'<div class="scroll"><table>\n<thead>{header}</thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'
