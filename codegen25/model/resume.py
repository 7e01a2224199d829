"""A large file over HTTP: what is there already is kept, the rest asked for by range (RFC 9110, section 14)."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

TIMEOUT = 60
CHUNK = 1 << 20
PAUSES = (1, 2, 4, 8)  # seconds before each further try in a row that brought nothing


def progress_bar(**options: Any) -> Any:
    """A bar of the hub's client (tqdm): on a terminal alone."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    made: Any = tqdm
    return made(disable=None, **options)


def save(url: str, path: Path, size: int, token: str | None, name: str) -> None:
    """Bring the file at `url`, of `size` bytes, to `path`, which may hold its beginning; progress on a terminal.

    A connection that breaks is taken up again a few times. `token` is told to the host of `url` alone, not to one that
    it sends us to. Raises `OSError` when the file cannot be had whole; what has arrived stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    if path.stat().st_size > size:
        path.write_bytes(b"")
    tries = 0
    with progress_bar(total=size, initial=path.stat().st_size, desc=name, unit="B", unit_scale=True) as bar:
        while (before := path.stat().st_size) < size:
            try:
                _append(url, path, size, token, bar)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code < 500 and error.code not in (408, 429):
                    raise OSError(f"{name}: {error.code} {error.reason}") from error
                broken: Exception = error
            except (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException) as error:
                broken = error
            else:
                broken = ConnectionError("the connection ended early")
            if path.stat().st_size >= size:
                return
            tries = 0 if path.stat().st_size > before else tries + 1
            if tries > len(PAUSES):
                raise OSError(f"{name}: {getattr(broken, 'reason', None) or broken}") from broken
            if tries:
                time.sleep(PAUSES[tries - 1])


def _append(url: str, path: Path, size: int, token: str | None, bar: Any) -> None:
    """What one connection brings of the bytes that are missing."""
    have = path.stat().st_size
    request = urllib.request.Request(url, headers={"User-Agent": "codegen25", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        goes_on = have and answer.status == 206
        if not goes_on:  # a server that knows no ranges begins again
            bar.update(-have)
        with path.open("ab" if goes_on else "wb", buffering=0) as file:
            while (left := size - file.tell()) > 0 and (chunk := answer.read1(min(CHUNK, left))):
                file.write(chunk)
                bar.update(len(chunk))
