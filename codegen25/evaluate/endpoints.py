"""Several servers of one model, asked as one: every request goes to the one that has the fewest under way.

An answer depends on its question and its seed, so that it makes no difference who gives it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from codegen25.complete import Completion
from codegen25.errors import CodegenError, UsageError, say
from codegen25.evaluate.endpoint import Endpoint, Unanswered, connect

# Of one server before the next is asked; and seconds for which it is then asked only when no other answers.
ATTEMPTS, PAUSE = 2, 30.0


class _Load:
    """Who has how much to do, and who is to be left alone until when. For many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()
        self._out: dict[str, float] = {}

    @contextmanager
    def taken(self, some: Collection[Endpoint]) -> Iterator[Endpoint]:
        """One of them, with a request more."""
        with self._lock:
            now = time.monotonic()
            one = min(some, key=lambda one: (self._out.get(one.url, 0.0) > now, self._under_way[one.url]))
            self._under_way[one.url] += 1
        try:
            yield one
        finally:
            with self._lock:
                self._under_way[one.url] -= 1

    def leave(self, one: Endpoint) -> bool:
        """Leave it alone for a while; False when it is left alone already."""
        with self._lock:
            now = time.monotonic()
            is_new = self._out.get(one.url, 0.0) <= now
            self._out[one.url] = now + PAUSE
            return is_new


@dataclass(frozen=True)
class Endpoints(Endpoint):
    """`all` are asked; `url` is the first one's, `concurrency` that of all together. `notice` is told who fails."""

    all: tuple[Endpoint, ...] = ()
    notice: Callable[[str], None] = say
    _load: _Load = field(default_factory=_Load, repr=False, compare=False)

    def check_suffix(self) -> None:
        for one in self.all:
            try:
                one.check_suffix()
            except Unanswered as error:
                self._leave(one, error)

    def _completion(
        self, body: dict[str, Any], stops: tuple[str, ...], over: threading.Event | None = None
    ) -> Completion:
        """Raises what the last one does when none has answered, and at once what is wrong with the request."""
        untried = list(self.all)
        while True:
            with self._load.taken(untried) as one:
                untried.remove(one)
                try:
                    return one._completion(body, stops, over)
                except Unanswered as error:
                    if not untried or (over and over.is_set()):
                        raise
                    self._leave(one, error)

    def _leave(self, one: Endpoint, error: CodegenError) -> None:
        if self._load.leave(one):
            self.notice(f"{error}; the others go on")


def connect_all(
    urls: Sequence[str], model: str | None, *, notice: Callable[[str], None] = say, **settings: Any
) -> Endpoint:
    """The servers under `urls` as one. Of several, those that do not answer now may do so later.

    Raises `UsageError` when they serve different models, `CodegenError` when none answers.
    """
    urls = list(dict.fromkeys(urls))
    if len(urls) == 1:
        return connect(urls[0], model, **settings)
    settings = {"attempts": ATTEMPTS} | settings
    found: dict[str, Endpoint] = {}
    failures: dict[str, Unanswered] = {}
    for url in urls:
        try:
            found[url] = connect(url, model, **settings)
        except Unanswered as error:
            failures[url] = error
    if not found:
        raise next(iter(failures.values()))
    names = sorted({one.model for one in found.values()})
    if len(names) > 1:
        raise UsageError(f"--endpoint: they serve {', '.join(names)}; name those of one model, or it by --model")
    for url, failure in failures.items():
        notice(f"{failure}; the others go on")
        found[url] = connect(url, names[0], **settings)
    every = tuple(found[url] for url in urls)
    first = every[0]
    return Endpoints(
        first.url, first.model, first.template, first.api_key, sum(one.concurrency for one in every), first.timeout,
        first.attempts, first.backoff, every, notice,
    )  # fmt: skip
