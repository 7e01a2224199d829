"""Cores and memory by what a machine's files say, under both versions of control groups."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from codegen25.engine.machine import available_memory, usable_cores

CORES = usable_cores(Path("/nowhere"))
GB = 1 << 30


def machine(root: Path, files: Mapping[str, str | int]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")
    return root


MEMINFO = f"MemTotal: {16 * GB // 1024} kB\nMemFree: 1 kB\nMemAvailable: {8 * GB // 1024} kB"
V2: dict[str, str | int] = {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/a/b"}
V1: dict[str, str | int] = {
    "proc/meminfo": MEMINFO,
    "proc/self/cgroup": "9:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n1:name=systemd:/",
}
A, MEMORY, CPU = "sys/fs/cgroup/a", "sys/fs/cgroup/memory", "sys/fs/cgroup/cpu"

MEMORIES: dict[str, tuple[Mapping[str, str | int], int]] = {
    "no limit": (V2, 8 * GB),
    "limit": (V2 | {f"{A}/memory.max": 3 * GB, f"{A}/memory.current": GB}, 2 * GB),
    "limit that is not one": (V2 | {f"{A}/memory.max": "max", f"{A}/memory.current": GB}, 8 * GB),
    "limit over what there is": (V2 | {f"{A}/memory.max": 64 * GB, f"{A}/memory.current": GB}, 8 * GB),
    "cached files can go": (
        V2
        | {f"{A}/memory.max": 3 * GB, f"{A}/memory.current": 3 * GB}
        | {f"{A}/memory.stat": f"anon 5\ninactive_file {GB}\nactive_file 7"},
        GB + 7,
    ),
    "full": (V2 | {f"{A}/memory.max": 3 * GB, f"{A}/memory.current": 4 * GB}, 0),
    "the tightest counts": (
        V2
        | {f"{A}/memory.max": 5 * GB, f"{A}/memory.current": 0}
        | {f"{A}/b/memory.max": 6 * GB, f"{A}/b/memory.current": 0},
        5 * GB,
    ),
    "version 1": (
        V1
        | {f"{MEMORY}/memory.limit_in_bytes": 3 * GB, f"{MEMORY}/memory.usage_in_bytes": 2 * GB}
        | {f"{MEMORY}/memory.stat": f"active_file 9\ntotal_active_file {GB}"},
        2 * GB,
    ),
    "version 1 without a limit": (
        V1 | {f"{MEMORY}/memory.limit_in_bytes": 2**63 - 4096, f"{MEMORY}/memory.usage_in_bytes": 2 * GB},
        8 * GB,
    ),
    "nonsense": (V2 | {f"{A}/memory.max": "-", f"{A}/memory.current": "", f"{A}/memory.stat": "x y z\n\nfile"}, 8 * GB),
}


@pytest.mark.parametrize("files, expected", MEMORIES.values(), ids=MEMORIES.keys())
def test_memory(files: Mapping[str, str | int], expected: int, tmp_path: Path) -> None:
    assert available_memory(machine(tmp_path, files)) == expected


def test_memory_of_this_machine() -> None:
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < available_memory() <= physical
    assert available_memory(Path("/nowhere")) == physical, "where nothing is told, all of it counts"


QUOTAS: dict[str, tuple[Mapping[str, str | int], int]] = {
    "none": (V2 | {f"{A}/cpu.max": "max 100000"}, CORES),
    "one": (V2 | {f"{A}/cpu.max": "100000 100000"}, 1),
    "half": (V2 | {f"{A}/cpu.max": "50000 100000"}, 1),
    "many": (V2 | {f"{A}/cpu.max": "99900000 100000"}, CORES),
    "above": (V2 | {"sys/fs/cgroup/cpu.max": "150000 100000"}, 1),
    "version 1": (V1 | {f"{CPU}/docker/x/cpu.cfs_quota_us": 100000, f"{CPU}/docker/x/cpu.cfs_period_us": 100000}, 1),
    "version 1, none": (V1 | {f"{CPU}/cpu.cfs_quota_us": -1, f"{CPU}/cpu.cfs_period_us": 100000}, CORES),
    "nonsense": (V2 | {f"{A}/cpu.max": "a b", "sys/fs/cgroup/cpu.max": "5 0"}, CORES),
}


@pytest.mark.parametrize("files, expected", QUOTAS.values(), ids=QUOTAS.keys())
def test_cores(files: Mapping[str, str | int], expected: int, tmp_path: Path) -> None:
    assert usable_cores(machine(tmp_path, files)) == expected


def test_cores_of_this_machine() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


def test_affinity() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("no affinity masks here")
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
