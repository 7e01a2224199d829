"""Decoding: many sequences side by side, a token each per step, until each has its reason to stop.

A `Request` says what to continue and when to stop; `decode` yields pieces of text as they become certain. A piece is
certain when no half UTF-8 character and no possible beginning of a stop string is left in it. An answer that ends
inside a character ends in front of it.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from codegen25.engine import healing, sampling
from codegen25.engine.backend import Backend, Logits
from codegen25.engine.sampling import GREEDY, Sampling
from codegen25.tokenizer import Tokenizer

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Request:
    """`prompt` ids (not empty), then bytes that the answer begins with but that are no part of it (see `healing`).

    The answer ends in front of an id of `stop_ids` or a string of `stop`. Ids outside `vocabulary` (bool [V]) never
    come. `max_tokens` counts what the model adds: the tokens that spell `required` are free.
    """

    prompt: Sequence[int]
    vocabulary: NDArray[np.bool_]
    stop_ids: frozenset[int]
    required: bytes = b""
    max_tokens: int = 128
    stop: tuple[str, ...] = ()
    sampling: Sampling = GREEDY
    index: int = 0  # of samples from one prompt: each has its own random numbers


@dataclass(frozen=True)
class Piece:
    """News of one request: its number, text that is certain now, the token behind it, and whether that was the end."""

    request: int
    text: str
    token: int | None
    logprob: float
    finish: Finish | None = None
    stop_id: int | None = None


@dataclass
class _Answer:
    """The state of one request while it is decoded."""

    number: int
    request: Request
    sequence: int
    logits: Logits
    required: bytes
    count: int = 0
    held: str = ""
    seen: set[int] = field(default_factory=set)
    finish: Finish | None = None

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng([self.request.sampling.seed, self.request.index])
        self.text = codecs.getincrementaldecoder("utf-8")(errors="replace")
        if self.request.sampling.repetition_penalty != 1.0:
            # What ends an answer is no repetition, though every prompt with holes has it.
            self.seen = set(self.request.prompt) - self.request.stop_ids


def decode(backend: Backend, tokenizer: Tokenizer, requests: Sequence[Request]) -> Iterator[Piece]:
    """Run all requests at once; every request ends with exactly one piece that says how (`finish`).

    Equal prompts are run once and their caches forked. The caches are given back also when the caller stops early.
    """
    sequences: list[int] = []
    try:
        for number, request in enumerate(requests):
            if request.max_tokens == 0:
                yield Piece(number, "", None, 0.0, "length")
        active = _prefill(backend, [(n, r) for n, r in enumerate(requests) if r.max_tokens > 0], sequences)
        while active:
            tokens = []
            for answer in active:
                token, pieces = _choose(tokenizer, answer)
                tokens.append(token)
                yield from pieces
            going = [(a, token) for a, token in zip(active, tokens, strict=True) if a.finish is None]
            if going:
                logits = backend.forward([(a.sequence, [token], False) for a, token in going])
                for (answer, _), row in zip(going, logits, strict=True):
                    answer.logits = row
            active = [answer for answer, _ in going]
    finally:
        for sequence in sequences:
            backend.free(sequence)


def _prefill(backend: Backend, requests: Sequence[tuple[int, Request]], sequences: list[int]) -> list[_Answer]:
    """Run the prompts. Every sequence is put into `sequences` as it is made, so that none is lost to an error."""
    if not requests:
        return []
    distinct: dict[tuple[int, ...], int] = {}
    for _, request in requests:
        if tuple(request.prompt) not in distinct:
            distinct[tuple(request.prompt)] = sequence = backend.new()
            sequences.append(sequence)
    rows = backend.forward([(sequence, prompt, False) for prompt, sequence in distinct.items()])
    logits = dict(zip(distinct, rows, strict=True))
    taken: set[int] = set()
    answers = []
    for number, request in requests:
        prompt = tuple(request.prompt)
        sequence = distinct[prompt]
        if sequence in taken:
            sequence = backend.fork(sequence)
            sequences.append(sequence)
        taken.add(sequence)
        answers.append(_Answer(number, request, sequence, logits[prompt], request.required))
    return answers


def _choose(tokenizer: Tokenizer, answer: _Answer) -> tuple[int, list[Piece]]:
    """Take one token for an answer; the pieces that it makes certain. Sets `answer.finish` when it is the last."""
    request = answer.request
    raw = answer.logits[0]
    logits = sampling.penalize(raw, answer.seen, request.sampling.repetition_penalty)
    if answer.required:
        ids = healing.allowed(tokenizer, answer.required)
        masked = np.full_like(logits, -np.inf)
        masked[ids] = logits[ids]
    else:
        masked = np.where(request.vocabulary, logits, np.float32(-np.inf))
    token = sampling.choose(masked, request.sampling, answer.rng)
    logprob = float(sampling.log_softmax(raw)[token])
    if token in request.stop_ids:
        answer.finish = "stop"
        return token, [Piece(answer.number, answer.held, None, 0.0, "stop", token)]
    answer.seen.add(token)
    return token, [_accept(answer, token, logprob, tokenizer.token_bytes(token))]


def _accept(answer: _Answer, token: int, logprob: float, spelled: bytes) -> Piece:
    """Put a token's bytes behind the answer, less those that only repeat the prompt."""
    fresh = spelled[len(answer.required) :] if answer.required else spelled
    is_new = bool(fresh) or not answer.required
    answer.required = healing.remaining(answer.required, spelled) if answer.required else b""
    answer.count += is_new
    answer.held += answer.text.decode(fresh)
    text, stopped = _certain(answer.held, answer.request.stop)
    answer.held = answer.held[len(text) :]
    if stopped:
        answer.finish = "stop"
    elif answer.count >= answer.request.max_tokens:
        answer.finish = "length"
        text += answer.held
    return Piece(answer.number, text, token if is_new else None, logprob if is_new else 0.0, answer.finish)


def _certain(held: str, stop: Sequence[str]) -> tuple[str, bool]:
    """(the part of `held` that can be given out, whether a stop string was met): up to the stop string that is whole
    first, or up to where one may have begun. So the borders of tokens make no difference."""
    met = [(at + len(s), at) for at, s in ((held.find(s), s) for s in stop) if at >= 0]
    if met:
        return held[: min(met)[1]], True
    for start in range(max(0, len(held) - max(map(len, stop), default=0)), len(held)):
        if any(s.startswith(held[start:]) for s in stop):
            return held[:start], False
    return held, False
