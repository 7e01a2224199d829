"""Exported GGUF files against the folders they were made of, the gguf package's reader, and llama.cpp."""

from __future__ import annotations

import json
import resource
import urllib.request
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from publisher_folder import random_llama

from codegen25.cli import main
from codegen25.config import ModelConfig
from codegen25.errors import CodegenError
from codegen25.model import checkpoint, gguf_write
from codegen25.model.checkpoint import load_llama, save_llama
from codegen25.model.folder import resolve
from codegen25.model.gguf import GGUF
from codegen25.model.gguf_export import export_gguf
from codegen25.model.hf_tokenizer import write_tokenizer
from codegen25.model.quantize import quantize
from codegen25.tokenizer import Tokenizer, family, from_folder

VOCAB = tiny.tokenizer().n_vocab
PADDING = 5  # rows of the embedding that no token has


def silent(line: str) -> None:
    pass


def config(**changes: Any) -> ModelConfig:
    shape: dict[str, Any] = {
        "vocab_size": VOCAB + PADDING, "hidden_size": 64, "intermediate_size": 128, "layers": 2, "heads": 4,
        "kv_heads": 2, "head_dim": 32, "max_positions": 256, "rope_theta": 5000.0, "rms_norm_eps": 1e-5, "tied": True,
    }  # fmt: skip
    return ModelConfig(**shape | changes)


def folder(path: Path, shape: ModelConfig, dtype: str = "float32", std: float = 0.15) -> Path:
    """A random model whose norms are not all ones, with the tiny tokenizer."""
    model = random_llama(shape)
    model.init_weights(torch.Generator().manual_seed(1), std=std)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5, generator=torch.Generator().manual_seed(2))
    save_llama(model, path, dtype=dtype)
    tiny.write_tokenizer(path)
    return path


def stored(path: Path) -> dict[str, torch.Tensor]:
    """What the PyTorch side reads in a folder, fp32."""
    return {name.removeprefix("model."): tensor.float() for name, tensor in checkpoint.tensors(path)}


def read_by_gguf(path: Path, shape: ModelConfig) -> dict[str, np.ndarray[Any, Any]]:
    """What the gguf package reads, its rows of queries and keys put back as in convert_hf_to_gguf.py (`permute`)."""
    names = {theirs: ours for ours, theirs, _ in gguf_write.tensor_names(shape)}
    found = {}
    for tensor in gguf.GGUFReader(path).tensors:
        array = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if "attn_q" in tensor.name or "attn_k" in tensor.name:
            heads = len(array) // shape.head_dim
            array = array.reshape(heads, shape.head_dim // 2, 2, -1).swapaxes(1, 2).reshape(array.shape)
        found[names[tensor.name]] = array
    return found


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("changes", [{}, {"tied": False, "kv_heads": 4}, {"heads": 2, "kv_heads": 1}], ids=str)
def test_quantized_weights_are_the_same_to_the_bit(bits: int, changes: dict[str, Any], tmp_path: Path) -> None:
    shape = config(**changes)
    quantize(folder(tmp_path / "plain", shape), tmp_path / "q", bits=bits, notice=silent)
    export_gguf(tmp_path / "q", tmp_path / "x.gguf", silent)
    expected, found = stored(tmp_path / "q"), read_by_gguf(tmp_path / "x.gguf", shape)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert np.array_equal(found[name], tensor.numpy()), name
    kinds = {tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    assert kinds == {"F32", "Q8_0"} | ({"Q4_0"} if bits == 4 else set())


@pytest.mark.parametrize("dtype, kind", [("float32", "F16"), ("float16", "F16"), ("bfloat16", "BF16")])
def test_plain_weights(dtype: str, kind: str, tmp_path: Path) -> None:
    export_gguf(folder(tmp_path / "plain", config(), dtype), tmp_path / "x.gguf", silent)
    reader = gguf.GGUFReader(tmp_path / "x.gguf")
    assert {tensor.tensor_type.name for tensor in reader.tensors} == {"F32", kind}
    found = read_by_gguf(tmp_path / "x.gguf", config())
    for name, tensor in stored(tmp_path / "plain").items():
        exact = tensor.half().float() if kind == "F16" and tensor.ndim == 2 else tensor
        assert np.array_equal(found[name], exact.numpy()), name


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.sampled_from([32, 64, 96, 128]), st.integers(0, 2**31))
def test_blocks_of_any_group_size(rows: int, groups: int, size: int, seed: int) -> None:
    """Against numbers multiplied out here, from the layout in docs/formats.md."""
    rng = np.random.default_rng(seed)
    scale = rng.normal(size=(rows, groups)).astype(np.float16)
    eight = rng.integers(-127, 128, (rows, groups * size), dtype=np.int8)
    four = rng.integers(-8, 8, (rows, groups, 2, size // 2))
    packed = ((four[:, :, 0] + 8) | (four[:, :, 1] + 8) << 4).astype(np.uint8).reshape(rows, -1)
    for blocks, integers, kind in (
        (gguf_write.q8_blocks(eight, scale), eight, gguf.GGMLQuantizationType.Q8_0),
        (gguf_write.q4_blocks(packed, scale), four, gguf.GGMLQuantizationType.Q4_0),
    ):
        expected = integers.reshape(rows, groups, size).astype(np.float32) * scale.astype(np.float32)[:, :, None]
        found = gguf.quants.dequantize(blocks.reshape(rows, -1), kind)
        assert np.array_equal(found, expected.reshape(rows, -1))


def test_what_the_file_says(tmp_path: Path) -> None:
    shape = config()
    export_gguf(folder(tmp_path / "tiny", shape), tmp_path / "x.gguf", silent)
    read = GGUF(tmp_path / "x.gguf")
    assert vars(read.config) == {**vars(shape), "rms_norm_eps": read.config.rms_norm_eps}
    assert read.config.rms_norm_eps == pytest.approx(1e-5, rel=1e-6)
    tokenizer = tiny.tokenizer()
    assert read.control() == tokenizer.control
    assert read.merges() == tiny.MERGES
    values = {key: read.field(key) for key in ("general.name", "general.file_type", "tokenizer.ggml.pre")}
    assert values == {"general.name": "tiny", "general.file_type": 1, "tokenizer.ggml.pre": "smollm"}
    ends = [read.field(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "eom")]
    assert ends == [tokenizer.eot, tokenizer.eot, tokenizer.eom]
    types = read.field("tokenizer.ggml.token_type")
    assert types.count(5) == PADDING and len(types) == shape.vocab_size


@pytest.fixture(scope="module")
def of_the_family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the family's 51,200 ids."""
    path = tmp_path_factory.mktemp("family")
    save_llama(random_llama(config(vocab_size=51200)), path / "plain", dtype="float16")
    write_tokenizer(path / "plain", family())
    export_gguf(path / "plain", path / "x.gguf", silent)
    return path / "x.gguf"


def test_the_family_s_tokenizer(of_the_family: Path) -> None:
    read = GGUF(of_the_family)
    assert read.field("tokenizer.ggml.pre") == "gpt-2"
    tokenizer = read.tokenizer()
    assert tokenizer.control == family().control
    for text in ("int add(int a, int b) { return a + b; }\nπ", " " * 70, "\t" * 20, "x = 12345\r\n", "🦊 naïve"):
        assert tokenizer.encode(text) == family().encode(text)


# ------------------------------------------------------------------------------------------------------------ bad input


def assert_refused(source: Path, out: Path, match: str) -> None:
    before = sorted(path.name for path in out.parent.iterdir())
    with pytest.raises(CodegenError, match=match) as caught:
        export_gguf(source, out, silent)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in out.parent.iterdir()) == before, "something was left behind"


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "mine.gguf"
    out.write_text("mine")
    assert_refused(folder(tmp_path / "plain", config()), out, "exists already")
    assert out.read_text() == "mine"


def test_sources_that_are_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    assert_refused(tmp_path / "x.gguf", tmp_path / "out.gguf", "not a model folder")
    assert_refused(tmp_path, tmp_path / "out.gguf", "no config.json")


def test_groups_that_have_no_blocks(tmp_path: Path) -> None:
    """32 inputs are the smallest run with a scale of its own."""
    quantize(folder(tmp_path / "plain", config()), tmp_path / "q", bits=8, notice=silent)
    file = tmp_path / "q" / "config.json"
    named = json.loads(file.read_text())
    for packing in named["quantization_config"]["modules"].values():
        packing["group_size"] = 16
    file.write_text(json.dumps(named))
    from safetensors.torch import load_file, save_file

    tensors = load_file(tmp_path / "q" / "model.safetensors")
    wide = {name: t.repeat_interleave(4, 1) if name.endswith(".scale") else t for name, t in tensors.items()}
    save_file(wide, tmp_path / "q" / "model.safetensors")
    assert_refused(tmp_path / "q", tmp_path / "x.gguf", "groups of 16")


@pytest.mark.parametrize("value, match", [(float("nan"), "NaN"), (1e6, "too large for F16")])
def test_numbers_that_cannot_be_stored(value: float, match: str, tmp_path: Path) -> None:
    source = folder(tmp_path / "plain", config())
    from safetensors.torch import load_file, save_file

    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = value
    save_file(tensors, source / "model.safetensors")
    assert_refused(source, tmp_path / "x.gguf", match)


def test_a_tokenizer_that_llama_cpp_has_no_name_for(tmp_path: Path) -> None:
    source = folder(tmp_path / "plain", config())
    spec = json.loads((source / "tokenizer.json").read_text())
    split = {"type": "Split", "pattern": {"Regex": r"\w+|\W"}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, level]}
    (source / "tokenizer.json").write_text(json.dumps(spec))
    assert_refused(source, tmp_path / "x.gguf", "no name for the pattern")


def test_more_tokens_than_rows(tmp_path: Path) -> None:
    assert_refused(folder(tmp_path / "plain", config(vocab_size=VOCAB - 1)), tmp_path / "x.gguf", "embedding rows")


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """The system refuses files over a size, as it would a full disk."""
    source = folder(tmp_path / "plain", config())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        assert_refused(source, tmp_path / "x.gguf", "cannot be written")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = folder(tmp_path / "plain", config()), tmp_path / "x.gguf"
    assert main(["export", str(source), "--to", "gguf", "--out", str(out)]) == 0
    assert capsys.readouterr() == ("", f"codegen25: {out}: written\n")
    assert GGUF(out).config.layers == 2
    assert main(["export", str(source), "--to", "gguf", "--out", str(out)]) == 1
    assert main(["export", str(source), "--to", "gguf", "--out", str(tmp_path / "plain" / "config.json" / "x")]) == 1
    assert capsys.readouterr().err.count("\n") == 2


# ------------------------------------------------------------------------------------------------------------ llama.cpp


def server(path: Path, window: int = 256) -> Any:
    xllamacpp = pytest.importorskip("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.warmup, params.fit_params = window, 1, False, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    return xllamacpp.Server(params)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [None, 4, 8])
def test_llama_cpp_says_the_same(bits: int | None, tmp_path: Path) -> None:
    """Its log-probabilities behind prompts of many lengths, and its greedy text, against the PyTorch model.

    llama.cpp rounds activations to 8 bits where weights are quantized, which is the bound's larger part.
    """
    source = folder(tmp_path / "plain", config())
    if bits:
        quantize(source, tmp_path / "q", bits=bits, notice=silent)
        source = tmp_path / "q"
    export_gguf(source, tmp_path / "x.gguf", silent)
    theirs, ours = server(tmp_path / "x.gguf"), load_llama(source, dtype="float32", notice=silent)
    ids = torch.randint(256, (40,), generator=torch.Generator().manual_seed(7)).tolist()
    compared = 0
    for length in range(2, 40, 3):
        ask = {"prompt": ids[:length], "n_predict": 1, "temperature": 0.0, "n_probs": 5, "ignore_eos": True}
        choice = theirs.handle_completions(ask)["choices"][0]
        if not choice["logprobs"]:  # nothing is told of a token that is half a character
            continue
        (step,) = choice["logprobs"]["content"]
        with torch.no_grad():
            logprobs = ours(torch.tensor([ids[:length]]))[0, -1].log_softmax(-1)
        found = [float(logprobs[top["id"]]) for top in step["top_logprobs"]]
        assert found == pytest.approx([top["logprob"] for top in step["top_logprobs"]], abs=0.3 if bits else 1e-2)
        compared += 1
    assert compared >= 5
    assert float(logprobs.max() - logprobs.min()) > 2, "logits that are all alike would pass for any model"


@pytest.mark.slow
def test_llama_cpp_writes_what_nano_would(tmp_path: Path) -> None:
    """The built-in model, exported: its greedy text there is, token for token, what the PyTorch model would choose."""
    source = resolve("nano")
    export_gguf(source, tmp_path / "nano.gguf", silent)
    theirs, tokenizer = server(tmp_path / "nano.gguf", 512), from_folder(source)
    ours = load_llama(source, dtype="float32", notice=silent)
    same = total = 0
    for prompt in ("def is_prime(n):\n", "import json\n\n\ndef read(path):\n    with ", "for i in range(10):\n"):
        ids = tokenizer.encode(prompt)
        ask = {"prompt": ids, "n_predict": 32, "temperature": 0.0, "ignore_eos": True}
        text = theirs.handle_completions(ask)["choices"][0]["text"]
        written = tokenizer.encode(prompt + text)
        assert written[: len(ids)] == ids
        with torch.no_grad():
            best = ours(torch.tensor([written]))[0].argmax(-1).tolist()
        pairs = list(zip(best[len(ids) - 1 : -2], written[len(ids) : -1], strict=True))  # the last may be cut
        same, total = same + sum(a == b for a, b in pairs), total + len(pairs)
    assert total > 60 and same >= 0.95 * total


def encoded_by(theirs: Any, text: str) -> list[int]:
    body = json.dumps({"content": text, "add_special": False, "parse_special": False}).encode()
    request = urllib.request.Request(f"{theirs.listening_address}/tokenize", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        found: list[int] = json.load(answer)["tokens"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("which", ["family", "digits"])
def test_llama_cpp_splits_text_as_we_do(which: str, of_the_family: Path, tmp_path: Path) -> None:
    path = of_the_family
    ours: Tokenizer = family()
    if which == "digits":
        source = folder(tmp_path / "plain", config())
        path, ours = tmp_path / "x.gguf", from_folder(source)
        export_gguf(source, path, silent)
    theirs = server(path)
    texts = [
        "def f(x):\n    return x + 1234\n",
        "\t\tself.x  =  'é'\r\n\r\n",
        "  \n\n  a",
        "it's we'll 'd",
        "x" * 90,
        "π🦊",
    ]
    texts.append(Path(__file__).read_text(encoding="utf-8"))
    for text in texts:
        assert encoded_by(theirs, text) == ours.encode(text), text[:40]
