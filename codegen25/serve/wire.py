"""HTTP around a handler: the body in, within limits; the answer out, whole or in frames; and a client that has gone.

A handler is a coroutine from the fields of a body to an object, which is written as compact JSON, or to `Frames`. It is
cancelled when the client goes away, at any time, and with it whatever the model did for it.
"""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from codegen25.errors import CodegenError
from codegen25.serve import fields
from codegen25.serve.answering import Usage
from codegen25.serve.fields import Fields
from codegen25.serve.limits import Limits
from codegen25.serve.refusal import Refusal, too_large
from codegen25.serve.runner import Broken

JSON = "application/json"
EVENTS = "text/event-stream"
LINES = "application/x-ndjson"


@dataclass(frozen=True)
class Dialect:
    """How one kind of client wants to be told what went wrong."""

    name: str
    error: Callable[[Refusal], Mapping[str, Any]]


@dataclass(frozen=True)
class Frames:
    """An answer in parts. `frame` puts an object into one; `end` is what comes behind the last."""

    objects: AsyncGenerator[Mapping[str, Any], None]
    media_type: str = EVENTS
    end: bytes = b""

    def frame(self, value: Mapping[str, Any]) -> bytes:
        return b"data: %s\n\n" % compact(value) if self.media_type == EVENTS else compact(value) + b"\n"


@dataclass
class Call:
    """One request over HTTP, as handlers see it and as the log tells of it."""

    fields: Fields
    client: str | None
    usage: Usage = field(default_factory=Usage)
    text: dict[str, Any] = field(default_factory=dict)  # what the log may tell of the code, when it is asked to


Handler = Callable[[Call], Awaitable[Any]]
Report = Callable[["Endpoint", Call, int, float, str], None]


def compact(value: Any) -> bytes:
    """JSON on one line, without blanks: some clients look for `"content":"` in it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


class Endpoint:
    """An ASGI application for one path. `report` is told of each request when it is over, and of bugs' tracebacks."""

    def __init__(self, dialect: Dialect, handler: Handler, limits: Limits, report: Report) -> None:
        self.dialect, self._handler, self._limits, self._report = dialect, handler, limits, report

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        call = Call(Fields({}), client_of(scope))
        output = _Output(send, self._limits.stall_seconds)
        note = ""
        try:
            call.fields = fields.parse(await self._body(Request(scope, receive)))
            await _until_gone(self._answer(call, output), receive)
        except _Gone:
            note = "gone"
        except Exception as error:
            refusal, note = refusal_of(error)
            await self._refuse(output, refusal)
        self._report(self, call, output.status or 499, time.monotonic() - started, note)

    async def _answer(self, call: Call, output: _Output) -> None:
        made = await self._handler(call)
        if not isinstance(made, Frames):
            await output.whole(200, compact(made))
            return
        async with aclosing(made.objects) as objects:
            try:
                async for value in objects:
                    await output.part(made.media_type, made.frame(value))
            except CodegenError as error:
                if not output.status:
                    raise
                refusal, _ = refusal_of(error)
                await output.part(made.media_type, made.frame(self.dialect.error(refusal)))
            await output.part(made.media_type, made.end, is_last=True)

    async def _refuse(self, output: _Output, refusal: Refusal) -> None:
        """Behind the beginning of an answer there is no other way to say it than to break off."""
        if not output.status:
            after = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
            await output.whole(refusal.status, compact(self.dialect.error(refusal)), after)

    async def _body(self, request: Request) -> bytes:
        most = self._limits.body
        said = request.headers.get("content-length", "0")
        if said.isascii() and said.isdigit() and (len(said) > 18 or int(said) > most):
            raise too_large(f"the body is over {most} bytes; send less")
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                async for part in request.stream():
                    body += part
                    if len(body) > most:
                        raise too_large(f"the body is over {most} bytes; send less")
        except TimeoutError:
            raise Refusal(408, f"the body did not come within {self._limits.body_seconds:g} seconds") from None
        return bytes(body)


def refusal_of(error: Exception) -> tuple[Refusal, str]:
    """(what the client is told, what the log is told beside it)."""
    if isinstance(error, Refusal):
        return error, str(error)
    if isinstance(error, CodegenError):
        return Refusal(400, str(error)), str(error)
    why = "" if isinstance(error, Broken) else "".join(traceback.format_exception(error))
    return Refusal(500, "an error of the server's own; its log has more", kind="server_error", code="internal"), why


def client_of(scope: Scope) -> str | None:
    """Who asks, when they say so: only such a client's new request ends the one before."""
    for name, value in scope["headers"]:
        if name == b"x-client-id":
            return str(value[:200].decode("latin-1"))
    return None


# -------------------------------------------------------------------------------------------------------------- sending


class _Gone(Exception):
    """The client has closed the connection."""


class _Output:
    """What is sent of one answer. `status` is set with the first byte."""

    def __init__(self, send: Send, stall: float) -> None:
        self._send, self._stall = send, stall
        self.status = 0

    async def whole(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        all_headers = {"Content-Type": JSON, "Content-Length": str(len(body)), **(headers or {})}
        await self._start(status, all_headers)
        await self._put({"type": "http.response.body", "body": body})

    async def part(self, media_type: str, body: bytes, *, is_last: bool = False) -> None:
        if not self.status:
            await self._start(200, {"Content-Type": media_type, "Cache-Control": "no-store"})
        await self._put({"type": "http.response.body", "body": body, "more_body": not is_last})

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self._put({"type": "http.response.start", "status": status, "headers": raw})

    async def _put(self, message: dict[str, Any]) -> None:
        """Waits for a slow reader, but not for ever."""
        try:
            async with asyncio.timeout(self._stall):
                await self._send(message)
        except TimeoutError:
            raise _Gone from None


async def _until_gone(work: Awaitable[None], receive: Receive) -> None:
    """Do the work, unless the client goes away before; then it is cancelled. Raises `_Gone`."""
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            doing.result()
        else:
            raise _Gone
    finally:
        for task in (doing, leaving):
            task.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
