"""Memory that was freed stays with the process, for the next step to take."""

from __future__ import annotations

import ctypes

# Parameters of glibc's mallopt (mallopt(3)).
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Tell glibc to give no memory back to the system, and to map none apart; whether this is a glibc.

    A step frees and takes the same large blocks, and pages that are new each time cost the system's time to clear: of
    a step of nano on two cores about 5 %. What a process holds then is the most that it ever needed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(*pair) for pair in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1)))
