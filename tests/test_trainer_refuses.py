"""What a run refuses, and what it does about steps that cannot be learned from."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Container
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor
from training import (
    CONFIG,
    STEPS,
    assert_same_run,
    log,
    make,
    one_thread,
    stop_behind,
    straight,
    tensors,
)

from codegen25.errors import CodegenError
from codegen25.train.batches import Batch
from codegen25.train.loss import Learner
from codegen25.train.objective import Objective
from codegen25.train.trainer import TrainConfig

__all__ = ["one_thread", "straight"]


def assert_refused(out: Path, match: str, **changes: Any) -> None:
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(CodegenError, match=match) as caught:
        make(out, **changes)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    trainer = make(tmp_path)
    trainer.run(stop_behind(trainer, 2))
    return tmp_path


OTHER = {
    "seed was 1, is now 2": {"seed": 2},
    "window was 128, is now 100": {"window": 100},
    "documents_per_step was 3, is now 4": {"documents_per_step": 4},
    "objective.mask_ratio was 0.5, is now 0.2": {"objective": Objective(0.7, context_loss=False, mask_ratio=0.2)},
    "data.documents was 23, is now 22": {"texts": tiny.documents(22)},
    "data.sha256 was": {"texts": tiny.documents()[::-1]},
    "train.new_rows was 264, is now None": {"config": replace(CONFIG, new_rows=None)},
    "train.warmup was 3, is now 1": {"config": replace(CONFIG, warmup=1)},
    "dtype was 'float32', is now 'bfloat16'": {"dtype": torch.bfloat16},
}


@pytest.mark.parametrize("match, changes", OTHER.items(), ids=OTHER.keys())
def test_a_run_with_other_settings(match: str, changes: dict[str, Any], stopped: Path) -> None:
    assert_refused(stopped, match, **changes)


def test_all_differences_are_named(stopped: Path) -> None:
    assert_refused(
        stopped, "data.seed was 1, is now 2; data.documents_per_step was 3, is now 4", seed=2, documents_per_step=4
    )


def test_a_run_may_be_made_longer(stopped: Path) -> None:
    longer = replace(CONFIG, steps=20, decay=2, checkpoint_every=3, rate=1e-3)
    trainer = make(stopped, longer)
    trainer.run()
    assert trainer.step == 20 and json.loads((stopped / "run.json").read_text())["settings"]["train"]["steps"] == 20


def test_every_start_is_recorded(stopped: Path) -> None:
    make(stopped)
    record = json.loads((stopped / "run.json").read_text())
    assert [start["step"] for start in record["starts"]] == [0, 2]
    assert all(start["environment"]["torch"] == torch.__version__ for start in record["starts"])


def test_another_start_without_a_checkpoint(straight: Path, tmp_path: Path) -> None:
    """A run that left none is begun anew, with whatever settings."""
    make(tmp_path, seed=5)
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 9.0}\n')
    make(tmp_path).run()
    assert_same_run(tmp_path, straight)


def test_a_log_that_is_none(tmp_path: Path) -> None:
    first = make(tmp_path)
    first.run(stop_behind(first, 2))
    path = tmp_path / "log.jsonl"
    path.write_text("hello\n" + path.read_text())
    assert_refused(tmp_path, "log.jsonl:1")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _garble(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(b"\xff" * 100 + data[100:])


def _progress(text: str) -> Callable[[Path], object]:
    return lambda out: (out / "checkpoint" / "progress.json").write_text(text)


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a checkpoint cut short": (r"safetensors: cut short, \d+ of \d+ bytes", lambda out: _truncate(tensors(out))),
    "a garbled header": ("checkpoint: cannot be read", lambda out: _garble(tensors(out))),
    "no tensors": ("checkpoint: cannot be read", lambda out: tensors(out).unlink()),
    "no progress": ("checkpoint: cannot be read", lambda out: (out / "checkpoint" / "progress.json").unlink()),
    "empty progress": ("checkpoint: cannot be read", _progress("{}")),
    "no object": ("checkpoint: cannot be read", _progress("[]")),
    "progress without files": ("checkpoint: cannot be read", _progress('{"step": 2, "tokens": 1, "guard": {}}')),
    "progress of null": ("checkpoint: cannot be read", _progress('{"step": null, "tokens": 1, "files": {}}')),
    "no record": ("run.json: cannot be read", lambda out: (out / "run.json").unlink()),
    "no settings": ("run.json: cannot be read", lambda out: (out / "run.json").write_text("[]")),
}


@pytest.mark.parametrize("match, damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_run(match: str, damage: Callable[[Path], object], stopped: Path) -> None:
    damage(stopped)
    assert_refused(stopped, match)


def test_out_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(CodegenError, match="name another --out"):
        make(tmp_path / "out")


@pytest.mark.parametrize("changes", [{"steps": 0}, {"rate": 0.0}, {"rate": math.nan}, {"checkpoint_every": -1}])
def test_settings_that_cannot_work(changes: dict[str, Any]) -> None:
    with pytest.raises(CodegenError, match=next(iter(changes))):
        replace(CONFIG, **changes)


class Broken(Learner):
    """Gives losses that are no numbers, or gradients, at some calls."""

    def __init__(self, learner: Learner, what: str, at: Container[int]) -> None:
        super().__init__(learner.model)
        self.what, self.at, self.calls = what, at, 0

    def forward(self, batch: Batch) -> Tensor:
        loss: Tensor = super().forward(batch)
        self.calls += 1
        if self.calls not in self.at:
            return loss
        if self.what == "loss":
            return loss * math.nan
        return loss + (self.model.norm.weight[0] * 0).sqrt()  # finite, with an infinite slope


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_no_number_is_skipped(what: str, tmp_path: Path) -> None:
    trainer = make(tmp_path)
    trainer._learner = Broken(trainer._learner, what, {3, 6})
    trainer.run()
    lines = log(tmp_path)
    assert [line["step"] for line in lines if "skipped" in line] == [3, 6] and len(lines) == STEPS
    assert all(what in str(lines[n]["skipped"]) for n in (2, 5))
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_many_of_them_in_a_row_end_the_run(what: str, tmp_path: Path) -> None:
    trainer = make(tmp_path)
    trainer._learner = Broken(trainer._learner, what, range(6, 99))
    with pytest.raises(
        CodegenError, match=rf"5 steps in a row .* step 10: .*{what}.*lower --rate than 0.002"
    ) as caught:
        trainer.run()
    assert "\n" not in str(caught.value) and len(log(tmp_path)) == 10
    resumed = make(tmp_path, replace(CONFIG, rate=1e-3))
    assert resumed.step == 4 == len(log(tmp_path)), "the checkpoint is from before"


def test_a_rate_of_10(tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match=r"in a row could not be learned from.*lower --rate than 10") as caught:
        make(tmp_path, TrainConfig(steps=300, rate=10, warmup=3, decay=0)).run()
    assert "\n" not in str(caught.value)
    assert len(log(tmp_path)) < 60


def test_what_is_skipped_survives_a_stop(tmp_path: Path) -> None:
    """Patience is not won anew by starting again."""
    first = make(tmp_path)
    first._learner = Broken(first._learner, "loss", range(3, 99))
    first.run(stop_behind(first, 5))
    assert make(tmp_path).guard.bad_in_a_row == 3
