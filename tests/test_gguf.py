"""GGUF files against the model they were written from, and against llama.cpp."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gguf
import numpy as np
import pytest
import tiny_gguf
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from codegen25.config import from_hf
from codegen25.errors import CodegenError
from codegen25.model.gguf import GGUF
from codegen25.model.gguf_read import Container
from codegen25.model.llama import Llama
from codegen25.model.weights import Quantized
from codegen25.tokenizer import DIGITS_PATTERN, GPT2_PATTERN, to_byte_characters

IDS_BT = torch.randint(len(tiny_gguf.TOKENS), (2, 40), generator=torch.Generator().manual_seed(7))
Writer = Callable[..., Path]


def read(path: Path) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(array)) for name, array in GGUF(path).tensors()}


def ours(path: Path) -> Llama:
    source = GGUF(path)
    model = Llama(source.config)
    state = read(path)
    if model.config.tied:
        state["lm_head.weight"] = state["embed_tokens.weight"]
    model.load_state_dict(state)
    return model


@pytest.fixture
def written(tmp_path: Path) -> Writer:
    def write(model: LlamaForCausalLM | None = None, **options: Any) -> Path:
        path = tmp_path / "model.gguf"
        tiny_gguf.write(path, model or tiny_gguf.theirs(), **options)
        return path

    return write


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_logits_are_those_of_the_original(tied: bool, kv_heads: int, written: Writer) -> None:
    theirs = tiny_gguf.theirs(tied=tied, kv_heads=kv_heads)
    model = ours(written(theirs))
    expected = from_hf({**theirs.config.to_dict(), "rope_theta": 5000.0})
    assert model.config.tied == tied
    assert model.config.rms_norm_eps == pytest.approx(expected.rms_norm_eps)
    assert vars(model.config) == {**vars(expected), "rms_norm_eps": model.config.rms_norm_eps}
    with torch.no_grad():
        expected_BTV = theirs(IDS_BT).logits
        torch.testing.assert_close(model(IDS_BT), expected_BTV, atol=1e-4, rtol=1e-4)
    assert expected_BTV.std() > 0.1, "logits that are all alike would pass for any model"


def test_weights_come_back_exactly(written: Writer) -> None:
    theirs = tiny_gguf.theirs(tied=False)
    original = {name.removeprefix("model."): parameter for name, parameter in theirs.named_parameters()}
    found = read(written(theirs))
    assert found.keys() == original.keys()
    assert all(torch.equal(found[name], original[name]) and found[name].dtype == torch.float32 for name in found)


@pytest.mark.parametrize("kind, error", [("F16", 1e-3), ("BF16", 5e-3), ("Q8_0", 1e-2), ("Q4_1", 0.1)])
def test_quantized_weights(kind: str, error: float, written: Writer) -> None:
    theirs = tiny_gguf.theirs()
    tensors = read(written(theirs, quantization=gguf.GGMLQuantizationType[kind]))
    for name, parameter in theirs.named_parameters():
        found = tensors[name.removeprefix("model.")]
        assert float((found - parameter).detach().norm() / parameter.detach().norm()) < error, name


def test_vocabulary(written: Writer) -> None:
    source = GGUF(written())
    assert source.tokens() == tiny_gguf.TOKENS
    assert source.control() == {name: id for id, name in enumerate(tiny_gguf.CONTROL)}
    assert source.merges() == tiny_gguf.MERGES


# What SmolLM2 lacks: every byte of text, and the control tokens of the format.
OURS = ("<|endoftext|>", "<mask_1>", "<sep>", "<eom>")
BYTES = [to_byte_characters(bytes([byte])) for byte in range(256)]
VOCABULARY = [*BYTES, *(left + right for left, right in tiny_gguf.MERGES), *OURS]


def vocabulary(padding: int = 0, **changes: Any) -> dict[str, Any]:
    """Metadata of a tokenizer that we can reproduce, `padding` unused rows at its end."""
    size = len(VOCABULARY) + padding
    return {
        "tokenizer.ggml.tokens": VOCABULARY + [f"[PAD{n}]" for n in range(padding)],
        "tokenizer.ggml.token_type": [
            1 if id < len(VOCABULARY) - len(OURS) else 3 if id < len(VOCABULARY) else 5 for id in range(size)
        ],
    } | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}


@pytest.mark.parametrize("pre", ["smollm", "starcoder", "gpt-2"])
@pytest.mark.parametrize("padding", [0, 3])
def test_tokenizer(pre: str, padding: int, written: Writer) -> None:
    found = GGUF(written(changes=vocabulary(padding, pre=pre))).tokenizer()
    assert found.control == {name: id for id, name in enumerate(VOCABULARY) if name in OURS}
    assert found.n_vocab == len(VOCABULARY)
    assert found.pattern == (GPT2_PATTERN if pre == "gpt-2" else DIGITS_PATTERN)
    text = "def été(x):\n    return 2024\n"
    ids = found.encode(text)
    assert found.decode(ids) == text and VOCABULARY.index("def") in ids


TYPES = vocabulary()["tokenizer.ggml.token_type"]
OTHER_TOKENIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sentencepiece": ("'llama'.*only byte-level BPE", vocabulary(model="llama")),
    "unknown pre-tokenizer": ("'llama-bpe'.*only byte-level", vocabulary(pre="llama-bpe")),
    "user-defined": ("'!'.* of type 4, neither", vocabulary(token_type=[*TYPES[:33], 4, *TYPES[34:]])),
    "unused in the middle": ("'!'.* of type 5", vocabulary(token_type=[*TYPES[:33], 5, *TYPES[34:]])),
    "fewer types": ("types of tokens", vocabulary(token_type=TYPES[1:])),
    "twice": ("collide", vocabulary(tokens=["!", *VOCABULARY[1:]])),
    "merges of nothing": ("not a valid tokenizer", vocabulary(merges=["x yz"])),
    "merges that are none": ("not a valid tokenizer", vocabulary(merges=["xyz"])),
    "lacking bytes": ("no token for", {}),
}


@pytest.mark.parametrize("match, changes", OTHER_TOKENIZERS.values(), ids=OTHER_TOKENIZERS.keys())
def test_tokenizers_that_are_not_ours(match: str, changes: dict[str, Any], written: Writer) -> None:
    assert_refused(written(changes=changes), match, lambda path: GGUF(path).tokenizer())


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "BF16", "F16"])
def test_blocks_are_read_as_the_gguf_package_does(kind: str, written: Writer) -> None:
    """To the bit."""
    path = written(quantization=gguf.GGMLQuantizationType[kind])
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    found = dict(GGUF(path).weights())
    assert isinstance(found["layers.0.mlp.up_proj.weight"], Quantized) == (kind in ("Q8_0", "Q4_0"))
    for ours, name in (("layers.0.mlp.up_proj", "blk.0.ffn_up"), ("embed_tokens", "token_embd")):
        tensor = theirs[f"{name}.weight"]
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(found[f"{ours}.weight"].widened(), expected), name


def test_what_a_file_may_leave_out(written: Writer) -> None:
    """Key/value heads as many as heads, and a rotary base of 10000: what llama.cpp takes then."""
    optional = ("llama.attention.head_count_kv", "llama.rope.freq_base", "llama.rope.dimension_count")
    config = GGUF(written(leave_out=optional)).config
    assert (config.kv_heads, config.rope_theta, config.head_dim) == (4, 10000.0, 16)


def assert_refused(path: Path, match: str, reader: Callable[[Path], Any] = ours) -> None:
    with pytest.raises(CodegenError, match=match) as caught:
        reader(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


NEEDED = [key for key in tiny_gguf.metadata(tiny_gguf.theirs()) if key.startswith("llama.")]
OPTIONAL = {"llama.attention.head_count_kv", "llama.rope.freq_base", "llama.rope.dimension_count"}


@pytest.mark.parametrize("key", [*sorted(set(NEEDED) - OPTIONAL), "tokenizer.ggml.tokens"])
def test_missing_keys(key: str, written: Writer) -> None:
    assert_refused(written(leave_out=[key]), f"has no {key}")


@pytest.mark.parametrize("key", ["tokenizer.ggml.merges", "tokenizer.ggml.token_type"])
def test_missing_vocabulary(key: str, written: Writer) -> None:
    assert_refused(written(leave_out=[key]), key, lambda path: (GGUF(path).merges(), GGUF(path).control()))


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "another architecture": ("'qwen2' model; only llama", {"architecture": "qwen2"}),
    "partial rotary": ("part of every head", {"changes": {"llama.rope.dimension_count": 8}}),
    "scaled rotary": ("'linear' is not supported", {"changes": {"llama.rope.scaling.type": "linear"}}),
    "heads that do not divide": ("do not divide", {"changes": {"llama.attention.head_count_kv": 3}}),
    "a bias": ("blk.0.attn_q.bias", {"extra": {"blk.0.attn_q.bias": np.ones(64, np.float32)}}),
    "rotary factors": ("rope_freqs.weight", {"extra": {"rope_freqs.weight": np.ones(8, np.float32)}}),
    "experts": ("ffn_gate_inp", {"extra": {"blk.0.ffn_gate_inp.weight": np.ones((64, 4), np.float32)}}),
}


@pytest.mark.parametrize("match, options", WRONG.values(), ids=WRONG.keys())
def test_models_that_are_not_ours(match: str, options: dict[str, Any], written: Writer) -> None:
    path = written(**options)
    with pytest.raises(CodegenError, match=match) as caught:
        ours(path)
    assert "\n" not in str(caught.value)


def test_metadata_is_read_as_the_gguf_package_does(written: Writer) -> None:
    values = {"a.bool": True, "a.float": 0.5, "a.floats": [1.5, -2.0], "a.bools": [True, False], "a.text": "é\n"}
    path = written(changes=values)
    theirs = {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}
    ours = Container(path).metadata
    assert ours == {name: value for name, value in theirs.items() if not name.startswith("GGUF.")}
    assert values.items() <= ours.items()


def test_what_needs_the_gguf_package(written: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    common, other = (gguf.GGMLQuantizationType[kind] for kind in ("Q4_1", "Q5_0"))
    path = written(quantization=common)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "gguf", None)
        read(path)
    path = written(quantization=other)
    read(path)
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert_refused(path, r"pip install 'codegen25\[gguf\]'", GGUF)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("a", ["x", "y"])
    writer.add_uint32("b", 7)
    writer.add_tensor("t", np.ones((2, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@given(st.data())
def test_any_damage_is_refused_or_reads(small: bytes, data: st.DataObject) -> None:
    """Never a crash, never another exception, and no memory for what is not there."""
    damaged = bytearray(small)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(small) - 1))] = data.draw(st.integers(0, 255))
    message = ""
    with TemporaryDirectory() as place:
        path = Path(place) / "x.gguf"
        path.write_bytes(damaged)
        try:
            list(Container(path).arrays())
        except CodegenError as error:
            message = str(error)
    assert "\n" not in message


def test_truncated_anywhere(written: Writer, tmp_path: Path) -> None:
    data = written().read_bytes()
    cut = tmp_path / "cut.gguf"
    places = [*range(0, 64, 5), *range(64, len(data), len(data) // 40), len(data) - 1]
    for place in places:
        cut.write_bytes(data[:place])
        assert_refused(cut, "download it again", GGUF)


@pytest.mark.parametrize("data", [b"", b"hello", b"GGUF", b"GGUF" + b"\xff" * 64, bytes(4096), b"PK\x03\x04" * 400])
def test_no_gguf_at_all(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    assert_refused(path, "not a GGUF file", GGUF)


def test_no_file(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none.gguf", "no such file")
    assert_refused(tmp_path, "no such file")


@pytest.mark.slow
def test_llama_cpp_agrees(written: Writer) -> None:
    """The next token and its log probabilities, of llama.cpp on the very file, behind prompts of many lengths."""
    xllamacpp = pytest.importorskip("xllamacpp")
    path, compared = written(), 0
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.warmup = 128, 1, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server, model = xllamacpp.Server(params), ours(path)
    for ids in (IDS_BT[b, :length] for b in range(2) for length in range(2, 40, 3)):
        ask = {"prompt": ids.tolist(), "n_predict": 1, "temperature": 0.0, "n_probs": 5, "ignore_eos": True}
        choice = server.handle_completions(ask)["choices"][0]
        if not choice["logprobs"]:  # nothing is told of a token that is half a character
            continue
        (step,) = choice["logprobs"]["content"]
        with torch.no_grad():
            logprobs_V = model(ids[None])[0, -1].log_softmax(-1)
        found = [float(logprobs_V[top["id"]]) for top in step["top_logprobs"]]
        assert found == pytest.approx([top["logprob"] for top in step["top_logprobs"]], abs=1e-2)
        compared += 1
    assert compared >= 8
