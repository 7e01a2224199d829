"""Models in the native engine, from folders and GGUF files, against PyTorch on the same dequantized weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tiny_gguf
import torch
from edits import edit_config, edit_tensors
from numpy.typing import NDArray
from publisher_folder import random_llama, write_publisher_folder
from safetensors.torch import load_file, save_file
from test_machine import MEMINFO, machine

from codegen25 import _native
from codegen25.config import ModelConfig
from codegen25.engine import cpu
from codegen25.engine.cpu import CpuBackend, load_cpu, open_source
from codegen25.engine.machine import available_memory, usable_cores
from codegen25.errors import CodegenError, UsageError
from codegen25.model.checkpoint import save_llama
from codegen25.model.folder import shapes, stored_name
from codegen25.model.llama import Llama
from codegen25.model.plan import PLANS, packing_of
from codegen25.model.quantize import quantize
from codegen25.model.weights import Plain

CONFIG = ModelConfig(96, 64, 128, 2, 4, 2, 16, 64)
IDS = torch.randint(96, (24,), generator=torch.Generator().manual_seed(3)).tolist()
# Of the spread of the logits. The engine rounds what goes into a matrix to 8 bits, PyTorch does not.
BOUND = 0.05


def quiet(line: str) -> None:
    """What nobody reads."""


def logits(backend: CpuBackend, ids: Sequence[int] = IDS) -> NDArray[np.float32]:
    (found,) = backend.forward([(backend.new(), ids, True)])
    return found


def reference(path: Path, bits: int | None = None) -> NDArray[np.float32]:
    """PyTorch's logits on the weights in `path`, those that are not quantized rounded as the engine would."""
    source = open_source(path, quiet)
    model = Llama(source.config)
    state = {}
    for name, weight in source.weights():
        values = np.array(weight.widened())
        packing = packing_of(PLANS[bits or 8], stored_name(name))
        if isinstance(weight, Plain) and packing:
            values = _native.Matrix.quantized(values, packing.bits, "float32").dequantized()
        state[name] = torch.from_numpy(values)
    if source.config.tied:
        state["lm_head.weight"] = state["embed_tokens.weight"]
    model.load_state_dict(state)
    with torch.no_grad():
        found: NDArray[np.float32] = model(torch.tensor([IDS]))[0].numpy()
    return found


def assert_near(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    assert found.shape == expected.shape and expected.std() > 0.1, "logits that are all alike would pass"
    assert float(np.abs(found - expected).max()) < BOUND * 6 * float(expected.std())
    assert float(np.sqrt(np.mean((found - expected) ** 2))) < BOUND * float(expected.std())


def save(folder: Path, config: ModelConfig = CONFIG, **options: Any) -> Path:
    """Random weights, with norms that are not all ones, so that none can be left out or misplaced unseen."""
    model = random_llama(config, std=0.15)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5, generator=torch.Generator().manual_seed(len(name)))
    save_llama(model, folder, **options)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "model", dtype="float32")


# ------------------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_quantized_folders(bits: int, tied: bool, tmp_path: Path) -> None:
    save(tmp_path / "plain", replace(CONFIG, tied=tied), dtype="float32")
    quantize(tmp_path / "plain", tmp_path / "q", bits=bits, notice=quiet)
    backend = load_cpu(tmp_path / "q", notice=pytest.fail)
    assert backend.config.tied == tied
    assert_near(logits(backend), reference(tmp_path / "q"))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("bits", [None, 8, 4])
def test_plain_folders(dtype: str, bits: int | None, tmp_path: Path) -> None:
    folder = save(tmp_path / "m", replace(CONFIG, tied=bits is None), dtype=dtype)
    said: list[str] = []
    backend = load_cpu(folder, bits=bits, notice=said.append)
    assert [f"rounded to {bits or 8} bits" in line and str(folder) in line for line in said] == [True]
    assert_near(logits(backend), reference(folder, bits))


@pytest.mark.parametrize("sizes", [(40, 72), (64, 100), (8, 4)])
def test_sizes_that_are_no_multiples_of_anything(sizes: tuple[int, int], tmp_path: Path) -> None:
    hidden, inner = sizes
    folder = save(tmp_path / "m", ModelConfig(99, hidden, inner, 2, 2, 1, 6, 64), dtype="float32")
    assert_near(logits(load_cpu(folder, notice=quiet)), reference(folder))


def test_shards_and_bins_are_the_same_model(folder: Path, tmp_path: Path) -> None:
    expected = logits(load_cpu(folder, notice=quiet))
    save(tmp_path / "shards", dtype="float32", shard_bytes=10_000)
    assert np.array_equal(logits(load_cpu(tmp_path / "shards", notice=quiet)), expected)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert np.array_equal(logits(load_cpu(folder, notice=quiet)), expected)


def test_larger_groups(tmp_path: Path) -> None:
    """Groups that are multiples of 64 hold one scale for several of the kernel's."""
    quantize(save(tmp_path / "m", dtype="float32"), tmp_path / "q", bits=8, notice=quiet)
    file = tmp_path / "q" / "model.safetensors"
    state = {name: tensor.clone() for name, tensor in load_file(file).items()}
    for name in [name for name in state if name.endswith("down_proj.weight.scale")]:
        state[name] = state[name][:, :1].clone()
    save_file(state, file)
    edit_plan(tmp_path / "q", down_proj={"bits": 8, "group_size": 128})
    assert_near(logits(load_cpu(tmp_path / "q", notice=quiet)), reference(tmp_path / "q"))


def test_the_publishers_folder_is_repaired(tmp_path: Path) -> None:
    write_publisher_folder(tmp_path / "multi", bins=False)
    said: list[str] = []
    backend = load_cpu(tmp_path / "multi", notice=said.append)
    assert len(said) == 3 and "pad_token_id 0 " in said[1]
    assert_near(logits(backend), reference(tmp_path / "multi"))


# ---------------------------------------------------------------------------------------------------------------- GGUF


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "F32", "F16", "BF16", "Q4_1", "Q5_0"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_gguf(kind: str, tied: bool, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    tiny_gguf.write(path, tiny_gguf.theirs(tied=tied), quantization=gguf.GGMLQuantizationType[kind])
    said: list[str] = []
    backend = load_cpu(path, notice=said.append)
    assert len(said) == (kind not in ("Q8_0", "Q4_0"))
    assert_near(logits(backend), reference(path))


@pytest.mark.parametrize("kind, bits", [("Q8_0", 8), ("Q4_0", 4)])
def test_gguf_blocks_are_our_groups(kind: str, bits: int, tmp_path: Path) -> None:
    """A folder of the very same integers and scales gives the very same logits."""
    tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.theirs(), quantization=gguf.GGMLQuantizationType[kind])
    source = open_source(tmp_path / "m.gguf", quiet)
    folder = tmp_path / "f"
    folder.mkdir()
    state: dict[str, torch.Tensor] = {}
    for name, weight in source.weights():
        key = stored_name(name)
        if isinstance(weight, Plain):
            state[key] = torch.from_numpy(np.array(weight.values))
        else:
            state[f"{key}.q"] = torch.from_numpy(np.array(weight.q))
            state[f"{key}.scale"] = torch.from_numpy(np.array(weight.scale))
    save_file(state, folder / "model.safetensors")
    plan = {name: {"bits": bits, "group_size": 32} for name in PLANS[8]}
    config = source.config.to_hf() | {
        "quantization_config": {"quant_method": "codegen25", "version": 1, "modules": plan}
    }
    (folder / "config.json").write_text(json.dumps(config))
    expected = logits(load_cpu(folder, notice=quiet))
    assert np.array_equal(logits(load_cpu(tmp_path / "m.gguf", notice=quiet)), expected)


# ----------------------------------------------------------------------------------------------------- threads and more


def test_threads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_cpu(folder, notice=quiet).engine.threads == usable_cores()
    one, two = (load_cpu(folder, threads=threads, notice=quiet) for threads in (1, 2))
    assert (one.engine.threads, two.engine.threads) == (1, 2)
    assert np.array_equal(logits(one), logits(two))
    for threads in (0, -1, 100_000):
        with pytest.raises(UsageError, match=f"threads is {threads}"):
            load_cpu(folder, threads=threads)


@pytest.mark.parametrize("isa", _native.isas())
def test_instruction_sets(isa: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODEGEN25_ISA", isa)
    said: list[str] = []
    backend = load_cpu(folder, notice=said.append)
    assert backend.engine.isa == isa and len(said) == 1, "what was asked for needs no notice"
    assert_near(logits(backend), reference(folder))


def test_an_instruction_set_that_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODEGEN25_ISA", "sse9")
    with pytest.raises(UsageError, match=f"CODEGEN25_ISA=sse9: this machine runs .*{_native.isas()[-1]}"):
        load_cpu(folder, notice=quiet)


def test_without_avx512_the_slower_path_is_said_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Older:
        """What the engine's module is on such a machine."""

        def __getattr__(self, name: str) -> Any:
            return getattr(_native, name)

        def isas(self) -> list[str]:
            return ["avx2", "portable"]

    monkeypatch.setattr(cpu, "_native", Older)
    said: list[str] = []
    load_cpu(folder, notice=said.append)
    assert [line for line in said if "AVX-512" in line and "avx2" in line] == said[:1] != []


def test_bits_that_mean_nothing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bits is 5; choose 4 or 8"):
        load_cpu(folder, bits=5)
    quantize(folder, tmp_path / "q", bits=8, notice=quiet)
    with pytest.raises(UsageError, match="is quantized already; leave the number of bits out"):
        load_cpu(tmp_path / "q", bits=4)


# -------------------------------------------------------------------------------------------------------------- memory


def test_too_little_memory_is_said_before_starting(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = machine(tmp_path / "small", {"proc/meminfo": MEMINFO.replace(MEMINFO.split()[-2], "50")})
    assert available_memory(small) == 50 << 10
    monkeypatch.setattr(cpu, "available_memory", lambda: available_memory(small))
    monkeypatch.setattr(_native.Matrix, "quantized", pytest.fail)
    with pytest.raises(
        CodegenError, match=r"needs 0\.\d+ GB of memory .* 64 tokens\), 0\.00 GB are available"
    ) as error:
        load_cpu(folder, notice=quiet)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_the_context_counts(folder: Path) -> None:
    edit_config(folder, max_position_embeddings=1 << 20)
    backend = load_cpu(folder, notice=quiet, window=64)
    # Keys and values of both layers, 16 bits a number, would be this much for all that the model can see.
    whole = (1 << 20) * 2 * 2 * 16 * 2 * 2
    edit_config(folder, max_position_embeddings=(1 << 20) * (available_memory() // whole + 2))
    with pytest.raises(CodegenError, match="GB of memory"):
        load_cpu(folder, notice=quiet)
    assert backend.config.max_positions == 1 << 20


PEAK = """
import sys
from pathlib import Path
from codegen25.engine.cpu import load_cpu
def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key + ":"))
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
backend = load_cpu(Path(sys.argv[1]), threads=1)
print(status("VmHWM") - before, backend.engine.weight_bytes)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the peak of memory from Linux's /proc")
def test_the_peak_is_the_result_and_one_matrix(tmp_path: Path) -> None:
    config = ModelConfig(4096, 512, 2048, 12, 8, 8, 64, 64)
    save_llama(random_llama(config, std=0.02), tmp_path / "m", dtype="float32")
    run = subprocess.run([sys.executable, "-c", PEAK, tmp_path / "m"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    peak, result = map(int, run.stdout.split())
    matrix = 4 * 4096 * 512
    assert config.parameters <= result < 1.15 * config.parameters, "8 bits and scales"
    assert peak < result + matrix + (32 << 20) < 4 * config.parameters


LIMITED = """
import resource, sys
from pathlib import Path
from codegen25.engine.cpu import load_cpu
from codegen25.errors import CodegenError
size = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (size + (12 << 20),) * 2)
try:
    load_cpu(Path(sys.argv[1]), threads=1, notice=lambda line: None)
except CodegenError as error:
    print(error)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the size of the process from Linux's /proc")
def test_a_limit_that_cannot_be_foreseen(tmp_path: Path) -> None:
    save_llama(random_llama(ModelConfig(4096, 512, 2048, 4, 8, 8, 64, 64), std=0.02), tmp_path / "m", dtype="bfloat16")
    run = subprocess.run([sys.executable, "-c", LIMITED, tmp_path / "m"], capture_output=True, text=True)
    assert (run.returncode, run.stdout.count("\n")) == (0, 1), run.stderr
    assert f"{tmp_path / 'm'}: the memory ran out" in run.stdout


# -------------------------------------------------------------------------------------------------------------- damage


def edit_plan(folder: Path, **modules: Any) -> None:
    plan = json.loads((folder / "config.json").read_text())["quantization_config"]
    edit_config(folder, quantization_config=plan | {"modules": plan["modules"] | modules})


def refused(path: Path, *parts: str, **options: Any) -> None:
    with pytest.raises(CodegenError) as error:
        load_cpu(path, notice=quiet, **options)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    for part in parts:
        assert part in str(error.value), error.value


@pytest.mark.parametrize("name", list(shapes(replace(CONFIG, layers=1))))
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite(name: str, value: float, folder: Path) -> None:
    key = stored_name(name)
    edit_tensors(folder, lambda state: state[key].view(-1).__setitem__(5, value))
    refused(folder, f"tensor {key}", "NaN")


def test_weights_too_large_for_their_scales(folder: Path) -> None:
    edit_tensors(folder, lambda state: state["lm_head.weight"].fill_(3e38))
    refused(folder, "lm_head.weight", "large")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scales_that_are_not_finite(value: float, folder: Path, tmp_path: Path) -> None:
    quantize(folder, tmp_path / "q", bits=4, notice=quiet)
    edit_tensors(tmp_path / "q", lambda s: s["model.layers.1.mlp.up_proj.weight.scale"].fill_(value))
    refused(tmp_path / "q", "layers.1.mlp.up_proj.weight", "finite")


@pytest.mark.parametrize(("bits", "group"), [(8, 2), (8, 16), (8, 48), (8, 96), (4, 128)])
def test_groups_that_the_engine_does_not_know(bits: int, group: int, folder: Path, tmp_path: Path) -> None:
    quantize(folder, tmp_path / "q", bits=bits, notice=quiet)
    edit_plan(tmp_path / "q", up_proj={"bits": bits, "group_size": group})
    refused(tmp_path / "q", f"groups of {group}", "32 or multiples of 64")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda f: edit_tensors(f, lambda s: s.pop("model.norm.weight")), "missing"),
    "extra": (lambda f: edit_tensors(f, lambda s: s.update({"x": torch.ones(1)})), "not part"),
    "shape": (lambda f: edit_tensors(f, lambda s: s.update({"lm_head.weight": torch.ones(97, 64)})), "[97, 64]"),
    "architecture": (lambda f: edit_config(f, model_type="gpt2"), "'gpt2'"),
    "more than the engine holds": (lambda f: edit_config(f, max_position_embeddings=(1 << 20) + 1), "1048577"),
    "cut": (lambda f: os.truncate(f / "model.safetensors", 50_000), "truncated"),
    "gone": (lambda f: (f / "config.json").unlink(), "no config.json"),
}


@pytest.mark.parametrize("damage, part", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_folders(damage: Callable[[Path], object], part: str, folder: Path) -> None:
    load_cpu(folder, notice=quiet)
    damage(folder)
    refused(folder, part, window=64)


def test_damaged_gguf(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    refused(path, "no such file")
    tiny_gguf.write(path, tiny_gguf.theirs(), leave_out=["blk.1.ffn_up.weight"])
    refused(path, "model.layers.1.mlp.up_proj.weight", "missing")
    tiny_gguf.write(
        path, tiny_gguf.theirs(), extra={"output.weight": np.full((len(tiny_gguf.TOKENS), 64), np.nan, "f4")}
    )
    refused(path, "lm_head.weight", "NaN")
    tiny_gguf.write(path, tiny_gguf.theirs(), changes={"llama.block_count": 10**9})
    refused(path, "parameters", "bytes")
    wrong = {"llama.embedding_length": "x", "llama.attention.head_count": 0, "tokenizer.ggml.tokens": 3}
    for key, value in wrong.items():
        tiny_gguf.write(path, tiny_gguf.theirs(), changes={key: value})
        refused(path, key)


# ----------------------------------------------------------------------------------------------------- the protocol


def test_a_backend_keeps_its_promises(folder: Path) -> None:
    backend = load_cpu(folder, notice=quiet)
    assert backend.cache_bytes == 0 and backend.forward([]) == []
    one, two = backend.new(), backend.new()
    both = backend.forward([(one, IDS[:7], True), (two, IDS[:3], False)])
    assert [len(rows) for rows in both] == [7, 1] and np.array_equal(both[0][2:3], both[1])
    assert backend.cache_bytes > 0
    fork = backend.fork(one)
    backend.truncate(fork, 3)
    assert (backend.length(one), backend.length(fork)) == (7, 3)
    (again,) = backend.forward([(fork, IDS[3:7], True)])
    assert np.array_equal(again, both[0][3:])
    for sequence in (one, two, fork):
        backend.free(sequence)
    assert backend.cache_bytes == 0
    for sequence, ids in ((one, [1]), (backend.new(), list[int]()), (backend.new(), [96])):
        with pytest.raises(ValueError, match=r".+"):
            backend.forward([(sequence, ids, False)])
