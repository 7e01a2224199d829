"""`codegen25 serve` in a process of its own, and what many clients do to a server at once, over plain HTTP.

Our server and llama.cpp's are asked the same bytes: prompts as token ids at `/completion`, streamed.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import urlsplit

from codegen25.bench.figures import Options
from codegen25.errors import CodegenError

T = TypeVar("T")


class Server(Protocol):
    """Something that listens at `address`; `memory` in bytes that are resident."""

    @property
    def address(self) -> str: ...

    @property
    def memory(self) -> int: ...


class OurServer:
    """Ended with its block. With `upstreams` it runs no model, and asks these. `number` tells its log from others'."""

    def __init__(self, options: Options, model: Path, *, upstreams: Sequence[str] = (), number: int = 0) -> None:
        log = options.cache / "logs" / f"codegen25 serve{f' {number}' if number else ''}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        arguments = ["--model", str(model), "--port", "0", "--queue", "2000"]
        arguments += [f"--upstream={url}" for url in upstreams] or ["--threads", str(options.threads)]
        with log.open("w") as stderr:
            self._process = subprocess.Popen([sys.executable, "-m", "codegen25", "serve", *arguments], stderr=stderr)
        try:
            self._url = self._find(log)
        except BaseException:
            self._process.kill()
            raise

    @property
    def address(self) -> str:
        return self._url

    def _find(self, log: Path) -> str:
        while self._process.poll() is None:
            found = re.search(r"http://\S+?:\d+", log.read_text())
            if found and get(found[0], "/health")[0] == 200:
                return found[0]
            time.sleep(0.1)
        raise CodegenError(f"codegen25 serve did not start; its last words are in {log}")

    @property
    def memory(self) -> int:
        """Bytes that are resident."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def kill(self) -> None:
        """As a machine does that fails."""
        self._process.kill()
        self._process.wait(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        finally:
            self._process.kill()


@dataclass(frozen=True)
class Heard:
    """One answer: its text, its tokens, and the status; `dropped` on purpose before its end."""

    status: int
    text: str = ""
    tokens: int = 0
    dropped: bool = False


def get(address: str, path: str) -> tuple[int, bytes]:
    """(status, body); status 0 where nobody listens yet."""
    connection = _connect(address)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


def _connect(address: str) -> http.client.HTTPConnection:
    url = urlsplit(address)
    return http.client.HTTPConnection(url.hostname or "", url.port, timeout=600)


def complete(address: str, ids: Sequence[int], tokens: int, *, drop_after: int | None = None) -> Heard:
    """A greedy completion, streamed; the connection is closed after `drop_after` events."""
    ask = {"prompt": list(ids), "n_predict": tokens, "stream": True, "temperature": 0.0, "ignore_eos": True,
           "cache_prompt": True, "samplers": ["temperature"]}  # fmt: skip
    return post(address, json.dumps(ask).encode(), drop_after)


def post(address: str, body: bytes, drop_after: int | None = None) -> Heard:
    connection = _connect(address)
    try:
        connection.request("POST", "/completion", body, {"Content-Type": "application/json"})
        text, events, predicted = "", 0, 0
        with connection.getresponse() as response:
            while line := response.readline():
                if not line.startswith(b"data: "):
                    continue
                news: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
                text += news.get("content", "")
                predicted = news.get("tokens_predicted", predicted)
                events += 1
                if events == drop_after:
                    return Heard(response.status, text, dropped=True)
            return Heard(response.status, text, predicted)
    finally:
        connection.close()


def at_once(work: Sequence[Callable[[], T]]) -> list[T]:
    """The results of all, each in a thread of its own."""
    with ThreadPoolExecutor(len(work)) as pool:
        return [future.result() for future in [pool.submit(one) for one in work]]
