"""Suggestions at the cursor of whoever types, one at a time for each document, and the model being loaded meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlparse

from codegen25.complete import ANCHOR_LINES, Model
from codegen25.serve.answering import Answering, Usage
from codegen25.serve.ask import Ask, Extra, Lines
from codegen25.serve.attribution import Attribution, Spans, placed

# Nobody looks at a suggestion any more that took so long.
_SECONDS = 60.0


@dataclass(frozen=True)
class Cursor:
    """A place in a document, and other open documents with their URIs."""

    uri: str
    prefix: str
    suffix: str
    others: tuple[tuple[str, str], ...] = ()

    @property
    def is_at_end(self) -> bool:
        """Whether its line has nothing on the right of it."""
        return not self.suffix.partition("\n")[0].strip()


@dataclass(frozen=True)
class Suggestion:
    """The text to insert, '' when there is nothing to say, and where it stands in the corpus of an index."""

    text: str
    attribution: Spans = ()

    def behind(self, before: str) -> Suggestion:
        """With a text in front."""
        return Suggestion(before + self.text, placed(self.attribution, len(before)))


class Suggest:
    """Asks one model. Made and used in one event loop; `load` runs in a thread, and begins at once. So does
    `attribute`, which opens an index beside it.

    `on_loaded` is told the seconds it took, `on_failed` why there is no model, `on_broken` of an exception in a step.
    """

    def __init__(
        self, load: Callable[[], Model], *, max_tokens: int, lines: Lines, on_loaded: Callable[[float], None],
        on_failed: Callable[[Exception], None], on_broken: Callable[[BaseException], None],
        attribute: Callable[[Model], Attribution] | None = None, anchor: int = ANCHOR_LINES,
    ) -> None:  # fmt: skip
        self._max_tokens, self._lines, self._anchor = max_tokens, lines, anchor
        self._on_loaded, self._on_failed, self._on_broken = on_loaded, on_failed, on_broken
        self._loop = asyncio.get_running_loop()
        self._answering: asyncio.Future[Answering] = self._loop.create_future()
        self._current: dict[str, asyncio.Task[object]] = {}
        self._is_closed = False
        threading.Thread(target=self._work, args=(load, attribute), name="loading", daemon=True).start()

    def _work(self, load: Callable[[], Model], attribute: Callable[[Model], Attribution] | None) -> None:
        started = time.monotonic()
        try:
            model = load()
            attribution = attribute(model) if attribute else None
        except Exception as error:  # told to whoever asks for a suggestion
            self._call(self._fail, error)
        else:
            self._call(self._serve, model, attribution, time.monotonic() - started)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: the client has gone before there was a model
            self._loop.call_soon_threadsafe(function, *arguments)

    def _serve(self, model: Model, attribution: Attribution | None, seconds: float) -> None:
        if not self._is_closed:
            drafting = attribution.drafting() if attribution else model
            self._answering.set_result(Answering(drafting, self._on_broken, _SECONDS, attribution))
            self._on_loaded(seconds)

    def _fail(self, error: Exception) -> None:
        if not self._is_closed:
            self._answering.set_exception(error)
            self._answering.exception()  # looked at, also when nobody asks
            self._on_failed(error)

    async def at(self, cursor: Cursor) -> Suggestion:
        """What to insert. Ends an older call for the same document.

        When cancelled, the model stops within a step. Raises `CodegenError`, and what kept the model from loading.
        """
        task = asyncio.current_task()
        assert task
        if older := self._current.get(cursor.uri):
            older.cancel()
        self._current[cursor.uri] = task
        try:
            answering = await asyncio.shield(self._answering)
            (choice,) = await answering.whole(self._ask(cursor), Usage())
        finally:
            if self._current.get(cursor.uri) is task:
                del self._current[cursor.uri]
        text = choice.text.rstrip() if cursor.is_at_end else choice.text
        return Suggestion(text, placed(choice.attribution or (), 0, len(text))) if text.strip() else Suggestion("")

    def _ask(self, cursor: Cursor) -> Ask:
        extra = tuple(Extra(text, _name(uri)) for uri, text in cursor.others)
        return Ask(
            (cursor.prefix, cursor.suffix), max_tokens=self._max_tokens, extra=extra, lines=self._lines,
            anchor=self._anchor, is_typing=True, tidy=True, client=cursor.uri,
        )  # fmt: skip

    async def close(self) -> None:
        """End what is under way, and the model's thread. A load cannot be ended."""
        self._is_closed = True
        tasks = list(self._current.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._answering.done() and not self._answering.exception():
            await self._answering.result().close()


def _name(uri: str) -> str:
    """The file's own name."""
    return PurePosixPath(unquote(urlparse(uri).path)).name
