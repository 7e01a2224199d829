"""Who may ask: the checks in front of every handler.

A page in a browser may send requests to 127.0.0.1, and a name that its owner points there makes them look like the
page's own (DNS rebinding). So a request that comes from another origin is refused, and without keys so is one for a
host name that is not known to be ours. With keys, only requests that carry one are let in.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from codegen25.errors import CodegenError, UsageError
from codegen25.serve.refusal import Refusal

# Health is asked by those who watch over the process.
OPEN_PATHS = frozenset({"/health"})
LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})
Refuse = Callable[[Refusal, Scope, Receive, Send], Awaitable[None]]


def read_keys(path: Path) -> tuple[bytes, ...]:
    """A key a line; blank lines and lines that begin with # are none. Raises `CodegenError` for a file without keys."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8"
        raise CodegenError(f"{path}: cannot be read ({why}); name a file with a key a line") from None
    keys = tuple(line.encode() for line in lines if line and not line.startswith("#"))
    if not keys:
        raise CodegenError(f"{path}: holds no key; put one in, a line each")
    if short := next((number for number, key in enumerate(keys, 1) if len(key) < 16), 0):
        raise CodegenError(f"{path}: key {short} has fewer than 16 characters; take a longer one")
    return keys


def check_address(host: str, has_keys: bool, is_open: bool) -> None:
    """Raises `UsageError` for an address that others can reach when they need no key."""
    if is_loopback(host) or has_keys or is_open:
        return
    raise UsageError(f"--host {host}: others can reach it; give --api-key-file FILE, or --no-api-key if all may ask")


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() in LOCAL_NAMES


class Guard:
    """ASGI middleware. `origins` are those of web pages that may ask; `hosts` our names beside the local ones.

    `open_paths`: what needs no key either, beside health; these hold nothing of anybody's.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Iterable[bytes] = (),
        origins: Iterable[str] = (),
        hosts: Iterable[str] = (),
        open_paths: Iterable[str] = (),
        refuse: Refuse,
    ) -> None:
        self._app, self._refuse = app, refuse
        self._open = OPEN_PATHS | frozenset(open_paths)
        self._keys = tuple(keys)
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)
        self._hosts = frozenset(host.lower() for host in hosts) | LOCAL_NAMES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        origin = headers.get("origin", "").lower()
        is_shared = origin in self._origins
        if is_shared:
            send = _with_headers(send, {"Access-Control-Allow-Origin": headers["origin"], "Vary": "Origin"})
        try:
            self._check(scope["path"], headers, origin, is_shared)
        except Refusal as refusal:
            await self._refuse(refusal, scope, receive, send)
            return
        if is_shared and scope["method"] == "OPTIONS":
            await _preflight(send)
            return
        await self._app(scope, receive, send)

    def _check(self, path: str, headers: Mapping[str, str], origin: str, is_shared: bool) -> None:
        host = headers.get("host", "")
        if not self._keys and not self._is_ours(host):
            raise Refusal(
                421, f"host {host[:100]!r} is not this server; use its address, or start it with --allow-host",
                code="unknown_host",
            )  # fmt: skip
        if origin and not is_shared and urlsplit(origin).netloc != host.lower():
            raise Refusal(
                403, f"origin {origin[:100]!r} may not ask; start the server with --allow-origin to let it",
                kind="permission_error", code="origin_not_allowed",
            )  # fmt: skip
        if is_shared and "access-control-request-method" in headers:
            return  # a browser asks without the key whether it may ask with it
        if self._keys and path not in self._open and not self._has_key(headers):
            raise Refusal(
                401, "no valid API key; send one as `Authorization: Bearer KEY`", kind="authentication_error",
                code="invalid_api_key",
            )  # fmt: skip

    def _is_ours(self, host: str) -> bool:
        """An address in figures is no name that somebody could point at us."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _has_key(self, headers: Mapping[str, str]) -> bool:
        """Compares with every key, and takes the same time whichever it is."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = (key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")).encode("latin-1")
        found = False
        for known in self._keys:
            found |= hmac.compare_digest(given, known)
        return found


def _with_headers(send: Send, added: Mapping[str, str]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            more = [(name.lower().encode(), value.encode("latin-1")) for name, value in added.items()]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return sending


async def _preflight(send: Send) -> None:
    headers = [
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", b"authorization, content-type, x-api-key, x-client-id"),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
