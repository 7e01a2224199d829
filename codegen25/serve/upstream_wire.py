"""What is said to an upstream and what comes back: OpenAI's `/completions` with token ids as prompts, over httpcore.

Everything that comes is looked at before it is believed. What is not as it should be is `Failed`, hard where asking
again at once is of no use; a request that the upstream finds wrong is the client's `Refusal`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Any, NoReturn

import httpcore

from codegen25 import __version__
from codegen25.serve.refusal import Refusal
from codegen25.serve.upstream import Busy, Failed, Upstream

CONNECT_SECONDS = 5.0
# Of an event, of a whole answer, and of what is none in a stream, in bytes.
LARGEST = 4 << 20
# Servers close what is idle; uvicorn, which most are, after 5 seconds. Being earlier spares a failed request.
IDLE_SECONDS = 4.0


@dataclass(frozen=True)
class Chunk:
    """A part of an answer. `ids` and `logprobs` of its tokens, None where the upstream does not tell.

    With `finish` it is the last; `stop` is then the id or the string that ended it, where the upstream tells.
    """

    text: str
    ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    finish: str | None = None
    stop: int | str | None = None
    reused: int | None = None  # tokens of the prompt that its cache had


# What httpcore raises of an exchange that went wrong; its exceptions have no common class.
WRONG = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError)


class Client:
    """Connections to upstreams. `seconds` may pass until something comes, and between one part and the next.

    No proxy is asked: one for the world outside is none for the servers behind this one.
    """

    def __init__(self, seconds: float, key: str | None) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            max_connections=None, max_keepalive_connections=256, keepalive_expiry=IDLE_SECONDS
        )
        self._timeout = {"connect": min(seconds, CONNECT_SECONDS), "read": seconds, "write": seconds, "pool": None}
        self._headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": f"codegen25/{__version__}"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"

    def ask(self, url: str, body: Mapping[str, Any] | None) -> AbstractAsyncContextManager[httpcore.Response]:
        """POST `body` as JSON, or GET where there is none. Entering it raises one of `WRONG`."""
        headers, content = self._headers, None
        if body is not None:
            headers, content = {**headers, "Content-Type": "application/json"}, json.dumps(body).encode()
        return self._pool.stream(
            "GET" if body is None else "POST", url, headers=list(headers.items()), content=content,
            extensions={"timeout": self._timeout},
        )  # fmt: skip

    async def aclose(self) -> None:
        await self._pool.aclose()


async def stream(http: Client, upstream: Upstream, body: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
    """The parts of the one answer to `body`. Closing it closes the connection, which ends the answer there.

    Raises `Failed`, `Busy` and `Refusal`; `Failed` also when the answer breaks off before its end.
    """
    asked = {**body, "model": upstream.model, "stream": True,
             "stream_options": {"include_usage": True, "continuous_usage_stats": True}}  # fmt: skip
    finished = False
    try:
        async with http.ask(f"{upstream.url}/completions", asked) as response:
            if response.status != 200:
                refuse(response, await _whole(response))
            async with aclosing(_events(response)) as events:
                async for event in events:
                    chunk = read_chunk(event)
                    finished |= chunk.finish is not None
                    yield chunk
    except WRONG as error:
        if finished:  # all that matters was there
            return
        raise failed(error) from error
    if not finished:
        raise Failed("broke off its answer")


async def once(http: Client, upstream: Upstream, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A whole answer, a JSON object. `body` None is GET. Raises as `stream` does."""
    try:
        asked = None if body is None else {**body, "model": upstream.model}
        async with http.ask(upstream.url + path, asked) as response:
            raw = await _whole(response)
            if response.status != 200:
                refuse(response, raw)
    except WRONG as error:
        raise failed(error) from error
    return _object(raw)


def failed(error: Exception) -> Failed:
    if isinstance(error, httpcore.TimeoutException):
        return Failed("gave no answer in time", is_hard=True)
    if isinstance(error, httpcore.ConnectError):
        return Failed(f"cannot be reached ({error or type(error).__name__})", is_hard=True)
    # It may only have closed a connection that was idle, just when it was used again.
    return Failed(f"broke off ({type(error).__name__}: {error})")


def refuse(response: httpcore.Response, raw: bytes) -> NoReturn:
    """Raise what a status other than 200 means."""
    status, said = response.status, message(raw)
    asked = {name.lower(): value for name, value in response.headers}.get(b"retry-after", b"")
    if status in (429, 503):
        raise Busy(f"answered {status}: {said}", int(asked) if asked.isdigit() and len(asked) < 5 else 1)
    if status in (400, 413, 422):
        raise Refusal(status if status != 422 else 400, f"the upstream answered {status}: {said}")
    raise Failed(f"answered {status}: {said}", is_hard=400 <= status < 500)


def message(raw: bytes) -> str:
    """What a server says of an error, in one short line."""
    text = raw[: 1 << 16].decode(errors="replace")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = text
    for name in ("error", "message"):
        said = said.get(name, said) if isinstance(said, dict) else said
    return " ".join(str(said).split())[:300] or "no reason"


async def _whole(response: httpcore.Response) -> bytes:
    raw = bytearray()
    async for part in response.aiter_stream():
        raw += part
        if len(raw) > LARGEST:
            raise Failed(f"answered with more than {LARGEST} bytes", is_hard=True)
    return bytes(raw)


async def _events(response: httpcore.Response) -> AsyncGenerator[dict[str, Any], None]:
    """The objects of server-sent events, up to `[DONE]` or the end."""
    rest, ignored = b"", 0
    async for part in response.aiter_stream():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                ignored += len(line)
            elif (data := line[5:].strip()) == b"[DONE]":
                return
            else:
                yield _object(data)
        if ignored + len(rest) > LARGEST:
            raise Failed("answered with what are no events", is_hard=True)


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        shown = data[:80].decode(errors="replace")
        raise Failed(f"answered with what is no JSON object ({shown!r})", is_hard=True)
    return value


# ------------------------------------------------------------------------------------------------- what is in an answer


def read_chunk(event: Mapping[str, Any]) -> Chunk:
    """A part of a streamed answer, or a whole one. Raises `Failed` for what is neither."""
    if event.get("error"):
        raise Failed(f"ended with an error: {message(json.dumps(event).encode())}")
    reused = _reused(event.get("usage"))
    found = event.get("choices")
    if found == [] and "usage" in event:
        return Chunk("", (), reused=reused)
    if not isinstance(found, list) or len(found) != 1 or not isinstance(found[0], dict):
        raise garbage(event)
    choice = found[0]
    text, finish, stop = choice.get("text"), choice.get("finish_reason"), choice.get("stop_reason")
    if not isinstance(text, str) or not isinstance(finish, str | None) or not isinstance(stop, int | str | None):
        raise garbage(event)
    ids, logprobs = choice.get("token_ids"), choice.get("logprobs")
    return Chunk(
        text,
        None if ids is None else numbers(event, ids),
        None if logprobs is None else values(event, logprobs),
        finish, stop, reused,
    )  # fmt: skip


def numbers(event: Mapping[str, Any], ids: Any) -> tuple[int, ...]:
    if not isinstance(ids, list) or not all(isinstance(id, int) and not isinstance(id, bool) for id in ids):
        raise garbage(event)
    return tuple(ids)


def values(event: Mapping[str, Any], logprobs: Any) -> tuple[float, ...]:
    """Log-probabilities of the tokens of a choice."""
    found = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, int | float | None) for one in found):
        raise garbage(event)
    return tuple(0.0 if one is None else float(one) for one in found)


def garbage(event: Mapping[str, Any] | Sequence[Any]) -> Failed:
    return Failed(f"answered with what is no completion ({json.dumps(event)[:120]})", is_hard=True)


def _reused(usage: Any) -> int | None:
    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    reused = details.get("cached_tokens") if isinstance(details, dict) else None
    return reused if isinstance(reused, int) and not isinstance(reused, bool) else None
