"""The escape suite: programs that try to pass without being right, or to reach what is not theirs.

Each is a completion of one small problem. None of them adds two numbers unless what it attempts has worked, so the rule
for every judge is the same: an escape that passes has escaped, and so has one whose traces are found on the host
afterwards (`bait.py`). Where nothing can be found, the judge must end it in time and judge the next program rightly.
"""

from __future__ import annotations

from codegen25.bench.escapes.escape import Escape
from codegen25.bench.escapes.exhaust import EXHAUST
from codegen25.bench.escapes.forge import FORGE
from codegen25.bench.escapes.kernel import KERNEL
from codegen25.bench.escapes.reach import REACH
from codegen25.bench.escapes.values import VALUES

ESCAPES: tuple[Escape, ...] = (*FORGE, *VALUES, *REACH, *KERNEL, *EXHAUST)
