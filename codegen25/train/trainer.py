"""The loop: batch, loss, step, log, checkpoint. What a step does depends on the checkpoint and the step's number alone.

A run folder holds `run.json` (its settings), `log.jsonl` (a line a step) and `checkpoint/` (the newest state, exact).
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

from codegen25.errors import CodegenError
from codegen25.model.llama import Llama
from codegen25.train.batches import Batch, Batches, empty_batch
from codegen25.train.checkpoints import Checkpoints
from codegen25.train.guard import Guard
from codegen25.train.heldout import HeldOut
from codegen25.train.live import live_line
from codegen25.train.loss import Learner
from codegen25.train.optim import Kind, MasterOptimizer, Rounding, Schedule
from codegen25.train.parallel import World, shard, unsharded
from codegen25.train.probe import training_flops
from codegen25.train.record import RUN, Log, check_settings, drop_log_behind, environment, git_state, now, write_record

Show = Callable[[str], None]
# Steps whose losses are told as one.
RECENT = 20


@dataclass(frozen=True)
class TrainConfig:
    """How to run; what is learned stands in `Batches`, the shape in the model. All of it decides about the result."""

    steps: int
    rate: float = 2e-4
    warmup: int = 30
    decay: int = 100
    clip: float = 1.0
    weight_decay: float = 0.01
    optimizer: Kind = "adamw"
    new_rows: int | None = None
    new_rows_factor: float = 1.0
    checkpoint_every: int = 50
    evaluate_every: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "rate", "checkpoint_every", "clip"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise CodegenError(f"training: {name} is {getattr(self, name)}, it must be positive")
        for name in ("warmup", "decay", "weight_decay", "evaluate_every"):
            if not (getattr(self, name) >= 0 and math.isfinite(getattr(self, name))):
                raise CodegenError(f"training: {name} is {getattr(self, name)}, it must not be negative")


@dataclass(frozen=True)
class Means:
    """With what a run computes: no more than rounding depends on it."""

    recompute: bool = False
    """States inside a block are computed again for the backward pass instead of being kept: a third more work."""
    compile: bool = False
    """Blocks are compiled (needs a C++ compiler on a CPU)."""
    workers: int = 0
    """Processes that make batches ahead."""
    peak: float | None = None
    """FLOP/s that the device reaches in matrix products; with it, steps tell how much of it they use."""


@dataclass(frozen=True)
class Extras:
    """What a caller adds to a run.

    `settings` decide what is learned and must be the same when the run goes on; `start` is only written down.
    `heldout` is what the live model is measured with. `events`: a folder for TensorBoard.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    start: Mapping[str, Any] = field(default_factory=dict)
    heldout: HeldOut | None = None
    events: Path | None = None


class Trainer:
    """One run. `Trainer(...).run()` starts it or goes on where its newest checkpoint stands.

    What is trained are the parameters that ask for gradients. In a world of several ranks the weights are sharded, and
    `model` must be the same on all of them.
    """

    def __init__(
        self,
        model: Llama,
        batches: Batches,
        config: TrainConfig,
        out: Path,
        *,
        world: World | None = None,
        means: Means | None = None,
        extras: Extras | None = None,
        rounding: Rounding | None = None,
    ) -> None:
        self.model, self.batches, self.config, self.out = model, batches, config, out
        self.world, self.means, self.extras = world or World(), means or Means(), extras or Extras()
        self.step, self.tokens = 0, 0
        self.dtype = model.embed_tokens.weight.dtype
        self._learner = self._prepared()
        self.optimizer = MasterOptimizer(
            model, kind=config.optimizer, weight_decay=config.weight_decay, new_rows=config.new_rows,
            new_rows_factor=config.new_rows_factor, rounding=rounding,
        )  # fmt: skip
        self.schedule = Schedule(config.rate, config.warmup, config.steps, config.decay)
        self.guard = Guard(model.config.vocab_size)
        self._stop = False
        self._open()

    def _prepared(self) -> Learner:
        learner = Learner(self.model.train())
        if self.means.compile:  # else each block, which knows its number, would be compiled on its own
            torch._dynamo.config.allow_unspec_int_on_nn_module = True
        for block in self.model.layers:
            if self.means.recompute:
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
            if self.means.compile:
                block.compile(dynamic=True)
        if self.world.size > 1:
            shard(learner, self.model, self.world)
        return learner

    def _open(self) -> None:
        """Take up what is in the run's folder, or make it."""
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CodegenError(f"{self.out}: cannot be made ({error.strerror}); name another --out") from error
        settings, resumed = self._settings(), False
        self.checkpoints = Checkpoints(self.out, self.world)
        if self.checkpoints.exists:
            check_settings(self.out / RUN, settings)
            self._resume()
            resumed = True
        if self.world.rank == 0:
            drop_log_behind(self.out, self.step)
            start = {"time": now(), "step": self.step, "world": self.world.size, "git": git_state()}
            start |= {"environment": environment(), "means": asdict(self.means), **self.extras.start}
            write_record(self.out, settings, start, resumed=resumed)
        self.world.barrier()

    def _settings(self) -> dict[str, Any]:
        b = self.batches
        data = {
            "seed": b.seed, "documents_per_step": b.documents_per_step, "window": b.window,
            "pass_tokens": b.pass_tokens, "documents": len(b.examples), "sha256": b.examples.fingerprint(),
        }  # fmt: skip
        made = {
            "train": asdict(self.config), "data": data, "model": asdict(self.model.config),
            "dtype": str(self.dtype).removeprefix("torch."),
            "parameters": sum(p.numel() for p in self.optimizer.masters.values()), **self.extras.settings,
        }  # fmt: skip
        plain: dict[str, Any] = json.loads(json.dumps(made))  # as it will be read: no tuples
        return plain

    def _resume(self) -> None:
        state = self.optimizer.state()
        progress = self.checkpoints.load(state)
        try:
            self.step, self.tokens = int(progress["step"]), int(progress["tokens"])
            self.guard.load_state(progress["guard"])
        except (KeyError, TypeError, AssertionError) as error:
            raise CodegenError(
                f"{self.checkpoints.current}: cannot be read (its progress lacks {error}); remove it to start again"
            ) from error
        self.optimizer.load_state(state)

    def run(self, show: Show | None = None) -> None:
        """Train up to `config.steps`. SIGTERM and Ctrl-C end the run behind the current step, with a checkpoint.

        Raises `CodegenError` when the loss leaves what can be learned from, or the disk refuses; the newest checkpoint
        is whole then.
        """
        previous = {s: signal.signal(s, self._ask_to_stop) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            if self.world.rank == 0:
                with Log(self.out, self.extras.events) as log:
                    self._loop(log.write, show)
            else:
                self._loop(lambda line: None, None)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _loop(self, write: Callable[[Mapping[str, Any]], None], show: Show | None) -> None:
        first, began = self.step, time.perf_counter()
        saved = self.step if self.checkpoints.exists else -1
        if self.step == 0:
            self._evaluate(write)
        batches = self._batches_ahead()
        while self.step < self.config.steps and not self._stop_asked():
            line = self._one_step(next(batches))
            write(line)
            if show:
                seconds = (time.perf_counter() - began) / (self.step - first)
                show(live_line(line, self.config.steps, seconds))
            if self.guard.has_given_up:
                raise CodegenError(
                    f"{self.out}: {self.guard.bad_in_a_row} steps in a row could not be learned from, up to step "
                    f"{self.step}: {line['skipped']}; run again with a lower --rate than {self.config.rate:g}, it goes "
                    f"on from the newest checkpoint"
                )
            if self.config.evaluate_every and self.step % self.config.evaluate_every == 0:
                self._evaluate(write)
            # A run that is failing keeps the checkpoint from before.
            if self.step % self.config.checkpoint_every == 0 and not self.guard.bad_in_a_row:
                self.checkpoint()
                saved = self.step
        if saved != self.step:
            self.checkpoint()

    def _stop_asked(self) -> bool:
        """Whether any rank was asked to stop: all stop behind the same step."""
        return bool(self.world.maxima([float(self._stop)])[0])

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop = True

    def _batches_ahead(self) -> Iterator[list[Batch]]:
        steps = _Steps(self.batches, self.step, self.config.steps, self.world)
        if not self.means.workers:
            return (steps[i] for i in range(len(steps)))
        return iter(DataLoader(steps, batch_size=None, num_workers=self.means.workers))

    def _one_step(self, passes: list[Batch]) -> dict[str, Any]:
        began = time.perf_counter()
        counts = [sum(p.learned for p in passes), sum(p.counted for p in passes), sum(_pairs(p) for p in passes),
                  sum(p.cut for p in passes), sum(p.left_out for p in passes)]  # fmt: skip
        targets, tokens, pairs, cut, left_out = map(int, self.world.sums(counts))
        loss, norm = self._gradient(passes, targets)
        rate = self.schedule.at(self.step)
        skipped = self.guard.judge(loss, norm) if targets else "nothing in it is learned"
        if skipped:
            self.optimizer.discard()
        else:
            self.optimizer.step(rate, self.config.clip, norm)
        self.step += 1
        self.tokens += tokens
        speed = tokens / (time.perf_counter() - began)
        line: dict[str, Any] = {
            "step": self.step, "loss": round(loss, 4), "norm": round(norm, 3), "rate": rate, "tokens": self.tokens,
            "targets": targets, "cut": cut, "left_out": left_out, "tokens_per_second": round(speed, 1),
        }  # fmt: skip
        if self.means.peak and tokens:
            flops = training_flops(self.model.config, tokens, targets, pairs)
            line["mfu"] = round(flops * speed / tokens / self.means.peak / self.world.size, 4)
        if skipped:
            line |= {"skipped": skipped, "loss": _plain(loss), "norm": _plain(norm)}
        return line

    def _gradient(self, passes: list[Batch], targets: int) -> tuple[float, float]:
        """Leave the gradient of the mean over all ranks' `targets` with the optimizer; that mean in nats, its norm."""
        total = 0.0
        (most,) = self.world.maxima([float(max(1, len(passes)))])
        for number in range(int(most)):  # all ranks make as many passes: weights are gathered together
            batch = (passes[number] if number < len(passes) else empty_batch()).to(self.world.device)
            loss = self._learner(batch)
            total += float(loss.detach())
            # FSDP takes the mean over ranks of what each has.
            (loss * (self.world.size / max(1, targets))).backward()
            self.optimizer.accumulate()
        (total,) = self.world.sums([total])
        return total / max(1, targets), self.optimizer.norm()

    def _evaluate(self, write: Callable[[Mapping[str, Any]], None]) -> None:
        if self.config.evaluate_every and self.extras.heldout:
            found = self.extras.heldout.measure(unsharded(self.model), self.world)
            write({"step": self.step, "tokens": self.tokens, "evaluation": found})
            self.model.train()

    def checkpoint(self) -> None:
        """Write the state down. Raises `CodegenError`, the old checkpoint as it was, when the disk refuses."""
        progress = {"step": self.step, "tokens": self.tokens, "guard": self.guard.state()}
        self.checkpoints.save(self.optimizer.state(), progress)

    @property
    def recent_loss(self) -> float | None:
        """The mean loss, in nats, of the last steps that were taken."""
        losses = self.guard.losses[-RECENT:]
        return round(sum(losses) / len(losses), 4) if losses else None

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight of the model by name, whole, one at a time; of those that are trained the fp32 master.

        Every rank must ask.
        """
        for name, parameter in self.model.named_parameters():
            tensor = self.optimizer.masters.get(name, parameter.detach())
            yield name, tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _plain(value: float) -> float | None:
    """JSON has no infinities."""
    return round(value, 4) if math.isfinite(value) else None


def _pairs(batch: Batch) -> int:
    """(token, token that it may see) in a batch."""
    return int((batch.positions + 1)[batch.document > 0].sum())


class _Steps(Dataset[list[Batch]]):
    """A rank's passes of the steps from `first` on."""

    def __init__(self, batches: Batches, first: int, end: int, world: World) -> None:
        self._batches, self._first, self._end, self._world = batches, first, end, world

    def __len__(self) -> int:
        return max(0, self._end - self._first)

    def __getitem__(self, index: int) -> list[Batch]:
        return self._batches.batch(self._first + index, self._world.rank, self._world.size)
