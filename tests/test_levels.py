"""Training for four bits: the model stays at its levels, begins as its file is, and is written as it was measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from codegen25.errors import CodegenError
from codegen25.model.checkpoint import load_llama, save_llama
from codegen25.model.hf_tokenizer import write_tokenizer
from codegen25.model.llama import Llama
from codegen25.model.plan import PLANS, packing_of
from codegen25.model.quantize import quantize
from codegen25.train.batches import Batches
from codegen25.train.examples import Corrupted
from codegen25.train.job import Job, run
from codegen25.train.levels import Levels, stored_scales, write_packed
from codegen25.train.objective import Objective
from codegen25.train.texts import ListedTexts
from codegen25.train.trainer import TrainConfig, Trainer

CONFIG = replace(tiny.CONFIG, hidden_size=64, intermediate_size=64, heads=4, kv_heads=2, head_dim=16)
NAME = "layers.0.mlp.up_proj.weight"
TEXTS = [f"def f{n}(self):\n    return self.a{n} + {n}\n" * 3 for n in range(40)]


def model(seed: int = 0) -> Llama:
    made = Llama(CONFIG)
    made.init_weights(torch.Generator().manual_seed(seed))
    return made


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("levels")
    save_llama(model(), folder / "plain", dtype="float32", tokenizer=tiny.tokenizer())
    write_tokenizer(folder / "plain", tiny.tokenizer())
    quantize(folder / "plain", folder / "four", bits=4, notice=lambda line: None)
    return folder / "four"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_quantized_folder_begins_as_it_is(quantized: Path, dtype: str) -> None:
    loaded = load_llama(quantized, dtype=dtype)
    levels = Levels(loaded, 4, quantized)
    for name, parameter in loaded.named_parameters():
        rounded = levels.rounded(name, parameter.detach().float())
        assert torch.equal(rounded.to(parameter.dtype), parameter), name


def slow(weight: Sequence[Sequence[float]], scales: Sequence[Sequence[float]], group: int) -> list[list[float]]:
    """The nearest of sixteen levels, one weight after the other."""
    return [
        [
            min((level * scales[n][k // group] for level in range(-8, 8)), key=lambda one: abs(one - value))
            for k, value in enumerate(row)
        ]
        for n, row in enumerate(weight)
    ]


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 4))
def test_weights_go_to_the_nearest_level(seed: int, drift: float) -> None:
    made = model()
    levels = Levels(made, 4)
    start = made.get_parameter(NAME).detach()
    master = start + drift * start.std() * torch.randn(start.shape, generator=torch.Generator().manual_seed(seed))
    scales = levels._scales[NAME][..., 0]
    found = levels.rounded(NAME, master[:3])
    wanted = torch.tensor(slow(master[:3].tolist(), scales[:3].tolist(), 32))
    assert torch.allclose((master[:3] - found).abs(), (master[:3] - wanted).abs(), atol=1e-6)
    assert torch.allclose(levels.rounded(NAME, found), found), "a level is its own nearest"


def trainer(out: Path, steps: int, folder: Path) -> Trainer:
    examples = Corrupted(ListedTexts(TEXTS, ["python"] * len(TEXTS)), tiny.tokenizer(), Objective())
    start = load_llama(folder, dtype="float32")
    config = TrainConfig(steps, rate=1e-2, warmup=1, decay=0, checkpoint_every=2)
    return Trainer(start, Batches(examples, 0, 4, 64), config, out, rounding=Levels(start, 4, folder).rounded)


def test_it_stays_at_its_levels_and_goes_on_to_the_bit(quantized: Path, tmp_path: Path) -> None:
    straight, stopped = trainer(tmp_path / "a", 6, quantized), trainer(tmp_path / "b", 2, quantized)
    straight.run()
    stopped.run()
    resumed = trainer(tmp_path / "b", 6, quantized)
    resumed.run()
    scales = stored_scales(quantized, PLANS[4])
    moved = 0
    for name, parameter in straight.model.named_parameters():
        assert torch.equal(parameter, resumed.model.get_parameter(name)), name
        packing = packing_of(PLANS[4], name)
        if packing and packing.bits == 4:
            steps = parameter.view(len(parameter), -1, 32) / scales[name].float()[..., None]
            assert torch.allclose(steps, steps.round(), atol=1e-3) and steps.min() > -8.01 and steps.max() < 7.01
            moved += int((parameter != load_llama(quantized, dtype="float32").get_parameter(name)).sum())
    assert moved > 100, "it learned"


def test_what_is_written_is_the_model(quantized: Path, tmp_path: Path) -> None:
    """But for the matrices of eight bits, which are rounded then."""
    made = trainer(tmp_path / "run", 4, quantized)
    made.run()
    levels = Levels(load_llama(quantized, dtype="float32"), 4, quantized)
    write_packed(made.weights(), levels, CONFIG, tiny.tokenizer(), tmp_path / "model")
    written = load_llama(tmp_path / "model", dtype="float32")
    for name, parameter in made.model.named_parameters():
        packing = packing_of(PLANS[4], name)
        close = 1e-7 if packing is None or packing.bits == 4 else float(parameter.detach().abs().max()) / 200
        assert torch.allclose(parameter, written.get_parameter(name), atol=close, rtol=1e-6), name


def test_the_command_writes_four_bits(quantized: Path, tmp_path: Path) -> None:
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps({"content": text}) + "\n" for text in TEXTS))
    made = run(Job(data, tmp_path / "run", init=str(quantized), steps=3, window=64, bits=4, dtype="float32"))
    folder = Path(made["model"])
    assert json.loads((folder / "config.json").read_text())["quantization_config"]["quant_method"] == "codegen25"
    assert "written in 4 bits" in (folder / "README.md").read_text()
    with pytest.raises(CodegenError, match="bits was 4, is now None"):
        run(Job(data, tmp_path / "run", init=str(quantized), steps=3, window=64, dtype="float32"))


def test_two_ranks_round_as_one_does(quantized: Path, tmp_path: Path) -> None:
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps({"content": text}) + "\n" for text in TEXTS))
    command = [
        "-m", "codegen25", "train", "--data", str(data), "--init", str(quantized), "--steps", "4", "--window", "64",
        "--warmup", "1", "--decay", "0", "--rate", "0.003", "--bits", "4", "--dtype", "float32",
    ]  # fmt: skip
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for launch, out in (([], "one"), (torchrun, "two")):
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(
            [sys.executable, *launch, *command, "--out", str(tmp_path / out)], env=environment, check=True,
            capture_output=True,
        )  # fmt: skip
    one, two = (load_llama(tmp_path / out / "model", dtype="float32") for out in ("one", "two"))
    began = load_llama(quantized, dtype="float32")
    for name, parameter in one.named_parameters():
        other = two.get_parameter(name)
        apart = (parameter - other).abs() > 1e-4  # what lies between two levels may go to either
        assert int(apart.sum()) <= 2, name
    changed = sum(int((p != began.get_parameter(name)).sum()) for name, p in one.named_parameters() if "mlp" in name)
    assert changed > 50


def test_a_shape_that_does_not_divide() -> None:
    with pytest.raises(CodegenError, match="groups of"):
        Levels(tiny.model(), 4)
