"""What this machine grants the process: cores and memory, with the limits of control groups (containers).

Linux tells both under /proc and /sys/fs/cgroup (kernel documentation, admin-guide/cgroup-v1 and cgroup-v2). Elsewhere
the whole machine counts. `root` is for tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def usable_cores(root: Path = ROOT) -> int:
    """How many threads can run at once, at least 1: the affinity mask, and the quota of the control group."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _groups(root, "cpu"):
        quota, _, period = _text(group / "cpu.max").partition(" ")
        if not quota:
            quota, period = _text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            cores = min(cores, int(quota) // int(period))
    return max(1, cores)


def available_memory(root: Path = ROOT) -> int:
    """Bytes that can be had without swapping. Pages of files that a control group caches count as free."""
    available = _counts(root / "proc/meminfo").get("MemAvailable:", 0) * 1024
    if not available:
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for group in _groups(root, "memory"):
        for limit, usage, prefix in (
            ("memory.max", "memory.current", ""),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
        ):
            most, used = _text(group / limit), _text(group / usage)
            if most.isdigit() and used.isdigit():
                stat = _counts(group / "memory.stat")
                cached = sum(stat.get(f"{prefix}{kind}_file", 0) for kind in ("active", "inactive"))
                available = min(available, int(most) - int(used) + cached)
    return max(0, available)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's control group and of those above it, which limit it too; some may not exist."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / (controller if controllers else "")
        here = Path(path.lstrip("/"))
        yield from (base / place for place in (here, *here.parents))


def _counts(path: Path) -> dict[str, int]:
    """`name number …` lines."""
    pairs = (line.split() for line in _text(path).splitlines())
    return {words[0]: int(words[1]) for words in pairs if len(words) > 1 and words[1].isdigit()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
