"""Functional verdicts: run a completed task against its tests, each program in a process of its own.

NOT A SANDBOX. The program is written by a model and runs with this user's rights: it can read files, use the network
and write wherever the user can. What is bounded is what goes wrong by accident: time, CPU, memory, size of files and
number of processes (not for root), a fresh folder to run in, an empty environment, and the process group is killed
at the end. A program that leaves its process group outlives it. Callers must have been told to run generated code.
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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from codegen25.errors import CodegenError
from codegen25.evaluate.singleline import Task

Verdict = Literal["passed", "failed", "timeout"]

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
class Limits:
    """Bounds of one program. `seconds` of wall clock, and of CPU rounded up; memory is address space, in bytes."""

    seconds: float = 10.0
    memory: int = 2 << 30
    file_size: int = 1 << 20
    processes: int = 0


LIMITS = Limits()


def program(task: Task, completion: str) -> str:
    """The source that is judged: the completed function, its tests, and the call that runs them."""
    return f"{task.prompt}{completion}{task.suffix}\n{task.test}\ncheck({task.entry_point})\n"


def judge(programs: Sequence[str], *, limits: Limits = LIMITS, workers: int | None = None) -> list[Verdict]:
    """One verdict per program, in order; equal programs run once. RUNS THE PROGRAMS: see the module.

    `passed`: it ran to its end, so a program that leaves early (`exit()`) has failed. `timeout`: it used up its wall
    clock or CPU time. Raises CodegenError when no program can be started.
    """
    distinct = list(dict.fromkeys(programs))
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        verdicts = dict(zip(distinct, pool.map(lambda source: _run(source, limits), distinct), strict=True))
    return [verdicts[source] for source in programs]


def _run(source: str, limits: Limits) -> Verdict:
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
        return "timeout"
    if not said.startswith("ready\n"):
        raise CodegenError(
            f"a program to judge could not be started (exit {returncode}); "
            f"see that {sys.executable} runs and that memory is free"
        )
    return "passed" if returncode == 0 and said.endswith(secret) else "failed"


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
