"""One request and its answer: which token comes next, what text is certain now, and when it ends.

A piece of text is certain when no half UTF-8 character and no possible beginning of a stop string is left in it. An
answer that ends inside a character ends in front of it.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from codegen25.engine import healing, sampling
from codegen25.engine.sampling import GREEDY, Sampling
from codegen25.errors import CodegenError
from codegen25.tokenizer import Tokenizer

Finish = Literal["stop", "length", "content_filter"]
# Tokens that a guard may refuse in one answer before it ends.
MOST_REFUSED = 8


class Guard(Protocol):
    """Watches one answer while it is written."""

    def allows(self, answer: bytes) -> bool:
        """Whether the answer may go on to be this: all of it so far, the token to come included. Asked every token."""
        ...


@dataclass(frozen=True)
class Request:
    """`prompt` ids (not empty), then bytes that the answer begins with but that are no part of it (see `healing`).

    The answer ends in front of an id of `stop_ids` or a string of `stop`. Ids outside `vocabulary` (bool [V]) never
    come. `max_tokens` counts what the model adds: the tokens that spell `required` are free.

    After `deadline` (seconds of `time.monotonic`) a newline is a stop string: the answer ends in front of the first
    one that comes then, with "stop". So a line is never left half done. (llama.cpp's `t_max_predict_ms` counts from the
    first token on, stops an answer that has more than a line where it is, and hands out the newline of its first.)

    `related` are texts that the answer may repeat, such as the files open beside this one: drafts are looked up in
    them, and they never change what the answer is.

    A `guard` refuses tokens, and the next likeliest (or another draw) comes in their place. An answer in which it
    refuses too many ends with "content_filter". Every request needs a guard of its own.
    """

    prompt: Sequence[int]
    vocabulary: NDArray[np.bool_]
    stop_ids: frozenset[int]
    required: bytes = b""
    max_tokens: int = 128
    stop: tuple[str, ...] = ()
    sampling: Sampling = GREEDY
    index: int = 0  # of samples from one prompt: each has its own random numbers
    deadline: float | None = None
    related: tuple[Sequence[int], ...] = ()
    guard: Guard | None = None


@dataclass
class Counts:
    """Tokens: of prompts, of those a cache had, all that ran in the model, drafted, accepted; refused by guards."""

    prompt: int = 0
    reused: int = 0
    computed: int = 0
    drafted: int = 0
    accepted: int = 0
    refused: int = 0

    def add(self, other: Counts) -> None:
        self.prompt += other.prompt
        self.reused += other.reused
        self.computed += other.computed
        self.drafted += other.drafted
        self.accepted += other.accepted
        self.refused += other.refused


class OutOfMemory(CodegenError, MemoryError):
    """There is no memory for the key/value cache of a request, even with nothing else cached."""


@dataclass(frozen=True)
class Piece:
    """News of one request: its number, text that is certain now, the token behind it, and whether that was the end.

    `counts` comes with the last piece of a request that ran. So does `error`, for one that had to be given up.
    """

    request: int
    text: str
    token: int | None
    logprob: float
    finish: Finish | None = None
    stop_id: int | None = None
    error: OutOfMemory | None = None
    counts: Counts | None = field(default=None, compare=False)


class Answer:
    """The state of one request while it is answered. `take` is called once per token."""

    def __init__(
        self, number: int, request: Request, tokenizer: Tokenizer, allowed: Callable[[bytes], NDArray[np.int64]]
    ) -> None:
        self.number, self.request = number, request
        self.required = request.required
        self.finish: Finish | None = None
        self.counts = Counts(prompt=len(request.prompt))
        self._tokenizer, self._allowed = tokenizer, allowed
        self._banned = np.flatnonzero(~request.vocabulary)
        self._added = 0
        self._bytes = b""  # all of the answer, for its guard
        self._held = ""
        self._text = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rng = np.random.default_rng([request.sampling.seed, request.index])
        self._seen: set[int] = set()
        if request.sampling.repetition_penalty != 1.0:
            # What ends an answer is no repetition, though every prompt with holes has it.
            self._seen = set(request.prompt) - request.stop_ids

    @property
    def left(self) -> int:
        """How many more tokens the model may add."""
        return self.request.max_tokens - self._added

    def take(self, logits: sampling.Row, now: float) -> tuple[int, Piece]:
        """Choose the next token from logits, fp32 [V], at the time `now`; sets `finish` when it is the last.

        One random number is used per token, whether or not drafts were: see `scheduler`.
        """
        request = self.request
        token = self._choose(logits)
        if request.guard is not None:
            token = self._guarded(request.guard, logits, token)
            if self.finish:
                return token, Piece(self.number, self._held, None, 0.0, self.finish, counts=self.counts)
        logprob = 0.0 if token in request.stop_ids else sampling.logprob(logits, token)
        return token, self._take(token, logprob, now)

    def accept(self, token: int, logprob: float, now: float) -> Piece:
        """`take` for a token that was chosen elsewhere. None can be chosen in its place: a guard that refuses it ends
        the answer in front of it."""
        guard = self.request.guard
        if guard is not None and token not in self.request.stop_ids:
            self._bytes += self._fresh(token)
            if not guard.allows(self._bytes):
                self.counts.refused += 1
                return self.close("content_filter")
        return self._take(token, logprob, now)

    def close(self, finish: Finish, stop_id: int | None = None) -> Piece:
        """The last piece of an answer that ends here, for a reason from elsewhere or by the token `stop_id`."""
        self.finish = finish
        return Piece(self.number, self._held, None, 0.0, finish, stop_id, counts=self.counts)

    def _take(self, token: int, logprob: float, now: float) -> Piece:
        request = self.request
        if token in request.stop_ids:
            return self.close("stop", token)
        if request.sampling.repetition_penalty != 1.0:
            self._seen.add(token)
        late = request.deadline is not None and now >= request.deadline
        return self._put(token, logprob, late)

    def _choose(self, raw: sampling.Row) -> int:
        choice = self.request.sampling
        logits = sampling.penalize(raw, self._seen, choice.repetition_penalty)
        if choice.temperature == 0 and not self.required:
            token = int(logits.argmax())
            if self.request.vocabulary[token]:  # nearly always, and then nothing need be masked
                return token
        if self.required:
            ids = self._allowed(self.required)
            return int(ids[sampling.choose(logits[ids], choice, self._rng)])
        if logits is raw:  # which is not ours: others may choose from the same row
            logits = raw.copy()
        logits[self._banned] = -np.inf
        return sampling.choose(logits, choice, self._rng)

    def _guarded(self, guard: Guard, logits: sampling.Row, token: int) -> int:
        """The token, or another one that the guard allows; ends the answer when it has refused too many."""
        while token not in self.request.stop_ids and not guard.allows(self._bytes + self._fresh(token)):
            self.counts.refused += 1
            if self.counts.refused > MOST_REFUSED:
                self.finish = "content_filter"
                return token
            logits = logits.copy()
            logits[token] = -np.inf
            token = self._choose(logits)
        self._bytes += b"" if token in self.request.stop_ids else self._fresh(token)
        return token

    def _fresh(self, token: int) -> bytes:
        """What a token adds to the answer: its bytes, less those that only repeat the prompt."""
        return self._tokenizer.token_bytes(token)[len(self.required) :]

    def _put(self, token: int, logprob: float, late: bool) -> Piece:
        """Put a token's bytes behind the answer, less those that only repeat the prompt."""
        spelled = self._tokenizer.token_bytes(token)
        fresh = spelled[len(self.required) :] if self.required else spelled
        is_new = bool(fresh) or not self.required
        self.required = healing.remaining(self.required, spelled) if self.required else b""
        self._added += is_new
        self._held += self._text.decode(fresh)
        text, stopped = _certain(self._held, (*self.request.stop, "\n") if late else self.request.stop)
        self._held = self._held[len(text) :]
        if stopped:
            self.finish = "stop"
        elif self.left <= 0:
            self.finish = "length"
            text += self._held
        counts = self.counts if self.finish else None
        return Piece(
            self.number, text, token if is_new else None, logprob if is_new else 0.0, self.finish, counts=counts
        )

    def cut(self, piece: Piece) -> Piece:
        """`piece` as the last one, because there is no room for another token; it has not ended the answer."""
        self.finish = "length"
        return Piece(piece.request, piece.text + self._held, piece.token, piece.logprob, "length", counts=self.counts)


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
