"""Answers to requests, news by news or whole, whatever dialect they came in."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from codegen25.complete import Model
from codegen25.engine.answer import Counts, Finish, Guard, Piece, Request
from codegen25.serve import tidy
from codegen25.serve.ask import Ask
from codegen25.serve.attribution import Attribution, Spans
from codegen25.serve.prompts import Prompt, Prompts
from codegen25.serve.refusal import Refusal
from codegen25.serve.runner import Elsewhere, Mailbox, Runner, Running
from codegen25.serve.scoring import Scored
from codegen25.serve.suggested import Suggested, Suggestion
from codegen25.serve.tidy import Tidy

_SUMS = ("prompt", "reused", "answered", "drafted", "accepted", "attributed", "filtered", "refused")


@dataclass
class Usage:
    """Tokens and seconds of a whole request. `reused`: tokens of the prompt that a cache had."""

    prompt: int = 0
    reused: int = 0
    answered: int = 0
    drafted: int = 0
    accepted: int = 0
    prompt_seconds: float = 0.0
    answer_seconds: float = 0.0
    is_known: bool = False  # answered without the model
    trimmed: bool = False
    attributed: int = 0  # answers that hold text of the corpus
    filtered: int = 0  # answers that the policy ended
    refused: int = 0  # tokens that the policy refused

    def add(self, other: Usage) -> None:
        """Of another request that ran beside this one."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.prompt_seconds = max(self.prompt_seconds, other.prompt_seconds)
        self.answer_seconds = max(self.answer_seconds, other.answer_seconds)
        self.is_known |= other.is_known
        self.trimmed |= other.trimmed

    def count(self, counts: Counts | None) -> None:
        """Of one answer that has ended."""
        if counts:
            self.reused = max(self.reused, min(counts.reused, counts.prompt))
            self.drafted += counts.drafted
            self.accepted += counts.accepted
            self.refused += counts.refused


@dataclass(frozen=True)
class News:
    """New text of answer `choice` (and hole `hole`). With `finish` it is the last of it, and `attribution` is of the
    whole answer, where there is an index."""

    choice: int
    text: str
    tokens: tuple[Scored, ...] = ()
    finish: Finish | None = None
    hole: int = 0
    stopped_by: str = ""  # word: a stop string, or a rule of `tidy`; eos: a token
    attribution: Spans | None = None


@dataclass(frozen=True)
class Choice:
    """A whole answer. `tokens` have log-probabilities only where these were asked for."""

    text: str
    tokens: tuple[Scored, ...]
    finish: Finish
    hole: int = 0
    stopped_by: str = ""
    attribution: Spans | None = None


@dataclass
class _State:
    """Of one answer under way."""

    choice: int
    tidy: Tidy | None
    scorer: Any = None  # of the runner
    seen: list[int] = field(default_factory=list)  # tokens that have come
    text: list[str] = field(default_factory=list)


class Answering:
    """Answers on one model. Its methods belong to one event loop. `attribution` says where answers come from."""

    def __init__(
        self, model: Model | Elsewhere, on_broken: Callable[[BaseException], None], seconds: float,
        attribution: Attribution | None = None,
    ) -> None:  # fmt: skip
        self.model = model
        self.prompts = Prompts(model)
        self.runner = Runner(model, on_broken) if isinstance(model, Model) else model.runner(on_broken)
        self.suggested = Suggested()
        self.superseded = 0
        self.typed_along = 0
        self._seconds = seconds
        self._attribution = attribution
        self._current: dict[str, Mailbox] = {}
        self._warming: Mailbox | None = None

    async def close(self) -> None:
        await self.runner.close()

    async def echoed(self, ask: Ask) -> tuple[Scored, ...]:
        """The tokens of the prompt that `echo` gives back, with log-probabilities."""
        prompt = self.prompts.of(ask)
        ids = prompt.request.prompt
        scorer = self.runner.scorer(ask.logprobs or 0)
        try:
            scored = await self.runner.score(scorer, ids)
        finally:
            self.runner.release(scorer)
        return tuple(scored[place] for place in prompt.shown)

    async def warm(self, ask: Ask) -> None:
        """Compute a prompt for requests to come, while nobody waits for it; the next request ends that."""
        self._stop_warming()
        box = self._warming = Mailbox(self.runner)
        box.submit(self.prompts.of(ask).request)

    def _stop_warming(self) -> None:
        if self._warming:
            self._warming.close()
            self._warming = None

    async def news(self, ask: Ask, usage: Usage) -> AsyncGenerator[News, None]:
        """The answers as they come; `usage` is filled meanwhile. Closing it ends all work within a step.

        Raises `Refusal`, other kinds of `CodegenError`, and `Broken`.
        """
        self._end_older(ask.client)
        known = self.suggested.rest(ask)
        if known:
            self.typed_along += 1
            usage.is_known = True
            yield News(0, known.text, finish=known.finish, stopped_by="word", attribution=known.attribution)
            return
        self._stop_warming()
        prompt = self.prompts.of(ask)
        usage.trimmed = prompt.trimmed
        with Mailbox(self.runner, is_streamed=ask.stream, has_logprobs=ask.is_scored) as box:
            if ask.client is not None:
                self._current[ask.client] = box
            alarm = asyncio.get_running_loop().call_later(self._seconds, box.end, _too_late(self._seconds))
            try:
                if ask.holes > 1:
                    stream = self._holes(ask, prompt, box, usage)
                else:
                    stream = self._choices(ask, prompt.request, box, usage)
                async with aclosing(stream):
                    async for news in stream:
                        yield news
            finally:
                alarm.cancel()
                if ask.client is not None and self._current.get(ask.client) is box:
                    del self._current[ask.client]

    def _end_older(self, client: str | None) -> None:
        """What a client asked for is of no use to it any more when it asks again."""
        if client is not None and (older := self._current.pop(client, None)):
            self.superseded += 1
            older.end(_superseded())

    # ------------------------------------------------------------------------------------------------ one hole, or none

    async def _choices(
        self, ask: Ask, request: Request, box: Mailbox, usage: Usage, hole: int = 0, first: int = 0, count: int = 0
    ) -> AsyncGenerator[News, None]:
        """Answers `first` to `first + count` (by default all), side by side."""
        started = time.monotonic()
        is_span = self.model.tokenizer.eom in request.stop_ids
        states = {
            box.submit(replace(request, index=choice, guard=self._guard())): _State(choice, tidy.of(ask))
            for choice in range(first, first + (count or ask.best_of))
        }
        usage.prompt = max(usage.prompt, len(request.prompt))
        scoring = _Scoring(self.runner, ask, request)
        first_came = 0.0
        try:
            while states:
                pieces = await box.next()
                first_came = first_came or time.monotonic()
                for ticket, some in _by_request(pieces).items():
                    state = states.get(ticket)
                    if state is None:
                        continue
                    news = replace(self._read(some, state, box, usage, is_span), hole=hole)
                    if ask.logprobs is not None:
                        news = replace(news, tokens=await scoring.of(state, news.tokens, some[-1].stop_id))
                    if news.finish:
                        del states[ticket]
                        news = await self._attributed(state, news, usage)
                        self._remember(ask, state, news)
                    if news.text or news.tokens or news.finish:
                        yield news
        finally:
            scoring.close()
            usage.prompt_seconds += max(0.0, first_came - started)
            usage.answer_seconds += time.monotonic() - (first_came or started)

    def _read(self, pieces: Sequence[Piece], state: _State, box: Mailbox, usage: Usage, is_span: bool) -> News:
        """What the pieces of one answer say together, tidied."""
        text, tokens, finish, stopped_by = "", [], None, ""
        for piece in pieces:
            if piece.error:
                raise Refusal(503, str(piece.error), kind="server_error", code="out_of_memory", retry_after=5)
            if piece.token is not None:
                tokens.append(Scored(piece.token, piece.logprob))
            text += state.tidy.push(piece.text) if state.tidy else piece.text
            if piece.finish:
                finish, stopped_by = self._end(piece, is_span)
                text += state.tidy.finish() if state.tidy else ""
                usage.count(piece.counts)
            elif state.tidy and state.tidy.done:
                finish, stopped_by = "stop", "word"
                box.cancel(piece.request)
                break
        usage.answered += len(tokens)
        state.text.append(text)
        return News(state.choice, text, tuple(tokens), finish, 0, stopped_by)

    def _end(self, piece: Piece, is_span: bool) -> tuple[Finish, str]:
        """How an answer ended, and by what."""
        if piece.finish != "stop" or piece.stop_id is None:
            return piece.finish or "length", "word"
        is_closed = not is_span or piece.stop_id == self.model.tokenizer.eom
        return "stop" if is_closed else "length", "eos"

    def _remember(self, ask: Ask, state: _State, news: News) -> None:
        assert news.finish
        self.suggested.remember(ask, Suggestion("".join(state.text), news.finish, news.attribution))

    def _guard(self) -> Guard | None:
        """What watches one answer, for the policy."""
        make = self._attribution.guard if self._attribution else None
        return make() if make else None

    async def _attributed(self, state: _State, news: News, usage: Usage) -> News:
        """The last news of an answer with where all of it stands in the corpus, when there is one."""
        usage.filtered += news.finish == "content_filter"
        if self._attribution is None:
            return news
        # Some milliseconds, which others need not wait for.
        spans = tuple(await asyncio.to_thread(self._attribution.spans, "".join(state.text)))
        usage.attributed += bool(spans)
        return replace(news, attribution=spans)

    # ---------------------------------------------------------------------------------------------------- several holes

    async def _holes(self, ask: Ask, prompt: Prompt, box: Mailbox, usage: Usage) -> AsyncGenerator[News, None]:
        """One after the other, since each knows the answers before it."""
        for choice in range(ask.n):
            request = prompt.request
            for hole in range(ask.holes):
                text = ""
                stream = self._choices(ask, request, box, usage, hole, choice, 1)
                async with aclosing(stream):
                    async for news in stream:
                        text += news.text
                        yield news
                if hole + 1 < ask.holes:
                    request = self.prompts.next_hole(prompt, request, hole + 1, text)

    async def whole(self, ask: Ask, usage: Usage) -> list[Choice]:
        """The `n` answers, or those of `best_of` with the highest mean log-probability, the best first."""
        texts: dict[tuple[int, int], list[News]] = {}
        stream = self.news(ask, usage)
        async with aclosing(stream):
            async for news in stream:
                texts.setdefault((news.choice, news.hole), []).append(news)
        choices = []
        for key in sorted(texts):
            last = texts[key][-1]
            assert last.finish
            choices.append(
                Choice(
                    "".join(news.text for news in texts[key]),
                    tuple(token for news in texts[key] for token in news.tokens),
                    last.finish,
                    last.hole,
                    last.stopped_by,
                    last.attribution,
                )
            )
        if ask.best_of > ask.n:
            choices = sorted(choices, key=_mean, reverse=True)[: ask.n]
        return choices


class _Scoring:
    """Log-probabilities of the answers to one request, for those who asked for them."""

    def __init__(self, runner: Running, ask: Ask, request: Request) -> None:
        self._runner, self._ask, self._prompt = runner, ask, request.prompt
        self._scorers: list[Any] = []

    async def of(self, state: _State, tokens: tuple[Scored, ...], end: int | None) -> tuple[Scored, ...]:
        """The same tokens with the likeliest beside each, and the token `end` that ended the answer, if one did."""
        ids = [token.id for token in tokens] + ([] if end is None else [end])
        if not ids or not (self._ask.logprobs or end is not None or state.scorer):
            state.seen += ids
            return tokens
        if state.scorer is None:
            state.scorer = self._runner.scorer(self._ask.logprobs or 0)
            self._scorers.append(state.scorer)
            await self._runner.score(state.scorer, [*self._prompt, *state.seen], is_wanted=False)
        state.seen += ids
        return tuple(await self._runner.score(state.scorer, ids))

    def close(self) -> None:
        for scorer in self._scorers:
            self._runner.release(scorer)


def _superseded() -> Refusal:
    return Refusal(409, "a newer request of the same client has come", kind="superseded", code="superseded")


def _too_late(seconds: float) -> Refusal:
    return Refusal(
        504, f"no whole answer within {seconds:g} seconds; ask for fewer tokens", kind="timeout_error", code="timeout"
    )


def _by_request(pieces: Sequence[Piece]) -> dict[int, list[Piece]]:
    found: dict[int, list[Piece]] = {}
    for piece in pieces:
        found.setdefault(piece.request, []).append(piece)
    return found


def _mean(choice: Choice) -> float:
    """The mean log-probability of a token."""
    logprobs = [token.logprob for token in choice.tokens if token.logprob is not None]
    return math.fsum(logprobs) / len(logprobs) if logprobs else -math.inf
