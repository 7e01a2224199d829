"""The page at `/`: an editor in the browser. Its sources are `editors/web`; `make web` builds them into `page/`."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Show = Callable[[Request], Awaitable[Response]]

FOLDER = Path(__file__).with_name("page")
_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
# Where the editor's styles, made by its script, find what allows them.
_NONCE = b"@NONCE@"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def routes() -> list[Route]:
    """A route for each file of the page, which are read once, so no request can name another.

    None of them needs an API key: they hold nothing of anybody's, and it is the page that asks for one.
    """
    if not (FOLDER / "index.html").is_file():
        return [Route("/", _not_built, methods=["GET"])]
    files = sorted(file for file in FOLDER.iterdir() if file.suffix in _TYPES)
    return [
        Route("/", _document((FOLDER / "index.html").read_bytes()), methods=["GET"]),
        *(Route(f"/page/{file.name}", _file(file), methods=["GET"]) for file in files),
    ]


async def _not_built(request: Request) -> Response:
    raise HTTPException(404, "the page is not built; `make web` builds it")


def policy(nonce: str) -> str:
    """Content-Security-Policy: nothing from elsewhere, nothing inline but styles with this nonce."""
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    )


def _document(template: bytes) -> Show:
    async def show(request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        headers = {**_HEADERS, "Content-Security-Policy": policy(nonce), "Cache-Control": "no-store"}
        return Response(template.replace(_NONCE, nonce.encode()), 200, headers, "text/html; charset=utf-8")

    return show


def _file(file: Path) -> Show:
    """Browsers ask each time whether theirs is still the one: another version of the package has another."""
    body = file.read_bytes()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers: Mapping[str, str] = {**_HEADERS, "Cache-Control": "no-cache", "ETag": tag}

    async def show(request: Request) -> Response:
        known = {one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")}
        if known & {tag, "*"}:
            return Response(status_code=304, headers=headers)
        return Response(body, 200, headers, _TYPES[file.suffix])

    return show
