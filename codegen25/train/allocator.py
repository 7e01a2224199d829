"""Memory that was freed stays with the process, for the next step to take."""

from __future__ import annotations

import ctypes
from pathlib import Path

# Parameters of glibc's mallopt (mallopt(3)).
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
# Advice of madvise(2).
MADV_HUGEPAGE, MADV_COLLAPSE = 14, 25
MAPS = Path("/proc/self/maps")


def keep_freed_memory() -> bool:
    """Tell glibc to give no memory back to the system, and to map none apart; whether this is a glibc.

    A step frees and takes the same large blocks, and pages that are new each time cost the system's time to clear: of
    a step of nano on two cores about 5 %. What a process holds then is the most that it ever needed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(*pair) for pair in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1)))


def heap_on_huge_pages() -> bool:
    """Lay what the heap holds by now on huge pages, where Linux has it; whether it has.

    The matrices of a small model are under 2 MiB each, so nothing else does it for them (madvise(2), Linux 6.1).
    """
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise is None or not MAPS.exists():
        return False
    heaps = [line.split()[0] for line in MAPS.read_text().splitlines() if line.endswith("[heap]")]
    for heap in heaps:
        start, end = (int(address, 16) for address in heap.split("-"))
        region = ctypes.c_void_p(start), ctypes.c_size_t(end - start)
        madvise(*region, MADV_HUGEPAGE)
        if madvise(*region, MADV_COLLAPSE):
            return False
    return bool(heaps)
