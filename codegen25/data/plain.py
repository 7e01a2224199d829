"""Text for a terminal: numbers that are read at a glance, columns that line up, nothing that moves the cursor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_UNITS = ("", "k", "M", "G", "T", "P")


def plain(text: str) -> str:
    """The text, and what in it is not printable, such as the beginning of an escape sequence, as Python writes it."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def first_line(said: Exception | str) -> str:
    """What a library said, as one line: the first that is not blank, else the name of the error."""
    return next((line.strip() for line in str(said).splitlines() if line.strip()), type(said).__name__)


def short(number: float, unit: str = "") -> str:
    """A count in three digits or so: 999, 1.23 M, 45.6 MB."""
    power = 0
    while abs(number) >= 999.5 and power < len(_UNITS) - 1:
        number, power = number / 1000, power + 1
    if power == 0:
        return f"{number:.0f} {unit}".rstrip()
    digits = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:.{digits}f} {_UNITS[power]}{unit}"


def binary(number: int) -> str:
    """A power of two: 512, 1k for 1024, 64k."""
    return f"{number}" if number < 1024 else f"{number >> 10}k"


def share(part: float, whole: float) -> str:
    """A part of a whole in per cent; "" of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else ""


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows as lines: the first column to the left, the others to the right."""
    table = [[plain(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *[c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]]).rstrip()
        for row in table
    ]


def aligned_left(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Names and what there is to say of them, a line each."""
    width = max(len(name) for name, _ in rows)
    return [f"{name:{width}}  {plain(value)}" for name, value in rows]
