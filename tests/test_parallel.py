"""Several ranks learn what one does, go on from each other's checkpoints, and end when one of them is lost."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor

from codegen25.errors import CodegenError
from codegen25.model.checkpoint import save_llama
from codegen25.train.batches import Batches
from codegen25.train.examples import Corrupted
from codegen25.train.folders import write_model
from codegen25.train.objective import Objective
from codegen25.train.parallel import Exchange, joined
from codegen25.train.texts import ListedTexts
from codegen25.train.trainer import Means, TrainConfig, Trainer

PROCESSES = multiprocessing.get_context("forkserver")  # imports torch once, and has no threads to fork
CPU = torch.device("cpu")


def train(
    out: Path, rank: int, world: int, port: int, config: dict[str, Any], dtype: torch.dtype, means: Means
) -> None:
    """What a process of a run does; what it is told of an error goes to a file of its own."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    examples = Corrupted(ListedTexts(tiny.documents()), tiny.tokenizer(), Objective(infill_rate=0.7))
    batches = Batches(examples, seed=1, documents_per_step=5, window=128, pass_tokens=256)
    try:
        with joined(CPU) as joint:
            settings = TrainConfig(**{"rate": 2e-3, "warmup": 3, "decay": 0, "checkpoint_every": 4} | config)
            trainer = Trainer(tiny.model(dtype), batches, settings, out, world=joint, means=means)
            trainer.run()
            weights = dict(trainer.weights())
            if rank == 0:
                write_model(weights.items(), tiny.CONFIG, tiny.tokenizer(), out / "model", "float32")
    except CodegenError as error:
        (out / f"said.{rank}").write_text(str(error))
        sys.exit(1)


def start(
    out: Path, world: int, dtype: torch.dtype = torch.float32, means: Means | None = None, **config: Any
) -> list[BaseProcess]:
    PROCESSES.set_forkserver_preload(["pytest", "torch._dynamo", "torch.distributed.fsdp"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started: list[BaseProcess] = [
        PROCESSES.Process(target=train, args=(out, rank, world, port, config, dtype, means or Means()))
        for rank in range(world)
    ]
    for process in started:
        process.start()
    return started


def run(out: Path, world: int, **options: Any) -> Path:
    assert_all_end_well(start(out, world, **options))
    return out


def assert_all_end_well(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)


def weights(out: Path) -> dict[str, Tensor]:
    return load_file(out / "model" / "model.safetensors")


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]


def assert_close(a: Path, b: Path) -> None:
    assert losses(a) == pytest.approx(losses(b), abs=1.1e-4)  # they are written with four digits
    one, other = weights(a), weights(b)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=1e-5, msg=name)


def assert_equal(a: Path, b: Path) -> None:
    assert losses(a) == losses(b)
    one, other = weights(a), weights(b)
    assert all(torch.equal(one[name], other[name]) for name in one)


NEW_ROWS = {"new_rows": 100, "new_rows_factor": 3.0}  # the second rank has new rows alone


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("alone"), 1, steps=8, **NEW_ROWS)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("two"), 2, steps=8, **NEW_ROWS)


def test_two_ranks_learn_what_one_does(alone: Path, two: Path) -> None:
    assert_close(alone, two)
    assert len(list((two / "checkpoint").glob("*.safetensors"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("world", [3, 7])
def test_more_ranks_than_share_evenly(world: int, alone: Path, tmp_path: Path) -> None:
    """Seven ranks and five documents a step: two have none."""
    assert_close(alone, run(tmp_path, world, steps=8, **NEW_ROWS))


@pytest.mark.slow
def test_muon_on_sharded_matrices(tmp_path: Path) -> None:
    """Its products are in bfloat16, so that a last bit of a gradient can be worth 1/256 of a step."""
    paths = [run(tmp_path / str(world), world, steps=4, optimizer="muon") for world in (1, 2)]
    assert losses(paths[0]) == pytest.approx(losses(paths[1]), abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("means", [Means(recompute=True), Means(workers=1)], ids=["recompute", "workers"])
def test_means_change_nothing(means: Means, two: Path, tmp_path: Path) -> None:
    assert_equal(two, run(tmp_path, 2, steps=8, means=means, **NEW_ROWS))


@pytest.mark.parametrize("first, then", [(2, 2), (1, 2), (2, 1)])
def test_a_run_goes_on_with_other_ranks(first: int, then: int, alone: Path, two: Path, tmp_path: Path) -> None:
    run(tmp_path, first, steps=5, **NEW_ROWS)
    run(tmp_path, then, steps=8, **NEW_ROWS)
    if first == then:
        assert_equal(two, tmp_path)
    assert_close(alone, tmp_path)
    starts = json.loads((tmp_path / "run.json").read_text())["starts"]
    assert [(one["world"], one["step"]) for one in starts] == [(first, 0), (then, 5)]


def gradient(rank: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(3 * 1001, generator=torch.Generator().manual_seed(rank)).to(dtype)


def exchange(folder: Path, rank: int, world: int) -> None:
    """Means of three ranks' gradients, against the sum that each rank makes of all of them."""
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=world)
    for dtype in (torch.bfloat16, torch.float32):
        found = torch.empty(1001, dtype=dtype)
        assert dist.group.WORLD
        Exchange()(found, gradient(rank, dtype), dist.group.WORLD, dist.ReduceOp.AVG)
        wanted = sum(gradient(one, dtype).float() for one in range(world)) / world
        assert isinstance(wanted, Tensor)
        assert torch.equal(found, wanted.to(dtype).view(world, -1)[rank])
    dist.destroy_process_group()


def test_gradients_are_exchanged_in_their_dtype_and_summed_in_fp32(tmp_path: Path) -> None:
    processes: list[BaseProcess] = [PROCESSES.Process(target=exchange, args=(tmp_path, rank, 3)) for rank in range(3)]
    for process in processes:
        process.start()
    assert_all_end_well(processes)


def wait_for(condition: Callable[[], object], processes: list[BaseProcess]) -> None:
    while not condition():
        assert all(process.is_alive() for process in processes), "it ended by itself"
        time.sleep(0.05)


def test_a_signal_to_one_rank_stops_all_behind_the_same_step(tmp_path: Path) -> None:
    processes = start(tmp_path, 2, steps=100_000)
    wait_for((tmp_path / "checkpoint").exists, processes)
    assert processes[1].pid
    os.kill(processes[1].pid, signal.SIGTERM)
    assert_all_end_well(processes)
    progress = json.loads((tmp_path / "checkpoint" / "progress.json").read_text())
    assert progress["step"] == len(losses(tmp_path))


@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_rank_ends_the_run(lost: int, tmp_path: Path) -> None:
    """Also when it is the one that all others meet at."""
    processes = start(tmp_path, 2, steps=100_000)
    wait_for((tmp_path / "checkpoint").exists, processes)
    processes[lost].kill()
    for process in processes:
        process.join()
    assert processes[1 - lost].exitcode == 1
    said = (tmp_path / f"said.{1 - lost}").read_text()
    assert f"rank {lost}" in said and "goes on from its newest checkpoint" in said and "\n" not in said
    assert run(tmp_path, 1, steps=json.loads((tmp_path / "checkpoint" / "progress.json").read_text())["step"] + 1)


@pytest.mark.slow
def test_a_rank_that_hangs_ends_the_run(tmp_path: Path) -> None:
    processes = start(tmp_path, 2, steps=100_000)
    wait_for((tmp_path / "checkpoint").exists, processes)
    assert processes[1].pid
    os.kill(processes[1].pid, signal.SIGSTOP)
    processes[0].join()
    processes[1].kill()
    assert processes[0].exitcode == 1


@pytest.mark.slow
def test_the_command_under_torchrun(tmp_path: Path) -> None:
    save_llama(tiny.model(), tmp_path / "start")
    tiny.write_tokenizer(tmp_path / "start")
    data = tmp_path / "documents.jsonl"
    data.write_text("".join(json.dumps({"content": text}) + "\n" for text in tiny.documents()))
    out = tmp_path / "run"
    command = ["-m", "codegen25", "train", "--data", data, "--init", tmp_path / "start", "--out", out, "--steps", "3",
               "--window", "128", "--dtype", "float32", "--json"]  # fmt: skip
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run([*map(str, torchrun + command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["step"], told["finished"]) == (3, True)
    assert (out / "model" / "tokenizer.json").exists()
