"""A bubblewrap of Python's own: new namespaces, a root that holds what is bound into it and nothing else, a command.

Run as a program, by its path, with a plan in JSON (`view.py`). Unprivileged it makes a user namespace of this user;
root needs none and gives up every capability but those named in the plan. See namespaces(7) and pivot_root(2).
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any

_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = (
    0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = (
    1, 2, 4, 8, 32, 4096, 16384, 1 << 18,
)  # fmt: skip
_MNT_DETACH = 2
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYS_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38
_LAST_CAPABILITY = 63
_OLD = "/.old"

libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    _check(libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()), f"mount {target}")


class _Attributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


def _set_attributes(path: str, flags: int) -> None:
    """Of the mount and all below it (mount_setattr(2), Linux 5.12); its flags have the numbers of mount(2)'s."""
    wanted = _Attributes(flags, 0, 0, 0)
    result = libc.syscall(
        _SYS_MOUNT_SETATTR, _AT_FDCWD, path.encode(), _AT_RECURSIVE, ctypes.byref(wanted), ctypes.sizeof(wanted)
    )
    _check(result, f"mount_setattr {path}")


def _unshare(is_root: bool) -> None:
    uid, gid = os.getuid(), os.getgid()
    flags = _NEWNS | _NEWPID | _NEWNET | _NEWIPC | _NEWUTS | _NEWCGROUP | (0 if is_root else _NEWUSER)
    _check(libc.unshare(flags), "unshare")
    if not is_root:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123
                file.write(text)


def _build_root(plan: dict[str, Any]) -> None:
    """An empty root in memory, what the plan binds, all of it read-only but the plan's scratch folders."""
    _mount("", "/", flags=_MS_REC | _MS_PRIVATE)
    base = "/tmp"  # any folder that is there; what it holds is found below the old root
    _mount("tmpfs", base, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755,size=1m")
    os.mkdir(base + _OLD)  # noqa: PTH102
    _check(libc.syscall(_SYS_PIVOT_ROOT[os.uname().machine], base.encode(), (base + _OLD).encode()), "pivot_root")
    os.chdir("/")
    for target, path in plan["links"]:
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103,PTH120
        os.symlink(target, path)  # noqa: PTH211
    for source, path in plan["binds"]:
        _bind(source, path, _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
    for path in plan["devices"]:
        _bind(path, path, _MS_NOSUID | _MS_NOEXEC)
    for path in plan["hidden"]:
        _mount("tmpfs", path, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_RDONLY, "mode=755,size=4k")
    for path, size in plan["scratch"]:
        os.makedirs(path, exist_ok=True)  # noqa: PTH103
        options = f"mode=1777,size={size},nr_inodes=4096"
        _mount("tmpfs", path, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, options)
    if plan["proc"]:
        os.mkdir("/proc")  # noqa: PTH102
    _check(libc.umount2(_OLD.encode(), _MNT_DETACH), "umount2")
    os.rmdir(_OLD)  # noqa: PTH106


def _bind(source: str, path: str, flags: int) -> None:
    if os.path.isdir(_OLD + source):  # noqa: PTH112
        os.makedirs(path, exist_ok=True)  # noqa: PTH103
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103,PTH120
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(_OLD + source, path, flags=_MS_BIND | _MS_REC)
    _set_attributes(path, flags)


def _start(plan: dict[str, Any]) -> None:
    """The first process of the new PID namespace; does not return."""
    if plan["proc"]:
        _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    _mount("", "/", flags=_MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
    os.chdir(plan["cwd"])
    os.setsid()
    for kind, bound in plan["bounds"]:
        resource.setrlimit(kind, (bound, bound))
    if plan["user"]:
        os.setgroups([])
        os.setresgid(*[plan["user"]] * 3)
        os.setresuid(*[plan["user"]] * 3)
    elif os.getuid() == 0:
        for capability in range(_LAST_CAPABILITY + 1):
            if capability not in plan["capabilities"]:
                libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails for those that this kernel does not know
    # Behind the change of the user, which would clear it: all that is in here ends with us, and we with our parent.
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    os.execve(plan["command"][0], plan["command"], plan["environment"])


def main() -> None:
    plan = json.loads(sys.argv[1])
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # with the judge ends its sandbox
    _unshare(os.geteuid() == 0)
    _build_root(plan)
    child = os.fork()
    if not child:
        _start(plan)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)  # the command's alone, so that its end is seen
    _, status = os.waitpid(child, 0)
    os._exit(min(255, abs(os.waitstatus_to_exitcode(status))))


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        print(error, file=sys.stderr)
        os._exit(1)
