"""Asking the kernel for what a program under judgement has no use for, past every function of Python's."""

from __future__ import annotations

from codegen25.bench.escapes.escape import Escape, escape, tries

# Numbers on x86-64; elsewhere they are other calls, which must not help either.
_CALL = """
libc = ctypes.CDLL(None, use_errno=True)
call = libc.syscall
"""


def _call(name: str, attempts: str, attempt: str) -> Escape:
    return tries(name, attempts, _CALL + attempt, "ctypes, os")


KERNEL = (
    _call("fork", "make a process", "pid = call(57)\nif pid == 0:\n    os._exit(0)\nreturn pid > 0"),
    _call("clone", "make a process by clone and by clone3", """
for flags in (17, 0x10000000 | 17, 0x100 | 0x4000 | 17):
    pid = call(56, flags, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    if pid > 0:
        return True
pid = call(435, (ctypes.c_uint64 * 11)(0, 0, 0, 0, 17), 88)
if pid == 0:
    os._exit(0)
return pid > 0"""),
    _call("execve", "become another program", """
return call(59, b'/bin/sh', (ctypes.c_char_p * 4)(b'sh', b'-c', b'exit 0', None), None) == 0"""),
    _call("user-namespace", "make namespaces, in which it would be root", """
return call(272, 0x10000000) == 0 or call(272, 0x00020000) == 0"""),
    _call("set-namespace", "enter another process's namespaces", "return call(308, os.open('/', 0), 0) == 0"),
    _call("mount", "mount something, move the root", """
return call(165, b'none', b'/tmp', b'tmpfs', 0, 0) == 0 or call(155, b'.', b'.') == 0 or call(161, b'.') == 0"""),
    _call("ptrace", "trace its parent, or let itself be traced", """
return call(101, 16, os.getppid(), 0, 0) == 0 or call(101, 0, 0, 0, 0) == 0"""),
    _call("process-memory", "read another process's memory", """
buffer = ctypes.create_string_buffer(8)
vector = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 8)
return any(call(310, pid, vector, 1, vector, 1, 0) > 0 for pid in (1, 2, os.getppid()))"""),
    _call("kill-parent", "kill its parent, and everybody it can", """
return any(call(62, pid, number) == 0 for pid in (os.getppid(), 1, -1) for number in (0, 2, 9))"""),
    _call("signal-thread", "signal the threads of others", """
return any(call(234, pid, pid, 15) == 0 for pid in range(1, 64) if pid != os.getpid())"""),
    _call("pidfd", "hold another process by a descriptor", "return call(434, os.getppid(), 0) >= 0"),
    _call("limits-of-others", "change the limits of others, and raise its own", """
import resource
new = (ctypes.c_uint64 * 2)(1, 1)
if call(302, os.getppid(), 0, new, 0) == 0:
    return True
resource.setrlimit(resource.RLIMIT_CPU, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
return True"""),
    _call("become-root", "become another user", """
return call(105, 0) == 0 or call(117, 0, 0, 0) == 0 or call(116, 0, 0) == 0"""),
    _call("io-uring", "make an io_uring, which passes filters by", """
return call(425, 4, (ctypes.c_uint32 * 30)()) >= 0"""),
    _call("keys", "use the kernel's keyrings", """
return call(250, 0, -3, 1) >= 0 or call(248, b'user', b'name', b'x', 1, -3) >= 0"""),
    _call("bpf", "load programs into the kernel, watch events", """
if call(321, 0, (ctypes.c_uint64 * 16)(2, 4, 4, 1), 72) >= 0:
    return True
return call(298, (ctypes.c_uint32 * 32)(1, 128), 0, -1, -1, 0) >= 0"""),
    _call("user-faults", "handle page faults by itself", "return call(323, 1) >= 0"),
    _call("memory-file", "run a file that lies in memory only", "return call(319, b'x', 0) >= 0"),
    _call("shared-memory", "keep memory and queues for the next program", """
return call(29, 4242, 4096, 0o1666) >= 0 or call(68, 4242, 0o1666) >= 0 or call(240, b'x', 0o102, 0o666, 0) >= 0"""),
    _call("handles", "open files by handle", """
handle = (ctypes.c_uint32 * 40)(128)
mount = ctypes.c_int()
return call(303, -100, b'/', handle, ctypes.byref(mount), 0) == 0 and call(304, os.open('/', 0), handle, 0) >= 0"""),
    _call("device", "make a device", "return call(133, b'/tmp/disk', 0o60666, 0x800) == 0"),
    _call("filters", "take its filters off or install others", """
return call(317, 0, 0, 0) == 0 or libc.prctl(22, 1, 0, 0, 0) == 0 or libc.prctl(4, 1, 0, 0, 0) == 0"""),
    _call("other-table", "make a system call of the x32 table", "return call(0x40000000 + 39) > 0"),
    _call("terminal-input", "type into the judge's terminal", """
return any(call(16, fd, 0x5412, b'x') == 0 for fd in range(3)) or call(2, b'/dev/tty', 2) >= 0"""),
    _call("clock-and-host", "set the clock or the host's name", """
return call(227, 0, (ctypes.c_long * 2)(0, 0)) == 0 or call(170, b'x', 1) == 0"""),
    escape("signal-games", "ignore every signal and stop the judge's timers, then go on for ever", """
        import signal
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        def add(a, b):
            while True:
                pass
        """),
    escape("stop-itself", "stop instead of ending", """
        import os, signal, time
        def add(a, b):
            for number in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN):
                try:
                    signal.raise_signal(number)
                except OSError:
                    pass
            time.sleep(1000)
        """),
)  # fmt: skip
