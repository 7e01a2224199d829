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
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from codegen25.data.document import write_text
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

    def __post_init__(self) -> None:
        for name in ("steps", "rate", "checkpoint_every"):
            if not getattr(self, name) > 0:
                raise CodegenError(f"training: {name} is {getattr(self, name)}, it must be positive")


# What may differ when a run goes on: its length, how its rate ends, and a lower rate after a loss that is no number.
MAY_CHANGE = ("train.steps", "train.decay", "train.rate", "train.checkpoint_every", "torch", "threads")


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
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CodegenError(f"{out}: cannot be made ({error.strerror}); name another --out") from error
        settings = self._settings()
        self._finish_renames()
        if (out / "checkpoint").exists():
            check_settings(out / "run.json", settings)
            self._resume()
        self._drop_log_behind()
        write_text(out / "run.json", [json.dumps(settings, indent=2) + "\n"])

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
        rate = self.schedule.at(self.step)
        try:
            if not math.isfinite(loss.item()):
                raise FloatingPointError(f"the loss is {loss.item()}")
            loss.backward()  # type: ignore[no-untyped-call]
            norm = self.optimizer.step(rate, self.config.clip)
        except FloatingPointError as error:
            raise CodegenError(
                f"{self.out}: step {self.step + 1}: {error}; run again with a lower --rate than {self.config.rate}, "
                "the checkpoint is whole"
            ) from error
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
        """Write the state aside and put it in the place of the old one; a crash leaves one of the two whole.

        Raises `CodegenError`, the old checkpoint as it was, when the disk refuses.
        """
        fresh, current, old = self._folders()
        shutil.rmtree(old, ignore_errors=True)
        try:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            save_file(self.optimizer.state(), fresh / "state.safetensors")
            (fresh / "progress.json").write_text(json.dumps({"step": self.step, "tokens": self.tokens}))
        except (OSError, SafetensorError) as error:
            raise CodegenError(
                f"{fresh}: cannot be written ({error}); free some space and run again, it goes on from {current}"
            ) from error
        if current.exists():
            current.rename(old)
        fresh.rename(current)
        shutil.rmtree(old, ignore_errors=True)

    def _folders(self) -> tuple[Path, Path, Path]:
        """The checkpoint being written, the newest, and the one before it while the two change places."""
        return self.out / "checkpoint.new", self.out / "checkpoint", self.out / "checkpoint.old"

    def _finish_renames(self) -> None:
        """Do what a process that ended inside `checkpoint` left undone.

        The old checkpoint is put away only when the new one is whole, so without a current one the new one counts.
        """
        fresh, current, old = self._folders()
        if old.exists() and not current.exists():
            (fresh if fresh.exists() else old).rename(current)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(fresh, ignore_errors=True)

    def _resume(self) -> None:
        folder = self.out / "checkpoint"
        try:
            progress = json.loads((folder / "progress.json").read_text())
            self.step, self.tokens = int(progress["step"]), int(progress["tokens"])
            state = load_file(folder / "state.safetensors")
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise CodegenError(f"{folder}: cannot be read ({error}); remove it to start again") from error
        expected = {name: tensor.shape for name, tensor in self.optimizer.state().items()}
        if {name: tensor.shape for name, tensor in state.items()} != expected:
            raise CodegenError(f"{folder}: belongs to a model of another shape; name another --out, or remove it")
        self.optimizer.load_state(state)

    def _drop_log_behind(self) -> None:
        """Steps after the checkpoint will be taken again, so their lines go, also one that was only half written."""
        log = self.out / "log.jsonl"
        if log.exists():
            lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]
            write_text(log, [line for n, line in enumerate(whole, 1) if _logged_step(log, n, line) <= self.step])

    def _settings(self) -> dict[str, Any]:
        b = self.batches
        return {
            "train": asdict(self.config),
            "objective": asdict(b.objective),
            "seed": b.seed,
            "documents_per_step": b.documents_per_step,
            "window": b.window,
            "documents": len(b.texts),
            "documents_sha256": b.fingerprint(),
            "model": asdict(self.model.config),
            "dtype": str(self.model.embed_tokens.weight.dtype).removeprefix("torch."),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield above + key, value


def check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Raise `CodegenError` naming what differs when the run recorded at `path` had other settings than these.

    `MAY_CHANGE` is left out, and so is what one of the two does not know: older runs recorded less.
    """
    try:
        recorded = dict(_flat(json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, AttributeError) as error:
        raise CodegenError(
            f"{path}: cannot be read ({error}); without it a checkpoint cannot go on, name another --out"
        ) from error
    different = [
        f"{key} was {recorded[key]!r}, is now {value!r}"
        for key, value in _flat(settings)
        if key not in MAY_CHANGE and recorded.get(key, value) != value
    ]
    if different:
        raise CodegenError(
            f"{path}: the run was started with other settings: {'; '.join(different)}; "
            "set them back, or name another --out"
        )


def _logged_step(log: Path, number: int, line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError) as error:
        raise CodegenError(f"{log}:{number}: not a line of a training log; remove the line") from error


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
