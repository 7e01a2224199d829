"""SIGTERM as an end that leaves nothing behind: the processes that a benchmark has started end with it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

# What a shell says of a process that SIGTERM has ended.
ENDED = 128 + signal.SIGTERM


@contextmanager
def unwound_by_sigterm() -> Iterator[None]:
    """SIGTERM inside raises `SystemExit`, so that `with` blocks and `finally` clauses are left as at an interrupt."""

    def end(*_: object) -> NoReturn:
        raise SystemExit(ENDED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
