"""The loop: batch, loss, step, log, checkpoint. What a step does depends on the checkpoint and the step's number alone.

A run folder holds `run.json` (its settings), `log.jsonl` (a line a step), `checkpoint/` (the newest state, exact),
and `model/`, the Hugging Face folder that is written at the end, or whenever asked for.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import torch
from safetensors.torch import load_file, save_file

from codegen25.errors import CodegenError
from codegen25.model.llama import Llama, Packed
from codegen25.train.batches import Batch, Batches
from codegen25.train.loss import cross_entropy_sum
from codegen25.train.optim import MasterAdamW, Schedule


@dataclass(frozen=True)
class TrainConfig:
    """How to run; what is learned stands in `Batches`, the shape in the model."""

    steps: int
    rate: float = 2e-4
    warmup: int = 30
    decay: int = 100
    clip: float = 1.0
    weight_decay: float = 0.01
    new_rows: int | None = None
    new_rows_factor: float = 1.0
    checkpoint_every: int = 50


def batch_loss(model: Llama, batch: Batch) -> torch.Tensor:
    """Mean negative log-likelihood in nats over the batch's targets, fp32. Only states that predict reach the head."""
    x_BTD = model.hidden(batch.tokens, batch.positions, Packed(batch.document))
    wanted = batch.targets >= 0
    targets = batch.targets[wanted]
    return cross_entropy_sum(x_BTD[wanted], model.lm_head.weight, targets) / max(1, len(targets))


class Trainer:
    """One run. `Trainer(...).run()` starts it or goes on where its newest checkpoint stands."""

    def __init__(self, model: Llama, batches: Batches, config: TrainConfig, out: Path) -> None:
        self.model, self.batches, self.config, self.out = model, batches, config, out
        self.step, self.tokens = 0, 0
        self.optimizer = MasterAdamW(
            model,
            weight_decay=config.weight_decay,
            new_rows=config.new_rows,
            new_rows_factor=config.new_rows_factor,
        )
        self.schedule = Schedule(config.rate, config.warmup, config.steps, config.decay)
        self._stop = False
        out.mkdir(parents=True, exist_ok=True)
        if (out / "checkpoint").exists():
            self._resume()
        self._record()

    def run(self, show: Callable[[str], None] | None = None) -> None:
        """Train up to `config.steps`. SIGTERM and Ctrl-C end the run behind the current step, with a checkpoint."""
        previous = {s: signal.signal(s, self._ask_to_stop) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            with (self.out / "log.jsonl").open("a", encoding="utf-8") as log:
                while self.step < self.config.steps and not self._stop:
                    line = self._one_step()
                    log.write(json.dumps(line) + "\n")
                    log.flush()
                    if show:
                        show(_live_line(line, self.config.steps))
                    if self.step % self.config.checkpoint_every == 0:
                        self.checkpoint()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        self.checkpoint()

    def _one_step(self) -> dict[str, float]:
        began = time.perf_counter()
        batch = self.batches.batch(self.step)
        loss = batch_loss(self.model, batch)
        if not math.isfinite(loss.item()):
            raise CodegenError(
                f"step {self.step}: the loss is {loss.item()}; go on from {self.out / 'checkpoint'} with a lower --rate"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        rate = self.schedule.at(self.step)
        norm = self.optimizer.step(rate, self.config.clip)
        self.step += 1
        self.tokens += batch.counted
        seconds = time.perf_counter() - began
        return {
            "step": self.step,
            "loss": round(loss.item(), 4),
            "norm": round(norm, 3),
            "rate": rate,
            "tokens": self.tokens,
            "tokens_per_second": round(batch.counted / seconds, 1),
        }

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop = True

    def checkpoint(self) -> None:
        """Write the state aside and put it in the place of the old one; a crash leaves one of the two whole."""
        fresh, old = self.out / "checkpoint.new", self.out / "checkpoint"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        save_file(self.optimizer.state(), fresh / "state.safetensors")
        (fresh / "progress.json").write_text(json.dumps({"step": self.step, "tokens": self.tokens}))
        if old.exists():
            old.rename(self.out / "checkpoint.old")
        fresh.rename(old)
        shutil.rmtree(self.out / "checkpoint.old", ignore_errors=True)

    def _resume(self) -> None:
        folder = self.out / "checkpoint"
        try:
            progress = json.loads((folder / "progress.json").read_text())
            state = load_file(folder / "state.safetensors")
        except Exception as error:
            raise CodegenError(f"{folder}: cannot be read ({error}); remove it to start again") from error
        self.step, self.tokens = progress["step"], progress["tokens"]
        self.optimizer.load_state(state)
        self._drop_log_behind()

    def _drop_log_behind(self) -> None:
        """Steps after the checkpoint will be taken again, so their lines go."""
        log = self.out / "log.jsonl"
        if log.exists():
            kept = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= self.step]
            log.write_text("".join(line + "\n" for line in kept))

    def _record(self) -> None:
        b = self.batches
        settings = {
            "train": asdict(self.config),
            "objective": asdict(b.objective),
            "seed": b.seed,
            "documents_per_step": b.documents_per_step,
            "window": b.window,
            "documents": len(b.texts),
            "model": asdict(self.model.config),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }
        (self.out / "run.json").write_text(json.dumps(settings, indent=2) + "\n")


def _live_line(line: dict[str, float], steps: int) -> str:
    left = (steps - line["step"]) / max(1, line["step"]) * line["tokens"] / max(1e-9, line["tokens_per_second"])
    return (
        f"step {line['step']}/{steps}  loss {line['loss']:.3f}  norm {line['norm']:.2f}  {line['tokens']:,} tokens  "
        f"{line['tokens_per_second']:.0f} tok/s  {left / 60:.0f} min left"
    )


def print_live(line: str) -> None:
    """On a terminal one line that is written over; in a file a line each."""
    with suppress(BrokenPipeError):
        sys.stderr.write(f"\r\x1b[K{line}" if sys.stderr.isatty() else line + "\n")
        sys.stderr.flush()
