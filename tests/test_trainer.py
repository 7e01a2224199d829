"""A run that was stopped, killed or crashed ends with the same weights and the same log as one that was not."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from torch import Tensor

from codegen25.errors import CodegenError
from codegen25.model.llama import Llama
from codegen25.train.batches import Batch, Batches
from codegen25.train.examples import Corrupted
from codegen25.train.loss import Learner
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


@pytest.mark.parametrize("step", [1, 3, 4, 5, 8, 11, STEPS])
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


GOLDEN = [5.688, 5.607, 5.495, 5.409, 5.32, 5.255, 5.207, 5.099, 5.13, 4.952, 4.967, 4.978]


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


@pytest.mark.parametrize("call", range(7))
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
        try:
            trainer.run()
        except Crash:
            assert trainer.step == at
        else:
            assert call >= 6, "a checkpoint touches the disk more often than this test thinks"
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


def limited(out: Path, bytes: int) -> None:
    """Train where no file may be larger than that."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # else it ends the process before anybody can say why
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes, bytes))
    torch.set_num_threads(1)
    try:
        make(out).run()
    except CodegenError as error:
        (out / "said").write_text(str(error))


def test_a_disk_that_refuses_leaves_the_old_checkpoint(straight: Path, tmp_path: Path) -> None:
    trainer = make(tmp_path)
    trainer.run(stop_behind(trainer, 4))
    process = PROCESSES.Process(target=limited, args=(tmp_path, tensors(tmp_path).stat().st_size // 2))
    process.start()
    process.join()
    said = (tmp_path / "said").read_text()
    assert process.exitcode == 0 and "too large" in said and "free some space" in said and "\n" not in said
    (tmp_path / "said").unlink()
    assert make(tmp_path).step == 4
    make(tmp_path).run()
    assert_same_run(tmp_path, straight)
