"""From what a client wants to what the scheduler runs: prompts that fit the window, and what may come behind them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from codegen25 import infill
from codegen25.editing import MOST_CHARACTERS
from codegen25.engine import healing
from codegen25.engine.answer import Request
from codegen25.engine.backend import Facts
from codegen25.infill import Holes
from codegen25.serve.ask import Ask
from codegen25.serve.refusal import Refusal
from codegen25.serve.sessions import Sessions

_RELATED = 8192  # characters of each extra text that drafts are looked up in


@dataclass(frozen=True)
class Prompt:
    """The first request, and which of its ids are those of the client's own text, in order: what `echo` gives back."""

    request: Request
    shown: tuple[int, ...]
    trimmed: bool = False
    holes: Holes | None = None  # of several holes
    required: tuple[bytes, ...] = ()  # of each hole


class Prompts:
    """Makes prompts for one model."""

    def __init__(self, model: Facts) -> None:
        self.model, self.tokenizer = model, model.tokenizer
        self.sessions = Sessions(model)
        self._text_vocabulary = np.zeros(model.config.vocab_size, dtype=np.bool_)
        self._text_vocabulary[[*self.tokenizer.tokens_starting_with(b""), self.tokenizer.eot]] = True
        self._characters = MOST_CHARACTERS * model.window

    def of(self, ask: Ask) -> Prompt:
        """Raises `Refusal` or `CodegenError` for what cannot be run."""
        if ask.ids:
            return self._exact(ask, ask.ids)
        if ask.holes > 1:
            return self._several_holes(ask)
        if ask.logprobs is not None:
            return self._unhealed(ask)
        return self._hole(ask) if ask.holes else self._text(ask)

    def budget(self, ask: Ask) -> int:
        """New tokens that are granted, of those wanted: at most half of the window."""
        return min(ask.max_tokens, self.model.window // 2)

    def request(self, ask: Ask, ids: Sequence[int], required: bytes, *, is_span: bool, max_tokens: int) -> Request:
        tokenizer = self.tokenizer
        stop_ids = infill.stops(tokenizer) if is_span else frozenset({tokenizer.eot})
        deadline = None if ask.patience is None else time.monotonic() + ask.patience
        related = tuple(tuple(tokenizer.encode(extra.text[:_RELATED])) for extra in ask.extra)
        return Request(
            ids, self._vocabulary(ask, is_span), stop_ids, required, max_tokens, ask.stop, ask.sampling,
            deadline=deadline, related=related,
        )  # fmt: skip

    def _vocabulary(self, ask: Ask, is_span: bool) -> NDArray[np.bool_]:
        vocabulary = self.model.span_vocabulary if is_span else self._text_vocabulary
        if not ask.banned and ask.allowed is None:
            return vocabulary
        kept = vocabulary.copy()
        kept[[id for id in ask.banned if 0 <= id < len(kept)]] = False
        if ask.allowed is not None:
            allowed = np.zeros_like(kept)
            allowed[[id for id in ask.allowed if 0 <= id < len(kept)]] = True
            kept &= allowed
        if not kept.any():
            name = "logit_bias" if ask.allowed is None else "allowed_token_ids"
            raise Refusal(400, f"{name}: leaves no token to choose", field=name)
        return kept

    def _exact(self, ask: Ask, ids: tuple[int, ...]) -> Prompt:
        window = self.model.window
        if min(ids) < 0 or max(ids) >= self.model.config.vocab_size:
            raise Refusal(400, f"prompt: an id is outside the vocabulary of {self.model.config.vocab_size}",
                          field="prompt")  # fmt: skip
        if len(ids) + (ask.max_tokens > 0) > window:
            raise _too_long(len(ids), window)
        max_tokens = min(ask.max_tokens, window - len(ids))
        is_span = self.tokenizer.sep in ids
        return Prompt(self.request(ask, ids, b"", is_span=is_span, max_tokens=max_tokens), tuple(range(len(ids))))

    def _text(self, ask: Ask) -> Prompt:
        (text,) = ask.parts
        max_tokens = self.budget(ask)
        near = text[-self._characters :]
        kept, required = healing.split(self.tokenizer, near)
        whole = self.tokenizer.encode(kept)
        budget = self.model.window - max_tokens - len(required)
        ids = infill.trim_left(self.tokenizer, kept, budget, whole) or [self.tokenizer.eot]
        trimmed = len(whole) > budget or len(near) < len(text)
        return Prompt(self.request(ask, ids, required, is_span=False, max_tokens=max_tokens), (), trimmed)

    def _unhealed(self, ask: Ask) -> Prompt:
        """With the prompt's own tokens, so that those of the answer stand right behind them."""
        max_tokens, tokenizer = self.budget(ask), self.tokenizer
        budget = self.model.window - max_tokens
        before = ask.parts[0][-self._characters :]
        if not ask.holes:
            ids = infill.trim_left(tokenizer, before, budget)
            # An empty text is the beginning of a document.
            request = self.request(ask, ids or [tokenizer.eot], b"", is_span=False, max_tokens=max_tokens)
            return Prompt(
                request, tuple(range(len(ids))), len(tokenizer.decode_bytes(ids)) < len(ask.parts[0].encode())
            )
        head, tail = infill.split_tail(before, ask.anchor)
        holes = infill.fit(tokenizer, [head, ask.parts[1][: self._characters]], [tail], budget)
        ids = infill.prompt(tokenizer, holes)
        at, end = len(holes.parts[0]), len(ids)
        shown = (*range(at), *range(end - len(holes.tails[0]), end))
        return Prompt(self.request(ask, ids, b"", is_span=True, max_tokens=max_tokens), shown, holes.trimmed)

    def _hole(self, ask: Ask) -> Prompt:
        placed = self.sessions.place(ask)
        max_tokens = 1 if ask.warm else self.budget(ask)
        required = b"" if ask.warm else placed.required
        request = self.request(ask, placed.ids, required, is_span=True, max_tokens=max_tokens)
        return Prompt(request, (), placed.trimmed)

    def _several_holes(self, ask: Ask) -> Prompt:
        """`max_tokens` holds for each, as far as the window goes."""
        parts = [ask.parts[0][-self._characters :], *ask.parts[1:-1], ask.parts[-1][: self._characters]]
        if sum(map(len, parts[1:-1])) > self._characters:
            raise _too_long(sum(map(len, parts[1:-1])), self.model.window)
        around, tails, required = [], [], []
        for before in parts[:-1]:
            head, tail = infill.split_tail(before, ask.anchor)
            kept, end = (tail, b"") if ask.logprobs is not None else healing.split(self.tokenizer, tail)
            around.append(head)
            tails.append(kept)
            required.append(end)
        each = min(ask.max_tokens, self.model.window // 2 // ask.holes)
        budget = self.model.window - each * ask.holes - sum(map(len, required))
        holes = infill.fit(self.tokenizer, [*around, parts[-1]], tails, budget)
        ids = infill.prompt(self.tokenizer, holes)
        request = self.request(ask, ids, required[0], is_span=True, max_tokens=each)
        return Prompt(request, (), holes.trimmed, holes, tuple(required))

    def next_hole(self, prompt: Prompt, before: Request, hole: int, answer: str) -> Request:
        """The request for hole `hole` (from 1), when the one before it was answered."""
        assert prompt.holes
        spelled = self.tokenizer.encode(prompt.required[hole - 1].decode() + answer)
        opening = infill.opening(self.tokenizer, hole, prompt.holes.tails[hole])
        ids = (*before.prompt, *spelled, self.tokenizer.eom, *opening)
        return replace(before, prompt=ids, required=prompt.required[hole])


def _too_long(length: int, window: int) -> Refusal:
    return Refusal(
        400, f"prompt: {length} tokens or more, and {window} fit beside the answer; send less, or ask for fewer tokens",
        code="context_length_exceeded", field="prompt",
    )  # fmt: skip
