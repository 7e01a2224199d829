"""Threads of the native engine that come and go."""

from __future__ import annotations

import subprocess
import sys

import pytest

# As quantizing a model does for every tensor: threads are begun, share loops of other lengths, and end.
PROGRAM = """
import sys
import numpy as np
from codegen25 import _native

weights = [np.ones((rows, 32), np.float32) for rows in range(16, 272, 3)]
for turn in range(40_000):
    _native.Matrix.quantized(weights[turn % len(weights)], 8, "float32", int(sys.argv[1]))
"""


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_that_are_to_end_end(threads: int) -> None:
    """One that missed the word would sleep for ever, and its pool wait for it; it takes seconds where none does."""
    subprocess.run([sys.executable, "-c", PROGRAM, str(threads)], check=True, timeout=300)
