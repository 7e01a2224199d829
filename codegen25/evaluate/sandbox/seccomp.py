"""Which system calls there are: filters in classic BPF, assembled here and installed by prctl (seccomp(2)).

Two of them, one upon the other. `limit_zygote` lets the fork server do what CPython needs to compute, to read files,
to work in the scratch folder, and to make and end processes; every other call fails with EPERM. `limit_program` takes
the last part away from the process that runs a program: it cannot make or replace processes, signal, trace or limit
any, change its user or its filters. Neither has sockets other than pairs, namespaces, mounts, keys, io_uring, BPF,
shared memory or `/proc`-like views of others. Numbers are those of x86-64 and arm64 Linux.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterable

# name, number on x86-64, number on arm64
_ALLOWED = """
    read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, close 3 57, fstat 5 80, stat 4 -,
    lstat 6 -, newfstatat 262 79, statx 332 291, lseek 8 62, mmap 9 222, mprotect 10 226, munmap 11 215, mremap 25 216,
    madvise 28 233, brk 12 214, rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136,
    rt_sigsuspend 130 133, rt_sigtimedwait 128 137, sigaltstack 131 132, access 21 -, faccessat 269 48,
    faccessat2 439 439, pipe 22 -, pipe2 293 59, dup 32 23, dup2 33 -, dup3 292 24, fcntl 72 25, flock 73 32,
    getcwd 79 17, chdir 80 49, fchdir 81 50, getdents64 217 61, open 2 -, openat 257 56, readlink 89 -,
    readlinkat 267 78, getpid 39 172, gettid 186 178, getppid 110 173, getuid 102 174, geteuid 107 175, getgid 104 176,
    getegid 108 177, getgroups 115 158, getpgrp 111 -, getpgid 121 155, getsid 124 156, getrandom 318 278,
    clock_gettime 228 113, clock_getres 229 114, clock_nanosleep 230 115, nanosleep 35 101, gettimeofday 96 169,
    time 201 -, futex 202 98, set_robust_list 273 99, rseq 334 293, set_tid_address 218 96, arch_prctl 158 -,
    sched_yield 24 124, sched_getaffinity 204 123, sysinfo 99 179, uname 63 160, getrlimit 97 163, getrusage 98 165,
    times 100 153, exit 60 93, exit_group 231 94, select 23 -, pselect6 270 72, poll 7 -, ppoll 271 73,
    epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, eventfd2 290 19, socketpair 53 199,
    sendto 44 206, recvfrom 45 207, sendmsg 46 211, recvmsg 47 212, shutdown 48 210, getsockopt 55 209,
    setsockopt 54 208, getsockname 51 204, getpeername 52 205, restart_syscall 219 128, membarrier 324 283,
    getitimer 36 102, setitimer 38 103, alarm 37 -, pause 34 -, mkdir 83 -, mkdirat 258 34, rmdir 84 -, unlink 87 -,
    unlinkat 263 35, rename 82 -, renameat 264 38, renameat2 316 276, symlink 88 -, symlinkat 266 36, link 86 -,
    linkat 265 37, chmod 90 -, fchmod 91 52, fchmodat 268 53, utimensat 280 88, truncate 76 45, ftruncate 77 46,
    fallocate 285 47, fsync 74 82, fdatasync 75 83, statfs 137 43, fstatfs 138 44, umask 95 166, getcpu 309 168,
    getpriority 140 141, creat 85 -, sendfile 40 71, copy_file_range 326 285
"""
_ZYGOTE = """
    setsid 112 157, fork 57 -, vfork 58 -, kill 62 129, wait4 61 260, waitid 247 95, pidfd_open 434 434,
    pidfd_send_signal 424 424,
    setresuid 117 147, setresgid 119 149, setgroups 116 159, prctl 157 167, seccomp 317 277, setrlimit 160 164,
    close_range 436 436, capset 126 91
"""
# Looked at more closely, by their arguments.
_ASKED = """
    ioctl 16 29, tgkill 234 131, prlimit64 302 261, clone 56 220, clone3 435 435
"""
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the tables, AUDIT_ARCH

_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_LOAD, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_ANY, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_NUMBER, _ARCH = 0, 4
_X32 = 0x40000000  # numbers from here on are another table's
_CLONE_THREAD, _CLONE_NAMESPACES = 0x00010000, 0x7E020080
_TERMINAL = (0x5401, 0x5421, 0x5451)  # TCGETS, FIONBIO, FIOCLEX: what Python asks of files that it opens

Instruction = tuple[int, int, int, int]  # code, jump when true, jump when false, constant


def is_supported() -> bool:
    """Whether the tables know this machine."""
    return platform.machine() in _MACHINES


def zygote_filter() -> bytes:
    """What `limit_zygote` installs."""
    asked = _numbers(_ASKED)
    programs = [
        _reject(asked["clone3"], _ENOSYS),  # its flags cannot be seen; libc then takes clone
        _when(asked["clone"], _unless_any(_argument(0), _CLONE_NAMESPACES)),
        _when(asked["ioctl"], _unless_one_of(_argument(1), _TERMINAL)),
    ]
    allowed = [*_numbers(_ALLOWED).values(), *_numbers(_ZYGOTE).values(), *asked.values()]
    return _assembled([*_start(), *(step for part in programs for step in part), *_only(allowed)])


def limit_zygote() -> None:
    """Filter this process and all that come of it. Raises OSError."""
    _install(zygote_filter())


def program_filter(pid: int) -> bytes:
    """What `limit_program` installs; `pid` is the one process whose threads may be signalled."""
    asked = _numbers(_ASKED)
    programs = [
        *(_reject(number, _EPERM) for number in _numbers(_ZYGOTE).values()),
        _when(asked["clone"], _if_any(_argument(0), _CLONE_THREAD)),
        _when(asked["tgkill"], _unless_one_of(_argument(0), (pid,))),
        _when(asked["prlimit64"], [*_unless_one_of(_argument(2), (0,)), *_unless_one_of(_argument(2) + 4, (0,))]),
    ]
    return _assembled([*_start(), *(step for part in programs for step in part), (_RETURN, 0, 0, _ALLOW)])


# ------------------------------------------------------------------------------------------------------------ assembly


def _numbers(table: str) -> dict[str, int]:
    if not is_supported():
        raise OSError(f"no table of system calls for {platform.machine()}")
    column, _ = _MACHINES[platform.machine()]
    rows = (row.split() for row in table.replace("\n", " ").split(","))
    return {name: int(numbers[column]) for name, *numbers in rows if numbers[column] != "-"}


def _argument(index: int) -> int:
    """Where the low half of an argument lies in struct seccomp_data; the high half follows."""
    return 16 + 8 * index


def _start() -> list[Instruction]:
    """Another architecture's calls end the process. Leaves the number loaded."""
    arch = _MACHINES[platform.machine()][1]
    return [
        (_LOAD, 0, 0, _ARCH),
        (_JUMP_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_GREATER, 0, 1, _X32 - 1),
        (_RETURN, 0, 0, _KILL_PROCESS),
    ]


def _reject(number: int, errno: int) -> list[Instruction]:
    return [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | errno)]


def _when(number: int, steps: list[Instruction]) -> list[Instruction]:
    """The steps for one call; what they do not reject goes on with the number loaded again."""
    return [(_JUMP_EQUAL, 0, len(steps) + 1, number), *steps, (_LOAD, 0, 0, _NUMBER)]


def _unless_one_of(offset: int, values: tuple[int, ...]) -> list[Instruction]:
    checks = [(_JUMP_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
    return [(_LOAD, 0, 0, offset), *checks, (_RETURN, 0, 0, _ERRNO | _EPERM)]


def _unless_any(offset: int, bits: int) -> list[Instruction]:
    """Rejects when any of the bits is set."""
    return [(_LOAD, 0, 0, offset), (_JUMP_ANY, 0, 1, bits), (_RETURN, 0, 0, _ERRNO | _EPERM)]


def _if_any(offset: int, bits: int) -> list[Instruction]:
    """Rejects when none of the bits is set."""
    return [(_LOAD, 0, 0, offset), (_JUMP_ANY, 1, 0, bits), (_RETURN, 0, 0, _ERRNO | _EPERM)]


def _only(numbers: Iterable[int]) -> list[Instruction]:
    """Allows these and rejects the rest."""
    ordered = sorted(numbers)
    checks = [(_JUMP_EQUAL, len(ordered) - i, 0, number) for i, number in enumerate(ordered)]
    return [*checks, (_RETURN, 0, 0, _ERRNO | _EPERM), (_RETURN, 0, 0, _ALLOW)]


_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def _assembled(instructions: list[Instruction]) -> bytes:
    return b"".join(struct.pack("<HBBI", *step) for step in instructions)


def _install(code: bytes) -> None:
    program = _Program(len(code) // 8, code)
    pr_set_seccomp, mode_filter = 22, 2
    if _libc.prctl(pr_set_seccomp, mode_filter, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


_ANY_PID = 0x7FFFFFFF
_PREPARED = program_filter(_ANY_PID) if is_supported() else b""


def limit_program() -> None:
    """Filter this process for good, upon the other filter. Raises OSError."""
    pid = os.getpid()
    _install(_PREPARED.replace(struct.pack("<I", _ANY_PID), struct.pack("<I", pid)))
