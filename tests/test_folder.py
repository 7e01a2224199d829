"""Folders read without PyTorch: names, mapped tensors, and files that lie."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from edits import edit_config, edit_tensors
from hypothesis import given
from hypothesis import strategies as st
from publisher_folder import random_llama, write_publisher_folder
from safetensors.torch import load_file, save_file

from codegen25.config import ModelConfig
from codegen25.errors import CodegenError
from codegen25.model.checkpoint import load_llama, save_llama, tensors
from codegen25.model.folder import resolve, shapes, stored_name, weight_files
from codegen25.model.llama import Llama
from codegen25.model.quantize import quantize
from codegen25.model.weights import Folder, Plain, Quantized, read_safetensors

CONFIG = ModelConfig(96, 64, 128, 2, 2, 1, 64, 64)


def quiet(line: str) -> None:
    """What nobody reads."""


def one_line(folder: Path, *parts: str) -> None:
    with pytest.raises(CodegenError) as error:
        list(Folder(folder, quiet).weights())
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def assert_reads_as_torch_does(folder: Path) -> None:
    expected = {name: p.detach() for name, p in load_llama(folder, dtype="float32", notice=quiet).named_parameters()}
    found = {name: weight.widened() for name, weight in Folder(folder, quiet).weights()}
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert torch.equal(torch.from_numpy(np.array(array)), expected[name]), name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_llama(random_llama(CONFIG), tmp_path / "model", dtype="float32")
    return tmp_path / "model"


sizes = st.integers(1, 5)


@given(sizes, sizes, sizes, sizes, st.sampled_from([(1, 1), (4, 2), (3, 1)]), st.booleans())
def test_shapes_are_those_of_the_reference(
    vocabulary: int, hidden: int, inner: int, layers: int, heads: tuple[int, int], tied: bool
) -> None:
    config = ModelConfig(vocabulary, hidden, inner, layers, *heads, 8, 32, tied=tied)
    with torch.device("meta"):
        expected = {n: tuple(p.shape) for n, p in Llama(config).named_parameters(remove_duplicate=False)}
    assert shapes(config) == expected


# -------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("shard_bytes", [5 << 30, 30_000], ids=["one file", "shards"])
def test_plain_folders(dtype: str, tied: bool, shard_bytes: int, tmp_path: Path) -> None:
    save_llama(random_llama(replace(CONFIG, tied=tied)), tmp_path / "m", dtype=dtype, shard_bytes=shard_bytes)
    assert (len(weight_files(tmp_path / "m")) > 1) == (shard_bytes < 5 << 30)
    assert_reads_as_torch_does(tmp_path / "m")
    found = [weight for _, weight in Folder(tmp_path / "m", pytest.fail).weights()]
    assert all(isinstance(weight, Plain) and weight.dtype == dtype for weight in found)


@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_folders(bits: int, folder: Path, tmp_path: Path) -> None:
    quantize(folder, tmp_path / "q", bits=bits, notice=quiet)
    assert_reads_as_torch_does(tmp_path / "q")
    source = Folder(tmp_path / "q", pytest.fail)
    for name, weight in source.weights():
        packing = weight.packing if isinstance(weight, Quantized) else None
        assert source.packing(name) == packing and (packing is None) == ("norm" in name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_bin_files(dtype: torch.dtype, folder: Path) -> None:
    state = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert_reads_as_torch_does(folder)


def test_the_publishers_folder_and_its_repairs(tmp_path: Path) -> None:
    write_publisher_folder(tmp_path / "multi")
    theirs: list[str] = []
    load_llama(tmp_path / "multi", notice=theirs.append)
    ours: list[str] = []
    Folder(tmp_path / "multi", ours.append)
    assert ours == theirs != []
    assert_reads_as_torch_does(tmp_path / "multi")


@given(st.integers(0, 9))
def test_tensors_at_any_offset(padding: int) -> None:
    """The format lets a header be of any length, so that numbers start at odd addresses."""
    from tempfile import TemporaryDirectory

    values = np.arange(12, dtype="<f4").reshape(3, 4)
    header = json.dumps({"a": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}}).encode() + b" " * padding
    with TemporaryDirectory() as place:
        path = Path(place) / "x.safetensors"
        path.write_bytes(struct.pack("<Q", len(header)) + header + values.tobytes())
        ((name, found),) = read_safetensors(path)
    assert name == "a" and found.dtype == "float32" and np.array_equal(found.values, values)


def test_nothing_stays_mapped(folder: Path) -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count(str(folder))

    if not Path("/proc/self/maps").exists():
        pytest.skip("reads Linux's /proc")
    most = 0
    for _, weight in Folder(folder, quiet).weights():
        most = max(most, mapped())
        del weight
    assert 0 < most <= 3 and mapped() == 0


def test_a_tied_folder_that_also_holds_the_head(tmp_path: Path) -> None:
    save_llama(random_llama(replace(CONFIG, tied=True)), tmp_path / "m", dtype="float32")
    file = tmp_path / "m" / "model.safetensors"
    state = {name: tensor.clone() for name, tensor in load_file(file).items()}
    embedding = state["model.embed_tokens.weight"]
    save_file(state | {"lm_head.weight": embedding.clone()}, file)
    assert_reads_as_torch_does(tmp_path / "m")
    save_file(state | {"lm_head.weight": embedding + 1}, file)
    one_line(tmp_path / "m", str(tmp_path / "m"), "ties lm_head.weight")
    save_file(state | {"lm_head.weight": embedding.to(torch.bfloat16)}, file)
    one_line(tmp_path / "m", "ties lm_head.weight")


# --------------------------------------------------------------------------------------------------------------- damage


NORM = "model.layers.1.input_layernorm.weight"
DAMAGE: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), ("no model.safetensors",)),
    "missing": (lambda f: edit_tensors(f, lambda s: s.pop(NORM)), (NORM, "missing")),
    "missing head": (lambda f: edit_tensors(f, lambda s: s.pop("lm_head.weight")), ("lm_head.weight", "missing")),
    "unknown": (lambda f: edit_tensors(f, lambda s: s.update({"model.x": torch.ones(1)})), ("model.x", "not part")),
    "half a matrix": (lambda f: edit_tensors(f, lambda s: s.update({"a.q": torch.ones(1)})), ("a.q", "not part")),
    "shape": (lambda f: edit_tensors(f, lambda s: s.update({NORM: torch.ones(65)})), (NORM, "[65]", "[64]")),
    "empty": (lambda f: edit_tensors(f, lambda s: s.update({NORM: torch.ones(0)})), (NORM, "[0]", "[64]")),
    "scalar": (lambda f: edit_tensors(f, lambda s: s.update({NORM: torch.tensor(1.0)})), (NORM, "[]", "[64]")),
    "integers": (
        lambda f: edit_tensors(f, lambda s: s.update({NORM: torch.ones(64, dtype=torch.int8)})),
        (NORM, "int8", "not floating point"),
    ),
    "doubles": (
        lambda f: edit_tensors(f, lambda s: s.update({NORM: torch.ones(64, dtype=torch.float64)})),
        (NORM, "F64"),
    ),
    "a billion layers": (lambda f: edit_config(f, num_hidden_layers=10**9), ("parameters", "bytes")),
    "another architecture": (lambda f: edit_config(f, model_type="qwen2"), ("'qwen2'",)),
    "another quantization": (lambda f: edit_config(f, quantization_config={"quant_method": "gptq"}), ("'gptq'",)),
    "quantized by the config alone": (
        lambda f: edit_config(
            f,
            quantization_config={
                "quant_method": "codegen25",
                "version": 1,
                "modules": {"up_proj": {"bits": 8, "group_size": 64}},
            },
        ),
        ("up_proj.weight should be quantized",),
    ),
}


@pytest.mark.parametrize("damage, parts", DAMAGE.values(), ids=DAMAGE.keys())
def test_folders_that_contradict_themselves(
    damage: Callable[[Path], object], parts: tuple[str, ...], folder: Path
) -> None:
    damage(folder)
    one_line(folder, str(folder), *parts)


@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.5, 0.999])
def test_cut_files(share: float, folder: Path) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    one_line(folder, str(folder), "again")


@pytest.mark.parametrize("entry", ["model.safetensors.index.json", "model.safetensors"])
def test_weights_that_are_folders(entry: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / entry).mkdir()
    one_line(folder, str(folder), "no model.safetensors")


HEADERS: dict[str, bytes] = {
    "longer than the file": struct.pack("<Q", 1 << 40),
    "of 2^64 - 1 bytes": b"\xff" * 8,
    "not JSON": struct.pack("<Q", 4) + b"{{{{",
    "a list": struct.pack("<Q", 2) + b"[]",
    "out of the file": b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}',
    "backwards": b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}',
    "a shape that overflows": b'{"a": {"dtype": "F32", "shape": [4611686018427387904, 4], "data_offsets": [0, 0]}}',
    "negative": b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
    "no such dtype": b'{"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}',
    "lacks keys": b'{"a": {"dtype": "F32"}}',
    "a name of two lines": b'{"a\\nb": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}',
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_hostile_headers(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header if header.startswith(b"{") else header)
    with pytest.raises(CodegenError) as error:
        list(read_safetensors(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@given(st.data())
def test_any_damaged_header_is_refused_or_reads(data: st.DataObject) -> None:
    """Never a crash, never another exception."""
    from tempfile import TemporaryDirectory

    header = bytearray(json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        header[data.draw(st.integers(0, len(header) - 1))] = data.draw(st.integers(0, 255))
    with TemporaryDirectory() as place:
        path = Path(place) / "x.safetensors"
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
        message = ""
        try:
            list(read_safetensors(path))
        except CodegenError as error:
            message = str(error)
    assert "\n" not in message


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.gguf").write_bytes(b"GGUF")
    assert resolve("a.gguf") == Path("a.gguf")
    for name in ("b.gguf", "owner/b.gguf", "a.gguf/b"):
        with pytest.raises(CodegenError, match="no such folder"):
            resolve(name)
    assert {stored_name("lm_head.weight"), stored_name("norm.weight")} == {"lm_head.weight", "model.norm.weight"}


def test_both_readers_agree_on_the_names(folder: Path) -> None:
    """What is left of a file when a model is read is what the file holds."""
    assert {name for name, _ in tensors(folder)} == {stored_name(name) for name, _ in Folder(folder, quiet).weights()}
