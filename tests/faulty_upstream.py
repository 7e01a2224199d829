"""A server that passes requests on to a real one, and does with the answers what a sick one would."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

JUNK = b"<html>" + b"x" * 65536
# (status, headers, body) of faults that need nothing of the real server.
FIXED: dict[str, tuple[int, dict[str, str], bytes]] = {
    "html": (200, {"Content-Type": "text/html"}, b"<html>Welcome to nginx!</html>"),
    "half a json": (200, {}, b'data: {"choices": [{"text": \n\n'),
    "a number": (200, {}, b"data: 17\n\n"),
    "no choices": (200, {}, b'data: {"choices": []}\n\n'),
    "text is a number": (200, {}, b'data: {"choices": [{"text": 5, "finish_reason": null}]}\n\n'),
    "ids of another vocabulary": (200, {}, b'data: {"choices": [{"text": "x", "token_ids": [99999999]}]}\n\n'),
    "ids are text": (200, {}, b'data: {"choices": [{"text": "x", "token_ids": ["1"]}]}\n\n'),
    "half a character": (200, {}, b'data: {"choices": [{"text": "\\ud800"}]}\n\n'),
    "deep": (200, {}, b"data: " + b"[" * 100_000 + b"\n\n"),
    "an error in the stream": (200, {}, b'data: {"error": {"message": "engine died"}}\n\n'),
    "nothing": (200, {}, b""),
    "500": (500, {}, b'{"error": {"message": "CUDA error"}}'),
    "401": (401, {}, b'{"error": "no key"}'),
    "404": (404, {}, b'{"error": {"message": "no such model"}}'),
    "busy": (503, {"Retry-After": "7"}, b'{"error": {"message": "too many"}}'),
}


class FaultyUpstream:
    """`mode` is the fault; "" is none. `asked` has the bodies of completions that came."""

    def __init__(self, port: int) -> None:
        self.real = port
        self.mode = ""
        self.asked: list[dict[str, Any]] = []
        self.over = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                upstream.answer(self, None)

            def do_POST(self) -> None:
                upstream.answer(self, self.rfile.read(int(self.headers["Content-Length"])))

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        return Handler

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes | None) -> None:
        mode = self.mode
        if body is not None:
            self.asked.append(json.loads(body))
        with suppress(OSError):
            if mode in FIXED and body is not None:
                status, headers, said = FIXED[mode]
                self._begin(handler, status, headers)
                handler.wfile.write(said)
            elif mode == "hang":
                self.over.wait(20)
            elif mode == "no http":
                handler.wfile.write(b"\x00\x01SSH-2.0\n")
            elif mode == "junk" and body is not None:
                self._begin(handler, 200, {})
                while not self.over.is_set():
                    handler.wfile.write(JUNK)
            else:
                self._pass_on(handler, body, mode)

    def _pass_on(self, handler: BaseHTTPRequestHandler, body: bytes | None, mode: str) -> None:
        if mode == "slow" and body is not None:
            self.over.wait(0.5)
        real = http.client.HTTPConnection("127.0.0.1", self.real, timeout=20)
        real.request("GET" if body is None else "POST", handler.path, body)
        response = real.getresponse()
        self._begin(handler, response.status, {})
        if mode in ("cut", "silent") and b'"stream": true' in (body or b"").replace(b":true", b": true"):
            self._two_tokens(handler, response.read())
            if mode == "silent":
                self.over.wait(20)
        else:
            for line in response:
                handler.wfile.write(line)
                handler.wfile.flush()
        real.close()

    def _two_tokens(self, handler: BaseHTTPRequestHandler, events: bytes) -> None:
        """The first two of a streamed answer."""
        lines = [line.removeprefix(b"data: ") for line in events.split(b"\n\n") if b"token_ids" in line]
        ids = [id for line in lines for choice in json.loads(line)["choices"] for id in choice["token_ids"]]
        for id in ids[:2]:
            event = {"choices": [{"index": 0, "text": "?", "token_ids": [id], "finish_reason": None}]}
            handler.wfile.write(b"data: %s\n\n" % json.dumps(event).encode())
            handler.wfile.flush()

    def _begin(self, handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()


@contextmanager
def faulty(port: int) -> Iterator[FaultyUpstream]:
    """In front of the real server at `port`."""
    upstream = FaultyUpstream(port)
    thread = threading.Thread(target=upstream.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield upstream
    finally:
        upstream.over.set()
        upstream.server.shutdown()
        thread.join()
        upstream.server.server_close()
