"""`vllm serve FOLDER`, as a user would run it: a process of its own, asked over HTTP in token ids."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from codegen25.bench.figures import Options
from codegen25.bench.peer import PeerError

STARTS_WITHIN = 600  # seconds; it imports and compiles much
ASKED_WITHIN = 600


class VllmServer:
    """Runs until it is closed. Raises `PeerError` when it does not start, and for any answer but a good one."""

    def __init__(self, program: Path, folder: Path, options: Options, window: int, dtype: str = "bfloat16") -> None:
        self.log = options.cache / "logs" / "vllm.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        command = [
            str(program), "serve", str(folder), "--host", "127.0.0.1", "--port", str(port), "--dtype", dtype,
            "--max-model-len", str(window), "--max-num-seqs", "4", "--enforce-eager",
        ]  # fmt: skip
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        environment |= {
            "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
        }  # fmt: skip
        try:
            with self.log.open("w") as log:
                self._process = subprocess.Popen(
                    command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, env=environment
                )
        except OSError as error:
            raise PeerError(f"{program}: cannot be started ({error.strerror}); name vLLM's program") from error
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self) -> None:
        until = time.monotonic() + STARTS_WITHIN
        while self._process.poll() is None and time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"{self.address}/health", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        raise PeerError(f"vLLM did not start; its last words are in {self.log}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it and the processes that it has begun."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as a crash would."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        data = json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=ASKED_WITHIN) as answer:
                said: dict[str, Any] = json.loads(answer.read())
                return said
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise PeerError(f"vLLM gave no answer to {path} ({error}); its last words are in {self.log}") from error

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts, in which control strings are control tokens."""
        ask = {"add_special_tokens": False}
        return [self._post("/tokenize", {"prompt": text} | ask)["tokens"] for text in texts]

    def greedy(self, prompt: Sequence[int], n: int) -> list[int]:
        """The likeliest token `n` times, or until the end of the text."""
        ask = {"prompt": list(prompt), "max_tokens": n, "temperature": 0.0, "return_token_ids": True}
        tokens: list[int] = self._post("/v1/completions", ask)["choices"][0]["token_ids"]
        return tokens
