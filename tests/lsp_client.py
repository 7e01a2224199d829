"""A client of language servers that speaks JSON-RPC by hand, to a process of the real command."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

URI = "file:///project/sample.py"
INLINE: dict[str, Any] = {"textDocument": {"inlineCompletion": {}}}


class Server:
    """Some language server. `told`: the notifications that have come, in order; its own requests are left open."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self._log = log.open("wb")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, bufsize=0, env=env
        )
        self.told: list[dict[str, Any]] = []
        self._answers: dict[int, dict[str, Any]] = {}
        self._came: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._ids = 0
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._log):
            if stream:
                stream.close()

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as stream:
            while header := _line(stream):
                assert header.startswith(b"Content-Length: "), header
                while _line(stream).strip():
                    pass
                left, body = int(header.split()[1]), b""
                while len(body) < left:
                    body += stream.read(left - len(body))
                self._came.put(json.loads(body))
        self._came.put(None)

    def write(self, body: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)

    def notify(self, method: str, params: Any = None) -> None:
        self.write(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode())

    def ask(self, method: str, params: Any = None) -> int:
        """Send a request; its number, to give to `answer`."""
        self._ids += 1
        self.write(json.dumps({"jsonrpc": "2.0", "id": self._ids, "method": method, "params": params}).encode())
        return self._ids

    def answer(self, number: int) -> dict[str, Any]:
        """The response, with `result` or `error`."""
        while number not in self._answers:
            self.next()
        return self._answers.pop(number)

    def next(self) -> None:
        """Take one message in."""
        message = self._came.get(timeout=240)
        assert message is not None, "the server has gone"
        if "id" in message and "method" not in message:
            self._answers[message["id"]] = message
        else:
            self.told.append(message)

    def result(self, method: str, params: Any = None) -> Any:
        answered = self.answer(self.ask(method, params))
        assert "error" not in answered, answered
        return answered["result"]


class Client(Server):
    """`codegen25 lsp` and what editors do with it."""

    def __init__(self, model: Path | str, log: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "codegen25", "lsp", "--model", str(model), "--threads", "1", *arguments]
        super().__init__(command, log)

    def begin(
        self, capabilities: dict[str, Any] | None = None, encodings: list[str] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Initialize; the server's capabilities."""
        offered = dict(INLINE if capabilities is None else capabilities)
        if encodings:
            offered["general"] = {"positionEncodings": encodings}
        params = {"processId": None, "rootUri": None, "capabilities": offered, "initializationOptions": options or None}
        result = self.result("initialize", params)
        self.notify("initialized", {})
        return result["capabilities"]  # type: ignore[no-any-return]

    def open(self, text: str, uri: str = URI) -> None:
        self.notify(
            "textDocument/didOpen",
            {"textDocument": {"uri": uri, "languageId": "python", "version": 1, "text": text}},
        )

    def change(self, text: str, start: tuple[int, int], end: tuple[int, int], uri: str = URI) -> None:
        change = {"range": {"start": at(*start), "end": at(*end)}, "text": text}
        self.notify("textDocument/didChange", {"textDocument": {"uri": uri, "version": 2}, "contentChanges": [change]})

    def ask_inline(self, line: int, units: int, uri: str = URI) -> int:
        return self.ask("textDocument/inlineCompletion", inline_params(line, units, uri))

    def inline(self, line: int, units: int, uri: str = URI) -> list[dict[str, Any]]:
        return self.result("textDocument/inlineCompletion", inline_params(line, units, uri))  # type: ignore[no-any-return]

    def end(self) -> int:
        """Shut down and exit; the exit code."""
        self.result("shutdown")
        self.notify("exit")
        return self.process.wait(timeout=120)


def inline_params(line: int, units: int, uri: str = URI) -> dict[str, Any]:
    return {"textDocument": {"uri": uri}, "position": at(line, units), "context": {"triggerKind": 2}}


def at(line: int, units: int) -> dict[str, int]:
    return {"line": line, "character": units}


def _line(stream: Any) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = stream.read(1)
        if not byte:
            return b""
        line += byte
    return line
