"""Read a LLaMA and its byte-level BPE out of a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).

Q8_0 and Q4_0 come as they are: their blocks are our groups of 32. What else is quantized is multiplied out.

llama.cpp stores the query and key projections with the two halves of every head interleaved; Hugging Face folders
keep the halves apart, and so the rows are put back here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from codegen25.config import ModelConfig
from codegen25.errors import CodegenError
from codegen25.model.folder import AGAIN, check_size, checked, stored_name
from codegen25.model.hf_tokenizer import build_tokenizer_json
from codegen25.model.plan import Packing
from codegen25.model.weights import Plain, Quantized, Weight, same
from codegen25.tokenizer import Tokenizer, from_json

_Item = TypeVar("_Item")

_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NAMES = {
    "token_embd.weight": "embed_tokens.weight",
    "output_norm.weight": "norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER_TENSOR = re.compile(r"blk\.(\d+)\.(\w+)\.weight")

# Types of which a block is a group of ours; others that need no arithmetic; types of tokens.
PACKED = {"Q8_0": Packing(8, 32), "Q4_0": Packing(4, 32)}
PLAIN = {"F32": ("<f4", "float32"), "F16": ("<f2", "float16"), "BF16": ("<u2", "bfloat16")}
NORMAL, CONTROL, UNUSED = 1, 3, 5
# llama.cpp's pre-tokenizers that are GPT-2's pattern, and whether every digit stands alone (llama-vocab.cpp).
PRE_TOKENIZERS = {"gpt-2": False, "smollm": True, "starcoder": True, "refact": True, "codeshell": True}


class GGUF:
    """An open file. Raises `CodegenError` when it is not a LLaMA's, or when the `gguf` package is missing."""

    def __init__(self, path: Path) -> None:
        try:
            import gguf
        except ImportError as error:
            raise CodegenError(
                f"{path}: reading GGUF needs the gguf package; `pip install 'codegen25[gguf]'`"
            ) from error
        if not path.is_file():
            raise CodegenError(f"{path}: no such file")
        self.path = path
        try:
            self._reader = gguf.GGUFReader(path)
        except (ValueError, OSError, IndexError, KeyError, OverflowError) as error:
            raise CodegenError(f"{path}: not a GGUF file, or a truncated one ({error}); download it again") from error
        self._dequantize = gguf.quants.dequantize
        if self.field("general.architecture") != "llama":
            raise CodegenError(f"{path}: holds a {self.field('general.architecture')!r} model; only llama can be read")
        self.config = self._config()
        check_size(self.config, [path], path)
        named = ((_our_name(tensor.name), tensor) for tensor in self._reader.tensors)
        self._packings = {
            name: PACKED[tensor.tensor_type.name]
            for name, tensor in named
            if name and tensor.tensor_type.name in PACKED and tensor.data.ndim == 2
        }

    def field(self, key: str, default: Any = None) -> Any:
        """A metadata value. Raises `CodegenError` when the file has none and there is no default."""
        field = self._reader.get_field(key)
        if field is None:
            if default is not None:
                return default
            raise CodegenError(f"{self.path}: has no {key}; it cannot be read as a LLaMA")
        return field.contents()

    def _number(self, key: str, default: float | None = None) -> float:
        value = self.field(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise CodegenError(f"{self.path}: {key} is {value!r}, a positive number is needed; {AGAIN}")
        return value

    def _count(self, key: str, default: int | None = None) -> int:
        return int(self._number(key, default))

    def _list(self, key: str, kind: type[_Item]) -> list[_Item]:
        values = self.field(key)
        if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
            raise CodegenError(f"{self.path}: {key} is no list of {kind.__name__}; {AGAIN}")
        return values

    def _config(self) -> ModelConfig:
        """The shape. What the format lets a file leave out is as llama.cpp takes it then."""
        names = {tensor.name for tensor in self._reader.tensors}
        heads, hidden = self._count("llama.attention.head_count"), self._count("llama.embedding_length")
        head_dim = self._count("llama.attention.key_length", hidden // heads)
        if self.field("llama.rope.dimension_count", head_dim) != head_dim:
            raise CodegenError(f"{self.path}: rotates a part of every head only; such a LLaMA is not supported")
        if (scaling := self.field("llama.rope.scaling.type", "none")) != "none":
            raise CodegenError(f"{self.path}: rotary scaling {scaling!r} is not supported; use a model without")
        return ModelConfig(
            vocab_size=len(self.tokens()),
            hidden_size=hidden,
            intermediate_size=self._count("llama.feed_forward_length"),
            layers=self._count("llama.block_count"),
            heads=heads,
            kv_heads=self._count("llama.attention.head_count_kv", heads),
            head_dim=head_dim,
            max_positions=self._count("llama.context_length"),
            rope_theta=self._number("llama.rope.freq_base", 10000.0),
            rms_norm_eps=float(np.float32(self._number("llama.attention.layer_norm_rms_epsilon"))),
            tied="output.weight" not in names,
        )

    def tokens(self) -> list[str]:
        """The vocabulary in id order, in the byte-level alphabet."""
        return list(self._tokens)

    @cached_property
    def _tokens(self) -> list[str]:
        return self._list("tokenizer.ggml.tokens", str)

    def _token_types(self) -> list[int]:
        types = list(self._list("tokenizer.ggml.token_type", int))
        if len(types) != len(self._tokens):
            raise CodegenError(f"{self.path}: has {len(self._tokens)} tokens and {len(types)} types of tokens; {AGAIN}")
        return types

    def control(self) -> dict[str, int]:
        """The control tokens by name."""
        pairs = enumerate(zip(self._tokens, self._token_types(), strict=True))
        return {token: id for id, (token, kind) in pairs if kind == CONTROL}

    def merges(self) -> list[tuple[str, str]]:
        pairs = [merge.partition(" ") for merge in self._list("tokenizer.ggml.merges", str)]
        return [(left, right) for left, _, right in pairs]

    def tokenizer(self) -> Tokenizer:
        """The file's byte-level BPE. Raises `CodegenError` when it is another kind, or not exactly one of ours."""
        kind, pre = self.field("tokenizer.ggml.model"), self.field("tokenizer.ggml.pre", "none")
        if kind != "gpt2" or pre not in PRE_TOKENIZERS:
            known = ", ".join(PRE_TOKENIZERS)
            raise CodegenError(
                f"{self.path}: its tokenizer is {kind!r} with the pre-tokenizer {pre!r}; "
                f"only byte-level BPE (gpt2) with one of {known} can be read"
            )
        tokens, types = self.tokens(), self._token_types()
        while types and types[-1] == UNUSED:  # rows that pad the embedding
            del tokens[-1], types[-1]
        if others := [id for id, kind in enumerate(types) if kind not in (NORMAL, CONTROL)]:
            raise CodegenError(
                f"{self.path}: token {tokens[others[0]]!r} is of type {types[others[0]]}, "
                "neither text nor control; its tokenizer cannot be reproduced"
            )
        try:
            spec = build_tokenizer_json(tokens, self.merges(), self.control(), digits=PRE_TOKENIZERS[pre])
        except CodegenError as error:
            raise CodegenError(f"{self.path}: {error}") from error
        return from_json(json.dumps(spec), spec, self.path)

    def packing(self, name: str) -> Packing | None:
        return self._packings.get(name)

    def weights(self) -> Iterator[tuple[str, Weight]]:
        return checked(self._stored, self.config, self.path, same)

    def tensors(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Every tensor by our name, multiplied out to fp32; read-only where the file has it so."""
        return ((name, weight.widened()) for name, weight in self.weights())

    def _stored(self) -> Iterator[tuple[str, Weight]]:
        for tensor in self._reader.tensors:
            name = _our_name(tensor.name)
            if name is None:
                raise CodegenError(f"{self.path}: the tensor {tensor.name} has no place in a LLaMA without biases")
            weight = self._weight(tensor)
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                weight = _unpermuted(weight, self.config.head_dim)
            yield stored_name(name), weight
            del weight

    def _weight(self, tensor: Any) -> Weight:
        kind: str = tensor.tensor_type.name
        data: NDArray[Any] = tensor.data
        if kind in PLAIN:
            numpy_dtype, dtype = PLAIN[kind]
            return Plain(data.view(numpy_dtype), dtype)
        if kind in PACKED and data.ndim == 2:
            blocks = data.reshape(len(data), -1, 2 + PACKED[kind].bits * 4)
            scale = np.ascontiguousarray(blocks[..., :2]).view("<f2")[..., 0]
            q = blocks[..., 2:].reshape(len(data), -1)
            return Quantized(q.view(np.int8) if kind == "Q8_0" else q, scale, PACKED[kind])
        try:
            return Plain(self._dequantize(data, tensor.tensor_type), "float32")
        except NotImplementedError as error:
            raise CodegenError(f"{self.path}: {error}; convert the model to Q8_0 or F16 first") from error


def _our_name(theirs: str) -> str | None:
    """The name of a tensor in `Llama`; None when there is no such."""
    if theirs in _NAMES:
        return _NAMES[theirs]
    match = _LAYER_TENSOR.fullmatch(theirs)
    return f"layers.{match[1]}.{_LAYER_NAMES[match[2]]}.weight" if match and match[2] in _LAYER_NAMES else None


def _unpermuted(weight: Weight, head_dim: int) -> Weight:
    if isinstance(weight, Plain):
        return Plain(_unpermute(weight.values, head_dim), weight.dtype)
    return Quantized(_unpermute(weight.q, head_dim), _unpermute(weight.scale, head_dim), weight.packing)


def _unpermute(rows: NDArray[Any], head_dim: int) -> NDArray[Any]:
    """[heads·K, D] with row 2i, 2i+1 of a head for the pair i → first all first halves, then all second ones."""
    if len(rows) % head_dim:
        return rows  # of a wrong shape, which is found later
    return rows.reshape(-1, head_dim // 2, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)
