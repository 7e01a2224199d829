"""A short run of a small model, and how two of them are compared; for the tests of the trainer."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from torch import Tensor

from codegen25.model.llama import Llama
from codegen25.train.batches import Batches
from codegen25.train.examples import Corrupted
from codegen25.train.objective import Objective
from codegen25.train.texts import ListedTexts
from codegen25.train.trainer import Extras, TrainConfig, Trainer

STEPS = 12
CONFIG = TrainConfig(
    steps=STEPS, rate=2e-3, warmup=3, decay=4, new_rows=264, new_rows_factor=5.0, checkpoint_every=4
)  # fmt: skip


def make(
    out: Path, config: TrainConfig = CONFIG, dtype: torch.dtype = torch.float32, model: Llama | None = None, **data: Any
) -> Trainer:
    objective = data.pop("objective", Objective(infill_rate=0.7, context_loss=False))
    texts = ListedTexts(data.pop("texts", tiny.documents()))
    fields = {"seed": 1, "documents_per_step": 3, "window": 128} | data
    batches = Batches(Corrupted(texts, tiny.tokenizer(), objective), **fields)
    extras = Extras(settings={"objective": asdict(objective)})
    return Trainer(model or tiny.model(dtype), batches, config, out, extras=extras)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums are then taken in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("straight")
    make(out).run()
    return out


def tensors(out: Path) -> Path:
    (file,) = (out / "checkpoint").glob("*.safetensors")
    return file


def state(out: Path) -> dict[str, Tensor]:
    return load_file(tensors(out))


def log(out: Path) -> list[dict[str, float]]:
    """Without the speed, which no two runs share."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "tokens_per_second"} for line in lines]


def assert_same_run(a: Path, b: Path) -> None:
    assert log(a) == log(b)
    one, other = state(a), state(b)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    names = sorted(path.name for path in a.iterdir())
    assert names == sorted(path.name for path in b.iterdir()) == ["checkpoint", "log.jsonl", "run.json"]


def stop_behind(trainer: Trainer, step: int) -> Callable[[str], None]:
    def show(line: str) -> None:
        if trainer.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return show
