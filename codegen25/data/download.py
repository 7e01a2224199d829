"""Pages and files of an index over HTTP: bounded, with the login that an address holds, and errors without it."""

from __future__ import annotations

import base64
import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from codegen25.errors import CodegenError

TIMEOUT = 60
MAX_PAGE = 1 << 27
MAX_ARCHIVE = 1 << 30
CHUNK = 1 << 20


class NotFound(CodegenError):
    """The host has nothing at this address."""


@dataclass(frozen=True)
class Page:
    """What lies at an address, which may not be the one that was asked for; `kind` is its media type."""

    url: str
    kind: str
    data: bytes


def page(url: str, accept: str) -> Page:
    """A page. Raises NotFound, or CodegenError when it cannot be had or is of more than MAX_PAGE bytes."""
    with _answer(url, accept) as answer:
        data = b"".join(_chunks(answer, url, MAX_PAGE))
        return Page(beside(url, answer.url), answer.headers.get_content_type(), data)


def save(url: str, path: Path) -> str:
    """Write a file to `path`; its SHA-256 in hexadecimal.

    Raises NotFound, CodegenError when it cannot be had whole or is of more than MAX_ARCHIVE bytes, or OSError when it
    cannot be written.
    """
    digest = hashlib.sha256()
    with _answer(url, "*/*") as answer, path.open("wb") as file:
        for chunk in _chunks(answer, url, MAX_ARCHIVE):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def beside(url: str, target: str) -> str:
    """The address that a page at `url` names by `target`. On the page's own host it is asked with the same login."""
    page, found = urlsplit(url), urlsplit(urljoin(url, target))
    login, at, host = page.netloc.rpartition("@")
    if at and found.netloc == host and found.scheme == page.scheme:
        found = found._replace(netloc=f"{login}@{host}")
    return found.geturl()


@contextmanager
def _answer(url: str, accept: str) -> Iterator[http.client.HTTPResponse]:
    with _network(url):
        answer = urllib.request.urlopen(_request(url, accept), timeout=TIMEOUT)
    with answer:
        yield answer


def _request(url: str, accept: str) -> urllib.request.Request:
    address = urlsplit(url)
    if address.scheme not in {"http", "https"}:
        raise CodegenError(f"{address.scheme or 'index'}: not an address on the network; check pip's configuration")
    login, at, host = address.netloc.rpartition("@")
    bare = address._replace(netloc=host).geturl()
    request = urllib.request.Request(bare, headers={"Accept": accept, "User-Agent": "codegen25"})
    if at:
        name, _, password = login.partition(":")
        told = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
        # Another host that this one sends us to is not told.
        request.add_unredirected_header("Authorization", f"Basic {told}")
    return request


def _chunks(answer: http.client.HTTPResponse, url: str, most: int) -> Iterator[bytes]:
    """The body in pieces. Raises CodegenError when it ends early, or is of more than `most` bytes."""
    said, size = answer.headers.get("Content-Length", ""), 0
    while True:
        with _network(url):
            chunk = answer.read(CHUNK)
            if not chunk and said.isdecimal() and size < int(said):
                raise ConnectionError("the connection ended early")
        if not chunk:
            return
        size += len(chunk)
        if size > most:
            raise CodegenError(f"{urlsplit(url).hostname}: more than {most} bytes; leave it out")
        yield chunk


@contextmanager
def _network(url: str) -> Iterator[None]:
    """Around calls that wait for the host. It alone is named: addresses may hold passwords."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        kind = NotFound if error.code in {404, 410} else CodegenError
        raise kind(f"{urlsplit(url).hostname}: {error.code} {error.reason}; check the name and the login") from None
    except (urllib.error.URLError, OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise CodegenError(f"{urlsplit(url).hostname}: {reason}; check the network and the configuration") from None
