"""Which spans of a text are cut out: a small function for each kind, with all chance from the generator passed in.

A span is [start, end) in characters. Spans come in order, are never empty, and leave at least a character between one
another, so that a reader of the layout sees every border. A share bounds what all spans of a text cover together.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np

from codegen25.tokenizer import Tokenizer

Span = tuple[int, int]

# Of a cursor: lines that are missing at most, lines of the anchor at most, and how often the cursor stands inside a
# line, the rest of which is missing.
MISSING_LINES, ANCHOR_LINES, INSIDE_LINE = 4, 12, 0.4
# Of dense spans: lines of a span at most. The text between two spans is as long on average, so half is cut out.
DENSE_LINES = 6
# Spans that meet one already drawn are drawn again, so often for each hole; then there are fewer holes.
_TRIES = 8


def line_starts(text: str) -> list[int]:
    """Where lines begin: at 0, and behind every line feed that something follows."""
    return [0, *(found.end() for found in re.finditer("\n", text) if found.end() < len(text))]


def token_borders(tokenizer: Tokenizer, text: str) -> list[int]:
    """Where tokens of `text` begin and end, in characters; a border inside a character is none."""
    ends = [0, *accumulate(len(tokenizer.token_bytes(id)) for id in tokenizer.encode(text))]
    if text.isascii():
        return ends
    data = np.frombuffer(text.encode(), np.uint8)
    starts = np.append((data & 0xC0) != 0x80, True)  # bytes that begin a character, and the end of the text
    character = np.cumsum(starts) - 1
    return [int(character[end]) for end in ends if starts[end]]


def apart(draw: Callable[[], Span | None], holes: int) -> list[Span]:
    """Up to `holes` spans in order, a character or more apart; fewer when they do not fit beside one another."""
    spans: list[Span] = []
    for _ in range(_TRIES * holes):
        if len(spans) == holes:
            break
        span = draw()
        if span is not None and all(span[1] < start or span[0] > end for start, end in spans):
            spans.append(span)
    return sorted(spans)


def characters(text: str, holes: int, share: float, rng: random.Random) -> list[Span]:
    """Spans that begin and end anywhere, also inside a word."""
    return _runs(range(len(text) + 1), holes, share, rng)


def tokens(borders: Sequence[int], holes: int, share: float, rng: random.Random) -> list[Span]:
    """Spans that begin and end where tokens do; `borders` is `token_borders` of the text."""
    return _runs(borders, holes, share, rng)


def lines(text: str, holes: int, share: float, rng: random.Random) -> list[Span]:
    """Spans of whole lines."""
    return _runs([*line_starts(text), len(text)], holes, share, rng)


def cursors(text: str, holes: int, share: float, rng: random.Random) -> list[Span]:
    """Spans from the start of a line to anywhere in the same or a later one, as when a cursor stands there."""
    borders = [*line_starts(text), len(text)]

    def draw() -> Span:
        first, last = _run(len(borders) - 1, holes, share, rng)
        start = borders[first]
        return start, rng.randint(max(borders[last - 1], start + 1), borders[last])

    return apart(draw, holes)


def dense(text: str, holes: int, rng: random.Random) -> list[Span]:
    """Many short spans of whole lines, with as much text between them: up to `holes` of the spans that fit.

    Where the masks suffice, about half of the text is cut out.
    """
    borders = [*line_starts(text), len(text)]
    count = len(borders) - 1
    at = min(rng.randint(0, DENSE_LINES), count - 1)
    spans = []
    while at < count:
        end = min(count, at + rng.randint(1, DENSE_LINES))
        spans.append((borders[at], borders[end]))
        at = end + rng.randint(1, DENSE_LINES)
    return spans if len(spans) <= holes else sorted(rng.sample(spans, holes))


def draw_cursor(text: str, rng: random.Random) -> tuple[Span, int]:
    """A span that an anchored prompt would open, and where in it the cursor stands: what is missing begins there."""
    borders = [*line_starts(text), len(text)]
    line = rng.randrange(len(borders) - 1)
    first = borders[max(0, line - rng.randint(0, ANCHOR_LINES))]
    content = text[borders[line] : borders[line + 1]].rstrip("\r\n")
    blank = len(content) - len(content.lstrip())
    if rng.random() < INSIDE_LINE and blank < len(content):
        return (first, borders[line] + len(content)), borders[line] + rng.randrange(blank, len(content))
    count = _log_uniform(rng, 1, min(MISSING_LINES, len(borders) - 1 - line))
    return (first, borders[line + count]), borders[line]


def _runs(borders: Sequence[int], holes: int, share: float, rng: random.Random) -> list[Span]:
    def draw() -> Span:
        first, last = _run(len(borders) - 1, holes, share, rng)
        return borders[first], borders[last]

    return apart(draw, holes)


def _run(units: int, holes: int, share: float, rng: random.Random) -> tuple[int, int]:
    """A run [first, last) of `units`: at least one, and at most a hole's part of the share."""
    length = _log_uniform(rng, 1, max(1, int(units * share / holes)))
    first = rng.randint(0, units - length)
    return first, first + length


def _log_uniform(rng: random.Random, low: int, high: int) -> int:
    """An integer in [low, high] with a density like 1/x: short spans are frequent, long ones occur."""
    return min(high, int(low * (high / low) ** rng.random() + rng.random()))
