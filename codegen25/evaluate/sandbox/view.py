"""What a sandbox shows, and the commands that open one: bubblewrap's, or that of `namespaces.py`.

Shown are the interpreter at its own path, the standard library without installed packages, the system's shared
libraries, `/dev/null` and `/dev/urandom`, and this folder. All of it is read-only; `/tmp` is an empty folder in memory.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HARNESS = "/harness"
# Of the fork server: the order of sets of strings is the same in every sandbox. What it forks has none at all.
ENVIRONMENT = {"PYTHONHASHSEED": "0"}
_SYSTEM = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib64")
# Capabilities by which root's fork server gives its processes users of their own and ends them.
_KILL, _SETGID, _SETUID = 5, 6, 7


Bound = tuple[int, int]  # a kind of resource.setrlimit, and its value


@dataclass(frozen=True)
class View:
    """What is there: (source, path) that are bound, (target, path) of symbolic links, folders that are shown empty,
    and (path, bytes) of what can be written. `proc`: whether `/proc` shows the sandbox's own processes."""

    binds: tuple[tuple[str, str], ...]
    links: tuple[tuple[str, str], ...]
    hidden: tuple[str, ...]
    scratch: tuple[tuple[str, int], ...]
    devices: tuple[str, ...] = ("/dev/null", "/dev/urandom")
    proc: bool = False


def interpreter() -> str:
    """This Python without its virtual environment."""
    return os.path.realpath(sys.executable)


def python_view(scratch: int) -> View:
    """The interpreter and its standard library, with `scratch` bytes to write to."""
    prefix = os.path.realpath(sys.base_prefix)
    system = [path for path in _SYSTEM if Path(path).is_dir() and not Path(path).is_symlink()]
    own = [f"{prefix}/{name}" for name in ("lib", "lib64") if Path(prefix, name).is_dir()]
    shown = dict.fromkeys([*system, *(path for path in own if path not in _SYSTEM), interpreter()])
    shown |= dict.fromkeys(path for path in ("/etc/ld.so.cache",) if Path(path).exists())
    installed = [f"{top}/{python}/{name}" for top in shown for python in (_python(), "python3") for name in _INSTALLED]
    here = Path(__file__).resolve().parent
    return View(
        binds=(*((path, path) for path in shown), (str(here), f"{HARNESS}/codegen25/evaluate/sandbox")),
        links=tuple((str(Path(path).readlink()), path) for path in _SYSTEM if Path(path).is_symlink()),
        hidden=tuple(path for path in installed if Path(path).is_dir()),
        scratch=(("/tmp", scratch),),
    )


_INSTALLED = ("site-packages", "dist-packages")


def _python() -> str:
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


def namespaces_command(
    view: View, command: Sequence[str], *, user: int = 0, privileged: bool = False, bounds: Sequence[Bound] = ()
) -> list[str]:
    """`command` within the view by `namespaces.py`, with resource limits `bounds`. For root: as `user`, or with the
    capabilities of a fork server."""
    capabilities = [_KILL, _SETGID, _SETUID] if privileged else []
    plan: dict[str, object] = vars(view) | {
        "command": command,
        "cwd": "/tmp",
        "user": user,
        "capabilities": capabilities,
    }
    plan |= {"bounds": bounds, "environment": ENVIRONMENT}
    script = str(Path(__file__).resolve().with_name("namespaces.py"))
    return [interpreter(), "-I", "-S", "-B", script, json.dumps(plan)]


def bubblewrap_command(bwrap: str, view: View, command: Sequence[str]) -> list[str]:
    """`command` within the view by bubblewrap. Root's keeps the capabilities of a fork server."""
    root = os.geteuid() == 0
    parts = ["--die-with-parent", "--new-session", "--clearenv", "--unshare-pid", "--unshare-net", "--unshare-ipc"]
    parts += ["--unshare-uts", "--unshare-cgroup-try", "--cap-drop", "ALL"]
    if root:
        parts += [part for name in ("CAP_KILL", "CAP_SETGID", "CAP_SETUID") for part in ("--cap-add", name)]
    else:
        parts.append("--unshare-user")
    above = {str(parent): None for _, path in view.binds for parent in reversed(Path(path).parents[:-1])}
    for folder in above:  # which bubblewrap would make for its own user alone
        parts += ["--perms", "0755", "--dir", folder]
    for name, value in ENVIRONMENT.items():
        parts += ["--setenv", name, value]
    for target, path in view.links:
        parts += ["--symlink", target, path]
    for source, path in view.binds:
        parts += ["--ro-bind", source, path]
    for path in view.devices:
        parts += ["--dev-bind", path, path]
    for path in view.hidden:
        parts += ["--tmpfs", path, "--remount-ro", path]
    for path, size in view.scratch:
        parts += ["--perms", "1777", "--size", str(size), "--tmpfs", path]
    return [bwrap, *parts, "--remount-ro", "/", "--chdir", "/tmp", "--", *command]


def with_harness(folder: Path) -> str:
    """`folder` with a link to this one in it, from where the fork server imports without a sandbox."""
    (folder / ".harness/codegen25/evaluate").mkdir(parents=True)
    (folder / ".harness/codegen25/evaluate/sandbox").symlink_to(Path(__file__).resolve().parent)
    return str(folder / ".harness")
