"""The fork server: an interpreter that is warm, inside the sandbox, and forks a process for every program.

It is the parent of two: the process of the test, which lives on while tests end well, and a fresh one for each
solution. It alone talks to the outside, by its first two files, and hears of the solution's process from the kernel
only: how it ended. The verdict comes from the process of the test.
"""

from __future__ import annotations

# Warm in every process that is forked: what solutions import most.
import bisect  # noqa
import contextlib
import ctypes
import gc
import math
import os
import resource
import select
import signal
import socket
import time
from typing import Any

from codegen25.evaluate.sandbox import seccomp, trusted, untrusted, wire

CHANNEL = 3
# Processes that are counted with a program's threads where all are one user: ours, and bubblewrap's.
_OTHERS = 4
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38


class _Tester:
    """The process of the test, and the socket by which it gets its work."""

    def __init__(self, limits: dict[str, Any]) -> None:
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if not self.pid:
            _own_process(lambda: _tests(CHANNEL), theirs.fileno(), limits, user=0)
        theirs.close()
        self.socket = ours

    def start(self, job: dict[str, Any], channel: int) -> None:
        """Give it the solution's channel and what to run."""
        socket.send_fds(self.socket, [b"\0"], [channel])
        wire.send(self.socket.fileno(), [job["test"], job["entry_point"], job["context"]])

    def close(self) -> None:
        self.socket.close()
        _kill(self.pid)
        os.waitpid(self.pid, 0)


def _kill(pid: int) -> None:
    """The process and, where it could have made any, those of its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)


def _tests(control: int) -> None:
    with socket.socket(fileno=control) as source:
        while True:
            message, (channel,), _, _ = socket.recv_fds(source, 1, 1)
            if not message:
                return
            test, entry_point, context = wire.receive(control)
            found = trusted.verdict(channel, test, entry_point, context)
            os.close(channel)
            wire.send(control, found)


def _own_process(work: Any, channel: int, limits: dict[str, Any], *, user: int) -> None:
    """What a forked process does: keep nothing of the parent's but the channel, be limited, work, and end."""
    try:
        os.setsid()
        os.dup2(channel, CHANNEL)
        os.closerange(CHANNEL + 1, 1 << 16)
        if limits["users"]:
            os.setgroups([])
            os.setresgid(*[limits["users"] + user] * 3)
            os.setresuid(*[limits["users"] + user] * 3)
        cpu = math.ceil(limits["seconds"])
        for kind, bound in (
            (resource.RLIMIT_AS, limits["memory"]),
            (resource.RLIMIT_FSIZE, limits["file_size"]),
            (resource.RLIMIT_NOFILE, 64),
            (resource.RLIMIT_CORE, 0),
            *([(resource.RLIMIT_CPU, cpu + 1)] if user else []),
            *([(resource.RLIMIT_NPROC, limits["threads"] + _OTHERS)] if user and limits["seccomp"] else []),
        ):
            resource.setrlimit(kind, (bound, bound))
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        if limits["seccomp"]:
            seccomp.limit_program()
        work()
    except wire.Closed:
        os._exit(0)
    finally:
        os._exit(1)


class _Zygote:
    def __init__(self, limits: dict[str, Any]) -> None:
        self.limits = limits
        self.tester: _Tester | None = None
        self.scratch = os.stat(self.limits["folder"]).st_ctime_ns

    def run(self, job: dict[str, Any], control: int) -> dict[str, Any]:
        """Judge one program: {"status", "detail", "seconds", "dirty"}."""
        start = time.monotonic()
        if self.tester is None:
            self.tester = _Tester(self.limits)
        tester = self.tester
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if not pid:
            _own_process(lambda: untrusted.serve(CHANNEL, job["solution"]), theirs.fileno(), self.limits, user=1)
        theirs.close()
        with ours:
            tester.start(job, ours.fileno())
        status, detail = self._wait(tester, start + self.limits["seconds"], control)
        _kill(pid)
        _, ended, usage = os.wait4(pid, 0)
        if status == "gone":
            status, detail = self._how_it_ended(ended, usage.ru_utime + usage.ru_stime)
        if status not in ("passed", "wrong", "error"):
            tester.close()
            self.tester = None
        dirty = os.stat(self.limits["folder"]).st_ctime_ns != self.scratch
        return {"status": status, "detail": detail, "seconds": time.monotonic() - start, "dirty": dirty}

    def _wait(self, tester: _Tester, deadline: float, control: int) -> tuple[str, str]:
        poll = select.poll()
        poll.register(tester.socket, select.POLLIN)
        poll.register(control, 0)  # its end is told, too
        while (left := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(left * 1000 + 1):
                if fd == control:
                    os._exit(0)  # nobody waits for the verdict; what we started ends with us
                try:
                    status, detail = wire.receive(fd)
                except (wire.Closed, wire.Malformed):
                    return "memory", "the process of the test ended"
                return status, detail
        return "timeout", ""

    def _how_it_ended(self, ended: int, cpu: float) -> tuple[str, str]:
        if not os.WIFSIGNALED(ended):
            return "error", f"the solution's process exited with {os.waitstatus_to_exitcode(ended)}"
        number = os.WTERMSIG(ended)
        if number in (signal.SIGXCPU, signal.SIGKILL) and cpu >= self.limits["seconds"]:
            return "timeout", ""
        with contextlib.suppress(ValueError):
            return "killed", f"the solution's process was ended by {signal.Signals(number).name}"
        return "killed", f"the solution's process was ended by signal {number}"


def _harden(limits: dict[str, Any]) -> tuple[int, int]:
    """Out of reach for what is forked. Returns the files to read from and write to."""
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
    os.environ.clear()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    source, sink = os.dup(0), os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    if limits["seccomp"]:
        seccomp.limit_zygote()
    wire.send(sink, "ready")  # the last that goes wrong went to stderr
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    return source, sink


def main() -> None:
    limits = wire.receive(0)
    source, sink = _harden(limits)
    zygote = _Zygote(limits)
    gc.collect()
    gc.freeze()
    with contextlib.suppress(wire.Closed):
        while True:
            wire.send(sink, zygote.run(wire.receive(source), source))
