"""How well a model predicts texts: bits per byte by language, and nats per token of spans, by three ways of asking.

All of it runs through a `Backend`, so any engine is measured by the same code.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from codegen25 import infill
from codegen25.complete import Model
from codegen25.engine.backend import Backend
from codegen25.errors import CodegenError
from codegen25.evaluate.passk import Estimate, ratio_bootstrap
from codegen25.evaluate.texts import Text
from codegen25.tokenizer import Tokenizer

# Tokens of one forward: bounds the block of logits [tokens, vocabulary].
CHUNK = 256
# A span of the measurement is at most so many lines.
MAX_SPAN_LINES = 4

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Span:
    """A file around a run of its lines: `before` + `span` + `after`. `whole`: the text is not cut at its end."""

    before: str
    span: str
    after: str
    whole: bool


@dataclass(frozen=True)
class SpanNats:
    """Mean nats per token of the same spans. `eom` is the mean of the `<eom>` that closes each in the plain form."""

    plain: float
    anchored: float
    left_to_right: float
    eom: float
    spans: int


def token_nats(backend: Backend, ids: Sequence[int], first: int) -> list[float]:
    """-ln p of each of `ids[first:]` given all that stands before it; `first` is at least 1."""
    assert 1 <= first <= len(ids)
    nats: list[float] = []
    sequence = backend.new()
    try:
        inputs = ids[:-1]
        for start in range(0, len(inputs), CHUNK):
            chunk = inputs[start : start + CHUNK]
            is_scored = start + len(chunk) >= first
            logits_NV = backend.forward([(sequence, chunk, is_scored)])[0]
            if not is_scored:
                continue
            skip = max(0, first - 1 - start)
            logits_NV = logits_NV[skip:]
            targets = np.array(ids[start + skip + 1 : start + len(chunk) + 1])
            peak_N = logits_NV.max(axis=1)
            log_sum_N = peak_N + np.log(np.exp(logits_NV - peak_N[:, None]).sum(axis=1))
            nats += [float(x) for x in log_sum_N - logits_NV[np.arange(len(targets)), targets]]
    finally:
        backend.free(sequence)
    return nats


@dataclass(frozen=True)
class Likelihood:
    """Sums over files. `nats` is -ln p of all tokens, each given those before it within its window."""

    files: int
    tokens: int
    bytes: int
    nats: float
    bits_per_byte: Estimate  # the interval is over the choice of files

    @property
    def perplexity(self) -> float:
        """Per token of this model's tokenizer, so comparable among models that share it; bits per byte always are."""
        return math.exp(self.nats / self.tokens)

    def as_json(self) -> dict[str, Any]:
        return vars(self) | {"bits_per_byte": vars(self.bits_per_byte), "perplexity": self.perplexity}


def strided_nats(backend: Backend, ids: Sequence[int], *, window: int, stride: int) -> list[float]:
    """-ln p of each of `ids[1:]`, by windows of at most `window` tokens that begin `stride` apart.

    A window scores what the one before it did not reach, so every token but the first window's has at least
    `window - stride` before it. `stride` is less than `window`.
    """
    assert 1 <= stride < window
    nats: list[float] = []
    scored = 1
    for begin in range(0, len(ids), stride):
        end = min(begin + window, len(ids))
        if end > scored:
            nats += token_nats(backend, ids[begin:end], scored - begin)
        scored = end
        if end == len(ids):
            break
    return nats


def likelihoods(
    model: Model, texts: Sequence[Text], *, window: int, stride: int, progress: Progress
) -> dict[str, Likelihood]:
    """By language, the one with most bytes first, and of all together under "all". Each text begins a document."""
    found: dict[str, list[tuple[int, int, float]]] = {}
    for number, text in enumerate(texts):
        progress("likelihood", number, len(texts))
        ids = [model.tokenizer.eot, *model.tokenizer.encode(text.content)]
        nats = math.fsum(strided_nats(model.backend, ids, window=window, stride=stride))
        found.setdefault(text.language, []).append((len(ids) - 1, len(text.content.encode()), nats))
    progress("likelihood", len(texts), len(texts))
    ordered = sorted(found, key=lambda language: -sum(size for _, size, _ in found[language]))
    sums = {language: _summed(found[language]) for language in ordered}
    return sums | {"all": _summed([one for files in found.values() for one in files])}


def likelihood_rows(found: Mapping[str, Likelihood]) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a table."""
    rows = []
    for name, one in found.items():
        bits = one.bits_per_byte
        interval = f"{bits.value:.4f} [{bits.low:.4f}, {bits.high:.4f}]"
        rows.append([name, f"{one.files:,}", f"{one.bytes:,}", f"{one.tokens:,}", interval, f"{one.perplexity:.3f}"])
    return ["", "files", "bytes", "tokens", "bits per byte [95 %]", "perplexity per token"], rows


def _summed(files: Sequence[tuple[int, int, float]]) -> Likelihood:
    tokens, sizes, nats = zip(*files, strict=True)
    bits = ratio_bootstrap([one / math.log(2) for one in nats], sizes)
    return Likelihood(len(files), sum(tokens), sum(sizes), math.fsum(nats), bits)


def draw_span(tokenizer: Tokenizer, text: str, whole: bool, rng: random.Random, window: int) -> Span | None:
    """A run of one to `MAX_SPAN_LINES` lines of `text`, with that text shortened to fit `window` tokens. It begins
    with a line that is not blank and not the first; None where there is no such line."""
    kept = tokenizer.decode(infill.trim_right(tokenizer, text, window - infill.overhead(1)))
    lines = kept.splitlines(keepends=True)
    starts = [number for number, line in enumerate(lines) if number > 0 and line.strip()]
    if not starts:
        return None
    first = rng.choice(starts)
    last = first + rng.randint(1, MAX_SPAN_LINES)
    before, span, after = ("".join(part) for part in (lines[:first], lines[first:last], lines[last:]))
    return Span(before, span, after, whole and kept == text)


def span_nats_of(model: Model, texts: Sequence[Text], *, window: int, anchor_lines: int | None, seed: int) -> SpanNats:
    """`span_nats` of a span in each of the texts, drawn by `seed`."""
    rng = random.Random(seed)
    drawn = [draw_span(model.tokenizer, text.content, text.whole, rng, window) for text in texts]
    spans = [span for span in drawn if span is not None]
    return span_nats(model.backend, model.tokenizer, spans, anchor_lines=anchor_lines)


def span_nats(backend: Backend, tokenizer: Tokenizer, spans: Sequence[Span], *, anchor_lines: int | None) -> SpanNats:
    """Each span given its text on both sides, plain and anchored, and given only the text before it.

    The plain form is that of training. In the other two the text continues without a border, so the token that
    crosses into the span, a line feed with the indent, counts as the span's. Raises CodegenError without spans.
    """
    if not spans:
        raise CodegenError("no held-out file has a second line to cut a span from; name a file of source code")
    plain: list[float] = []
    anchored: list[float] = []
    left_to_right: list[float] = []
    eom: list[float] = []
    for s in spans:
        ids = infill.context(tokenizer, [tokenizer.encode(s.before), tokenizer.encode(s.after)], whole=s.whole)
        answer = infill.answer(tokenizer, [tokenizer.encode(s.span)])[:-1]  # without <|endoftext|>
        *span, closing = token_nats(backend, ids + answer, len(ids) + 1)
        plain += span
        eom.append(closing)
        head, tail = infill.split_tail(s.before, anchor_lines)
        ids = infill.context(tokenizer, [tokenizer.encode(head), tokenizer.encode(s.after)], whole=s.whole)
        anchored += _continued(backend, tokenizer, [*ids, tokenizer.masks[0]], tail, s.span)
        left_to_right += _continued(backend, tokenizer, [], s.before, s.span)
    return SpanNats(fmean(plain), fmean(anchored), fmean(left_to_right), fmean(eom), len(spans))


def _continued(backend: Backend, tokenizer: Tokenizer, context: list[int], tail: str, span: str) -> list[float]:
    """The nats of `span` behind `context` and `tail`, encoded as one text."""
    ids = tokenizer.encode(tail + span)
    shared = 0
    for a, b in zip(tokenizer.encode(tail), ids, strict=False):
        if a != b:
            break
        shared += 1
    return token_nats(backend, context + ids, max(1, len(context) + shared))
