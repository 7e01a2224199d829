"""Quantized folders: the layout, the rounding, and what happens when a file lies."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edits import edit_tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from publisher_folder import random_llama
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load_file

from codegen25.config import ModelConfig
from codegen25.errors import CodegenError, UsageError
from codegen25.model.checkpoint import load_llama, save_llama, tensors
from codegen25.model.export import export_hf
from codegen25.model.hf_tokenizer import write_tokenizer
from codegen25.model.packed import dequantize, pack, unpack
from codegen25.model.plan import GROUPS, LEVELS, PLANS, Packing, from_json, packing_of, to_json
from codegen25.model.quantize import calibration_ids, gptq, main, quantize
from codegen25.model.rounding import fit_scales, nearest, round_to_nearest
from codegen25.tokenizer import family

TINY = ModelConfig(96, 64, 128, 2, 2, 1, 64, 64, tied=True)
TEXTS = [torch.randint(96, (40,), generator=torch.Generator().manual_seed(n)).tolist() for n in range(6)]
packings = st.sampled_from([Packing(4, 32), Packing(8, 64), Packing(4, 2), Packing(8, 16)])


def quiet(line: str) -> None:
    """Progress nobody reads."""


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantize") / "source"
    save_llama(random_llama(TINY, std=0.1), folder, dtype="float32")
    return folder


@pytest.fixture
def quantized(source: Path, tmp_path: Path) -> Path:
    quantize(source, tmp_path / "q", bits=4, notice=quiet)
    return tmp_path / "q"


def edit_plan(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] |= changes
    path.write_text(json.dumps(config))


# -------------------------------------------------------------------------------------------------------------- layout


@given(packings, st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**31))
def test_unpack_is_the_inverse_of_pack(packing: Packing, rows: int, groups: int, seed: int) -> None:
    low, high = LEVELS[packing.bits]
    shape = (rows, groups * packing.group_size)
    integers = torch.randint(low, high + 1, shape, generator=torch.Generator().manual_seed(seed))
    stored = pack(integers, packing)
    assert stored.nbytes * 8 == integers.numel() * packing.bits
    assert torch.equal(unpack(stored, packing).reshape(shape).long(), integers)


@given(packings, st.integers(1, 300))
def test_rows_that_do_not_divide_are_refused(packing: Packing, columns: int) -> None:
    integers = torch.zeros(2, columns)
    if columns % packing.group_size:
        with pytest.raises(CodegenError, match=rf"\[2, {columns}\] does not divide"):
            pack(integers, packing)
    else:
        pack(integers, packing)


def test_vectors_are_no_matrices() -> None:
    with pytest.raises(CodegenError, match="does not divide"):
        pack(torch.zeros(64), Packing(8, 64))


def test_integers_outside_the_levels_are_a_bug() -> None:
    for packing, outside in ((Packing(4, 2), 8), (Packing(8, 2), -128)):
        with pytest.raises(AssertionError):
            pack(torch.tensor([[0, outside]]), packing)


def test_four_bits_by_hand() -> None:
    integers = torch.tensor([[-8, -7, 0, 7, 1, 2, 3, 4]])
    stored = pack(integers, Packing(4, 4))
    assert stored.tolist() == [[0x00 + 0x80, 0x01 + 0xF0, 0x09 + 0xB0, 0x0A + 0xC0]]
    values = dequantize(stored, torch.tensor([[0.5, -2.0]]).half(), Packing(4, 4))
    assert values.tolist() == [[-4.0, -3.5, 0.0, 3.5, -2.0, -4.0, -6.0, -8.0]]


def test_the_documented_reader_reads_the_same(quantized: Path) -> None:
    """The program in docs/formats.md, numpy alone, against ours."""
    document = (Path(__file__).parent.parent / "docs" / "formats.md").read_text(encoding="utf-8")
    program = document.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(program, names)
    plan = json.loads((quantized / "config.json").read_text())["quantization_config"]["modules"]
    stored = load_numpy(quantized / "model.safetensors")
    for name, tensor in tensors(quantized):
        if name in stored:
            continue
        packing = plan[name.split(".")[-2]]
        values = names["dequantize"](stored[f"{name}.q"], stored[f"{name}.scale"], **packing)
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, tensor.numpy())


def test_whole_paths_go_before_last_names() -> None:
    plan = {"up_proj": Packing(4, 32), "model.layers.1.mlp.up_proj": Packing(8, 64)}
    assert packing_of(plan, "model.layers.0.mlp.up_proj.weight") == Packing(4, 32)
    assert packing_of(plan, "model.layers.1.mlp.up_proj.weight") == Packing(8, 64)
    assert packing_of(plan, "model.norm.weight") is None
    assert from_json(json.loads(json.dumps(to_json(plan))), "here") == plan


# ------------------------------------------------------------------------------------------------------------ rounding


@given(st.sampled_from([4, 8]), st.integers(0, 2**31), st.floats(-3, 2))
def test_an_error_within_range_is_at_most_half_a_scale(bits: int, seed: int, magnitude: float) -> None:
    packing = Packing(bits, GROUPS[bits])
    weight = normal(4, 128, seed=seed) * 10**magnitude
    integers, scale = round_to_nearest(weight, packing)
    step = scale.float().repeat_interleave(packing.group_size, dim=1)
    error = (weight - dequantize(pack(integers, packing), scale, packing)).abs()
    low, high = LEVELS[bits]
    in_range = ((weight / step) >= low - 0.5) & ((weight / step) <= high + 0.5)
    assert bool((error[in_range] <= step.abs()[in_range] * 0.5001).all())
    assert in_range.float().mean() > 0.9


@given(st.integers(0, 2**31))
def test_searched_scales_lose_no_more_than_the_plain_one(seed: int) -> None:
    packing, weight = Packing(4, 32), normal(8, 64, seed=seed)
    scale = fit_scales(weight, packing).float().repeat_interleave(32, dim=1)
    plain = (weight.view(8, 2, 32).abs().amax(-1) / 7).half().float().repeat_interleave(32, dim=1)
    loss, plain_loss = ((weight - nearest(weight, s, 4) * s).square().sum() for s in (scale, plain))
    assert loss <= plain_loss


@pytest.mark.parametrize("bits", [4, 8])
def test_zeros_stay_zeros(bits: int) -> None:
    packing = Packing(bits, GROUPS[bits])
    for integers, scale in (
        round_to_nearest(torch.zeros(2, 64), packing),
        gptq(torch.zeros(2, 64), torch.zeros(64, 64), packing),
    ):
        assert not integers.any() and scale.isfinite().all()


def test_inputs_that_are_all_zero_leave_the_weights_alone() -> None:
    packing, weight = Packing(4, 32), normal(3, 64)
    for ours, plain in zip(gptq(weight, torch.zeros(64, 64), packing), round_to_nearest(weight, packing), strict=True):
        assert torch.equal(ours, plain)


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.sampled_from([(64, 300), (192, 60)]))
def test_gptq_keeps_the_outputs_better_than_rounding(seed: int, shape: tuple[int, int]) -> None:
    """On correlated inputs, also with fewer texts than inputs and more columns than a block."""
    (K, T), packing = shape, Packing(4, 32)
    weight = normal(48, K, seed=seed)
    x_TK = normal(T, K // 4, seed=seed + 1) @ normal(K // 4, K, seed=seed + 2) + 0.1 * normal(T, K, seed=seed + 3)

    def loss(rounded: tuple[torch.Tensor, torch.Tensor]) -> float:
        return float((x_TK @ (weight - dequantize(pack(rounded[0], packing), rounded[1], packing)).T).square().sum())

    assert loss(gptq(weight, x_TK.T @ x_TK, packing)) < 0.7 * loss(round_to_nearest(weight, packing))


def test_gptq_by_the_textbook() -> None:
    """Column by column with an explicit inverse, remade after each column (Frantar et al., 2022, equations 2 and 3)."""
    packing, weight, x_TK = Packing(4, 8), normal(6, 16).double(), normal(50, 16, seed=1).double()
    hessian = x_TK.T @ x_TK
    integers, scale = gptq(weight.clone(), hessian, packing, block=4)
    step = scale.double().repeat_interleave(8, dim=1)
    order = hessian.diagonal().argsort(descending=True).tolist()
    damped = hessian + torch.eye(16) * 0.01 * hessian.diagonal().mean()
    left = weight.clone()
    for place, column in enumerate(order):
        rest = order[place:]
        inverse = torch.linalg.inv(damped[rest][:, rest])
        level = (left[:, column] / step[:, column]).round().clamp(-8, 7)
        assert torch.equal(level.float(), integers[:, column].float())
        error = (left[:, column] - level * step[:, column]) / inverse[0, 0]
        left[:, rest] -= error[:, None] * inverse[0]


# ------------------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize(("bits", "bound"), [(4, 0.35), (8, 0.03)])
@pytest.mark.parametrize("calibration", [None, TEXTS], ids=["nearest", "calibrated"])
def test_logits_stay_near(
    bits: int, bound: float, calibration: list[list[int]] | None, source: Path, tmp_path: Path
) -> None:
    quantize(source, tmp_path / "q", bits=bits, calibration=calibration, notice=quiet)
    tokens = torch.tensor(TEXTS)
    with torch.no_grad():
        wanted = load_llama(source, dtype="float32")(tokens)
        logits = load_llama(tmp_path / "q", dtype="float32", notice=pytest.fail)(tokens)
    assert (logits - wanted).norm() < bound * wanted.norm()


def test_calibration_brings_the_logits_nearer(source: Path, tmp_path: Path) -> None:
    tokens, distance = torch.tensor(TEXTS), []
    with torch.no_grad():
        wanted = load_llama(source, dtype="float32")(tokens)
        for number, calibration in enumerate((None, TEXTS)):
            quantize(source, tmp_path / str(number), bits=4, calibration=calibration, notice=quiet)
            logits = load_llama(tmp_path / str(number), dtype="float32")(tokens)
            distance.append(float((logits - wanted).norm()))
    assert distance[1] < distance[0]


def test_untied_heads_and_norms(tmp_path: Path) -> None:
    config = ModelConfig(96, 64, 128, 1, 1, 1, 64, 64)
    model = random_llama(config, std=0.1)
    save_llama(model, tmp_path / "source", dtype="float32")
    quantize(tmp_path / "source", tmp_path / "q", bits=4, calibration=TEXTS, notice=quiet)
    read = load_llama(tmp_path / "q", dtype="float32")
    norm = "layers.0.input_layernorm.weight"
    assert torch.equal(read.get_parameter(norm), model.get_parameter(norm))
    torch.testing.assert_close(read.lm_head.weight, model.lm_head.weight, atol=0.01, rtol=0)
    assert not torch.equal(read.lm_head.weight, read.embed_tokens.weight)


def test_the_folder_is_whole_and_readable(source: Path, tmp_path: Path) -> None:
    write_tokenizer(source, family())
    said: list[str] = []
    quantize(source, tmp_path / "q", bits=4, notice=said.append)
    assert [path.name for path in tmp_path.iterdir()] == ["q"]
    assert (tmp_path / "q" / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    for path in (tmp_path / "q").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "q").stat().st_mode) & 0o666
    assert len(said) == 1 and "bytes" in said[0]


def test_export_multiplies_out(tmp_path: Path) -> None:
    save_llama(random_llama(replace(TINY, vocab_size=51200, layers=1)), tmp_path / "source")
    write_tokenizer(tmp_path / "source", family())
    quantize(tmp_path / "source", tmp_path / "q", bits=4, notice=quiet)
    export_hf(tmp_path / "q", tmp_path / "hf", quiet, dtype="float32")
    assert "quantization_config" not in json.loads((tmp_path / "hf" / "config.json").read_text())
    exported = load_file(tmp_path / "hf" / "model.safetensors")
    stored = dict(tensors(tmp_path / "q"))
    assert exported.keys() == stored.keys()
    assert all(torch.equal(exported[name], stored[name]) for name in stored)


def test_nano_fits() -> None:
    """The embedded model has to be one file under 95 MB."""
    from codegen25.config import SHAPES
    from codegen25.model.llama import Llama

    with torch.device("meta"):
        model = Llama(SHAPES["nano"])
    size = 0.0
    for name, parameter in model.named_parameters():
        packing = packing_of(PLANS[4], name)
        bits = 32 if packing is None else packing.bits + 16 / packing.group_size
        size += parameter.numel() * bits / 8
    assert size < 94.9e6


# ----------------------------------------------------------------------------------------------------------- bad input


def one_line_error(folder: Path, *parts: str) -> None:
    with pytest.raises(CodegenError) as error:
        load_llama(folder)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


UP = "model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"modules": {"up_proj": {"bits": 5, "group_size": 32}}}, "5 bits"),
        ({"modules": {"up_proj": {"bits": 4, "group_size": 0}}}, "groups of 0"),
        ({"modules": {"up_proj": {"bits": 4, "group_size": 7}}}, "groups of 7"),
        ({"modules": {"up_proj": {"bits": 4, "group_size": "32"}}}, "groups of '32'"),
        ({"modules": {"up_proj": {"bits": [4], "group_size": 32}}}, "[4] bits"),
        ({"modules": {"up_proj": {"bits": 4.0, "group_size": 32}}}, "4.0 bits"),
        ({"modules": {"up_proj": {"bits": 4}}}, "incomplete"),
        ({"modules": {"up_proj": 4}}, "incomplete"),
        ({"modules": None}, "incomplete"),
        ({"modules": {}}, "incomplete"),
        ({"modules": {"up_proj": {"bits": 4, "group_size": 32}}}, "does not say how"),
        ({"quant_method": "gptq"}, "'gptq'"),
        ({"version": 2}, "version 2"),
    ],
)
def test_damaged_plan(changes: dict[str, Any], part: str, quantized: Path) -> None:
    edit_plan(quantized, **changes)
    one_line_error(quantized, str(quantized), part)


@pytest.mark.parametrize(
    ("edit", "part"),
    [
        (lambda state: state.pop(f"{UP}.q"), f"{UP}.scale is there without"),
        (lambda state: state.pop(f"{UP}.scale"), f"{UP}.q is there without"),
        (lambda state: state.update({f"{UP}.q": state[f"{UP}.q"][:, :-1].contiguous()}), f"{UP}.q is uint8"),
        (lambda state: state.update({f"{UP}.q": state[f"{UP}.q"].to(torch.int8)}), f"{UP}.q is int8"),
        (lambda state: state.update({f"{UP}.q": state[f"{UP}.q"][0].clone()}), f"{UP}.q is uint8"),
        (lambda state: state.update({f"{UP}.q": state[f"{UP}.q"][:-1].clone()}), f"{UP}.scale is float16"),
        (lambda state: state.update({f"{UP}.scale": state[f"{UP}.scale"].float()}), f"{UP}.scale is float32"),
        (lambda state: state[f"{UP}.scale"].fill_(torch.inf), f"{UP}.scale is not finite"),
        (lambda state: state.update({UP: torch.zeros(128, 64)}), f"{UP} should be quantized"),
    ],
)
def test_damaged_tensors(edit: Callable[[dict[str, torch.Tensor]], object], part: str, quantized: Path) -> None:
    edit_tensors(quantized, edit)
    one_line_error(quantized, str(quantized), part)


def test_rows_missing_from_both_halves(quantized: Path) -> None:
    def cut(state: dict[str, torch.Tensor]) -> None:
        for name in (f"{UP}.q", f"{UP}.scale"):
            state[name] = state[name][:-1].clone()

    edit_tensors(quantized, cut)
    one_line_error(quantized, UP, "[127, 64]", "[128, 64]")


@pytest.mark.parametrize("keep", [0, 7, 500, 0.5, 0.999])
def test_truncated_file(keep: float, quantized: Path) -> None:
    path = quantized / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep if keep >= 1 else keep * len(data))])
    one_line_error(quantized, str(quantized))


def test_what_cannot_be_quantized(source: Path, quantized: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="5 bits: choose 4 or 8"):
        quantize(source, out, bits=5)
    with pytest.raises(CodegenError, match="quantized already"):
        quantize(quantized, out, bits=4)
    with pytest.raises(CodegenError, match="calibration texts are empty"):
        quantize(source, out, bits=4, calibration=[[]])
    with pytest.raises(CodegenError, match="exists already"):
        quantize(source, quantized, bits=4, notice=quiet)
    odd = ModelConfig(96, 16, 24, 1, 2, 1, 8, 32)
    save_llama(random_llama(odd), tmp_path / "odd")
    with pytest.raises(CodegenError, match=r"does not divide into groups of \d+"):
        quantize(tmp_path / "odd", out, bits=4, notice=quiet)
    assert not out.exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("value", "part"), [(torch.nan, "NaN or infinity"), (1e30, "too large")])
@pytest.mark.parametrize("calibration", [None, TEXTS], ids=["nearest", "calibrated"])
def test_weights_out_of_range(value: float, part: str, calibration: Any, source: Path, tmp_path: Path) -> None:
    model = load_llama(source, dtype="float32")
    with torch.no_grad():
        model.get_parameter("layers.1.mlp.gate_proj.weight")[3, 5] = value
    save_llama(model, tmp_path / "bad", dtype="float32")
    with pytest.raises(CodegenError, match=part):
        quantize(tmp_path / "bad", tmp_path / "out", bits=4, calibration=calibration, notice=quiet)
    assert not (tmp_path / "out").exists()


def test_calibration_ids(tmp_path: Path) -> None:
    file, tokenizer = tmp_path / "texts.jsonl", family()
    lines = [json.dumps({"content": f"def f{n}(x):\n    return x + {n}\n" * 20}) for n in range(5)]
    file.write_text("\n".join(lines))
    plain, holed = calibration_ids(file, tokenizer, 2, tokens=30)
    assert len(plain) == 30 and tokenizer.masks[0] not in plain
    assert holed.count(tokenizer.masks[0]) == 2 and len(calibration_ids(file, tokenizer, 99)) == 5
    file.write_text('{"text": "x"}')
    with pytest.raises(CodegenError, match="texts"):
        calibration_ids(file, tokenizer, 2)


def test_command(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["quantize", str(source), "--bits", "8", "--out", str(tmp_path / "q")]
    monkeypatch.setattr(sys, "argv", command)
    main()
    assert (tmp_path / "q" / "model.safetensors").is_file() and capsys.readouterr().out == ""
    with pytest.raises(SystemExit) as stop:
        main()
    assert isinstance(stop.value.code, str), "which Python prints, and exits with 1"
    assert "exists already" in stop.value.code and "\n" not in stop.value.code
