"""Other engines: each installed into an environment of its own, run as a process of its own, asked in JSON lines."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from codegen25.bench.figures import Options, Say
from codegen25.errors import CodegenError

DRIVERS = Path(__file__).parent / "peers"
GIB = 1 << 30


class PeerError(CodegenError):
    """A peer cannot be installed or cannot do what it was asked; the other figures are not touched by that."""


@dataclass(frozen=True)
class Recipe:
    """How an engine is driven (a file for `peers/main.py`), its packages, and settings of which the fastest is kept."""

    driver: str
    packages: tuple[str, ...]
    disk: int  # bytes of the installed environment, about
    settings: tuple[Mapping[str, Any], ...] = ({},)


PEERS = {
    "llama.cpp": Recipe(
        "llama_cpp.py", ("xllamacpp==2026.10.11549",), GIB // 4, ({}, {"flash": "off"}, {"repack": False})
    ),
    "transformers": Recipe(
        "hf.py",
        ("torch==2.13.0", "transformers==5.23.0", "gguf==0.19.0"),
        8 * GIB,
        ({"dtype": "float32"}, {"dtype": "bfloat16"}),
    ),
    "hf-trainer": Recipe("hf_trainer.py", ("torch==2.13.0", "transformers==5.23.0", "accelerate==1.15.0"), 8 * GIB),
    "hf-folder": Recipe("hf_folder.py", ("torch==2.13.0", "transformers==5.23.0", "accelerate==1.15.0"), 8 * GIB),
    "openvino": Recipe("openvino.py", ("openvino-genai==2026.4.1.0",), GIB),
    "datatrove": Recipe(
        "datatrove.py",
        ("datatrove==0.10.1", "orjson==3.13.0", "regex==2026.11.19", "tokenizers==0.23.3", "xxhash==3.8.2"),
        GIB // 4,
    ),
    "infini-gram": Recipe("infini_gram.py", ("infini-gram==2.6.0",), GIB // 8),
}


def check_disk(folder: Path, needed: int, what: str) -> None:
    """Raise `CodegenError` when `folder`'s disk has not `needed` bytes free."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise CodegenError(
            f"{folder}: {what} needs {needed / GIB:.1f} GiB of disk, {free / GIB:.1f} are free; "
            "free some, or name another folder with --cache"
        )


def environment(name: str, cache: Path, say: Say) -> Path:
    """The Python of a peer's environment, made when it is not there. Raises `PeerError` when that fails."""
    recipe = PEERS[name]
    folder = cache / "peers" / "+".join(recipe.packages)
    python, complete = folder / "bin" / "python", folder / "complete"
    if complete.exists():
        return python
    try:
        check_disk(folder, recipe.disk, "the environment")
    except CodegenError as error:
        raise PeerError(f"{name} could not be installed: {error}") from error
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    say(f"installing {' '.join(recipe.packages)} into {folder}")
    try:
        _run(name, sys.executable, "-m", "venv", folder)
        _run(name, python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *recipe.packages)
        complete.touch()
    finally:
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
    return python


def _run(name: str, *command: str | Path) -> None:
    try:
        subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, errors="replace")
    except (OSError, subprocess.CalledProcessError) as error:
        output = getattr(error, "stderr", None) or getattr(error, "stdout", None) or str(error)
        lines = [line for line in output.strip().splitlines() if line.strip()]
        why = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "no reason given")
        raise PeerError(f"{name} could not be installed: {why}") from error


class Driver:
    """One of our programs of `peers`, running in a peer's environment until it is closed."""

    def __init__(self, python: Path, log: Path, *program: str | Path) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as stderr:
            # A session of its own: an interrupt at the terminal reaches us, and we end the peer.
            self._process = subprocess.Popen(
                [python, "-I", *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True,
                start_new_session=True, env=_environment(),
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                try:
                    pipe.close()
                except BrokenPipeError:  # what was not written yet is not wanted any more
                    continue


class Peer(Driver):
    """A running engine. Between two calls it waits for input and uses no processor."""

    def __init__(self, name: str, python: Path, log: Path) -> None:
        super().__init__(python, log, DRIVERS / "main.py", DRIVERS / PEERS[name].driver)
        self.name = name

    @classmethod
    def start(cls, name: str, options: Options) -> Peer:
        """Install the peer where needed and start it. Raises `PeerError`."""
        return cls(name, environment(name, options.cache, options.say), options.cache / "logs" / f"{name}.log")

    def call(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Ask for one thing and wait. Raises `PeerError` when the engine fails or is gone."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"do": do} | arguments) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            answer: dict[str, Any] = json.loads(line) if line else {}
        except (OSError, ValueError):
            answer = {}
        if not answer:
            raise PeerError(f"{self.name} ended while it was asked to {do}; its last words are in {self.log}")
        if "error" in answer:
            raise PeerError(f"{self.name} cannot {do}: {' '.join(str(answer['error']).split())}")
        return answer


def _environment() -> dict[str, str]:
    """Ours, without what would reach into the peer's Python or its threads."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "OMP_", "GOMP_", "KMP_"))}
