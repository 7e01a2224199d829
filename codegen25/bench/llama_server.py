"""llama.cpp's own server as an editor meets it: a process of its own, asked over HTTP, its answers streamed."""

from __future__ import annotations

import http.client
import json
import math
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from codegen25.bench.figures import Options
from codegen25.bench.peer import DRIVERS, Driver, PeerError, environment
from codegen25.engine.answer import Request
from codegen25.tokenizer import Tokenizer

LLAMA = "llama.cpp"


class LlamaServer(Driver):
    """llama.cpp's server in a process of its own. Raises `PeerError` when it does not start."""

    def __init__(self, options: Options, path: Path, window: int, reuse: int, slots: int = 1) -> None:
        python = environment(LLAMA, options.cache, options.say)
        settings = {"path": str(path), "threads": options.threads, "window": window, "reuse": reuse}
        settings["slots"] = slots
        log = options.cache / "logs" / "llama.cpp server.log"
        super().__init__(python, log, DRIVERS / "llama_server.py", json.dumps(settings))
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise PeerError(f"llama.cpp's server did not start; its last words are in {log}")
        self.address: str = json.loads(line)["address"]


class LlamaClient:
    """Asks a running server, a connection for each request."""

    def __init__(self, address: str, tokenizer: Tokenizer) -> None:
        url = urlsplit(address)
        self._host, self._port, self._tokenizer = url.hostname or "", url.port, tokenizer

    def answer(self, request: Request, until: float, on_text: Callable[[], None]) -> str | None:
        """Raises `PeerError` when the server says anything but an answer."""
        ask = {
            "prompt": [*request.prompt, *self._tokenizer.encode(request.required.decode())],
            "n_predict": request.max_tokens, "stop": list(request.stop), "cache_prompt": True, "stream": True,
            "temperature": 0.0, "samplers": ["temperature"],
        }  # fmt: skip
        connection = http.client.HTTPConnection(self._host, self._port)
        try:
            connection.connect()
            connection.sock.settimeout(_left(until))
            connection.request("POST", "/completion", json.dumps(ask), {"Content-Type": "application/json"})
            text = ""
            with closing(_news(connection, until)) as all_news:
                for news in all_news:
                    if news["content"]:
                        text += news["content"]
                        on_text()
                    if news["stop"]:
                        return text
            raise PeerError("llama.cpp's server ended an answer before its end")
        except TimeoutError:
            return None
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            raise PeerError(f"llama.cpp's server gave no answer ({type(error).__name__}: {error})") from error
        finally:
            connection.close()


def _news(connection: http.client.HTTPConnection, until: float) -> Generator[dict[str, Any], None, None]:
    """The server-sent events of a response as they come. Raises `TimeoutError` at `until`."""
    sock = connection.sock  # the connection forgets it when the server is going to close
    with connection.getresponse() as response:
        while line := response.readline():
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))
            elif line.strip() and not line.startswith(b":"):  # which begins a comment, as pings are
                what = line[:200].decode(errors="replace")
                raise PeerError(f"llama.cpp's server answered {response.status}: {what}")
            sock.settimeout(_left(until))


def _left(until: float) -> float | None:
    """Seconds for a socket to wait; at least a little, since 0 would mean not to wait at all."""
    return None if math.isinf(until) else max(1e-3, until - time.perf_counter())
