"""Decoding a few requests to their ends: the plain loop over a scheduler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from codegen25.engine.answer import Finish, Piece, Request
from codegen25.engine.backend import Backend
from codegen25.engine.scheduler import Scheduler
from codegen25.errors import UsageError
from codegen25.tokenizer import Tokenizer

__all__ = ["Finish", "Piece", "Request", "decode"]


def decode(engine: Backend | Scheduler, tokenizer: Tokenizer, requests: Sequence[Request]) -> Iterator[Piece]:
    """Run all requests at once; every request ends with exactly one piece that says how (`finish`).

    `Piece.request` is the place in `requests`. On a backend nothing is drafted or kept: the caches are given back,
    also when the caller stops early. On a scheduler, which must be idle, what was not finished is cancelled.
    Raises `OutOfMemory` for the first request that has to be given up.
    """
    shared = isinstance(engine, Scheduler)
    scheduler = (
        engine if isinstance(engine, Scheduler) else Scheduler(engine, tokenizer, cache_bytes=0, longest_draft=0)
    )
    if scheduler.active:
        raise UsageError("the model is answering another request; wait until it has ended, or load a second one")
    numbers: dict[int, int] = {}
    try:
        numbers = {scheduler.submit(request): number for number, request in enumerate(requests)}
        while numbers:
            for piece in scheduler.step():
                if piece.error:
                    raise piece.error
                number = numbers.pop(piece.request) if piece.finish else numbers[piece.request]
                yield replace(piece, request=number)
    finally:
        for ticket in numbers:
            scheduler.cancel(ticket)
        scheduler.step()  # nothing is left to run; what the cancelled ones held goes to the cache
        if not shared:
            scheduler.close()
