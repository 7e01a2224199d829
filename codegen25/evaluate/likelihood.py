"""How well a model predicts held-out files: bits per byte, and nats per token of spans, by three ways of asking.

All of it runs through a `Backend`, so any engine is measured by the same code.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from codegen25 import infill
from codegen25.complete import Model
from codegen25.data.document import read_documents
from codegen25.engine.backend import Backend
from codegen25.errors import CodegenError
from codegen25.tokenizer import Tokenizer

# Tokens of one forward: bounds the block of logits [tokens, vocabulary].
CHUNK = 128
# A span of the measurement is at most so many lines.
MAX_SPAN_LINES = 4


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


def heldout_texts(path: Path, *, files: int, characters: int, seed: int) -> list[tuple[str, bool]]:
    """The beginnings of `files` documents chosen by `seed`, and whether each is the whole document.

    Raises CodegenError when the file cannot be read or holds no text.
    """
    contents = [document.content for document in read_documents(path) if document.content.strip()]
    if not contents:
        raise CodegenError(f"{path}: holds no text; name a JSONL file of documents")
    random.Random(seed).shuffle(contents)
    return [(content[:characters], len(content) <= characters) for content in contents[:files]]


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


def bits_per_byte(model: Model, texts: Iterable[str], *, window: int = 1024) -> float:
    """Bits per UTF-8 byte over all texts, each scored in windows of `window` tokens that overlap by half."""
    scorer = Model(model.backend, model.tokenizer, window)
    scores = [scorer.score(text) for text in texts]
    return -sum(score.total for score in scores) / sum(score.n_bytes for score in scores) / math.log(2)


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
