"""Reading and writing model folders: formats, memory, damage, names."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from edits import edit_config, edit_tensors
from publisher_folder import random_llama, write_publisher_folder
from safetensors.torch import load_file, save_file

from codegen25.config import ModelConfig
from codegen25.errors import CodegenError, UsageError
from codegen25.model import checkpoint
from codegen25.model import folder as folders
from codegen25.model.checkpoint import load_llama, save_llama, tensors
from codegen25.model.folder import check_vocab, resolve
from codegen25.tokenizer import family

SMALL = ModelConfig(60, 16, 24, 2, 2, 1, 8, 32)
TIED = replace(SMALL, tied=True)


def one_line(error: pytest.ExceptionInfo[CodegenError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message and message
    for part in parts:
        assert part in message


def assert_same(a: torch.nn.Module, b: torch.nn.Module) -> None:
    ours, theirs = a.state_dict(), b.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_llama(random_llama(SMALL), tmp_path / "model", dtype="float32")
    return tmp_path / "model"


# ------------------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("config", [SMALL, TIED], ids=["untied", "tied"])
@pytest.mark.parametrize("shard_bytes", [5 << 30, 3000, 1], ids=["one file", "shards", "a shard a tensor"])
def test_what_is_written_is_read(config: ModelConfig, shard_bytes: int, tmp_path: Path) -> None:
    model = random_llama(config)
    save_llama(model, tmp_path / "out", dtype="float32", shard_bytes=shard_bytes)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1 or shard_bytes > 3000
    read = load_llama(tmp_path / "out", dtype="float32", notice=pytest.fail)
    assert_same(read, model)
    assert read.config == config
    assert (read.lm_head.weight is read.embed_tokens.weight) == config.tied
    assert config.tied == ("lm_head.weight" not in dict(tensors(tmp_path / "out")))
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "nothing is left beside the folder"


def test_written_shards_keep_to_their_size_and_index(tmp_path: Path) -> None:
    save_llama(random_llama(SMALL), tmp_path / "out", dtype="bfloat16", shard_bytes=3000)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    found: dict[str, str] = {}
    for path in (tmp_path / "out").glob("*.safetensors"):
        shard = load_file(path)
        assert sum(tensor.nbytes for tensor in shard.values()) <= 3000
        assert all(tensor.dtype == torch.bfloat16 for tensor in shard.values())
        found |= dict.fromkeys(shard, path.name)
    assert found == index["weight_map"]
    assert index["metadata"]["total_size"] == 2 * SMALL.parameters


def test_config_takes_ids_and_extras(tmp_path: Path) -> None:
    model = random_llama(replace(SMALL, vocab_size=51200))
    save_llama(model, tmp_path / "out", extra_config={"note": "x"}, tokenizer=family())
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert config["note"] == "x" and config["torch_dtype"] == config["dtype"] == "bfloat16"
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert config[key] == generation[key] == 50256


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtype(dtype: str, folder: Path) -> None:
    for name, tensor in load_llama(folder, dtype=dtype).state_dict().items():
        assert tensor.dtype == getattr(torch, dtype), name


def test_unknown_dtype(folder: Path) -> None:
    with pytest.raises(UsageError) as error:
        load_llama(folder, dtype="int3")
    one_line(error, "int3", "bfloat16")


def test_training_a_loaded_model_leaves_the_file_alone(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    model = load_llama(folder, dtype="float32")
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.requires_grad
            parameter.add_(1)
    assert (folder / "model.safetensors").read_bytes() == before
    assert not torch.equal(load_llama(folder, dtype="float32").norm.weight, model.norm.weight)


@pytest.mark.parametrize("bins, safetensors", [(True, False), (False, True), (True, True)])
def test_publisher_layout(bins: bool, safetensors: bool, tmp_path: Path) -> None:
    model = write_publisher_folder(tmp_path / "multi", bins=bins, safetensors=safetensors)
    assert_same(load_llama(tmp_path / "multi", dtype="float32", notice=lambda line: None), model)


def test_one_bin_file(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    expected = load_llama(folder, dtype="float32").state_dict()
    expected = {name: tensor.clone() for name, tensor in expected.items()}
    (folder / "model.safetensors").unlink()
    for name, tensor in load_llama(folder, dtype="float32").state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_remapping_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_publisher_folder(tmp_path / "multi", safetensors=False)
    monkeypatch.setattr(checkpoint, "MAPPED_BYTES", 0)
    assert_same(load_llama(tmp_path / "multi", dtype="float32", notice=lambda line: None), model)


def test_tied_folder_that_also_holds_the_head(tmp_path: Path) -> None:
    save_llama(random_llama(TIED), tmp_path / "m", dtype="float32")
    expected = {
        name: tensor.clone() for name, tensor in load_llama(tmp_path / "m", dtype="float32").state_dict().items()
    }
    edit_tensors(tmp_path / "m", lambda s: s.update({"lm_head.weight": s["model.embed_tokens.weight"].clone()}))
    model = load_llama(tmp_path / "m", dtype="float32")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert model.lm_head.weight is model.embed_tokens.weight
    edit_tensors(tmp_path / "m", lambda s: s["lm_head.weight"].add_(1))
    with pytest.raises(CodegenError) as error:
        load_llama(tmp_path / "m")
    one_line(error, str(tmp_path / "m"), "lm_head.weight", "ties")


# -------------------------------------------------------------------------------------------------------------- memory

# For each `dtype mapped-bytes` prints by how much the peak of resident memory and, at the end, anonymous memory grew.
MEASURE = """
import sys
from pathlib import Path
from codegen25.model import checkpoint
def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key + ":"))
for dtype, mapped in zip(sys.argv[2::2], sys.argv[3::2]):
    checkpoint.MAPPED_BYTES = int(mapped)
    before, anonymous = status("VmRSS"), status("RssAnon")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    model = checkpoint.load_llama(Path(sys.argv[1]), dtype=dtype)
    for parameter in model.parameters():
        parameter.detach().view(-1)[::1024].float().sum()  # touch every page
    print(status("VmHWM") - before, status("RssAnon") - anonymous)
    del model, parameter
"""
WIDE = ModelConfig(4096, 512, 2048, 12, 8, 8, 64, 64)
MAPPED = 16 << 20
SLACK = 24 << 20  # one tensor, and the heap of the loading itself


def growth(folder: Path, *runs: tuple[str, int]) -> list[tuple[int, int]]:
    command = [sys.executable, "-c", MEASURE, str(folder), *(str(value) for run in runs for value in run)]
    run = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert run.returncode == 0, run.stderr
    return [(int(peak), int(anonymous)) for peak, anonymous in map(str.split, run.stdout.splitlines())]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the peak of memory from Linux's /proc")
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_never_two_copies(kind: str, tied: bool, tmp_path: Path) -> None:
    config = replace(WIDE, tied=tied)
    save_llama(random_llama(config, std=0.02), tmp_path / "m", dtype="float32")
    if kind == "bin":
        torch.save(load_file(tmp_path / "m" / "model.safetensors"), tmp_path / "m" / "pytorch_model.bin")
        (tmp_path / "m" / "model.safetensors").unlink()
    bf16, whole = 2 * config.parameters, 1 << 40
    views, cast, unbounded = growth(tmp_path / "m", ("float32", MAPPED), ("bfloat16", MAPPED), ("bfloat16", whole))
    assert bf16 < views[0] < 2 * bf16 + SLACK and views[1] < SLACK, "same dtype: views of the file, no copy"
    assert bf16 * 0.9 < cast[0] < bf16 + MAPPED + SLACK, "cast: one copy, and what is mapped"
    # The measurement can see a second copy: with the whole file mapped, its fp32 pages stay beside the bf16 ones.
    assert unbounded[0] > 2.5 * bf16


# -------------------------------------------------------------------------------------------------------------- damage


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_truncated_file(share: float, kind: str, folder: Path) -> None:
    path = folder / "model.safetensors"
    if kind == "bin":
        torch.save(load_file(path), folder / "pytorch_model.bin")
        path.unlink()
        path = folder / "pytorch_model.bin"
    cut(path, share)
    with pytest.raises(CodegenError) as error:
        load_llama(folder)
    one_line(error, str(folder), "again")
    if share > 0.4:
        one_line(error, str(path), "truncated")


def test_corrupted_header(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    for position in range(0, 400, 7):
        damaged = data.copy()
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(CodegenError) as error:
            load_llama(folder)
        one_line(error, str(folder))


BULK = "x" * 20_000  # a file too small for the model is refused before it is opened


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("run by the pickle" + BULK,))


@pytest.mark.parametrize(
    "value", [Evil(), [1, BULK], {"a": BULK}, {"a": Evil()}], ids=["code", "list", "numbers", "inner code"]
)
def test_bin_that_is_more_than_tensors(value: object, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(value, folder / "pytorch_model.bin")
    with pytest.raises(CodegenError) as error:
        load_llama(folder)
    one_line(error, str(folder / "pytorch_model.bin"))
    assert "run by the pickle" not in capsys.readouterr().out


NORM = "model.layers.1.input_layernorm.weight"
DAMAGE: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no config": (lambda f: (f / "config.json").unlink(), ("config.json",)),
    "empty config": (lambda f: (f / "config.json").write_text(""), ("config.json", "JSON")),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), ("model.safetensors",)),
    "missing": (lambda f: edit_tensors(f, lambda s: s.pop(NORM)), (NORM, "[16]", "missing")),
    "missing head": (lambda f: edit_tensors(f, lambda s: s.pop("lm_head.weight")), ("lm_head.weight", "[60, 16]")),
    "unknown": (lambda f: edit_tensors(f, lambda s: s.update({"model.x": torch.ones(1)})), ("model.x", "not part")),
    "no prefix": (
        lambda f: edit_tensors(f, lambda s: s.update({"norm.weight": torch.ones(16)})),
        ("tensor norm.weight",),
    ),
    "shape": (lambda f: edit_tensors(f, lambda s: s.update({NORM: torch.ones(17)})), (NORM, "[17]", "[16]")),
    "integers": (
        lambda f: edit_tensors(f, lambda s: s.update({NORM: torch.ones(16, dtype=torch.int8)})),
        (NORM, "int8"),
    ),
    "more layers": (lambda f: edit_config(f, num_hidden_layers=3), ("model.layers.2.", "missing")),
    "fewer layers": (lambda f: edit_config(f, num_hidden_layers=1), ("model.layers.1.", "not part")),
    "a billion layers": (lambda f: edit_config(f, num_hidden_layers=10**9), ("parameters", "bytes")),
    "vocabulary": (lambda f: edit_config(f, vocab_size=61), ("[60, 16]", "[61, 16]")),
    "kv heads": (lambda f: edit_config(f, num_key_value_heads=2), ("k_proj.weight", "[8, 16]", "[16, 16]")),
    "tied": (lambda f: edit_config(f, tie_word_embeddings=True), ("ties", "lm_head.weight")),
    "index of nothing": (lambda f: (f / "model.safetensors.index.json").write_text("[]"), ("index.json",)),
    "index of a missing shard": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone.safetensors"}}'),
        ("gone.safetensors", "missing"),
    ),
    "index that leaves the folder": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../m.safetensors"}}'),
        ("../m.safetensors", "outside"),
    ),
}


@pytest.mark.parametrize("damage, parts", DAMAGE.values(), ids=DAMAGE.keys())
def test_folder_that_contradicts_itself(damage: Callable[[Path], object], parts: tuple[str, ...], folder: Path) -> None:
    load_llama(folder)
    damage(folder)
    with pytest.raises(CodegenError) as error:
        load_llama(folder)
    one_line(error, str(folder), *parts)


def test_tensor_in_two_shards(tmp_path: Path) -> None:
    save_llama(random_llama(SMALL), tmp_path / "m", shard_bytes=3000)
    files = sorted((tmp_path / "m").glob("*.safetensors"))
    save_file(load_file(files[0]) | {NORM: torch.ones(16)}, tmp_path / "again.safetensors")
    shutil.move(tmp_path / "again.safetensors", files[0])
    with pytest.raises(CodegenError) as error:
        load_llama(tmp_path / "m")
    one_line(error, NORM, "twice")


# ------------------------------------------------------------------------------------------------------------- writing


def test_existing_folder_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(CodegenError) as error:
        save_llama(random_llama(SMALL), folder)
    one_line(error, str(folder), "exists")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    (tmp_path / "empty").mkdir()
    save_llama(random_llama(SMALL), tmp_path / "empty")
    load_llama(tmp_path / "empty")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CodegenError):
        save_llama(random_llama(SMALL), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


FULL_DISK = """
import resource, sys
from pathlib import Path
from codegen25.config import ModelConfig
from codegen25.errors import CodegenError
from codegen25.model.checkpoint import save_llama
from codegen25.model.llama import Llama
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # writes fail from here on, as on a full disk
try:
    save_llama(Llama(ModelConfig(60, 16, 24, 2, 2, 1, 8, 32)), Path(sys.argv[1]) / "out")
except CodegenError as error:
    print(error)
"""


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    run = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("\n") == 1 and str(tmp_path / "out") in run.stdout and "cannot be written" in run.stdout
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------------- vocabulary and names


def test_vocabulary_of_another_size() -> None:
    config = replace(SMALL, vocab_size=51200)
    check_vocab(config, family(), Path("f"))
    check_vocab(config.with_vocab(51264), family(), Path("f"))
    with pytest.raises(CodegenError) as error:
        check_vocab(config.with_vocab(51199), family(), Path("some/folder"))
    one_line(error, "some/folder", "51200", "51199")


def test_resolve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(folders, "BUILT_IN", tmp_path / "models")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    snapshot = tmp_path / "hub" / "models--owner--model" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").touch()
    (refs := snapshot.parent.parent / "refs").mkdir()
    (refs / "main").write_text("a" * 40)
    assert resolve("tiny") == tmp_path / "models" / "tiny"
    assert resolve("mine") == Path("mine")
    assert resolve("owner/model") == snapshot
    for name, remedy in {"owner/other": "codegen25 fetch owner/other", "nothing": "nano", "a/b/c": "hub id"}.items():
        with pytest.raises(CodegenError) as error:
            resolve(name)
        one_line(error, name, remedy)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CodegenError) as error:
        resolve("owner/model")
    one_line(error, "owner/model", "codegen25 fetch owner/model")
