"""What the model learns from a document: to write on, or to fill spans that were cut out of it.

As in CodeGen2 (Nijkamp et al., 2023) a document is either left as it is or corrupted as a whole, with no task token,
and a span never crosses a document. All chance comes from the `random.Random` that is passed in, so an example is a
pure function of the document and of that generator's state.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from codegen25 import infill
from codegen25.errors import UsageError
from codegen25.tokenizer import Tokenizer
from codegen25.train import spans, syntax
from codegen25.train.spans import Span

# What a corrupted document can be, and what is cut out of it.
KINDS: Mapping[str, str] = {
    "character": "any characters",
    "token": "whole tokens",
    "line": "whole lines",
    "cursor": "from a line's start to anywhere in it or below",
    "syntax": "nodes of the syntax tree (the extra `syntax`)",
    "anchored": "what is missing at a cursor, the span opened some lines before it, as an editor asks",
    "suffix_first": "the same, the span opened at the very beginning: suffix, prefix, middle",
    "dense": "many short spans of whole lines, about half of the document",
}
CAUSAL = "causal"
# A window has room for so many tokens a hole: control tokens, and something to see and to learn.
TOKENS_PER_HOLE = 16
# A text longer than this is cut without asking whether it would fit: only long runs of blanks or dashes could.
CHARACTERS_PER_TOKEN = 16


@dataclass(frozen=True)
class Objective:
    """The mixture: `infill_rate` of the documents are corrupted, each in one of the `KINDS`, drawn by the weights.

    All spans of a document together cover at most `mask_ratio` of its lines, characters or tokens (of `dense` about
    half, of a cursor what it asks), but at least one. A further hole follows with probability `more_holes`, up to
    `max_holes`.

    `context_loss`: the text around the holes is learned too, as the publisher does, or only the spans: a short course
    in infilling spends its steps there. `prefix_loss`: what an anchored or suffix-first prompt hands back, the span's
    beginning up to the cursor, is learned as well.

    The defaults are those of nano's first course (`docs/results.md`); the publisher's shares are not known.
    """

    infill_rate: float = 0.5
    mixture: Mapping[str, float] = field(default_factory=lambda: {"line": 0.6, "cursor": 0.15, "character": 0.25})
    mask_ratio: float = 0.5
    max_holes: int = 4
    more_holes: float = 0.25
    context_loss: bool = True
    prefix_loss: bool = False

    def __post_init__(self) -> None:
        for name in ("infill_rate", "mask_ratio", "more_holes"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} {getattr(self, name)}: must be between 0 and 1")
        if self.max_holes < 1:
            raise UsageError(f"max_holes {self.max_holes}: must be 1 or more")
        check_mixture(self.mixture)


def check_mixture(mixture: Mapping[str, float]) -> None:
    """Raises UsageError when it names no kind that there is, or weighs one with no number from 0 up."""
    for kind, weight in mixture.items():
        if kind not in KINDS:
            raise UsageError(f"mixture {kind}: no such kind of spans; there are {', '.join(KINDS)}")
        if not (weight >= 0 and math.isfinite(weight)):
            raise UsageError(f"mixture {kind}={weight}: a weight is a number from 0 up")
    if not sum(mixture.values()) > 0:
        raise UsageError(f"mixture: all weights are 0; name a kind, such as line=1 (of {', '.join(KINDS)})")


def parse_mixture(text: str) -> dict[str, float]:
    """`line=0.6,anchored=0.4` as a mixture. Raises UsageError."""
    mixture: dict[str, float] = {}
    for item in text.split(","):
        kind, _, weight = item.strip().partition("=")
        try:
            mixture[kind] = float(weight)
        except ValueError:
            raise UsageError(f"mixture {item.strip()!r}: write KIND=WEIGHT, such as line=0.6,anchored=0.4") from None
    check_mixture(mixture)
    return mixture


@dataclass(frozen=True)
class Example:
    """Token ids, and for each whether it is learned (whether predicting it counts); equally long.

    `kind` is one of KINDS or "causal", and `asked` what the mixture drew. They differ where that was not possible: a
    blank text is never corrupted, and a language without a grammar, or a text without a node short enough, has lines
    instead of syntax. `left_out`: characters of the document that did not fit the window.
    """

    ids: list[int]
    learned: list[bool]
    kind: str = CAUSAL
    asked: str = CAUSAL
    left_out: int = 0


def example(
    tokenizer: Tokenizer, text: str, objective: Objective, rng: random.Random, window: int, language: str = ""
) -> Example:
    """One training example of at most `window` ids (64 or more), of the whole text where that fits.

    Of a longer text, a run of lines is kept that begins at a line drawn at random; inside a line that is too long, it
    ends inside that line. It is shortened until the example fits, and the spans are drawn anew: nothing that was cut
    out as a span is ever dropped. `language` is one of the corpus's names, "" when it is not known.
    """
    asked, holes = _draw_kind(tokenizer, objective, rng, window)
    maker = _Maker(tokenizer, objective, rng, asked, holes, language)
    if len(text) <= CHARACTERS_PER_TOKEN * window:
        made = maker.make(text, whole=True)
        if len(made.ids) <= window:
            return made
    first, room = rng.choice(spans.line_starts(text)), window
    while room > 0:
        piece = _crop(tokenizer, text[first : first + CHARACTERS_PER_TOKEN * window], room)
        made = maker.make(piece, whole=first + len(piece) == len(text))
        if len(made.ids) <= window:
            return replace(made, left_out=len(text) - len(piece))
        room -= len(made.ids) - window
    raise AssertionError(f"{holes} holes do not fit a window of {window} tokens")


def _draw_kind(tokenizer: Tokenizer, objective: Objective, rng: random.Random, window: int) -> tuple[str, int]:
    """The kind, and how many holes it may have."""
    if rng.random() >= objective.infill_rate:
        return CAUSAL, 0
    # In our order: the same mixture, written down in another one, draws the same.
    (kind,) = rng.choices(list(KINDS), [objective.mixture.get(kind, 0.0) for kind in KINDS])
    most = min(len(tokenizer.masks), max(1, window // TOKENS_PER_HOLE))
    if kind == "dense":
        return kind, most
    holes = 1
    if kind in ("anchored", "suffix_first"):
        return kind, holes
    while holes < min(objective.max_holes, most) and rng.random() < objective.more_holes:
        holes += 1
    return kind, holes


@dataclass(frozen=True)
class _Maker:
    """Examples of one kind, of any piece of a text."""

    tokenizer: Tokenizer
    objective: Objective
    rng: random.Random
    asked: str
    holes: int
    language: str

    def make(self, text: str, *, whole: bool) -> Example:
        """The example of all of `text`, however long; `whole`: the document ends where the text does."""
        if self.asked == CAUSAL or not text.strip():
            ids = self.tokenizer.encode(text) + [self.tokenizer.eot] * whole
            return Example(ids, [True] * len(ids), CAUSAL, self.asked)
        kind, cut, given = self._draw(text)
        ids, learned = self._lay_out(text, cut, given, whole)
        return Example(ids, learned, kind, self.asked)

    def _draw(self, text: str) -> tuple[str, list[Span], int]:
        """What is done, the spans, and how many characters of the first are given rather than asked."""
        rng, holes, share = self.rng, self.holes, self.objective.mask_ratio
        match self.asked:
            case "character":
                return self.asked, spans.characters(text, holes, share, rng), 0
            case "token":
                return self.asked, spans.tokens(spans.token_borders(self.tokenizer, text), holes, share, rng), 0
            case "cursor":
                return self.asked, spans.cursors(text, holes, share, rng), 0
            case "dense":
                return self.asked, spans.dense(text, holes, rng), 0
            case "anchored" | "suffix_first":
                (start, end), cursor = spans.draw_cursor(text, rng)
                start = start if self.asked == "anchored" else 0
                return self.asked, [(start, end)], cursor - start
            case "syntax" if self.language in syntax.GRAMMARS:
                found = syntax.nodes(text, self.language, holes, share, rng)
                if found:
                    return self.asked, found, 0
        return "line", spans.lines(text, holes, share, rng), 0

    def _lay_out(self, text: str, cut: Sequence[Span], given: int, whole: bool) -> tuple[list[int], list[bool]]:
        encode = self.tokenizer.encode
        borders = [0, *(border for span in cut for border in span), len(text)]
        pieces = [encode(text[a:b]) for a, b in pairwise(borders)]
        context = infill.context(self.tokenizer, pieces[0::2], whole=whole)
        answer = infill.answer(self.tokenizer, pieces[1::2])
        learned = [False] + [True] * len(answer[1:])  # of the answer; its first mask is always given, never guessed
        if not self.objective.prefix_loss:
            start, at = cut[0][0], 1
            known = len(text[start : start + given].encode())
            while known > 0:  # a token that reaches beyond the cursor is learned: healing asks for it
                known -= len(self.tokenizer.token_bytes(answer[at]))
                learned[at] = known < 0
                at += 1
        return context + answer, [self.objective.context_loss] * len(context) + learned


def _crop(tokenizer: Tokenizer, text: str, budget: int) -> str:
    """The beginning of `text`, up to a line start, in `budget` ids; of a line that is too long, whole characters."""
    ids = infill.trim_right(tokenizer, text, budget)
    return tokenizer.decode_bytes(ids).decode(errors="ignore")
