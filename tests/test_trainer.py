"""A run that was stopped, killed or crashed ends with the same weights and the same log as one that was not."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from codegen25.errors import CodegenError
from codegen25.model.llama import Llama
from codegen25.train import trainer as trainer_module
from codegen25.train.batches import Batch, Batches
from codegen25.train.objective import Objective
from codegen25.train.optim import MasterAdamW, Schedule
from codegen25.train.trainer import TrainConfig, Trainer

STEPS = 12
CONFIG = TrainConfig(
    steps=STEPS, rate=2e-3, warmup=3, decay=4, new_rows=264, new_rows_factor=5.0, checkpoint_every=4
)  # fmt: skip


def make(
    out: Path, config: TrainConfig = CONFIG, dtype: torch.dtype = torch.float32, model: Llama | None = None, **data: Any
) -> Trainer:
    objective = Objective(infill_rate=0.7, context_loss=False)
    fields = {"seed": 1, "documents_per_step": 3, "window": 128, "objective": objective, "texts": tiny.documents()}
    batches = Batches(tokenizer=tiny.tokenizer(), **{**fields, **data})
    return Trainer(model or tiny.model(dtype), batches, config, out)


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


def state(out: Path) -> dict[str, Tensor]:
    return load_file(out / "checkpoint" / "state.safetensors")


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


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_resumed_is_as_never_stopped(step: int, straight: Path, tmp_path: Path) -> None:
    first = make(tmp_path)
    first.run(stop_behind(first, step))
    assert first.step == step == len(log(tmp_path))
    second = make(tmp_path, model=tiny.model(seed=99))  # what it began with no longer counts
    assert (second.step, second.tokens) == (step, log(tmp_path)[-1]["tokens"])
    second.run()
    assert_same_run(tmp_path, straight)


def test_a_run_in_bfloat16_resumes_too(tmp_path: Path) -> None:
    make(tmp_path / "a", dtype=torch.bfloat16).run()
    first = make(tmp_path / "b", dtype=torch.bfloat16)
    first.run(stop_behind(first, 5))
    second = make(tmp_path / "b", dtype=torch.bfloat16)
    second.run()
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert all(torch.equal(p, second.optimizer.masters[name].bfloat16()) for name, p in second.model.named_parameters())


def test_stopped_before_its_first_step(straight: Path, tmp_path: Path) -> None:
    first = make(tmp_path)
    first._ask_to_stop(signal.SIGTERM, None)
    first.run()
    assert first.step == 0 and log(tmp_path) == []
    make(tmp_path).run()
    assert_same_run(tmp_path, straight)


def test_signal_handlers_are_put_back(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    make(tmp_path, replace(CONFIG, steps=1)).run()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_golden_losses(straight: Path) -> None:
    """Recorded once; another value means that the trainer learns something else than it did."""
    losses = [line["loss"] for line in log(straight)]
    assert losses == pytest.approx(GOLDEN, abs=5e-3)


GOLDEN = [5.696, 5.584, 5.459, 5.439, 5.311, 5.249, 5.183, 5.128, 5.117, 5.113, 4.992, 5.0]


def test_it_learns(tmp_path: Path) -> None:
    make(tmp_path, TrainConfig(steps=40, rate=2e-2, warmup=3, decay=10)).run()
    losses = [line["loss"] for line in log(tmp_path)]
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])


# --- ends that nobody asked for ---

PROCESSES = multiprocessing.get_context("forkserver")  # imports torch once, and has no threads to fork


def run_in_process(out: Path, lines: Connection) -> None:
    torch.set_num_threads(1)
    make(out).run(lines.send)


def spawn(out: Path, lines: int) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    """A process that trains, at the moment it has told of `lines` steps, and where it tells of more."""
    PROCESSES.set_forkserver_preload(["pytest", "torch._dynamo"])  # the optimizer imports the latter when it steps
    receiver, sender = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=run_in_process, args=(out, sender))
    process.start()
    for _ in range(lines):
        receiver.recv()
    return process, receiver


@pytest.mark.parametrize("lines, delay", [(1, 0.0), (4, 0.0), (4, 0.003), (8, 0.001)])
def test_killed_at_any_moment(lines: int, delay: float, straight: Path, tmp_path: Path) -> None:
    process, _told = spawn(tmp_path, lines)  # a closed pipe would end it too
    time.sleep(delay)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "it ended before it was killed"
    make(tmp_path).run()
    assert_same_run(tmp_path, straight)


def test_sigterm_ends_a_process_with_a_checkpoint(straight: Path, tmp_path: Path) -> None:
    process, _told = spawn(tmp_path, 1)
    process.terminate()
    process.join()
    assert process.exitcode == 0
    step = json.loads((tmp_path / "checkpoint" / "progress.json").read_text())["step"]
    assert 1 <= step == len(log(tmp_path))
    make(tmp_path).run()
    assert_same_run(tmp_path, straight)


class Crash(BaseException):
    """Nothing in the trainer catches it."""


@pytest.mark.parametrize("call", range(8))
@pytest.mark.parametrize("at", [4, 8])
def test_a_crash_anywhere_inside_a_checkpoint(
    at: int, call: int, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends before the n-th touch of the disk of the checkpoint of step 4 (the first) or 8."""
    trainer = make(tmp_path)
    with monkeypatch.context() as patch:
        count = 0

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def touch(*args: Any, **options: Any) -> Any:
                nonlocal count
                if trainer.step == at and tmp_path in (Path(str(args[0])), *Path(str(args[0])).parents):
                    if count == call:
                        raise Crash
                    count += 1
                return real(*args, **options)

            return touch

        for holder, name in ((Path, "rename"), (Path, "mkdir"), (Path, "write_text"), (shutil, "rmtree")):
            patch.setattr(holder, name, counted(getattr(holder, name)))
        real_save = save_file
        patch.setattr(trainer_module, "save_file", lambda tensors, path: counted(lambda p: real_save(tensors, p))(path))
        try:
            trainer.run()
        except Crash:
            assert trainer.step == at
        else:
            assert call >= 7, "a checkpoint touches the disk more often than this test thinks"
    make(tmp_path).run()
    assert_same_run(tmp_path, straight)


def test_died_between_the_two_renames(straight: Path, tmp_path: Path) -> None:
    first = make(tmp_path)
    first.run(stop_behind(first, 6))
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")
    alone = tmp_path / "alone"
    shutil.copytree(tmp_path / "checkpoint.old", alone)
    (tmp_path / "checkpoint.old").rename(tmp_path / "checkpoint.new")
    alone.rename(tmp_path / "checkpoint.old")
    (tmp_path / "checkpoint.old" / "progress.json").write_text('{"step": 1, "tokens": 1}')
    second = make(tmp_path)
    assert second.step == 6, "the new one is whole and counts"
    second.run()
    assert_same_run(tmp_path, straight)


def test_only_the_old_checkpoint_is_left(tmp_path: Path) -> None:
    first = make(tmp_path)
    first.run(stop_behind(first, 6))
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")
    assert make(tmp_path).step == 6


def test_half_a_first_checkpoint_is_none(straight: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.new").mkdir()
    (tmp_path / "checkpoint.new" / "state.safetensors").write_bytes(b"\0" * 20)
    make(tmp_path).run()
    assert_same_run(tmp_path, straight)


def test_a_log_torn_in_its_last_line(straight: Path, tmp_path: Path) -> None:
    first = make(tmp_path)
    first.run(stop_behind(first, 6))
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 7, "loss": 1.0}\n{"step": 8, "lo')
    make(tmp_path).run()
    assert_same_run(tmp_path, straight)


def test_a_log_that_is_none(tmp_path: Path) -> None:
    first = make(tmp_path)
    first.run(stop_behind(first, 2))
    path = tmp_path / "log.jsonl"
    path.write_text("hello\n" + path.read_text())
    assert_refused(tmp_path, "log.jsonl:1")


# --- what is refused ---


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
    "documents was 23, is now 22": {"texts": tiny.documents(22)},
    "documents_sha256 was": {"texts": tiny.documents()[::-1]},
    "train.new_rows was 264, is now None": {"config": replace(CONFIG, new_rows=None)},
    "train.warmup was 3, is now 1": {"config": replace(CONFIG, warmup=1)},
    "dtype was 'float32', is now 'bfloat16'": {"dtype": torch.bfloat16},
}


@pytest.mark.parametrize("match, changes", OTHER.items(), ids=OTHER.keys())
def test_a_run_with_other_settings(match: str, changes: dict[str, Any], stopped: Path) -> None:
    assert_refused(stopped, match, **changes)


def test_all_differences_are_named(stopped: Path) -> None:
    assert_refused(stopped, "seed was 1, is now 2; documents_per_step was 3, is now 4", seed=2, documents_per_step=4)


def test_a_run_may_be_made_longer(stopped: Path) -> None:
    longer = replace(CONFIG, steps=20, decay=2, checkpoint_every=3, rate=1e-3)
    trainer = make(stopped, longer)
    trainer.run()
    assert trainer.step == 20 and json.loads((stopped / "run.json").read_text())["train"]["steps"] == 20


def test_a_record_of_an_older_version(stopped: Path) -> None:
    """It has neither the documents' digest nor the dtype."""
    path = stopped / "run.json"
    record = json.loads(path.read_text())
    del record["documents_sha256"], record["dtype"]
    path.write_text(json.dumps(record))
    assert_refused(stopped, "seed", seed=2)
    assert make(stopped).step == 2
    assert "documents_sha256" in json.loads(path.read_text())


def test_another_start_without_a_checkpoint(straight: Path, tmp_path: Path) -> None:
    """A run that left none is begun anew, with whatever settings."""
    make(tmp_path, seed=5)
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 9.0}\n')
    make(tmp_path).run()
    assert_same_run(tmp_path, straight)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "truncated state": ("checkpoint: cannot be read", lambda out: _truncate(out / "checkpoint" / "state.safetensors")),
    "no state": ("checkpoint: cannot be read", lambda out: (out / "checkpoint" / "state.safetensors").unlink()),
    "no progress": ("checkpoint: cannot be read", lambda out: (out / "checkpoint" / "progress.json").unlink()),
    "empty progress": (
        "checkpoint: cannot be read",
        lambda out: (out / "checkpoint" / "progress.json").write_text("{}"),
    ),
    "progress of null": (
        "checkpoint: cannot be read",
        lambda out: (out / "checkpoint" / "progress.json").write_text('{"step": null, "tokens": 1}'),
    ),
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


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_no_number_is_learned_from(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, real = make(tmp_path), trainer_module.batch_loss

    def broken(model: Llama, batch: Batch) -> Tensor:
        loss = real(model, batch)
        if trainer.step < 6:
            return loss
        if what == "loss":
            return loss * math.nan
        x = torch.zeros((), requires_grad=True)
        return loss + x.sqrt() * 0 + (model.norm.weight[0] * 0).sqrt()  # finite, with an infinite slope

    monkeypatch.setattr(trainer_module, "batch_loss", broken)
    with pytest.raises(CodegenError, match=rf"step 7: the .*{what}.*lower --rate than 0.002") as caught:
        trainer.run()
    assert "\n" not in str(caught.value)
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
    assert len(log(tmp_path)) == 6
    monkeypatch.undo()
    resumed = make(tmp_path, replace(CONFIG, rate=1e-3))
    assert resumed.step == 4 and len(log(tmp_path)) == 4


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(tmp_path)
    trainer.run(stop_behind(trainer, 4))

    def full(tensors: Any, path: Path) -> None:
        path.write_bytes(b"\0")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer_module, "save_file", full)
    with pytest.raises(CodegenError, match=r"No space left.*free some space"):
        make(tmp_path).run()
    monkeypatch.undo()
    assert make(tmp_path).step == 4


# --- the optimizer ---


def with_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype) * 0.1


def test_masters_step_as_adamw_on_the_model_itself() -> None:
    ours, theirs = tiny.model(), tiny.model()
    optimizer = MasterAdamW(ours, weight_decay=0.1)
    groups = [
        {"params": [p for p in theirs.parameters() if p.dim() == 2], "weight_decay": 0.1},
        {"params": [p for p in theirs.parameters() if p.dim() == 1], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), eps=1e-8)
    for step in range(5):
        for model in (ours, theirs):
            with_gradients(model, step)
        rate = 1e-2 / (step + 1)
        norm = optimizer.step(rate, clip=1.0)
        assert norm == pytest.approx(float(nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)), rel=1e-5)
        for group in reference.param_groups:
            group["lr"] = rate
        reference.step()
        for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5, msg=name)
            assert a.grad is None


def test_new_rows_step_farther_by_the_factor() -> None:
    plain, eager = tiny.model(), tiny.model()
    before = plain.embed_tokens.weight.detach().clone()
    optimizers = MasterAdamW(plain), MasterAdamW(eager, new_rows=264, new_rows_factor=5.0)
    for model, optimizer in zip((plain, eager), optimizers, strict=True):
        with_gradients(model, 1)
        optimizer.step(1e-2, clip=1.0)
    a, b = plain.embed_tokens.weight.detach(), eager.embed_tokens.weight.detach()
    assert torch.equal(a[:264], b[:264])
    assert torch.equal(b[264:], before[264:] + (a[264:] - before[264:]) * 5.0)
    assert (a[264:] != before[264:]).all()
    for name, parameter in eager.named_parameters():
        assert name == "embed_tokens.weight" or torch.equal(parameter, dict(plain.named_parameters())[name])


def test_small_steps_add_up_in_the_masters() -> None:
    """A step under half a unit in the last place of bfloat16 is lost in the weights, and kept in the masters."""
    model = tiny.model(torch.bfloat16)
    optimizer, start = MasterAdamW(model, weight_decay=0.0), model.norm.weight.detach().clone()
    for _ in range(60):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step(1e-4, clip=1.0)
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, optimizer.masters[name].bfloat16())
    assert (model.norm.weight < start).all()
    assert optimizer.masters["norm.weight"].mean().item() == pytest.approx(1.0 - 60e-4, abs=1e-4)


def test_an_infinite_gradient_changes_nothing() -> None:
    model = tiny.model()
    optimizer = MasterAdamW(model)
    before = {name: tensor.clone() for name, tensor in optimizer.state().items()}
    with_gradients(model, 0)
    assert model.norm.weight.grad is not None
    model.norm.weight.grad[0] = math.inf
    with pytest.raises(FloatingPointError, match="inf"):
        optimizer.step(1e-2, clip=1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in optimizer.state().items())


def test_the_schedule() -> None:
    schedule = Schedule(rate=2.0, warmup=4, steps=20, decay=5)
    assert [schedule.at(step) for step in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert {schedule.at(step) for step in range(4, 16)} == {2.0}
    assert [schedule.at(step) for step in range(15, 21)] == pytest.approx([2.0, 1.6, 1.2, 0.8, 0.4, 0.0])
    assert schedule.at(25) == 0.0
    assert Schedule(2.0, warmup=0, steps=3, decay=0).at(0) == 2.0
    crowded = Schedule(1.0, warmup=8, steps=8, decay=8)  # both at once: the lower of the two
    assert [crowded.at(step) for step in (0, 3, 4, 7)] == [0.125, 0.5, 0.5, 0.125]
