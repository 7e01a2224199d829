"""One server from its socket to its end: bound first, so that a port in use is said before a model is loaded."""

from __future__ import annotations

import asyncio
import errno
import resource
import signal
import socket
from collections.abc import Callable

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from codegen25.errors import CodegenError
from codegen25.serve.app import Access, make_app
from codegen25.serve.service import Service

_BACKLOG = 512
HEADER_SECONDS = 30.0  # for the headers of a request, from its first byte or from the connection


def bind(host: str, port: int, stall: float) -> socket.socket:
    """A listening socket; port 0 takes any. Raises `CodegenError` in a line when that cannot be.

    Who takes no data for `stall` seconds is cut off by the system, whatever the server does meanwhile.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * stall))
    try:
        sock.bind((host.strip("[]"), port))
        sock.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        sock.close()
        number = getattr(error, "errno", None)
        if number == errno.EADDRINUSE:
            raise CodegenError(
                f"port {port} on {host} is in use; end the other server, or choose another with --port"
            ) from None
        why = getattr(error, "strerror", None) or str(error)
        raise CodegenError(f"{host}:{port}: cannot listen there ({why}); choose another --host or --port") from None
    return sock


def allow_files(wanted: int) -> None:
    """Every connection is a file; take as many as the system lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class Patient(HttpToolsProtocol):
    """A connection that is closed when the headers of a request do not come."""

    _alarm: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._arm()

    def on_headers_complete(self) -> None:
        self._disarm()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def _arm(self) -> None:
        self._disarm()
        self._alarm = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _disarm(self) -> None:
        if self._alarm:
            self._alarm.cancel()


def run(service: Service, access: Access, sock: socket.socket, started: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT, then finish the answers that have begun. Raises what kept a model from loading."""
    limits = service.limits
    allow_files(2 * limits.connections)
    config = uvicorn.Config(
        make_app(service, access), http=Patient, ws="none", lifespan="on", log_config=None, access_log=False,
        server_header=False, limit_concurrency=limits.connections, timeout_keep_alive=30,
        timeout_graceful_shutdown=round(limits.drain_seconds), proxy_headers=False,
    )  # fmt: skip
    server = uvicorn.Server(config)

    def give_up() -> None:
        server.should_exit = True

    service.on_failure = give_up
    # uvicorn raises what ended it once more when it is done; a server that was told to end has ended well.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    started()
    server.run(sockets=[sock])
    if service.failure:
        raise service.failure
