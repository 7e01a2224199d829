"""A program: take two steps with a shape, and print in JSON what each part added to this process's memory, in bytes.

It wants a process of its own, with `MALLOC_MMAP_THRESHOLD_` set low: what is freed is given back at once then, and
resident memory is what is held. Arguments: a `ModelConfig`'s fields as JSON, rows, window, optimizer, `recompute`
or `keep`.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path

import torch
from torch.utils.checkpoint import checkpoint

from codegen25.config import ModelConfig
from codegen25.model.llama import Llama
from codegen25.train.batches import Batch
from codegen25.train.loss import Learner
from codegen25.train.optim import MasterOptimizer

PAGE = os.sysconf("SC_PAGE_SIZE")
WARM = ModelConfig(512, 64, 128, 1, 1, 1, 64, 2048)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE


def highest() -> int:
    """Of resident memory, since `forget_highest`."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024


def forget_highest() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def full_rows(vocabulary: int, rows: int, window: int) -> Batch:
    """Each a document of its own, all of it learned."""
    tokens = torch.randint(0, vocabulary, (rows, window))
    return Batch(tokens, torch.arange(window).expand(rows, window), torch.ones_like(tokens), tokens.roll(-1, 1))


def bf16_model(config: ModelConfig) -> Llama:
    torch.set_default_dtype(torch.bfloat16)
    model = Llama(config)
    torch.set_default_dtype(torch.float32)
    return model


def measure(config: ModelConfig, rows: int, window: int, kind: str, recompute: bool) -> dict[str, int]:
    start = resident()
    found: dict[str, int] = {}
    model = bf16_model(config)
    found["weights"] = resident() - start
    optimizer = MasterOptimizer(model, kind=kind)  # type: ignore[arg-type]
    found["masters and moments"] = resident() - start - found["weights"]
    if recompute:
        for block in model.layers:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    learner = Learner(model)
    for step in range(2):  # the first step takes along what libraries load late
        before = resident()
        forget_highest()
        loss = learner(full_rows(config.vocab_size, rows, window))
        if step:
            # Of the loss only the gradients of states and head are left.
            found["activations and head"] = resident() - before
        loss.backward()
        del loss
        found["gradients"] = resident() - before
        optimizer.accumulate()
        optimizer.step(1e-3, 1.0, optimizer.norm())
    found["peak above what is held"] = highest() - before
    return found


def main() -> None:
    torch.set_num_threads(2)
    # What libraries take at their first call is not the model's.
    for kind in ("adamw", "muon"):
        measure(WARM, 1, 64, kind, recompute=True)
    shape, rows, window, kind, means = sys.argv[1:]
    config = ModelConfig(**json.loads(shape))
    print(json.dumps(measure(config, int(rows), int(window), kind, means == "recompute")))


if __name__ == "__main__":
    main()
