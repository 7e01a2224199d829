"""The border between requests that wait (asyncio) and a model that computes (a thread).

One thread steps the scheduler while there is anything to do. What a step says of a request is put into the mailbox of
whoever asked, all of a step in one call to the event loop. A mailbox that is closed, because its client has gone or has
asked for something newer, takes its requests out before the next step. It holds no more than the tokens of its answers,
so a client that reads slowly costs no memory without end, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from codegen25.complete import Model
from codegen25.engine.answer import Piece, Request
from codegen25.engine.backend import Facts
from codegen25.serve.scoring import Scored, Scorer


class Broken(Exception):
    """A step has failed; it is a bug of ours, or of the machine. The traceback is in the log, not in the answer."""


class Running(Protocol):
    """What answers are asked of: a model here (`Runner`), or other servers (`upstream_runner.py`)."""

    steps: int
    seconds: float  # in steps

    @property
    def busy(self) -> int:
        """Answers under way."""
        ...

    def check(self) -> None:
        """Raises `Refusal` when nothing can be answered now."""
        ...

    def submit(self, request: Request, box: Mailbox) -> int:
        """The ticket that the request's pieces carry, which come into the box."""
        ...

    def cancel(self, ticket: int) -> None:
        """Of this request no more is wanted."""
        ...

    def scorer(self, top: int) -> Any:
        """What `score` and `release` take: one growing sequence of tokens."""
        ...

    async def score(self, scorer: Any, ids: Sequence[int], *, is_wanted: bool = True) -> list[Scored]:
        """The log-probabilities of `ids` behind what `scorer` has seen."""
        ...

    def release(self, scorer: Any) -> None:
        """Free what is held for it."""
        ...

    async def close(self) -> None: ...


class Elsewhere(Facts, Protocol):
    """A model that runs on other servers."""

    def runner(self, on_broken: Callable[[BaseException], None]) -> Running:
        """Runs requests there; made in an event loop."""
        ...


class Mailbox:
    """The requests of one client that belong together, and the news of them. For one task of the event loop.

    `is_streamed`: the client sees pieces as they come. `has_logprobs`: those of all tokens are wanted.
    """

    def __init__(self, runner: Running, *, is_streamed: bool = True, has_logprobs: bool = False) -> None:
        self._runner = runner
        self.is_streamed, self.has_logprobs = is_streamed, has_logprobs
        self._pieces: list[Piece] = []
        self._news = asyncio.Event()
        self._open: set[int] = set()
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def submit(self, request: Request) -> int:
        """The ticket that the request's pieces carry."""
        ticket = self._runner.submit(request, self)
        self._open.add(ticket)
        return ticket

    async def next(self) -> list[Piece]:
        """What has come since, at least one piece. Raises what `fail` was told."""
        while not self._pieces:
            if self._failure:
                raise self._failure
            self._news.clear()
            await self._news.wait()
        pieces, self._pieces = self._pieces, []
        return pieces

    def cancel(self, ticket: int) -> None:
        """Of this request no more is wanted."""
        if ticket in self._open:
            self._open.discard(ticket)
            self._runner.cancel(ticket)

    def close(self) -> None:
        for ticket in tuple(self._open):
            self.cancel(ticket)

    def put(self, piece: Piece) -> None:
        self._pieces.append(piece)
        if piece.finish or piece.error:
            self._open.discard(piece.request)
        self._news.set()

    def fail(self, error: Exception) -> None:
        """No more is to come; whoever waits is told why."""
        self._failure = error
        self._open.clear()
        self._news.set()

    def end(self, error: Exception) -> None:
        """Nothing of it is wanted any more, and whoever waits is told why."""
        self.close()
        self.fail(error)


class Runner:
    """Runs a model for an event loop. All methods but the thread's own are called from that loop.

    `on_broken` is told of an exception in a step, on the event loop.
    """

    def __init__(self, model: Model, on_broken: Callable[[BaseException], None]) -> None:
        self.model = model
        self.steps = 0
        self.seconds = 0.0  # in steps
        self._scheduler = model.scheduler
        self._on_broken = on_broken
        self._loop = asyncio.get_running_loop()
        self._boxes: dict[int, Mailbox] = {}
        self._jobs: deque[Callable[[], bool]] = deque()  # each does a part, and says whether it is done
        self._wake = threading.Event()
        self._is_ending = False
        self._thread = threading.Thread(target=self._work, name="scheduler", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> int:
        """Answers under way."""
        return len(self._boxes)

    def check(self) -> None:
        """A model that is loaded can always be asked."""

    def submit(self, request: Request, box: Mailbox) -> int:
        ticket = self._scheduler.submit(request)
        self._boxes[ticket] = box  # before any news can come: they come by this event loop
        self._wake.set()
        return ticket

    def cancel(self, ticket: int) -> None:
        self._boxes.pop(ticket, None)
        self._scheduler.cancel(ticket)
        self._wake.set()

    def scorer(self, top: int) -> Scorer:
        return Scorer(self.model.backend, top)

    async def score(self, scorer: Scorer, ids: Sequence[int], *, is_wanted: bool = True) -> list[Scored]:
        """The log-probabilities of `ids` behind what `scorer` has seen. Parts of it run between the steps."""
        if not ids:
            return []
        done: asyncio.Future[list[Scored]] = self._loop.create_future()
        self._jobs.append(_Scoring(scorer, ids, is_wanted, done, self._loop))
        self._wake.set()
        return await done

    def release(self, scorer: Scorer) -> None:
        """Free the scorer's sequence, in the thread that it belongs to."""

        def free() -> bool:
            scorer.close()
            return True

        self._jobs.append(free)
        self._wake.set()

    async def close(self) -> None:
        """End the thread behind its step, and free all sequences."""
        self._is_ending = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join)

    # --------------------------------------------------------------------------------------------------- the thread

    def _work(self) -> None:
        while not self._is_ending:
            self._wake.wait()
            self._wake.clear()
            while not self._is_ending:
                # Also when nothing is active any more: what was cancelled leaves the scheduler in a step.
                pieces = self._step()
                if pieces:
                    self._call(self._deliver, pieces)
                if not (self._jobs or self._scheduler.active):
                    break
        self._scheduler.close()

    def _step(self) -> list[Piece]:
        try:
            if self._jobs:
                job = self._jobs.popleft()
                if not job():
                    self._jobs.append(job)
            started = self._loop.time()
            pieces = self._scheduler.step()
        except Exception as error:  # the scheduler has dropped everything; it goes on with new requests
            self._call(self._broke, error)
            return []
        self.steps += 1
        self.seconds += self._loop.time() - started
        return pieces

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    # ------------------------------------------------------------------------------------------------ the event loop

    def _deliver(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            box = self._boxes.get(piece.request)
            if box is None:  # cancelled while the step ran
                continue
            if piece.finish or piece.error:
                del self._boxes[piece.request]
            box.put(piece)

    def _broke(self, error: Exception) -> None:
        boxes, self._boxes = self._boxes, {}
        self._on_broken(error)
        for box in set(boxes.values()):
            box.fail(Broken())


class _Scoring:
    """A job: some tokens a call, so that the requests beside it need not wait for a long prompt."""

    def __init__(
        self,
        scorer: Scorer,
        ids: Sequence[int],
        is_wanted: bool,
        done: asyncio.Future[list[Scored]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._scorer, self._ids, self._is_wanted, self._done, self._loop = scorer, ids, is_wanted, done, loop
        self._found: list[Scored] = []

    def __call__(self) -> bool:
        if self._done.cancelled():
            return True
        try:
            self._found += self._scorer.extend(self._ids[len(self._found) :], is_wanted=self._is_wanted)
        except Exception as error:  # goes to whoever asked
            self._loop.call_soon_threadsafe(self._tell, error)
            return True
        if len(self._found) < len(self._ids):
            return False
        self._loop.call_soon_threadsafe(self._tell, None)
        return True

    def _tell(self, error: Exception | None) -> None:
        if self._done.cancelled():
            return
        if error:
            self._done.set_exception(error)
        else:
            self._done.set_result(self._found)
