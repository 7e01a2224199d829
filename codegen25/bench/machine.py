"""The machine that figures were measured on, and whether it is quiet."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from codegen25 import __version__

# What kernels for these models use, ours or others'.
FLAGS = ("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
         "asimd", "asimddp", "i8mm", "bf16", "sve")  # fmt: skip
QUIET = 0.5  # load average from which something else runs


def describe() -> dict[str, Any]:
    """Processor, memory and kernel, as far as the system tells (`None` for what it does not)."""
    cpu = _fields(Path("/proc/cpuinfo"))
    flags = set((cpu.get("flags") or cpu.get("Features") or "").split())
    return {
        "cpu": cpu.get("model name") or platform.processor() or platform.machine(),
        "cores": cores(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "memory_gib": None if (total := memory("MemTotal")) is None else round(total / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "huge_pages": _selected(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory(field: str) -> int | None:
    """Bytes of `MemTotal` or `MemAvailable`; None where the system has no /proc/meminfo."""
    value = _fields(Path("/proc/meminfo")).get(field)
    return None if value is None else int(value.split()[0]) * 1024


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
    """A line for a person when other work seems to run, which makes figures worthless."""
    load = os.getloadavg()[0]
    if load < QUIET:
        return None
    return f"the load average is {load:.2f}, so something else may run; figures are sound on a quiet machine only"


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
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return None
    return text.partition("[")[2].partition("]")[0] or None
