"""What holds for all tests: no network, no deadlines of the clock, and one thread for each of several processes."""

from __future__ import annotations

import os

from hypothesis import settings

# Before anything imports these libraries, which read the environment once.
os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is no bug.
settings.register_profile("codegen25", deadline=None, print_blob=True)
settings.load_profile("codegen25")
