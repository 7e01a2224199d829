"""The process of the test, which lives as long as the sandbox: takes programs from our side, has the fork server make
a process for the solution, runs the test against it (`trusted.py`) and gives the verdict."""

from __future__ import annotations

import os
import signal
import socket
import time

from codegen25.evaluate.sandbox import trusted, wire


def serve(source: int, sink: int, zygote: socket.socket) -> None:
    """Programs come as {"solution", "test", "entry_point", "context", "seconds"}, verdicts go as {"status", "detail",
    "seconds", "dirty"}, until `source` is closed, which raises `wire.Closed`."""
    while True:
        job = wire.receive(source)
        start = time.monotonic()
        wire.send(zygote.fileno(), job["solution"])
        _, channel, _, _ = socket.recv_fds(zygote, 1, 2)
        if len(channel) != 2:
            raise wire.Closed
        hears, asks = channel
        status, detail = trusted.verdict(hears, asks, job["test"], job["entry_point"], job["context"])
        for fd in channel:
            os.close(fd)
        wire.send(zygote.fileno(), status == "gone")
        ended, cpu, is_dirty = wire.receive(zygote.fileno())
        if status == "gone":
            status, detail = _how_it_ended(ended, is_over=cpu >= job["seconds"])
        seconds = time.monotonic() - start
        wire.send(sink, {"status": status, "detail": detail, "seconds": seconds, "dirty": is_dirty})


def _how_it_ended(status: int, *, is_over: bool) -> tuple[str, str]:
    if not os.WIFSIGNALED(status):
        return "error", f"the solution's process exited with {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    if number in (signal.SIGXCPU, signal.SIGKILL) and is_over:
        return "timeout", ""
    named = {int(known): known.name for known in signal.Signals}
    return "killed", f"the solution's process was ended by {named.get(number, number)}"
