"""What all dialects share: the model that is served now, who may still be let in, and the figures."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any

from codegen25.complete import Model
from codegen25.engine.backend import Facts
from codegen25.errors import CodegenError
from codegen25.serve import refusal
from codegen25.serve.answering import Answering, Choice, News, Usage
from codegen25.serve.ask import Ask
from codegen25.serve.attribution import Attribution
from codegen25.serve.limits import Limits
from codegen25.serve.log import log
from codegen25.serve.metrics import Metrics
from codegen25.serve.runner import Elsewhere
from codegen25.serve.wire import Call, Dialect, Endpoint


@dataclass(frozen=True)
class Served:
    """A model and the name that clients know it by. `size` in bytes."""

    name: str
    answering: Answering
    loaded: float  # seconds of `time.time`
    size: int = 0


class Service:
    """One server. `load` makes the model; it is called in a thread, at first and for each `reload`.

    So is `attribute`, which opens an index beside it.
    """

    def __init__(
        self, name: str, load: Callable[[], Model | Elsewhere], limits: Limits | None = None, *, log_text: bool = False,
        attribute: Callable[[Facts], Attribution] | None = None,
    ) -> None:  # fmt: skip
        self.name, self.limits = name, limits or Limits()
        self.metrics = Metrics()
        self._load, self._attribute, self._log_text = load, attribute, log_text
        self._served: Served | None = None
        self._lock = asyncio.Lock()  # one load at a time
        self._busy = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.failure: Exception | None = None
        self.on_failure: Callable[[], None] = lambda: None
        self.metrics.watch("answers_under_way", "Answers that have been let in and not ended.", lambda: self._busy)
        self.metrics.watch("steps", "Steps of the model.", lambda: self._runner_figure("steps"))
        self.metrics.watch("step_seconds", "Seconds in steps.", lambda: self._runner_figure("seconds"))

    def _runner_figure(self, name: str) -> float:
        return float(getattr(self._served.answering.runner, name)) if self._served else 0.0

    # ------------------------------------------------------------------------------------------------------ the model

    @property
    def ready(self) -> bool:
        return self._served is not None

    @property
    def served(self) -> Served:
        """Raises `Refusal` while the first model is being loaded, and while no upstream is up."""
        if self._served is None:
            raise refusal.loading()
        self._served.answering.runner.check()
        return self._served

    async def reload(self) -> None:
        """Load the model again, from files that may have changed. Until it is there, the old one serves.

        It also ends the answers that it has begun. Raises `CodegenError`; then the old one stays.
        """
        async with self._lock:
            started = time.monotonic()
            model, attribution = await asyncio.to_thread(self._loaded)
            answering = Answering(model, self._broken, self.limits.answer_seconds, attribution)
            old, self._served = self._served, Served(self.name, answering, time.time())
            log("model", name=self.name, seconds=round(time.monotonic() - started, 3), again=old is not None)
        if old:
            task = asyncio.create_task(_retire(old.answering))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _loaded(self) -> tuple[Model | Elsewhere, Attribution | None]:
        model = self._load()
        if self._attribute is None:
            return model, None
        attribution = self._attribute(model)
        return attribution.drafting() if isinstance(model, Model) else model, attribution

    async def first_load(self) -> None:
        """`reload` when the server starts: without a model there is no server. `failure` says why there is none."""
        try:
            await self.reload()
        except Exception as error:  # whoever runs the server raises it again
            self.failure = error
            self.on_failure()

    def reload_soon(self) -> None:
        """`reload` where nobody waits for it: an error is logged, and the model that is there goes on."""
        task = asyncio.create_task(self._try_reload())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _try_reload(self) -> None:
        try:
            await self.reload()
        except CodegenError as error:
            log("reload failed", why=str(error))

    async def close(self) -> None:
        if self._served:
            await self._served.answering.close()
        await asyncio.gather(*self._tasks)

    def _broken(self, error: BaseException) -> None:
        log("bug", traceback="".join(traceback.format_exception(error)))

    def check_model(self, call: Call, field: str = "model") -> None:
        """Raises `Refusal` for a request that names another model."""
        name = call.fields.text(field)
        if name and name.removesuffix(":latest") not in (self.name, self.name.rsplit("/", 1)[-1]):
            raise refusal.unknown_model(name, self.name)

    # ------------------------------------------------------------------------------------------------------ requests

    @contextmanager
    def admitted(self, asks: int) -> Iterator[Answering]:
        """Room for so many answers. Raises `Refusal` when there is none."""
        answering = self.served.answering
        if self._busy + asks > self.limits.queue:
            raise refusal.busy(f"{self._busy} answers are under way, and {self.limits.queue} may be; try again later")
        self._busy += asks
        try:
            yield answering
        finally:
            self._busy -= asks

    async def news(self, call: Call, ask: Ask) -> AsyncGenerator[News, None]:
        """The news of one of the requests of a call, whose usage grows by it."""
        self._note(call, ask)
        usage = Usage()
        try:
            with self.admitted(ask.best_of) as answering:
                stream = answering.news(ask, usage)
                async with aclosing(stream):
                    async for news in stream:
                        self._note_answer(call, news.text)
                        yield news
        finally:
            call.usage.add(usage)

    async def whole(self, call: Call, ask: Ask) -> list[Choice]:
        self._note(call, ask)
        usage = Usage()
        try:
            with self.admitted(ask.best_of) as answering:
                choices = await answering.whole(ask, usage)
        finally:
            call.usage.add(usage)
        for choice in choices:
            self._note_answer(call, choice.text)
        return choices

    async def warm(self, call: Call, ask: Ask) -> None:
        self._note(call, ask)
        await self.served.answering.warm(ask)

    def _note(self, call: Call, ask: Ask) -> None:
        if self._log_text:
            call.text["parts"] = list(ask.parts)

    def _note_answer(self, call: Call, text: str) -> None:
        if self._log_text:
            call.text["answer"] = call.text.get("answer", "") + text

    # ------------------------------------------------------------------------------------------------------- the wire

    def endpoint(self, dialect: Dialect, handler: Callable[[Call], Any]) -> Endpoint:
        return Endpoint(dialect, handler, self.limits, self._report)

    def _report(self, endpoint: Endpoint, call: Call, status: int, seconds: float, note: str) -> None:
        usage, metrics = call.usage, self.metrics
        metrics.requests.labels(endpoint.dialect.name, str(status)).inc()
        metrics.add(usage, seconds)
        if note == "gone":
            metrics.gone.inc()
        members: dict[str, Any] = {"dialect": endpoint.dialect.name, "status": status, "ms": round(1000 * seconds, 1)}
        if usage.prompt or usage.is_known:
            members |= _figures(usage.__dict__)
        if note:
            members["note"] = note
        log("request", **members, **call.text)


def _figures(usage: Mapping[str, Any]) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in usage.items() if value}


async def _retire(answering: Answering) -> None:
    """Close a model when its last answer has ended."""
    while answering.runner.busy:
        await asyncio.sleep(0.05)
    await answering.close()
