"""The memory model of a plan, held against what training a shape takes in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from codegen25.config import ModelConfig
from codegen25.train.memory import BF16, OptimizerName, memory

PROGRAM = Path(__file__).parent / "measure_memory.py"
WINDOW = 512
SHAPE = ModelConfig(4096, 384, 1024, 6, 6, 3, 64, 2048)
# Scratch space of kernels, the allocator's slack, and what libraries load late.
SLACK = 16 << 20
PART = 0.05
# What kernels hold of a layer for a moment, at these shapes.
COPIES = 128 << 20


def measured(config: ModelConfig, rows: int, optimizer: str, means: str) -> dict[str, int]:
    args = [json.dumps(asdict(config)), str(rows), str(WINDOW), optimizer, means]
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *args], env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
@pytest.mark.parametrize(
    ("tied", "rows", "optimizer", "means"),
    [(False, 4, "adamw", "keep"), (True, 4, "muon", "keep"), (False, 8, "adamw", "recompute")],
)
def test_memory_by_part(tied: bool, rows: int, optimizer: OptimizerName, means: str) -> None:
    config = replace(SHAPE, tied=tied)
    found = measured(config, rows, optimizer, means)
    model = memory(config, rows=rows, window=WINDOW, optimizer=optimizer, checkpointing=means == "recompute")
    tokens = rows * WINDOW
    expected = {
        "weights": model.weights,
        "masters and moments": model.masters + model.moments,
        "activations and head": model.activations + BF16 * (tokens + config.vocab_size) * config.hidden_size,
        "gradients": model.gradients,
    }
    for part, size in expected.items():
        assert found[part] == pytest.approx(size, rel=PART, abs=SLACK), part
    # Not above what the model says by more than kernels' copies, which it leaves out (docs/scale.md).
    assert -SLACK <= found["peak above what is held"] - (model.peak - model.resident) <= COPIES
