"""All dialects on one port, behind one guard."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from codegen25.serve import continue_dev, llama_cpp, metrics, ollama, openai, openai_chat, openapi, page, tabby
from codegen25.serve.log import log
from codegen25.serve.refusal import Refusal
from codegen25.serve.security import Guard
from codegen25.serve.service import Service
from codegen25.serve.wire import JSON, compact

Show = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Access:
    """Who may ask: API keys, origins of web pages, and further names of this host."""

    keys: tuple[bytes, ...] = ()
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


def make_app(service: Service, access: Access | None = None) -> ASGIApp:
    """The application; the model is loaded when it starts up."""
    access = access or Access()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        loading = asyncio.create_task(service.first_load())
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, service.reload_soon)
        try:
            yield
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            await service.close()

    dialects = (openai, openai_chat, llama_cpp, ollama, tabby, continue_dev)
    routes: list[BaseRoute] = [route for dialect in dialects for route in dialect.routes(service)]
    pages = page.routes()
    routes.append(Route("/metrics", _metrics(service), methods=["GET"]))
    routes += [
        Route("/openapi.json", _page(compact(openapi.document(routes)), JSON), methods=["GET"]),
        Route("/docs", _page(openapi.page(), "text/html; charset=utf-8"), methods=["GET"]),
        *pages,
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _http_error, 500: _bug})
    app.router.redirect_slashes = False

    async def refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
        service.metrics.refused.labels(refusal.code or "other").inc()
        response = Response(compact(openai.error(refusal)), refusal.status, media_type=JSON)
        await response(scope, receive, send)

    return Guard(
        app, keys=access.keys, origins=access.origins, hosts=access.hosts, open_paths=[route.path for route in pages],
        refuse=refuse,
    )  # fmt: skip


def _metrics(service: Service) -> Show:
    async def show(request: Request) -> Response:
        return Response(service.metrics.text(), media_type=metrics.CONTENT_TYPE)

    return show


def _page(body: bytes, media_type: str) -> Show:
    async def show(request: Request) -> Response:
        return Response(body, media_type=media_type)

    return show


async def _http_error(request: Request, error: Exception) -> Response:
    """No such path, or not this method."""
    assert isinstance(error, HTTPException)
    refusal = Refusal(error.status_code, f"{request.method} {request.url.path[:200]}: {error.detail}; see /docs")
    return Response(compact(openai.error(refusal)), error.status_code, error.headers, JSON)


async def _bug(request: Request, error: Exception) -> Response:
    log("bug", path=request.url.path, why=repr(error))
    refusal = Refusal(500, "an error of the server's own; its log has more", kind="server_error", code="internal")
    return Response(compact(openai.error(refusal)), 500, media_type=JSON)
