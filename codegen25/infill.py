"""The one layout of holes and spans, used by training and by prompting, and the reading of what a model returns.

A text with holes numbers them from the left; the missing spans follow in the same order, each closed by `<eom>`:

    text <mask_1> text <mask_2> text <|endoftext|> <sep> <mask_1> span <eom> <mask_2> span <eom> <|endoftext|>

A prompt is the same sequence cut where the model is to go on. Cut right behind `<mask_1>` it is the model card's
program (*plain*). *Anchored* infilling opens the hole some lines before the cursor and cuts behind the text between,
which is the known beginning of the span: the model continues text instead of starting a span from nothing, token
borders at the cursor can heal, and while a person types only the end of the prompt grows.

Everything here works on token ids, whose control tokens were looked up by name, or on plain text before it is
encoded. So text that contains the name of a control token cannot open a hole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from codegen25.errors import CodegenError
from codegen25.tokenizer import Tokenizer

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Holes:
    """A text around its holes, as token ids: `parts[i]` stands before hole i + 1, `parts[-1]` after the last.

    `tails[i]` is the beginning of span i + 1 that is known already; empty for plain infilling. `trimmed`:
    some of the text before or behind did not fit the window.
    """

    parts: tuple[tuple[int, ...], ...]
    tails: tuple[tuple[int, ...], ...]
    trimmed: bool = False

    def __post_init__(self) -> None:
        assert len(self.parts) == len(self.tails) + 1 >= 2, "n holes stand between n + 1 parts"


def _check_holes(tokenizer: Tokenizer, holes: int) -> None:
    if holes > len(tokenizer.masks):
        raise CodegenError(f"{holes} holes, but the model knows {len(tokenizer.masks)} masks; ask for fewer at once")


def overhead(holes: int) -> int:
    """How many control tokens a whole example with that many holes needs beside its text."""
    return 3 * holes + 3


def context(tokenizer: Tokenizer, parts: Sequence[Sequence[int]], *, whole: bool = True) -> list[int]:
    """`part <mask_1> part … <|endoftext|> <sep>`; without `<|endoftext|>` when the window cut the document."""
    _check_holes(tokenizer, len(parts) - 1)
    ids = list(parts[0])
    for mask, part in zip(tokenizer.masks, parts[1:], strict=False):
        ids += [mask, *part]
    return ids + [tokenizer.eot] * whole + [tokenizer.sep]


def answer(tokenizer: Tokenizer, spans: Sequence[Sequence[int]]) -> list[int]:
    """`<mask_1> span <eom> <mask_2> span <eom> … <|endoftext|>`: what training appends to `context`."""
    _check_holes(tokenizer, len(spans))
    ids: list[int] = []
    for mask, span in zip(tokenizer.masks, spans, strict=False):
        ids += [mask, *span, tokenizer.eom]
    return [*ids, tokenizer.eot]


def opening(tokenizer: Tokenizer, hole: int, tail: Sequence[int]) -> list[int]:
    """What asks for the span of hole `hole` (from 0): its mask, and the beginning that is known."""
    return [tokenizer.masks[hole], *tail]


def prompt(tokenizer: Tokenizer, holes: Holes) -> list[int]:
    """The prompt for the first hole; `opening` of the next one goes behind each `<eom>`."""
    return context(tokenizer, holes.parts) + opening(tokenizer, 0, holes.tails[0])


def stops(tokenizer: Tokenizer) -> frozenset[int]:
    """The ids that end a span: `<eom>`, `<|endoftext|>` (which some checkpoints say instead), or another mask."""
    return frozenset({tokenizer.eom, tokenizer.eot, tokenizer.sep, *tokenizer.masks})


def parse(tokenizer: Tokenizer, ids: Sequence[int]) -> list[tuple[list[int], Finish]]:
    """Split what a model returned behind `… <sep> <mask_1>` into spans. A span that no `<eom>` closed says `length`."""
    spans: list[tuple[list[int], Finish]] = []
    current: list[int] = []
    is_open = True
    masks, ends = frozenset(tokenizer.masks), stops(tokenizer)
    for id in ids:
        if not is_open and id in masks:
            current, is_open = [], True
        elif is_open and id in ends:
            spans.append((current, "stop" if id == tokenizer.eom else "length"))
            if id == tokenizer.eom:
                is_open = False
                continue
            if id not in masks:
                return spans
            current = []
        elif is_open:
            current.append(id)
        else:
            return spans  # behind the last `<eom>` stands `<|endoftext|>`, or nothing that belongs to a span
    if is_open:
        spans.append((current, "length"))
    return spans


def split_tail(before: str, lines: int | None) -> tuple[str, str]:
    """Where to open the hole of a cursor: (what stays before it, the tail that begins the span).

    The tail is the last `lines` lines of `before`, the cursor's own included when it has begun; None takes all
    of it, 0 none (plain infilling).
    """
    if lines is None:
        return "", before
    pieces = before.splitlines(keepends=True)
    kept = max(0, len(pieces) - lines)
    return "".join(pieces[:kept]), "".join(pieces[kept:])


def trim_left(tokenizer: Tokenizer, text: str, budget: int, ids: list[int] | None = None) -> list[int]:
    """The ids of the end of `text`, at most `budget`, from a line start on, or from inside a line that is too long.

    `ids`: those of the whole text, when they are known.
    """
    ids = tokenizer.encode(text) if ids is None else ids
    if len(ids) <= budget:
        return ids
    lines = text.splitlines(keepends=True)
    for first in range(_first_fitting(tokenizer, list(reversed(lines)), budget), 0, -1):
        ids = tokenizer.encode("".join(lines[-first:]))
        if len(ids) <= budget:
            return ids
    return tokenizer.encode(lines[-1])[-budget:] if budget > 0 else []


def trim_right(tokenizer: Tokenizer, text: str, budget: int, ids: list[int] | None = None) -> list[int]:
    """The ids of the beginning of `text`, at most `budget`, up to a line start, or into a line that is too long.

    `ids`: those of the whole text, when they are known.
    """
    ids = tokenizer.encode(text) if ids is None else ids
    if len(ids) <= budget:
        return ids
    lines = text.splitlines(keepends=True)
    for last in range(_first_fitting(tokenizer, lines, budget), 0, -1):
        ids = tokenizer.encode("".join(lines[:last]))
        if len(ids) <= budget:
            return ids
    return tokenizer.encode(lines[0])[:budget] if budget > 0 else []


def _first_fitting(tokenizer: Tokenizer, lines: Sequence[str], budget: int) -> int:
    """How many lines to try first: a few more than fit when each is encoded alone; together they may need less."""
    for count, total in enumerate(accumulate(len(tokenizer.encode(line)) for line in lines)):
        if total > budget + budget // 8:
            return count
    return len(lines)


def fit(tokenizer: Tokenizer, parts: Sequence[str], tails: Sequence[str], budget: int) -> Holes:
    """Encode the text around its holes so that the prompt is at most `budget` ids, control tokens included.

    What must give way does so in this order: the suffix from the right down to a quarter of the room, the head from
    the left, then the rest of the suffix. The text between two holes, the tails and the control tokens are never cut.
    Raises `CodegenError` when these alone are over the budget.
    """
    inner = [tokenizer.encode(part) for part in parts[1:-1]]
    tail_ids = [tokenizer.encode(tail) for tail in tails]
    room = budget - sum(map(len, inner)) - sum(map(len, tail_ids)) - overhead(len(tails))
    if room < 0:
        raise CodegenError(
            f"the text that must be kept around {len(tails)} hole(s) is {-room} tokens over the window of {budget}; "
            "ask for fewer new tokens, anchor fewer lines, or put the holes closer together"
        )
    first, last = tokenizer.encode(parts[0]), tokenizer.encode(parts[-1])
    suffix = trim_right(tokenizer, parts[-1], max(room - len(first), room // 4), last)
    head = trim_left(tokenizer, parts[0], room - len(suffix), first)
    trimmed = len(head) < len(first) or len(suffix) < len(last)
    return Holes(tuple(map(tuple, [head, *inner, suffix])), tuple(map(tuple, tail_ids)), trimmed)
