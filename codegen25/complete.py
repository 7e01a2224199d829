"""Text in, text out: completion, infilling of one hole or several, and likelihood, on any backend."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TypedDict, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray

from codegen25 import infill
from codegen25.config import ModelConfig
from codegen25.engine import healing
from codegen25.engine.answer import Guard
from codegen25.engine.backend import Backend
from codegen25.engine.decode import Finish, Request, decode
from codegen25.engine.sampling import GREEDY, Sampling, log_softmax
from codegen25.engine.scheduler import Scheduler
from codegen25.errors import CodegenError, UsageError, say
from codegen25.infill import Holes
from codegen25.tokenizer import Tokenizer, from_folder

_Prompt = TypeVar("_Prompt", bound=Hashable)
OnText = Callable[[int, str], None]  # (which completion or hole, its new text)

# Lines before the cursor that are handed back as the beginning of the span (see `infill`).
ANCHOR_LINES = 8
MAX_WINDOW = 2048
SMALLEST_WINDOW = 16


@dataclass(frozen=True)
class Completion:
    """What the model added. `tokens` are its ids without the control token that ended it, `logprobs` natural logs.

    The first token may begin with bytes of the prompt (see `healing`); `text` never does. `prompt_tokens` counts the
    prompt after it was fitted to the window; `trimmed` says whether some of it had to go. `refused` counts the tokens
    that a guard refused, each of which another one replaced, but for the last where the answer ends for it.
    """

    text: str
    finish_reason: Finish
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    prompt_tokens: int
    trimmed: bool = False
    refused: int = 0


@dataclass(frozen=True)
class Score:
    """The log-likelihood of a text, a natural log per token, each given all before it (within the window)."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    n_bytes: int

    @property
    def total(self) -> float:
        """Nats; at most 0."""
        return math.fsum(self.logprobs)

    @property
    def bits_per_byte(self) -> float:
        """-log2 p of the text, by its length in UTF-8 bytes."""
        return -self.total / math.log(2) / self.n_bytes


def load(
    name: str = "nano",
    *,
    device: str = "cpu",
    dtype: str | None = None,
    threads: int | None = None,
    bits: int | None = None,
    notice: Callable[[str], None] = say,
) -> Model:
    """A model by folder, GGUF file, built-in name, or hub id, which is fetched when it is not in the cache.

    On "cpu" it runs in the native engine, on `threads` cores (by default all); weights that are not quantized are
    rounded to `bits` (8 by default, or 4). On another device, or in a `dtype` (float32, bfloat16, float16), it runs in
    PyTorch; so does CodeGen2 anywhere, an older architecture. Raises `CodegenError` when there is no such model, when
    its files are damaged, or when PyTorch is missing.
    """
    from codegen25.engine.cpu import build, open_source
    from codegen25.model.cached import fetched
    from codegen25.model.folder import check_vocab
    from codegen25.model.older import is_older

    path = find(name, device=device, dtype=dtype, bits=bits, notice=notice)
    if device != "cpu" or dtype is not None or is_older(path):
        if threads is not None or bits is not None:
            raise UsageError("threads and bits are settings of the native engine; leave them, or device and dtype, out")
        return _load_torch(path, device, dtype or "bfloat16", notice)
    bits = None if path == fetched(name, bits) else bits  # it is in those already
    source = open_source(path, notice)
    tokenizer = source.tokenizer()
    check_vocab(source.config, tokenizer, path)
    return Model(build(source, threads=threads, bits=bits, window=MAX_WINDOW, notice=notice), tokenizer)


def find(
    name: str,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    bits: int | None = None,
    notice: Callable[[str], None] = say,
) -> Path:
    """The folder or file that `load` reads, fetched first where it must be. Raises `CodegenError`."""
    from codegen25.engine.cpu import BITS
    from codegen25.model.hub import runnable, whole

    return runnable(name, bits, BITS, notice) if device == "cpu" and dtype is None else whole(name, notice)


def _load_torch(path: Path, device: str, dtype: str, notice: Callable[[str], None]) -> Model:
    from codegen25.model.folder import check_vocab, is_gguf
    from codegen25.model.older import is_older

    if is_gguf(path):
        raise UsageError(f"{path}: GGUF files run on the CPU alone; leave device and dtype out")
    try:
        from codegen25.engine.torch import TorchBackend
        from codegen25.model.checkpoint import load_llama
        from codegen25.model.codegen2 import load_codegen2
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise CodegenError(f"device {device} in {dtype} needs PyTorch; pip install 'codegen25[torch]'") from error
    tokenizer = from_folder(path)
    model = (
        load_codegen2(path, dtype=dtype, device=device)
        if is_older(path)
        else load_llama(path, dtype=dtype, device=device, notice=notice)
    )
    check_vocab(model.config, tokenizer, path)
    return Model(TorchBackend(model), tokenizer)


class Options(TypedDict, total=False):
    """What the methods of `Model` take beside their texts.

    `extra`: texts that the answer may repeat, such as other open files. They make it come sooner and never change it.
    `guard` makes what watches an answer and may refuse its tokens, one for each (`engine.answer.Guard`).
    """

    max_tokens: int  # 128
    sampling: Sampling  # greedy
    stop: Sequence[str]  # none; the answer ends in front of the first of these
    extra: Sequence[str]
    on_text: OnText | None
    guard: Callable[[], Guard] | None


@dataclass(frozen=True)
class _Options:
    """`Options` with their defaults."""

    max_tokens: int = 128
    sampling: Sampling = GREEDY
    stop: Sequence[str] = ()
    extra: Sequence[str] = ()
    on_text: OnText | None = None
    guard: Callable[[], Guard] | None = None

    def __post_init__(self) -> None:
        for name, strings in (("stop", self.stop), ("extra", self.extra)):
            if isinstance(strings, str):
                raise UsageError(f"{name} is the string {strings!r}; pass a list of strings")
        if "" in self.stop:
            raise UsageError("a stop string is empty; it would stand everywhere")


class Model:
    """A backend and its tokenizer. All methods raise `UsageError` for arguments out of range.

    Prompts and answers stay in the cache of `scheduler`, so that a text like the one before is answered sooner.
    """

    def __init__(
        self, backend: Backend, tokenizer: Tokenizer, window: int | None = None, scheduler: Scheduler | None = None
    ) -> None:
        self.backend, self.tokenizer = backend, tokenizer
        self.scheduler = scheduler or Scheduler(backend, tokenizer)
        self._encoded = lru_cache(maxsize=32)(lambda text: tuple(tokenizer.encode(text)))
        self.window = min(self.config.max_positions, MAX_WINDOW) if window is None else window
        if self.window < SMALLEST_WINDOW:
            raise CodegenError(
                f"a window of {self.window} tokens is too small; use a model with {SMALLEST_WINDOW} or more"
            )

    def forget(self) -> None:
        """Give the memory back that is kept for texts like those before."""
        self.scheduler.forget()

    @property
    def config(self) -> ModelConfig:
        return self.backend.config

    @cached_property
    def _text_vocabulary(self) -> NDArray[np.bool_]:
        """What may come in plain text: no control token but `<|endoftext|>`, no row without a token."""
        mask = np.zeros(self.config.vocab_size, dtype=np.bool_)
        mask[[*self.tokenizer.tokens_starting_with(b""), self.tokenizer.eot]] = True
        return mask

    @cached_property
    def span_vocabulary(self) -> NDArray[np.bool_]:
        """What may come inside a span: text, and the tokens that end it."""
        mask = self._text_vocabulary.copy()
        mask[list(infill.stops(self.tokenizer))] = True
        return mask

    def complete(self, prompt: str, **options: Unpack[Options]) -> Completion:
        """Continue a prompt. An empty one stands for the beginning of a document."""
        return self.complete_batch([prompt], **options)[0]

    def samples(self, prompt: str, n: int, **options: Unpack[Options]) -> list[Completion]:
        """`n` continuations of one prompt, which is run once. Each has its own random numbers."""
        if n < 1:
            raise UsageError(f"n is {n}; ask for at least one completion")
        return self.complete_batch([prompt] * n, **options)

    def complete_batch(self, prompts: Sequence[str], **options: Unpack[Options]) -> list[Completion]:
        """Continue several prompts side by side, each as if alone. Equal prompts are samples of one."""
        wanted = _Options(**options)
        requests, trimmed = [], []
        for index, prompt in _numbered(prompts):
            kept, required = healing.split(self.tokenizer, prompt)
            budget = self._prompt_budget(wanted.max_tokens, len(required))
            whole = self.tokenizer.encode(kept)
            ids = infill.trim_left(self.tokenizer, kept, budget, whole) or [self.tokenizer.eot]
            trimmed.append(len(whole) > budget)
            requests.append(
                Request(
                    ids, self._text_vocabulary, frozenset({self.tokenizer.eot}), required, wanted.max_tokens,
                    tuple(wanted.stop), wanted.sampling, index, related=self._related(wanted),
                    guard=wanted.guard() if wanted.guard else None,
                )
            )  # fmt: skip
        return self._run(requests, trimmed, wanted.on_text)

    def infill(
        self, prefix: str, suffix: str, *, anchor: int | None = ANCHOR_LINES, **options: Unpack[Options]
    ) -> Completion:
        """The text between `prefix` and `suffix`. `anchor` lines of the prefix begin the span; 0 is plain, None all."""
        return self.infill_batch([(prefix, suffix)], anchor=anchor, **options)[0]

    def infill_batch(
        self, pairs: Sequence[tuple[str, str]], *, anchor: int | None = ANCHOR_LINES, **options: Unpack[Options]
    ) -> list[Completion]:
        """One hole each in several texts, side by side, each as if alone. Equal pairs are samples of one."""
        wanted = _Options(**options)
        requests, trimmed = [], []
        for index, (prefix, suffix) in _numbered(pairs):
            holes, required = self._holes([prefix, suffix], anchor, wanted.max_tokens)
            ids = infill.prompt(self.tokenizer, holes)
            requests.append(self._hole_request(ids, required[0], wanted, index))
            trimmed.append(holes.trimmed)
        return self._run(requests, trimmed, wanted.on_text)

    def infill_holes(
        self, parts: Sequence[str], *, anchor: int | None = ANCHOR_LINES, **options: Unpack[Options]
    ) -> list[Completion]:
        """The texts between the n + 1 `parts`, answered in order; each knows the answers before it.

        `max_tokens` holds for every hole. `stop` ends one hole, not those behind it.
        """
        wanted = _Options(**options)
        if len(parts) < 2:
            raise UsageError("infilling needs the text on both sides of a hole; pass at least two parts")
        holes, required = self._holes(parts, anchor, wanted.max_tokens * (len(parts) - 1))
        ids = infill.prompt(self.tokenizer, holes)
        completions: list[Completion] = []
        for hole in range(len(parts) - 1):
            if hole:
                spelled = self.tokenizer.encode(required[hole - 1].decode() + completions[-1].text)
                ids = [*ids, *spelled, self.tokenizer.eom, *infill.opening(self.tokenizer, hole, holes.tails[hole])]
            request = self._hole_request(ids, required[hole], wanted, hole)
            on_text = wanted.on_text
            tell = (lambda _, text, hole=hole, on_text=on_text: on_text(hole, text)) if on_text else None
            completions += self._run([request], [holes.trimmed], tell)
        return completions

    def _holes(self, parts: Sequence[str], anchor: int | None, max_tokens: int) -> tuple[Holes, list[bytes]]:
        """The text around the holes within the window, and for every hole the end of its tail that is to be healed."""
        if anchor is not None and anchor < 0:
            raise UsageError(f"anchor is {anchor}; it must be 0 (plain) or a number of lines")
        around, tails, required = [], [], []
        for before in parts[:-1]:
            head, tail = infill.split_tail(before, anchor)
            kept, end = healing.split(self.tokenizer, tail)
            around.append(head)
            tails.append(kept)
            required.append(end)
        budget = self._prompt_budget(max_tokens, sum(map(len, required)))
        return infill.fit(self.tokenizer, [*around, parts[-1]], tails, budget), required

    def _hole_request(self, ids: Sequence[int], required: bytes, wanted: _Options, index: int) -> Request:
        return Request(
            ids, self.span_vocabulary, infill.stops(self.tokenizer), required, wanted.max_tokens, tuple(wanted.stop),
            wanted.sampling, index, related=self._related(wanted), guard=wanted.guard() if wanted.guard else None,
        )  # fmt: skip

    def _related(self, wanted: _Options) -> tuple[tuple[int, ...], ...]:
        return tuple(self._encoded(text) for text in wanted.extra)

    def _prompt_budget(self, max_tokens: int, required: int) -> int:
        """Ids that a prompt may have, beside the new tokens and those that spell `required` bytes again."""
        if max_tokens < 0:
            raise UsageError(f"max tokens is {max_tokens}; it must be 0 or positive")
        budget = self.window - max_tokens - required  # a token per byte at the worst
        if budget < 1:
            raise UsageError(f"max tokens is {max_tokens}, the window {self.window}; ask for fewer new tokens")
        return budget

    def _run(self, requests: Sequence[Request], trimmed: Sequence[bool], on_text: OnText | None) -> list[Completion]:
        texts: list[list[str]] = [[] for _ in requests]
        tokens: list[list[tuple[int, float]]] = [[] for _ in requests]
        finish: list[Finish] = ["length"] * len(requests)
        refused = [0] * len(requests)
        for piece in decode(self.scheduler, self.tokenizer, requests):
            texts[piece.request].append(piece.text)
            if piece.token is not None:
                tokens[piece.request].append((piece.token, piece.logprob))
            if on_text and piece.text:
                on_text(piece.request, piece.text)
            if piece.finish:
                finish[piece.request] = _reason(self.tokenizer, requests[piece.request], piece.finish, piece.stop_id)
                refused[piece.request] = piece.counts.refused if piece.counts else 0
        return [
            Completion(
                "".join(text), end, tuple(t for t, _ in ids), tuple(lp for _, lp in ids), len(request.prompt), cut, no
            )
            for text, end, ids, request, cut, no in zip(texts, finish, tokens, requests, trimmed, refused, strict=True)
        ]

    def score(self, text: str) -> Score:
        """Log-likelihood of every token of `text`, the first given `<|endoftext|>`, as between documents.

        A text over the window is scored in windows that overlap by half. Raises `UsageError` for an empty text.
        """
        ids = self.tokenizer.encode(text)
        if not ids:
            raise UsageError("the text is empty; there is nothing to score")
        stride = self.window // 2
        logprobs: list[float] = []
        while len(logprobs) < len(ids):
            done = len(logprobs)
            first = max(0, done - stride)
            context = [self.tokenizer.eot, *ids[first:done]]
            new = ids[done : done + self.window - len(context)]
            logprobs += self._logprobs(context, new)
        return Score(tuple(ids), tuple(logprobs), len(text.encode()))

    def _logprobs(self, context: list[int], new: list[int]) -> list[float]:
        """Of each of `new` given `context` and the ones before it; logits live for 256 tokens at a time."""
        sequence = self.backend.new()
        inputs, at = context + new[:-1], len(context) - 1
        try:
            if at:
                self.backend.forward([(sequence, inputs[:at], False)])
            out: list[float] = []
            for start in range(at, len(inputs), 256):
                (rows,) = self.backend.forward([(sequence, inputs[start : start + 256], True)])
                targets = new[start - at : start - at + 256]
                out += [float(log_softmax(row)[id]) for row, id in zip(rows, targets, strict=True)]
            return out
        finally:
            self.backend.free(sequence)


def _numbered(prompts: Sequence[_Prompt]) -> Iterator[tuple[int, _Prompt]]:
    """Every prompt, and how many equal ones stand before it: the index of a sample."""
    counts: Counter[_Prompt] = Counter()
    for prompt in prompts:
        yield counts[prompt], prompt
        counts[prompt] += 1


def _reason(tokenizer: Tokenizer, request: Request, finish: Finish, stop_id: int | None) -> Finish:
    """A span that ends without `<eom>` is incomplete; but a stop string is the caller's own wish."""
    is_span = tokenizer.eom in request.stop_ids
    return "length" if is_span and stop_id is not None and stop_id != tokenizer.eom else finish
