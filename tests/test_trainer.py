"""A run that was stopped, killed or crashed ends with the same weights and the same log as one that was not."""

from __future__ import annotations

import json
import multiprocessing
import resource
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
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
from codegen25.train.trainer import TrainConfig

__all__ = ["one_thread", "straight"]


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
