"""`codegen25 serve --upstream` as a command, in front of servers that are processes, one of which is killed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from publisher_folder import random_llama
from routing import killed_under_load, wait_until
from serving import CONFIG

from codegen25.cli import main
from codegen25.model.checkpoint import save_llama
from codegen25.model.hf_tokenizer import write_tokenizer
from codegen25.tokenizer import family


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upstream") / "tiny"
    save_llama(random_llama(CONFIG), path, dtype="float32", tokenizer=family())
    write_tokenizer(path)
    return path


class Process:
    """`codegen25 serve` in a process of its own, on a port that it takes."""

    def __init__(self, *arguments: str) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "codegen25", "serve", "--port", "0", *arguments],
            stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.url = ""
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r" at (http://\S+),", line):
                self.url = found[1]

    def wait(self, event: str) -> None:
        wait_until(lambda: self.url and any(f'"{event}"' in line for line in self.log))

    def kill(self, number: int = signal.SIGKILL) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def processes(folder: Path) -> Iterator[list[Process]]:
    made = [Process("--model", str(folder), "--threads", "1") for _ in range(3)]
    try:
        for one in made:
            one.wait("model")
        yield made
    finally:
        for one in made:
            one.kill()


def test_one_of_three_is_killed_under_load(processes: list[Process], folder: Path, tmp_path: Path) -> None:
    """Who had not begun to stream is answered, and rightly."""
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    loaded = killed_under_load(tmp_path, [one.url for one in processes], kill=lambda: processes[1].kill())
    assert loaded.other == 0
    assert loaded.broken < 25


def test_the_command(processes: list[Process], folder: Path, tmp_path: Path) -> None:
    """In front of servers, with a tokenizer and no weights, and a key; it ends well when it is told to."""
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    router = Process("--model", str(tmp_path), "--name", "team", *(f"--upstream={one.url}" for one in processes))
    try:
        router.wait("upstream")
        ask = json.dumps({"prompt": "def f(", "max_tokens": 4})
        text = [asyncio.run(posted(one.url, ask)) for one in (router, processes[0])]
        assert text[0] == text[1] and text[0]
    finally:
        code = router.kill(signal.SIGTERM)
    assert code == 0, router.log


async def posted(url: str, body: str) -> str:
    import httpx

    async with httpx.AsyncClient(trust_env=False) as http:
        reply = await http.post(f"{url}/v1/completions", content=body, timeout=30)
        return str(reply.json()["choices"][0]["text"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--upstream", "gpu-1:8000"],
        ["--upstream", "http://:8000"],
        ["--upstream", "http://gpu:99999999"],
        ["--upstream", "http://gpu", "--threads", "2"],
        ["--upstream", "http://gpu", "--model", "nowhere"],
        ["--upstream-key-file", "keys.txt"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "0", *arguments]) in (1, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_an_upstream_that_wants_a_key(folder: Path, tmp_path: Path) -> None:
    keys, key, wrong = (tmp_path / name for name in ("keys", "key", "wrong"))
    keys.write_text("a-key-of-somebody-1\na-key-of-the-router\n")
    key.write_text("a-key-of-the-router\n")
    wrong.write_text("nobodys\n")
    guarded = Process("--model", str(folder), "--threads", "1", "--api-key-file", str(keys))
    routers: list[Process] = []
    try:
        guarded.wait("model")
        for file in (key, wrong):
            arguments = ["--model", str(folder), f"--upstream={guarded.url}", "--upstream-key-file", str(file)]
            routers.append(Process(*arguments))
        routers[0].wait("upstream")
        assert asyncio.run(posted(routers[0].url, json.dumps({"prompt": "def f(", "max_tokens": 4})))
        routers[1].wait("model")
        assert asyncio.run(status(routers[1].url)) == 503
    finally:
        for one in (guarded, *routers):
            one.kill()


async def status(url: str) -> int:
    import httpx

    async with httpx.AsyncClient(trust_env=False) as http:
        return (await http.get(f"{url}/health", timeout=30)).status_code
