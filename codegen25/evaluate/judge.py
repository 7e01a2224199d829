"""Functional verdicts: whether a completed task does what its tests ask.

The completed function comes from a model and is not trusted; the test comes from the benchmark and is. `Program` keeps
the two apart. How they are run, and by which route, is told in docs/sandbox.md. `unsafe` runs programs with this
user's rights and WITHOUT A SANDBOX; only a person chooses it.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from codegen25.errors import CodegenError

Status = Literal["passed", "wrong", "error", "timeout", "memory", "killed"]
Route = Literal["auto", "bubblewrap", "namespaces", "unsafe"]

# Sets the limits from within (a function between fork and exec is not safe beside threads), says so on the verdict
# pipe, then runs the program as the main module. argv: pipe, program, CPU seconds, bytes of memory, bytes of a file,
# processes.
_LAUNCHER = """
import os, resource, runpy, sys
pipe, program, *limits = sys.argv[1:]
kinds = resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC
for kind, limit in zip(kinds, map(int, limits)):
    hard = resource.getrlimit(kind)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (limit, limit + (kind == resource.RLIMIT_CPU and limit < hard)))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
os.write(int(pipe), b"ready\\n")
sys.argv = [program]
runpy.run_path(program, run_name="__main__")
"""


@dataclass(frozen=True)
class Verdict:
    """`detail` is for a person: the last lines of the traceback, bounded, control characters escaped; "" when passed.

    `wrong`: an assertion of the test failed. `error`: any other exception, a syntax error, or an exit. `memory`: more
    than its share. `timeout`: wall clock or CPU time. `killed`: by a signal. `seconds`: of wall clock.
    """

    status: Status
    detail: str
    seconds: float


@dataclass(frozen=True)
class Limits:
    """Bounds of one program. `seconds` of wall clock, and of CPU rounded up; memory is address space, in bytes."""

    seconds: float = 10.0
    memory: int = 2 << 30
    file_size: int = 1 << 20
    processes: int = 0


LIMITS = Limits()


class Completable(Protocol):
    """What a task has for a judge."""

    @property
    def prompt(self) -> str: ...
    @property
    def suffix(self) -> str: ...
    @property
    def test(self) -> str: ...
    @property
    def entry_point(self) -> str: ...


@dataclass(frozen=True)
class Program:
    """A solution, not trusted, and its test, trusted.

    The test is source that defines `check(candidate)`, which is called with the function named `entry_point`, or
    source that calls that function by its name. `context` is trusted source that the test may use: what stands before
    the function in the task's prompt.
    """

    solution: str
    test: str
    entry_point: str
    context: str = ""


def program(task: Completable, completion: str) -> Program:
    """What is judged of a completion. The context is the prompt up to the function, where it stands there."""
    before, found, _ = task.prompt.partition(f"def {task.entry_point}(")
    return Program(task.prompt + completion + task.suffix, task.test, task.entry_point, before if found else "")


def available_route(route: Route = "auto") -> Route:
    """The route that `judge` takes. Raises CodegenError, with the remedy, when none can be taken: never `unsafe`
    unless it was asked for."""
    if route == "unsafe":
        return route
    raise CodegenError("no sandbox is available here; --unsafe runs programs without one")


def judge(
    programs: Iterable[Program], *, limits: Limits = LIMITS, workers: int | None = None, route: Route = "auto"
) -> Iterator[Verdict]:
    """One verdict per program, in order, as they come; `programs` is read a little ahead.

    Raises CodegenError when no program can be started.
    """
    available_route(route)
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        yield from pool.map(lambda program: _run(program, limits), programs)


def _run(program: Program, limits: Limits) -> Verdict:
    begin = time.monotonic()
    source = f"{program.solution}\n{program.test}\n"
    if "def check(" in program.test:
        source += f"check({program.entry_point})\n"
    secret = secrets.token_hex(16)
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    try:
        with tempfile.TemporaryDirectory(prefix="codegen25-judge-", ignore_cleanup_errors=True) as folder:
            path = Path(folder, "program.py")
            # The last line is reached only behind the tests. It names the pipe, so accidents cannot pass; malice can.
            last = f"__import__('os').write({writer}, b'{secret}')\n"
            path.write_bytes(f"{source}\n{last}".encode(errors="surrogatepass"))
            returncode = _wait(_start(path, writer, limits), limits.seconds)
        try:
            said = os.read(reader, 1 << 16).decode(errors="replace")
        except BlockingIOError:
            said = ""
    finally:
        os.close(reader)
        os.close(writer)
    if returncode is None or returncode == -signal.SIGXCPU:
        return Verdict("timeout", "", time.monotonic() - begin)
    if not said.startswith("ready\n"):
        raise CodegenError(
            f"a program to judge could not be started (exit {returncode}); "
            f"see that {sys.executable} runs and that memory is free"
        )
    passed = returncode == 0 and said.endswith(secret)
    return Verdict("passed" if passed else "error", "", time.monotonic() - begin)


def _start(path: Path, pipe: int, limits: Limits) -> subprocess.Popen[bytes]:
    numbers = (math.ceil(limits.seconds), limits.memory, limits.file_size, limits.processes)
    return subprocess.Popen(
        [sys.executable, "-I", "-c", _LAUNCHER, str(pipe), str(path), *map(str, numbers)],
        cwd=path.parent,
        env={"LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(pipe,),
        start_new_session=True,
    )


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit status, None when the time ran out. Whatever is left of the process group is killed."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
