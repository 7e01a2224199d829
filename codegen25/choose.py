"""The best of several answers to a hole, chosen by what they make of the text behind it.

A causal model says how likely an answer is behind the prefix, and how likely the suffix is behind both. By Bayes' rule
their product is, up to a factor that all answers share, how likely the answer is with text on both sides. So a model
that continues better than it fills can fill as well as it continues, and where an answer ends is part of the question:
each place where the suffix might go on is a candidate of its own.

Of Python the rules of the language are asked too (`scopes.py`): answers begin with what the texts around them need, and
one that leaves more faults in the file is not chosen before one that leaves fewer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Unpack

from codegen25 import infill, scopes
from codegen25.complete import ANCHOR_LINES, Completion, Model, Options
from codegen25.engine.answer import Finish
from codegen25.engine.sampling import Sampling, log_softmax
from codegen25.errors import UsageError

# Tokens of the suffix that judge. On HumanEval's single lines 16 chose as well as 128 (`docs/log.md`).
LEAD = 16
# Answers are drawn at this temperature; two or three are the likeliest ones of a way to ask.
DRAWN = Sampling(temperature=0.8)
# Places of one answer that are tried as its end, and candidates that are judged side by side.
ENDS, TOGETHER = 8, 16


@dataclass(frozen=True)
class Candidate:
    """The text of an answer or its beginning, and the log-likelihood in nats of it and of what follows it, behind the
    prefix.

    `faults`: what Python's rules hold against the whole text with it, 0 in other languages.
    """

    text: str
    answer: Completion
    logprob: float
    faults: float = 0

    @property
    def finish_reason(self) -> Finish:
        """Why the answer ended, where this is all of it; a beginning ends where the suffix might go on."""
        return self.answer.finish_reason if _is_all(self.text, self.answer) else "stop"


def infill_chosen(
    model: Model, prefix: str, suffix: str, count: int, *, anchor: int | None = ANCHOR_LINES, python: bool = False,
    **options: Unpack[Options],
) -> Completion:  # fmt: skip
    """The best of `candidates`, which see. It has no `logprobs`, and what is known of the prompt is of its answer's."""
    best, *_ = candidates(model, prefix, suffix, count, anchor=anchor, python=python, **options)
    tokens = tuple(model.tokenizer.encode(best.text))
    return replace(best.answer, text=best.text, finish_reason=best.finish_reason, tokens=tokens, logprobs=())


def candidates(
    model: Model, prefix: str, suffix: str, count: int, *, anchor: int | None = ANCHOR_LINES, python: bool = False,
    **options: Unpack[Options],
) -> list[Candidate]:  # fmt: skip
    """Candidates for the text between `prefix` and `suffix`, the best first, from `count` answers.

    The likeliest answers of three ways to ask (anchored, anchored at the beginning, left to right) are among these, the
    others are drawn, half anchored and half left to right; a `sampling` that draws is used for them. With `python`,
    half of these begin as the texts need it, where that is known, and the fewest faults come before likelihood. Raises
    `UsageError` when `count` is below 2.
    """
    if count < 2:
        raise UsageError(f"{count} answers leave nothing to choose from; ask for 2 or more")
    begun = scopes.beginnings(prefix, suffix) if python else []
    found: dict[str, Completion] = {}
    for answer in _answers(model, prefix, suffix, count, begun, anchor, options):
        for text in ends(answer.text, prefix, suffix):
            if text not in found or not _is_all(text, answer):
                found[text] = answer
    found = {text: answer for text, answer in found.items() if text.strip()} or found  # who asks misses something
    scores = judged(model, prefix, list(found), suffix, options.get("max_tokens", 128))
    faults = [scopes.faults(prefix + text + suffix) if python else 0.0 for text in found]
    ranked = map(Candidate, found, found.values(), scores, faults)
    return sorted(ranked, key=lambda candidate: (candidate.faults, -candidate.logprob))


def _is_all(text: str, answer: Completion) -> bool:
    """Whether this end of an answer is the whole of it; a line feed may have been added."""
    return len(text) >= len(answer.text)


def _answers(
    model: Model, prefix: str, suffix: str, count: int, begun: Sequence[str], anchor: int | None, options: Options
) -> Iterator[Completion]:
    given = options.get("sampling", DRAWN)
    drawn = given if given.temperature else replace(DRAWN, seed=given.seed)
    likeliest: Options = {**options, "sampling": Sampling(), "on_text": None}
    others: Options = {**options, "sampling": drawn, "on_text": None}
    more = max(0, count - 3)
    needed = list(islice(cycle(begun), (more + 1) // 2))
    more -= len(needed)
    yield model.infill(prefix, suffix, anchor=anchor, **likeliest)
    yield model.complete(prefix, **likeliest)
    if count > 2:
        yield model.infill(prefix, suffix, anchor=None, **likeliest)
    yield from model.infill_batch([(prefix, suffix)] * (more - more // 2), anchor=anchor, **others)
    yield from model.complete_batch([prefix] * (more // 2), **others)
    for some, how in ((needed[: len(begun)], likeliest), (needed[len(begun) :], others)):
        filled = model.infill_batch([(prefix + start, suffix) for start in some], anchor=anchor, **how)
        yield from (replace(one, text=start + one.text) for start, one in zip(some, filled, strict=True))


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
    """Log-likelihoods of texts, of which the backend runs what several have in common only once or twice."""

    def __init__(self, model: Model, shared: Sequence[int]) -> None:
        self.backend, self.shared = model.backend, list(shared)
        self._held: list[int] = []

    def run(self, wholes: Sequence[list[int]]) -> list[float]:
        """The sum of log p of all tokens behind the first that are equal in all, natural logs."""
        first = min(_common(self.shared, whole) for whole in wholes)
        first = max(1, min(first, min(map(len, wholes)) - 1))
        leaders = _leaders(wholes)
        root = self.backend.new()
        self._held = [root]
        try:
            if first > 1:
                self.backend.forward([(root, wholes[0][: first - 1], False)])
            own = sorted({leader for leader, _ in leaders})
            found = self._forward([(root, first)] * len(own), [wholes[i] for i in own])
            known = dict(zip(own, found, strict=True))
            starts = [(known[leader][0], max(first, shared)) for leader, shared in leaders]
            rests = [rest for _, rest in self._forward(starts, wholes)]
            return [
                math.fsum([*known[leader][1][: start - first], *rest])
                for (leader, _), (_, start), rest in zip(leaders, starts, rests, strict=True)
            ]
        finally:
            for sequence in self._held:
                self.backend.free(sequence)

    def _forward(self, starts: Sequence[tuple[int, int]], wholes: Sequence[list[int]]) -> list[tuple[int, list[float]]]:
        """For each text a sequence that holds all of it but its last token, and log p of each token from a place on.

        `starts`: a sequence that begins as the text does, and that place.
        """
        out = []
        for some in range(0, len(wholes), TOGETHER):
            forks, rows = [], []
            for (sequence, start), whole in zip(starts[some : some + TOGETHER], wholes[some:], strict=False):
                fork = self.backend.fork(sequence)
                self._held.append(fork)
                self.backend.truncate(fork, start - 1)
                forks.append(fork)
                rows.append((fork, whole[start - 1 : -1], True))
            for fork, (_, start), whole, logits in zip(
                forks, starts[some:], wholes[some:], self.backend.forward(rows), strict=False
            ):
                out.append((fork, [float(log_softmax(row)[id]) for row, id in zip(logits, whole[start:], strict=True)]))
        return out


def _leaders(wholes: Sequence[list[int]]) -> list[tuple[int, int]]:
    """For each text one that shares much of its beginning with it, perhaps itself, and how many tokens to take from it.

    Texts that lead are long; one token at least is left to each text.
    """
    own: list[int] = []
    found = [(0, 0)] * len(wholes)
    for i in sorted(range(len(wholes)), key=lambda i: -len(wholes[i])):
        best = max(own, key=lambda leader: _common(wholes[leader], wholes[i]), default=i)
        shared = _common(wholes[best], wholes[i])
        if best == i or 2 * shared < len(wholes[i]):
            own.append(i)
            best, shared = i, len(wholes[i])
        found[i] = best, min(shared, len(wholes[i]) - 1)
    return found


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
