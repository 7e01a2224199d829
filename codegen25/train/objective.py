"""What the model learns from a document: to write on, or to fill spans that were cut out of it.

As in CodeGen2 (Nijkamp et al., 2023) a document is either left as it is or corrupted as a whole, with no task token,
and a span never crosses a document. All chance comes from the `random.Random` that is passed in, so an example is a
pure function of the document and of that generator's seed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from codegen25 import infill
from codegen25.tokenizer import Tokenizer

Span = tuple[int, int]  # [start, end) in characters of the text

# Of an anchored example: lines that are missing at most, lines of the tail at most, and how often the cursor stands
# inside a line, the rest of which is missing.
MISSING_LINES, TAIL_LINES, INSIDE_LINE = 4, 12, 0.4


@dataclass(frozen=True)
class Objective:
    """The mixture. `infill_rate` of the documents are corrupted.

    A span is whole lines, a line start to anywhere inside a line (as when a cursor stands there), or any characters,
    in the shares of `line_spans`, `cursor_spans` and the rest. `context_loss` says whether the text around the holes
    is learned too, as the publisher does, or only the answers: a short course in infilling spends its steps there.
    Of the corrupted documents `anchored_rate` show what an editor asks: one short piece is missing at a cursor, the
    span begins some lines before it, and only what is missing is learned, with its end.
    """

    infill_rate: float = 0.5
    max_holes: int = 4
    more_holes: float = 0.25
    line_spans: float = 0.6
    cursor_spans: float = 0.15
    mask_ratio: float = 0.5
    context_loss: bool = True
    anchored_rate: float = 0.0


@dataclass(frozen=True)
class Example:
    """Token ids, and for each whether it is learned (whether predicting it counts); equally long."""

    ids: list[int]
    learned: list[bool]


def _line_starts(text: str) -> list[int]:
    starts = [0]
    starts += [i + 1 for i, c in enumerate(text) if c == "\n" and i + 1 < len(text)]
    return starts


def _log_uniform(rng: random.Random, low: int, high: int) -> int:
    """An integer in [low, high] with a density like 1/x: short spans are frequent, long ones occur."""
    return min(high, int(low * (high / low) ** rng.random() + rng.random()))


def draw_span(text: str, objective: Objective, rng: random.Random) -> Span:
    """One span of `text` (not empty), at most `mask_ratio` of its lines or characters, but at least one."""
    kind = rng.random()
    starts = _line_starts(text)
    if kind < objective.line_spans + objective.cursor_spans:
        first = rng.randrange(len(starts))
        count = _log_uniform(rng, 1, max(1, int(len(starts) * objective.mask_ratio)))
        last = first + count
        end = starts[last] if last < len(starts) else len(text)
        if kind >= objective.line_spans:  # end inside the last line of the span
            line = starts[min(last, len(starts)) - 1]
            end = rng.randint(max(line, starts[first] + 1), max(end, starts[first] + 1))
        return starts[first], min(end, len(text))
    length = _log_uniform(rng, 1, max(1, int(len(text) * objective.mask_ratio)))
    start = rng.randint(0, len(text) - length)
    return start, start + length


def draw_spans(text: str, holes: int, objective: Objective, rng: random.Random) -> list[Span]:
    """Up to `holes` spans in order, at least one character apart; fewer when they do not fit beside each other."""
    spans: list[Span] = []
    for _ in range(holes):
        start, end = draw_span(text, objective, rng)
        if all(end < s or start > e for s, e in spans):
            spans.append((start, end))
    return sorted(spans)


def example(tokenizer: Tokenizer, text: str, objective: Objective, rng: random.Random, window: int) -> Example:
    """One training example of at most `window` ids. A text too long for it is cut at a line start drawn at random.

    Nothing of what was cut out as a span is ever dropped: the text is shortened first, spans are drawn after.
    """
    piece, whole = _crop(tokenizer, text, rng, window)
    if rng.random() >= objective.infill_rate or not piece.strip():
        ids = tokenizer.encode(piece)[: window - 1]
        ids += [tokenizer.eot] * whole
        return Example(ids, [True] * len(ids))
    if objective.anchored_rate and rng.random() < objective.anchored_rate:
        made = _anchored(tokenizer, piece, objective, whole, rng)
        if len(made.ids) <= window:
            return made
    holes = 1
    while holes < objective.max_holes and rng.random() < objective.more_holes:
        holes += 1
    spans = draw_spans(piece, holes, objective, rng)
    # Encoding in pieces may need a few more ids than `_crop` counted: drop holes, then plain text, until it fits.
    while True:
        made = _corrupted(tokenizer, piece, spans, objective, whole)
        if len(made.ids) <= window:
            return made
        if len(spans) == 1:
            ids = tokenizer.encode(piece)[: window - 1] + [tokenizer.eot] * whole
            return Example(ids, [True] * len(ids))
        spans = spans[:-1]


def _corrupted(tokenizer: Tokenizer, text: str, spans: Sequence[Span], objective: Objective, whole: bool) -> Example:
    borders = [0, *(border for span in spans for border in span), len(text)]
    pieces = [tokenizer.encode(text[a:b]) for a, b in pairwise(borders)]
    context = infill.context(tokenizer, pieces[0::2], whole=whole)
    answer = infill.answer(tokenizer, pieces[1::2])
    # The first mask of the answer is always given, never guessed.
    learned = [objective.context_loss] * len(context) + [False] + [True] * (len(answer) - 1)
    return Example(context + answer, learned)


def draw_cursor(text: str, rng: random.Random) -> tuple[Span, int]:
    """A span that an anchored prompt would open, and where in it the cursor stands: what is missing begins there."""
    starts = [*_line_starts(text), len(text)]
    line = rng.randrange(len(starts) - 1)
    first = starts[max(0, line - rng.randint(0, TAIL_LINES))]
    content = text[starts[line] : starts[line + 1]].rstrip("\n")
    blank = len(content) - len(content.lstrip())
    if rng.random() < INSIDE_LINE and blank < len(content):
        return (first, starts[line] + len(content)), starts[line] + rng.randrange(blank, len(content))
    count = _log_uniform(rng, 1, min(MISSING_LINES, len(starts) - 1 - line))
    return (first, starts[line + count]), starts[line]


def _anchored(tokenizer: Tokenizer, text: str, objective: Objective, whole: bool, rng: random.Random) -> Example:
    span, cursor = draw_cursor(text, rng)
    made = _corrupted(tokenizer, text, [span], objective, whole)
    known = len(text[span[0] : cursor].encode())
    at = len(made.ids) - 1 - made.ids[::-1].index(tokenizer.masks[0]) + 1
    while known > 0:  # a token that reaches beyond the cursor is learned: healing asks for it
        known -= len(tokenizer.token_bytes(made.ids[at]))
        made.learned[at] = known < 0
        at += 1
    return made


def _crop(tokenizer: Tokenizer, text: str, rng: random.Random, window: int) -> tuple[str, bool]:
    """A run of whole lines of `text` that leaves room for the control tokens, and whether it is the whole text."""
    budget = window - infill.overhead(4) - 8
    if len(text.encode()) <= budget or len(tokenizer.encode(text)) <= budget:  # no token is less than a byte
        return text, True
    lines = text.splitlines(keepends=True)
    first = rng.randrange(len(lines))
    ids = infill.trim_right(tokenizer, "".join(lines[first : first + budget]), budget)
    # Inside a line that is too long the last id may end in the middle of a character: that character is left out.
    return tokenizer.decode_bytes(ids).decode(errors="ignore"), False
