"""Write a LLaMA and its byte-level BPE as a GGUF file, the weights bit for bit: llama.cpp then runs what we run.

4-bit groups become Q4_0 and 8-bit groups Q8_0, integers and scales as they are (a group of 64 is two blocks with one
scale); matrices that are not quantized stay F16 or BF16, norms are F32. llama.cpp rotates neighbouring rows of a head
where Hugging Face folders rotate its two halves, so the rows of the query and key projections change places.

The format: GGUF version 3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). A tensor is in memory at a time.

Shapes: N outputs, K inputs, B blocks of 32 inputs.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from codegen25.config import ModelConfig
from codegen25.errors import CodegenError
from codegen25.model.folder import shapes
from codegen25.model.hf_tokenizer import tokenizer_json
from codegen25.tokenizer import DIGITS_PATTERN, GPT2_PATTERN, Tokenizer

Bytes = NDArray[np.uint8]

BLOCK = 32
ALIGNMENT = 32
# ggml's types by name: (number, weights in a block, bytes of a block, number of the file type where most are of it).
KINDS = {
    "F32": (0, 1, 4, 0),
    "F16": (1, 1, 2, 1),
    "BF16": (30, 1, 2, 32),
    "Q4_0": (2, 32, 18, 2),
    "Q8_0": (8, 32, 34, 7),
}
NORMAL, CONTROL, UNUSED = 1, 3, 5  # token types
_PRE_TOKENIZERS = {GPT2_PATTERN: "gpt-2", DIGITS_PATTERN: "smollm"}
_NAMES = {
    "embed_tokens.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@dataclass(frozen=True)
class GGUFTensor:
    """One tensor to write: `shape` [N, K] or [K], and `blocks` makes its bytes (any array of `nbytes` bytes)."""

    name: str
    kind: str
    shape: tuple[int, ...]
    blocks: Callable[[], NDArray[Any]]

    @property
    def nbytes(self) -> int:
        _, weights, size, _ = KINDS[self.kind]
        return int(np.prod(self.shape)) // weights * size


# ------------------------------------------------------------------------------------------------------------- the file


def write_gguf(path: Path, metadata: Mapping[str, Any], tensors: Sequence[GGUFTensor]) -> None:
    """Write `path`, aside and then renamed. Metadata: str, bool, int (uint32), float (fp32), lists of str or int.

    Raises `CodegenError` when the disk refuses.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                _write(file, metadata, tensors)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise CodegenError(
            f"{path}: cannot be written ({error.strerror}); free some space or name another file"
        ) from error


def _write(file: BinaryIO, metadata: Mapping[str, Any], tensors: Sequence[GGUFTensor]) -> None:
    file.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
    for key, value in metadata.items():
        file.write(_string(key) + _value(value))
    offset = 0
    for tensor in tensors:
        inputs_first = tensor.shape[::-1]
        file.write(_string(tensor.name) + struct.pack(f"<I{len(inputs_first)}Q", len(inputs_first), *inputs_first))
        file.write(struct.pack("<IQ", KINDS[tensor.kind][0], offset))
        offset += tensor.nbytes + -tensor.nbytes % ALIGNMENT
    for tensor in tensors:
        file.write(bytes(-file.tell() % ALIGNMENT))
        blocks = np.ascontiguousarray(tensor.blocks())
        assert blocks.nbytes == tensor.nbytes, f"{tensor.name}: {blocks.nbytes} bytes made, {tensor.nbytes} announced"
        file.write(blocks.data)
    file.write(bytes(-file.tell() % ALIGNMENT))


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    """A metadata value behind the number of its type."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    if value and isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_string, value))
    return struct.pack("<IIQ", 9, 5, len(value)) + np.asarray(value, dtype="<i4").tobytes()


# --------------------------------------------------------------------------------------------------- what a LLaMA needs


def model_metadata(
    config: ModelConfig, tokenizer: Tokenizer, kind: str, *, name: str, eos: int | None = None
) -> dict[str, Any]:
    """All that llama.cpp asks of a LLaMA and its tokenizer. `kind`: what most matrices are stored as.

    Raises `CodegenError` when llama.cpp knows no name for the tokenizer's pattern.
    """
    if tokenizer.pattern not in _PRE_TOKENIZERS:
        raise CodegenError(
            f"{name}: llama.cpp has no name for the pattern by which this tokenizer splits text; GPT-2's is needed"
        )
    tokens, types = _vocabulary(config, tokenizer)
    merges = tokenizer_json(tokenizer)["model"]["merges"]
    return {
        "general.architecture": "llama",
        "general.name": name,
        "general.file_type": KINDS[kind][3],
        "general.quantization_version": 2,
        "general.alignment": ALIGNMENT,
        "llama.vocab_size": config.vocab_size,
        "llama.context_length": config.max_positions,
        "llama.embedding_length": config.hidden_size,
        "llama.block_count": config.layers,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.heads,
        "llama.attention.head_count_kv": config.kv_heads,
        "llama.attention.key_length": config.head_dim,
        "llama.attention.value_length": config.head_dim,
        "llama.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "llama.rope.dimension_count": config.head_dim,
        "llama.rope.freq_base": config.rope_theta,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": _PRE_TOKENIZERS[tokenizer.pattern],
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [merge if isinstance(merge, str) else " ".join(merge) for merge in merges],
        "tokenizer.ggml.bos_token_id": tokenizer.eot,
        "tokenizer.ggml.eos_token_id": tokenizer.eot if eos is None else eos,
        "tokenizer.ggml.eom_token_id": tokenizer.eom,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
    }  # fmt: skip


def _vocabulary(config: ModelConfig, tokenizer: Tokenizer) -> tuple[list[str], list[int]]:
    """Tokens and their types in id order; a row of the embedding without a token gets a name that no text reaches."""
    spec = tokenizer_json(tokenizer)
    control = {token["content"]: token["id"] for token in spec["added_tokens"]}
    tokens = [f"[UNUSED_{id}]" for id in range(config.vocab_size)]
    types = [UNUSED] * config.vocab_size
    for token, id in (spec["model"]["vocab"] | control).items():
        tokens[id], types[id] = token, CONTROL if token in control else NORMAL
    return tokens, types


def tensor_names(config: ModelConfig) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name in `Llama`, name in GGUF, shape) of every tensor, in the order in which a token meets them."""
    for name, shape in shapes(config).items():
        if name in _NAMES:
            if name != "lm_head.weight" or not config.tied:
                yield name, _NAMES[name], shape
        else:
            _, layer, kind = name.removesuffix(".weight").split(".", 2)
            yield name, f"blk.{layer}.{_LAYER[kind]}.weight", shape


# --------------------------------------------------------------------------------------------------------------- blocks


def q8_blocks(q_NK: NDArray[np.int8], scale_NG: NDArray[np.float16]) -> Bytes:
    """Q8_0: a scale, then 32 integers. uint8 [N, B, 34]."""
    rows, columns = q_NK.shape
    blocks = np.empty((rows, columns // BLOCK, 2 + BLOCK), dtype=np.uint8)
    blocks[:, :, :2] = _scales(scale_NG, columns)
    blocks[:, :, 2:] = q_NK.view(np.uint8).reshape(rows, -1, BLOCK)
    return blocks


def q4_blocks(q_NP: Bytes, scale_NG: NDArray[np.float16]) -> Bytes:
    """Q4_0: a scale, then 16 bytes; byte j holds weight j below and weight j + 16 above, plus 8. uint8 [N, B, 18].

    Ours in groups of 32 are those very bytes; larger groups are dealt out again.
    """
    rows, columns = len(q_NP), 2 * q_NP.shape[1]
    blocks = np.empty((rows, columns // BLOCK, 2 + BLOCK // 2), dtype=np.uint8)
    blocks[:, :, :2] = _scales(scale_NG, columns)
    group = columns // scale_NG.shape[1]
    if group == BLOCK:
        blocks[:, :, 2:] = q_NP.reshape(rows, -1, BLOCK // 2)
        return blocks
    grouped = q_NP.reshape(rows, -1, group // 2)
    halves = np.concatenate([grouped & 15, grouped >> 4], axis=-1).reshape(rows, -1, 2, BLOCK // 2)
    blocks[:, :, 2:] = halves[:, :, 0] | halves[:, :, 1] << 4
    return blocks


def _scales(scale_NG: NDArray[np.float16], columns: int) -> Bytes:
    """Every group's scale for each of its blocks, as bytes [N, B, 2]."""
    repeated = np.repeat(scale_NG, columns // BLOCK // scale_NG.shape[1], axis=1)
    return np.ascontiguousarray(repeated, dtype="<f2").view(np.uint8).reshape(len(scale_NG), -1, 2)


def interleave_halves(rows: NDArray[Any], head_dim: int) -> NDArray[Any]:
    """Rows [heads · head_dim, …] with the halves of every head interleaved: row i of both, then row i + 1 of both."""
    order = np.arange(len(rows)).reshape(-1, 2, head_dim // 2).swapaxes(1, 2).reshape(-1)
    return rows[order]
