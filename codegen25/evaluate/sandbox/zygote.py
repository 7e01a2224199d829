"""The fork server: a warm interpreter inside the sandbox that forks a process for every solution.

At its start it forks the process of the test (`tester.py`), which speaks with our side. From then on it hears solutions
from that process, and never a test or a verdict: what it forks has its memory. It answers with the two ends of a
channel to the new process, and in the end with how that process ended, which it knows from the kernel.
"""

from __future__ import annotations

# Warm in every process that is forked: what solutions import most.
import bisect  # noqa
import contextlib
import ctypes
import gc
import importlib
import math
import os
import resource
import select
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from codegen25.evaluate.sandbox import seccomp, tester, untrusted, wire

# Imported once for every process that is forked: what solutions import most.
WARM = ("bisect", "collections", "copy", "functools", "heapq", "itertools", "math", "random", "re", "string", "typing")
# Files of a forked process behind 0, 1 and 2, which are /dev/null.
CHANNEL = (3, 4)
MAX_FILES = 64
# Processes that are counted with a program's threads where all are one user: ours, and bubblewrap's.
_OTHERS = 4
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Files 0 and 1 lead to our side: limits come, then "ready" goes, then they are the tester's."""
    limits = wire.receive(0)
    for name in WARM:
        importlib.import_module(name)
    _harden(limits)
    ours, theirs = socket.socketpair()
    gc.collect()
    gc.freeze()
    if not os.fork():
        ours.close()
        source, sink = os.dup(0), os.dup(1)
        wire.send(sink, "ready")  # what goes wrong from here on is seen by nobody but the other end
        _to_null()
        _limited(limits, user=0)
        _end_after(lambda: tester.serve(source, sink, theirs))
    theirs.close()
    _to_null()
    with contextlib.suppress(wire.Closed):
        _serve(ours, limits)


def _serve(control: socket.socket, limits: dict[str, Any]) -> None:
    fd = control.fileno()
    folder = Path(limits["folder"])
    fresh = folder.stat().st_ctime_ns
    running: list[int] = []
    if not limits["seccomp"]:  # elsewhere the namespaces end with the judge, and all in them
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)

        def leave(*_: object) -> None:
            for pid in running:
                _kill(pid)
            os._exit(0)

        signal.signal(signal.SIGTERM, leave)
    while True:
        solution = wire.receive(fd)
        calls, asks = os.pipe()
        hears, answers = os.pipe()
        pid = os.fork()
        if not pid:
            _become(solution, (calls, answers), limits)
        running[:] = [pid]
        socket.send_fds(control, [b"\0"], (hears, asks))
        for end in (calls, asks, hears, answers):
            os.close(end)
        if wire.receive(fd):  # whether its channel is closed: then it ends by itself, by what ended it
            _await_end(pid)
        _kill(pid)
        _, status, usage = os.wait4(pid, 0)
        running.clear()
        is_dirty = folder.stat().st_ctime_ns != fresh
        wire.send(fd, [status, usage.ru_utime + usage.ru_stime, is_dirty])


def _become(solution: str, channel: tuple[int, int], limits: dict[str, Any]) -> None:
    """The forked process: keep nothing of the parent's but the channel, be limited, define, answer, end."""
    for number, end in zip(CHANNEL, channel, strict=True):
        os.dup2(end, number)
    os.closerange(CHANNEL[-1] + 1, MAX_FILES)
    seconds = math.ceil(limits["seconds"]) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    _limited(limits, user=1)
    _end_after(lambda: untrusted.serve(*CHANNEL, solution))


def _limited(limits: dict[str, Any], user: int) -> None:
    if own := limits["users"] and limits["users"] + user:
        os.setgroups([])
        os.setresgid(own, own, own)
        os.setresuid(own, own, own)
    if limits["seccomp"]:
        seccomp.limit_program()
    else:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()


def _end_after(work: Callable[[], None]) -> None:
    try:
        work()
    except wire.Closed:
        os._exit(0)
    finally:
        os._exit(1)


def _await_end(pid: int) -> None:
    descriptor = os.pidfd_open(pid)
    select.select([descriptor], [], [], 1.0)
    os.close(descriptor)


def _kill(pid: int) -> None:
    """The process and, where it could have made any, those of its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)


def _harden(limits: dict[str, Any]) -> None:
    """Limits that all share, and out of reach for what is forked. Raises OSError."""
    for option, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_NO_NEW_PRIVS, 1)):
        if _libc.prctl(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
    os.environ.clear()
    os.sched_setaffinity(0, {limits["core"]})
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    bounds = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: MAX_FILES, resource.RLIMIT_FSIZE: limits["file_size"]}
    bounds[resource.RLIMIT_AS] = limits["memory"]
    if limits["seccomp"]:
        bounds[resource.RLIMIT_NPROC] = limits["threads"] + _OTHERS
    for kind, bound in bounds.items():
        resource.setrlimit(kind, (bound, bound))
    if limits["seccomp"]:
        seccomp.limit_zygote()


def _to_null() -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
