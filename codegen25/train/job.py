"""One call of `codegen25 train`: from what a person names to a trained model's folder."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from codegen25.data.alone import alone
from codegen25.errors import CodegenError, UsageError, say
from codegen25.model.checkpoint import DTYPES
from codegen25.model.folder import resolve
from codegen25.train.batches import Batches
from codegen25.train.cards import write_card
from codegen25.train.examples import Examples
from codegen25.train.folders import Start, open_start, write_model
from codegen25.train.heldout import HeldOut, open_conversations, open_heldout
from codegen25.train.levels import Levels, write_packed
from codegen25.train.objective import Objective
from codegen25.train.optim import Kind
from codegen25.train.parallel import World, joined
from codegen25.train.probe import gemm_peak, native_dtype
from codegen25.train.record import BUSY
from codegen25.train.runs import read_run
from codegen25.train.stages import Stage, languages_of, open_examples, steps_for
from codegen25.train.trainer import Extras, Means, Show, TrainConfig, Trainer

MODEL, EVENTS = "model", "events"


@dataclass(frozen=True)
class Job:
    """What is asked for; the fields are the options of the command line.

    `bits` 4: the model is trained for, and written in, four bits (`levels.py`).
    `decay` None is a fifth of the steps. `dtype` "auto" is what the device multiplies fastest.
    """

    data: Path
    out: Path
    stage: Stage = "multi"
    init: str | None = None
    shape: str | None = None
    steps: int | None = None
    tokens: int | None = None
    rate: float = 3e-4
    warmup: int = 30
    decay: int | None = None
    optimizer: Kind = "adamw"
    bits: int | None = None
    weight_decay: float = 0.01
    clip: float = 1.0
    new_rows: int | None = None
    new_rows_factor: float = 1.0
    documents_per_step: int = 16
    window: int = 512
    pass_tokens: int = 4096
    seed: int = 0
    objective: Objective = field(default_factory=Objective)
    languages: Collection[str] = ()
    heldout: Path | None = None
    evaluate_every: int = 0
    checkpoint_every: int = 50
    dtype: str = "auto"
    model_dtype: str = "bfloat16"
    device: str = "cpu"
    recompute: bool = False
    compile: bool = False
    workers: int = 0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for one, other in (("init", "shape"), ("steps", "tokens")):
            if (getattr(self, one) is None) == (getattr(self, other) is None):
                raise UsageError(f"give --{one} or --{other}, one of the two")
        if self.tokens is not None and self.tokens < 1:
            raise UsageError(f"--tokens {self.tokens}: must be positive")


def run(job: Job, show: Show | None = None) -> dict[str, Any]:
    """Train, or go on, and write `OUT/model`; what was done. Under torchrun every rank calls it.

    Raises `CodegenError` for everything a person can cause.
    """
    device = _device(job.device)
    with joined(device) as world, alone(job.out, BUSY) if world.rank == 0 else nullcontext():
        return _run(job, world, show if world.rank == 0 else None)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise CodegenError("--device cuda: this PyTorch finds no GPU; use cpu, or install its GPU build")
    return torch.device(name)


def _run(job: Job, world: World, show: Show | None) -> dict[str, Any]:
    dtype = native_dtype(world.device) if job.dtype == "auto" else job.dtype
    if job.dtype == "auto" and world.rank == 0:
        say(f"weights in {dtype}, masters in float32: what this device multiplies fastest")
    began = open_start(job.init, job.shape, dtype=dtype, device=world.device, seed=job.seed)
    if job.window > began.model.config.max_positions:
        raise UsageError(f"--window {job.window}: the model has {began.model.config.max_positions} positions at most")
    examples = open_examples(job.data, job.stage, began.tokenizer, job.objective, job.languages, job.window)
    batches = Batches(examples, job.seed, job.documents_per_step, job.window, job.pass_tokens)
    config = _config(job, steps_for(job.tokens, batches) if job.tokens else job.steps or 0)
    means = Means(job.recompute, job.compile, job.workers, gemm_peak(DTYPES[dtype], world.device))
    levels = Levels(began.model, job.bits, resolve(job.init) if job.init else None) if job.bits else None
    trainer = Trainer(
        began.model, batches, config, job.out, world=world, means=means, extras=_extras(job, began, world),
        rounding=levels.rounded if levels else None,
    )  # fmt: skip
    first, seconds = trainer.step, time.perf_counter()
    trainer.run(show)
    seconds = time.perf_counter() - seconds
    _write(trainer, began, job, world, levels)
    return _summary(job, trainer, examples, {"from_step": first, "seconds": round(seconds, 1)})


def _config(job: Job, steps: int) -> TrainConfig:
    decay = steps // 5 if job.decay is None else job.decay
    return TrainConfig(
        steps=steps, rate=job.rate, warmup=job.warmup, decay=decay, clip=job.clip, weight_decay=job.weight_decay,
        optimizer=job.optimizer, new_rows=job.new_rows, new_rows_factor=job.new_rows_factor,
        checkpoint_every=job.checkpoint_every, evaluate_every=job.evaluate_every,
    )  # fmt: skip


def _extras(job: Job, began: Start, world: World) -> Extras:
    settings: dict[str, Any] = {"stage": job.stage, "bits": job.bits}
    if job.stage != "instruct":
        settings["objective"] = asdict(job.objective) | {"mixture": dict(job.objective.mixture)}
    begin = {"init": job.init} if job.init else {"shape": job.shape}
    start = {"data": str(job.data), **begin, "device": str(world.device)}
    heldout = _heldout(job, began) if job.evaluate_every else None
    return Extras(settings, start, heldout, events=job.out / EVENTS if job.tensorboard and world.rank == 0 else None)


def _heldout(job: Job, began: Start) -> HeldOut:
    if job.stage == "instruct":
        return open_conversations(job.heldout, began.tokenizer, window=job.window)
    languages = languages_of(job.stage, job.languages)
    return open_heldout(job.heldout, job.data, began.tokenizer, window=job.window, languages=languages)


def _write(trainer: Trainer, began: Start, job: Job, world: World, levels: Levels | None) -> None:
    weights, config, folder = trainer.weights(), began.model.config, job.out / MODEL
    if world.rank == 0:
        if levels:
            write_packed(weights, levels, config, began.tokenizer, folder)
        else:
            write_model(weights, config, began.tokenizer, folder, job.model_dtype)
        write_card(folder, read_run(job.out))
    else:
        for _ in weights:  # gathering is done by all
            pass


def _summary(job: Job, trainer: Trainer, examples: Examples, more: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "run": str(job.out), "model": str(job.out / MODEL), "stage": job.stage, "step": trainer.step,
        "steps": trainer.config.steps, "tokens": trainer.tokens, "documents": len(examples),
        "loss": trainer.recent_loss, "finished": trainer.step >= trainer.config.steps, **more,
    }  # fmt: skip
