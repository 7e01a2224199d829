"""What dialects read alike: how to choose tokens, and how many of them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar, cast, get_args

from codegen25.complete import ANCHOR_LINES
from codegen25.engine.sampling import Sampling
from codegen25.serve.ask import MOST_ANCHOR, Lines
from codegen25.serve.fields import Fields

T = TypeVar("T")


def sampling(fields: Fields, default: float, penalty: str = "repetition_penalty") -> Sampling:
    """`temperature` is `default` unless it is given. Without a seed, each request has one of its own."""
    seed = fields.whole("seed", -1, -(2**63), 2**64)
    temperature = fields.number("temperature", default, 0, 100)
    if temperature == 0:
        seed = 0  # which makes no difference, and equal requests look equal
    elif seed < 0:
        seed = secrets.randbits(62)
    return Sampling(
        temperature=temperature,
        top_k=max(0, fields.whole("top_k", 0, -1)),
        top_p=fields.number("top_p", 1.0, 0, 1) or 1e-9,
        min_p=fields.number("min_p", 0.0, 0, 1),
        repetition_penalty=fields.number(penalty, 1.0, 0.01, 100),
        seed=seed,
    )


def lines(fields: Fields, default: Lines) -> Lines:
    """Our own field: how many lines an answer may have."""
    value = fields.text("lines", default)
    if value not in get_args(Lines):
        raise fields.refuse("lines", f"must be one of {', '.join(get_args(Lines))}")
    return cast(Lines, value)


def anchor(fields: Fields) -> int:
    """Our own field: how many lines before the cursor a hole opens."""
    return fields.whole("anchor", ANCHOR_LINES, 0, MOST_ANCHOR)


async def together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, in order; at the first error the others are cancelled, and it is raised."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def merged(streams: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[tuple[int, T], None]:
    """(which stream, what came from it), as it comes. An error of one ends all."""
    queue: asyncio.Queue[tuple[int, T | None]] = asyncio.Queue(maxsize=64)

    async def forward(number: int, stream: AsyncGenerator[T, None]) -> None:
        async with aclosing(stream):
            async for one in stream:
                await queue.put((number, one))

    async def end(task: asyncio.Future[list[None]]) -> None:
        await asyncio.wait([task])
        await queue.put((-1, None))

    work = asyncio.ensure_future(together([forward(number, stream) for number, stream in enumerate(streams)]))
    ending = asyncio.ensure_future(end(work))
    try:
        while True:
            number, one = await queue.get()
            if number < 0:
                await work
                return
            yield number, cast(T, one)
    finally:
        work.cancel()
        ending.cancel()
        await asyncio.gather(work, ending, return_exceptions=True)
