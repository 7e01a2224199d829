"""The machine that figures were measured on, and whether it is quiet."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from codegen25 import __version__
from codegen25.engine.machine import available_memory, usable_cores

# What kernels for these models use, ours or others'.
FLAGS = ("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
         "asimd", "asimddp", "i8mm", "bf16", "sve")  # fmt: skip
QUIET = 0.2  # cores in use from which something else runs
MOMENT = 0.5  # seconds


def describe() -> dict[str, Any]:
    """Processor, memory and kernel, as far as the system tells (`None` for what it does not)."""
    cpu = _fields(Path("/proc/cpuinfo"))
    flags = set((cpu.get("flags") or cpu.get("Features") or "").split())
    return {
        "cpu": cpu.get("model name") or platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "available_memory_gib": round(available_memory() / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "huge_pages": _selected(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def commit() -> str:
    """The commit that runs, `-dirty` where files differ from it; outside a repository, the version."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"], cwd=here, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        tracked = subprocess.run(["git", "ls-files", "--error-unmatch", __file__], cwd=here, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return __version__
    return found.stdout.strip() if tracked.returncode == 0 else __version__


def disturbance() -> str | None:
    """A line for a person when other work runs, which makes figures worthless; it looks for a moment."""
    if os.getloadavg()[0] < QUIET:
        return None
    before = _work()
    time.sleep(MOMENT)
    busy = (_work() - before) / MOMENT
    if busy < QUIET:  # what the load average remembers is over
        return None
    return f"other programs use {busy:.1f} of the cores; figures are sound on a quiet machine only"


def _work() -> float:
    """Seconds of processor time spent so far on this machine; where it does not tell, as if all of it were."""
    fields = _line(Path("/proc/stat")).split()
    if fields[:1] != ["cpu"]:
        return time.monotonic()
    user, nice, system, _, _, interrupt, soft_interrupt = map(int, fields[1:8])
    return (user + nice + system + interrupt + soft_interrupt) / os.sysconf("SC_CLK_TCK")


def _line(path: Path) -> str:
    """The first line of a file, '' where there is none."""
    try:
        return path.read_text(encoding="ascii", errors="replace").partition("\n")[0]
    except OSError:
        return ""


def _fields(path: Path) -> dict[str, str]:
    """`name: value` lines, the first of each name."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return found


def _selected(path: Path) -> str | None:
    """The word in brackets of a file such as `always [madvise] never`."""
    return _line(path).partition("[")[2].partition("]")[0] or None
