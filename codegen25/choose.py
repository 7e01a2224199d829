"""The best of several answers to a hole, chosen by what they make of the text behind it.

A causal model says how likely an answer is behind the prefix, and how likely the suffix is behind both. By Bayes' rule
their product is, up to a factor that all answers share, how likely the answer is with text on both sides. So a model
that continues better than it fills can fill as well as it continues, and where an answer ends is part of the question:
each place where the suffix might go on is a candidate of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Unpack

from codegen25 import infill
from codegen25.complete import ANCHOR_LINES, Model, Options
from codegen25.engine.sampling import Sampling, log_softmax
from codegen25.errors import UsageError

# Tokens of the suffix that judge. On HumanEval's single lines 16 chose as well as 128 (`docs/log.md`).
LEAD = 16
# Answers are drawn at this temperature; two or three are the likeliest ones of a way to ask.
DRAWN = Sampling(temperature=0.8)
# Places of one answer that are tried as its end, and candidates that are judged side by side.
ENDS, TOGETHER = 16, 16


@dataclass(frozen=True)
class Candidate:
    """An answer, and the log-likelihood in nats of it and of what follows it, behind the prefix."""

    text: str
    logprob: float


def infill_chosen(
    model: Model, prefix: str, suffix: str, count: int, *, anchor: int | None = ANCHOR_LINES, **options: Unpack[Options]
) -> list[Candidate]:
    """Candidates for the text between `prefix` and `suffix`, the best first, from `count` answers.

    The likeliest answers of three ways to ask (anchored, anchored at the beginning, left to right) are among these, the
    others are drawn, half anchored and half left to right; a `sampling` that draws is used for them. Raises
    `UsageError` when `count` is below 2.
    """
    if count < 2:
        raise UsageError(f"{count} answers leave nothing to choose from; ask for 2 or more")
    answers = _answers(model, prefix, suffix, count, anchor, options)
    texts = list(dict.fromkeys(end for answer in answers for end in ends(answer, prefix, suffix)))
    scores = judged(model, prefix, texts, suffix, options.get("max_tokens", 128))
    return sorted(map(Candidate, texts, scores), key=lambda candidate: -candidate.logprob)


def _answers(model: Model, prefix: str, suffix: str, count: int, anchor: int | None, options: Options) -> Iterator[str]:
    given = options.get("sampling", DRAWN)
    drawn = given if given.temperature else replace(DRAWN, seed=given.seed)
    likeliest: Options = {**options, "sampling": Sampling(), "on_text": None}
    others: Options = {**options, "sampling": drawn, "on_text": None}
    more = max(0, count - 3)
    yield model.infill(prefix, suffix, anchor=anchor, **likeliest).text
    yield model.complete(prefix, **likeliest).text
    if count > 2:
        yield model.infill(prefix, suffix, anchor=None, **likeliest).text
    filled = model.infill_batch([(prefix, suffix)] * (more - more // 2), anchor=anchor, **others)
    yield from (one.text for one in [*filled, *model.complete_batch([prefix] * (more // 2), **others)])


def ends(answer: str, prefix: str, suffix: str) -> list[str]:
    """The answer, and what is left of it up to each place where the suffix might go on.

    That is behind a line feed where the hole takes whole lines, in front of one where it ends a line, and in front of
    what stands behind the hole in its line.
    """
    rest = suffix.partition("\n")[0].strip()
    if not rest:
        return _up_to([answer], answer, "\n", 0)
    if prefix.endswith("\n") or not prefix:
        whole = answer if answer.endswith("\n") else answer + "\n"
        return _up_to([], whole, "\n", 1)
    return _up_to([answer], answer, rest, 0)


def _up_to(found: list[str], text: str, sign: str, more: int) -> list[str]:
    """`found`, and the text up to each of the first places of `sign`, `more` characters of it included."""
    at = text.find(sign)
    while at >= 0 and len(found) < ENDS:
        if text[:at].strip():
            found.append(text[: at + more])
        at = text.find(sign, at + 1)
    return found or [text]


def judged(model: Model, prefix: str, texts: Sequence[str], suffix: str, max_tokens: int) -> list[float]:
    """For each text, log p(text, beginning of the suffix | prefix), a natural log.

    The prefix loses its beginning where the window is too small. Texts that begin alike are run once.
    """
    tokenizer = model.tokenizer
    lead = tokenizer.encode(suffix)
    close = [tokenizer.eot] if len(lead) <= LEAD else []
    behind = tokenizer.decode_bytes(lead[:LEAD]).decode(errors="ignore")
    kept = infill.trim_left(tokenizer, prefix, max(1, model.window - max_tokens - 4 * LEAD))
    before = tokenizer.decode_bytes(kept).decode(errors="ignore")
    wholes = [[tokenizer.eot, *tokenizer.encode(before + text + behind), *close] for text in texts]
    return _Judge(model, [tokenizer.eot, *tokenizer.encode(before)]).run(wholes)


class _Judge:
    """Log-likelihoods of texts that share their beginning, of which the backend computes each only once."""

    def __init__(self, model: Model, shared: Sequence[int]) -> None:
        self.backend, self.shared = model.backend, list(shared)

    def run(self, wholes: Sequence[list[int]]) -> list[float]:
        """The sum of log p of all tokens behind the first that are equal in all, natural logs."""
        first = min(_common(self.shared, whole) for whole in wholes)
        first = max(1, min(first, min(map(len, wholes)) - 1))
        root = self.backend.new()
        try:
            if first > 1:
                self.backend.forward([(root, wholes[0][: first - 1], False)])
            scores: list[float] = []
            for start in range(0, len(wholes), TOGETHER):
                scores += self._some(root, first, wholes[start : start + TOGETHER])
            return scores
        finally:
            self.backend.free(root)

    def _some(self, root: int, first: int, wholes: Sequence[list[int]]) -> list[float]:
        sequences = [self.backend.fork(root) for _ in wholes]
        try:
            rows = [(s, whole[first - 1 : -1], True) for s, whole in zip(sequences, wholes, strict=True)]
            logits = self.backend.forward(rows)
            return [
                math.fsum(float(log_softmax(row)[id]) for row, id in zip(of_one, whole[first:], strict=True))
                for of_one, whole in zip(logits, wholes, strict=True)
            ]
        finally:
            for sequence in sequences:
                self.backend.free(sequence)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
