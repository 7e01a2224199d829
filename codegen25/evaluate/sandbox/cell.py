"""Our side of a sandbox: start a fork server in it, give it programs one after another, throw it away.

A sandbox whose scratch folder was touched, or that does not answer, is replaced by a new one.
"""

from __future__ import annotations

import itertools
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

from codegen25.errors import CodegenError
from codegen25.evaluate.sandbox import view, wire

Way = Literal["bubblewrap", "namespaces", "unsafe"]
REMEDY = "apt-get install bubblewrap, allow user namespaces, or choose --unsafe"
# Seconds within which a sandbox starts.
START = 30.0
# Users that nobody else is, two for each sandbox that root starts.
_FIRST_USER = 1_900_000_000
_numbers = itertools.count()


class Cell:
    """One sandbox, closed by `close`. Programs go through it one at a time."""

    def __init__(self, way: Way, limits: dict[str, Any], worker: int = 0) -> None:
        """Starts it: `limits` has `seconds`, `memory`, `file_size`, `scratch`, `threads`.

        All of it stays on one core, by the number of the worker: the processes of a sandbox take turns, and waking one
        on another core is most of what a call would cost. Raises CodegenError, which says what failed, and the remedy.
        """
        cores = sorted(os.sched_getaffinity(0))
        self._way = way
        self._limits = limits | {"core": cores[worker % len(cores)]}
        self._start()

    def _start(self) -> None:
        limits = self._limits | {"seccomp": self._way != "unsafe", "users": 0, "folder": "/tmp"}
        folder = None
        if self._way == "unsafe":
            folder = tempfile.mkdtemp(prefix="codegen25-judge-")
            limits["folder"] = folder
        elif os.geteuid() == 0:
            limits["users"] = _FIRST_USER + os.getpid() % (1 << 16) * 2048 + next(_numbers) % 1024 * 2
        self._folder = folder
        pipe = subprocess.PIPE
        # A session of its own: an interrupt at the terminal reaches us, and we end the sandbox.
        self._process = subprocess.Popen(
            self._command(),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env=view.ENVIRONMENT,
            cwd=folder,
            start_new_session=True,
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        try:
            wire.send(self._to, limits)
            if not self._has_answer(START) or wire.receive(self._from) != "ready":
                raise wire.Closed
        except (wire.Closed, wire.Malformed) as error:
            self._process.kill()
            said = self._process.stderr.read().decode(errors="replace").strip().splitlines()
            self.close()
            raise CodegenError(f"{self._way}: {said[-1] if said else 'it does not start'}; {REMEDY}") from error

    def _command(self) -> list[str]:
        shown = view.python_view(self._limits["scratch"])
        if self._way == "unsafe":
            return _fork_server(view.with_harness(Path(self._folder or "")))
        if self._way == "namespaces":
            return view.namespaces_command(shown, _fork_server(view.HARNESS), privileged=True)
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            raise CodegenError(f"bubblewrap: bwrap is not on the PATH; {REMEDY}")
        return view.bubblewrap_command(bwrap, shown, _fork_server(view.HARNESS))

    def run(self, job: dict[str, str]) -> tuple[str, str, float]:
        """(status, detail, seconds) of a program: `solution`, `test`, `entry_point`, `context`.

        Raises CodegenError when a sandbox that is needed anew does not start.
        """
        seconds = self._limits["seconds"]
        start = time.monotonic()
        try:
            wire.send(self._to, job | {"seconds": seconds})
            if not self._has_answer(start + seconds - time.monotonic()):
                self._again()
                return "timeout", "", seconds
            found = wire.receive(self._from)
            answer = str(found["status"]), str(found["detail"]), float(found["seconds"])
        except (wire.Closed, wire.Malformed):
            self._again()
            return "killed", "the process of the test ended", time.monotonic() - start
        if found["dirty"] or found["status"] == "memory":
            self._again()
        return answer

    def _has_answer(self, seconds: float) -> bool:
        return bool(select.select([self._from], [], [], max(0.0, seconds))[0])

    def _again(self) -> None:
        self.close()
        self._start()

    def close(self) -> None:
        """End it, whatever runs in it: its first process dies with the one that we started, and the rest with it."""
        if self._way == "unsafe":
            self._process.terminate()  # which it passes on
        else:
            self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert file
            file.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def _fork_server(harness: str) -> list[str]:
    code = f"import sys; sys.path.append({harness!r}); from codegen25.evaluate.sandbox.zygote import main; main()"
    return [view.interpreter(), "-s", "-P", "-S", "-B", "-X", "utf8", "-c", code]
