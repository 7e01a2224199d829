"""Runs requests on upstreams, in the place of `runner.Runner` with its model.

An upstream that fails is left for another one, until the first token of an answer; behind that an answer goes on only
when nobody has seen any of it, because its client waits for the whole: then it goes on from the tokens that have come.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from functools import lru_cache, partial
from itertools import count

from codegen25.engine import healing
from codegen25.engine.answer import Piece, Request
from codegen25.serve import upstream_wire as wire
from codegen25.serve.refusal import Refusal
from codegen25.serve.runner import Broken, Mailbox
from codegen25.serve.scoring import Scored
from codegen25.serve.upstream import Busy, Failed, Upstream
from codegen25.serve.upstream_answer import UpstreamAnswer
from codegen25.serve.upstream_model import UpstreamModel
from codegen25.serve.upstream_probe import Prober
from codegen25.serve.upstream_tokens import Names

# How often one request is tried at the most. Fewer times than an upstream may fail, so that a request that none can
# answer takes none out.
ATTEMPTS = 3
# Seconds before an upstream is asked again that has just failed, where there is no other.
_PAUSE = 0.1


class UpstreamScorer:
    """Tokens so far, of which the next ones are scored."""

    def __init__(self, top: int) -> None:
        self.top = top
        self.ids: list[int] = []


class UpstreamRunner:
    """Made in an event loop, whose tasks it runs in. `on_broken` is told of bugs."""

    def __init__(self, model: UpstreamModel, on_broken: Callable[[BaseException], None]) -> None:
        self.model = model
        self.steps = 0  # of a model here; there are none
        self.seconds = 0.0
        self._pool, self._on_broken = model.pool, on_broken
        self._http = wire.Client(model.seconds, model.key)
        self._names = Names(model.tokenizer, model.config.vocab_size)
        self._allowed = lru_cache(maxsize=64)(partial(healing.allowed, model.tokenizer))
        self._tickets = count()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        prober = Prober(self._http, self._pool, model.tokenizer, model.window, on_broken)
        self._probing = asyncio.create_task(prober.run())

    @property
    def busy(self) -> int:
        """Answers under way."""
        return len(self._tasks)

    def check(self) -> None:
        """Raises `Refusal` when no upstream is up."""
        if not any(one.is_up for one in self._pool.all):
            raise self._none()

    def submit(self, request: Request, box: Mailbox) -> int:
        ticket = next(self._tickets)
        task = self._tasks[ticket] = asyncio.create_task(self._run(ticket, request, box))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return ticket

    def cancel(self, ticket: int) -> None:
        if task := self._tasks.pop(ticket, None):
            task.cancel()

    def scorer(self, top: int) -> UpstreamScorer:
        return UpstreamScorer(top)

    async def score(self, scorer: UpstreamScorer, ids: Sequence[int], *, is_wanted: bool = True) -> list[Scored]:
        """The log-probabilities of `ids` behind what `scorer` has seen: an echo of all of it. Raises `Refusal`."""
        scorer.ids += ids
        if not is_wanted or not ids:
            return [Scored(id, None) for id in ids]
        body = {"prompt": scorer.ids, "max_tokens": 0, "echo": True, "logprobs": scorer.top, "temperature": 0,
                "return_tokens_as_token_ids": True}  # fmt: skip
        tried: list[Upstream] = []
        while upstream := await self._next(scorer.ids, tried):
            with upstream.working():
                try:
                    answer = await wire.once(self._http, upstream, "/completions", body)
                    found = self._names.scored(answer, ids)
                except (Failed, Busy) as error:
                    self._count(upstream, error)
                    continue
            upstream.answered()
            return [Scored(one.id, one.logprob, one.top[: scorer.top]) for one in found]
        raise self._none()

    def release(self, scorer: UpstreamScorer) -> None:
        """Nothing is held for it."""

    async def close(self) -> None:
        tasks = [self._probing, *self._ending]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.aclose()

    # ---------------------------------------------------------------------------------------------------- one request

    async def _run(self, ticket: int, request: Request, box: Mailbox) -> None:
        try:
            if request.max_tokens <= 0:
                box.put(Piece(ticket, "", None, 0.0, "length"))
            else:
                await self._answer(ticket, request, box)
        except Refusal as refusal:
            self._tasks.pop(ticket, None)
            box.end(refusal)
        except Exception as error:  # a bug of ours, not of an upstream
            self._tasks.pop(ticket, None)
            self._on_broken(error)
            box.end(Broken())
        finally:
            self._tasks.pop(ticket, None)

    async def _answer(self, ticket: int, request: Request, box: Mailbox) -> None:
        answer = UpstreamAnswer(
            ticket, request, self.model.tokenizer, self._allowed, self._names, has_logprobs=box.has_logprobs
        )
        tried: list[Upstream] = []
        is_begun = False
        while upstream := await self._next(answer.ids, tried):
            with upstream.working():
                try:
                    started = time.monotonic()
                    async with aclosing(answer.pieces(self._http, upstream)) as pieces:
                        async for piece in pieces:
                            if started and piece.token is not None:
                                upstream.first_seconds += time.monotonic() - started
                                upstream.first_tokens += 1
                                started = 0.0
                            is_begun |= bool(piece.text)
                            box.put(piece)
                    upstream.answered()
                    upstream.outcomes["answered"] += 1
                    return
                except asyncio.CancelledError:
                    upstream.outcomes["dropped"] += 1
                    raise
                except (Failed, Busy) as error:
                    self._count(upstream, error)
                    if is_begun and box.is_streamed:
                        raise _broke_off() from error
        raise self._none()

    async def _next(self, prompt: Sequence[int], tried: list[Upstream]) -> Upstream | None:
        """The upstream to try next, which is then one of `tried`; None when it has been tried often enough."""
        if len(tried) >= ATTEMPTS:
            return None
        upstream = self._pool.choose(prompt, tried)
        if upstream and tried:
            self._pool.retries += 1
            if upstream in tried:
                await asyncio.sleep(_PAUSE * len(tried))
        if upstream:
            tried.append(upstream)
        return upstream

    def _count(self, upstream: Upstream, error: Failed | Busy) -> None:
        if isinstance(error, Busy):
            upstream.outcomes["busy"] += 1
            return
        upstream.outcomes["failed"] += 1
        if upstream.failed(error):
            self._pool.forget(upstream)

    def _none(self) -> Refusal:
        """What is said when no upstream answers; the reasons are in the log, addresses are not for clients."""
        up = sum(one.is_up for one in self._pool.all)
        return Refusal(
            503, f"of {len(self._pool.all)} upstreams {up} are up, and none takes the request now; try again soon",
            kind="unavailable_error", code="no_upstream", retry_after=2,
        )  # fmt: skip


def _broke_off() -> Refusal:
    return Refusal(
        502,
        "the upstream broke off in the middle of the answer; ask again",
        kind="server_error",
        code="upstream_failed",
    )
