"""Read a LLaMA and its byte-level BPE out of a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).

Q8_0 and Q4_0 come as they are: their blocks are our groups of 32. What else is quantized is multiplied out.

llama.cpp stores the query and key projections with the two halves of every head interleaved; Hugging Face folders
keep the halves apart, and so the rows are put back here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from codegen25.config import ModelConfig
from codegen25.errors import CodegenError
from codegen25.model.folder import AGAIN, check_size, checked, stored_name
from codegen25.model.gguf_read import Container, Entry
from codegen25.model.gguf_write import BLOCK, CONTROL, NORMAL, UNUSED, tensor_names
from codegen25.model.hf_tokenizer import build_tokenizer_json
from codegen25.model.plan import Packing
from codegen25.model.weights import Plain, Quantized, Weight, same
from codegen25.tokenizer import Tokenizer, from_json

_Item = TypeVar("_Item")

# Types of which a block is a group of ours, and others that need no arithmetic.
PACKED = {"Q8_0": Packing(8, BLOCK), "Q4_0": Packing(4, BLOCK)}
PLAIN = {"F32": ("<f4", "float32"), "F16": ("<f2", "float16"), "BF16": ("<u2", "bfloat16")}
# llama.cpp's pre-tokenizers that are GPT-2's pattern, and whether every digit stands alone (llama-vocab.cpp).
PRE_TOKENIZERS = {"gpt-2": False, "smollm": True, "starcoder": True, "refact": True, "codeshell": True}


class GGUF:
    """An open file. Raises `CodegenError` when it is not a LLaMA's."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise CodegenError(f"{path}: no such file")
        self.path = path
        self._container = Container(path)
        if self.field("general.architecture") != "llama":
            raise CodegenError(f"{path}: holds a {self.field('general.architecture')!r} model; only llama can be read")
        self.config = self._config()
        check_size(self.config, [path], path)
        self._ours = {theirs: ours for ours, theirs, _ in tensor_names(self.config)}

    def field(self, key: str, default: Any = None) -> Any:
        """A metadata value. Raises `CodegenError` when the file has none and there is no default."""
        value = self._container.metadata.get(key, default)
        if value is None:
            raise CodegenError(f"{self.path}: has no {key}; it cannot be read as a LLaMA")
        return value

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
        names = {entry.name for entry in self._container.entries}
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

    @cached_property
    def _packings(self) -> dict[str, Packing]:
        return {
            self._ours[entry.name]: PACKED[entry.kind]
            for entry in self._container.entries
            if entry.kind in PACKED and len(entry.shape) == 2 and entry.name in self._ours
        }

    def weights(self) -> Iterator[tuple[str, Weight]]:
        return checked(self._stored, self.config, self.path, same)

    def tensors(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Every tensor by our name, multiplied out to fp32; read-only where the file has it so."""
        return ((name, weight.widened()) for name, weight in self.weights())

    def _stored(self) -> Iterator[tuple[str, Weight]]:
        for entry, rows in self._container.arrays():
            name = self._ours.get(entry.name)
            if name is None:
                raise CodegenError(f"{self.path}: the tensor {entry.name!r} has no place in a LLaMA without biases")
            weight = self._weight(entry, rows)
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                weight = _unpermuted(weight, self.config.head_dim)
            yield stored_name(name), weight
            del weight, rows

    def _weight(self, entry: Entry, rows: NDArray[np.uint8]) -> Weight:
        if entry.kind in PLAIN:
            numpy_dtype, dtype = PLAIN[entry.kind]
            return Plain(rows.view(numpy_dtype).reshape(entry.shape), dtype)
        if entry.kind in PACKED and len(entry.shape) == 2:
            blocks = rows.reshape(len(rows), entry.shape[1] // BLOCK, -1)
            scale = np.ascontiguousarray(blocks[..., :2]).view("<f2")[..., 0]
            q = blocks[..., 2:].reshape(len(rows), -1)
            return Quantized(q.view(np.int8) if entry.kind == "Q8_0" else q, scale, PACKED[entry.kind])
        if entry.kind == "Q4_1":
            return Plain(_q4_1(rows).reshape(entry.shape), "float32")
        return Plain(self._dequantized(entry, rows).reshape(entry.shape), "float32")

    def _dequantized(self, entry: Entry, rows: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            from gguf import GGMLQuantizationType
            from gguf.quants import dequantize

            found: NDArray[np.float32] = dequantize(rows, GGMLQuantizationType(entry.number))
        except (ImportError, NotImplementedError) as error:
            raise CodegenError(
                f"{self.path}: tensor {entry.name} is {entry.kind} ({error}); "
                "`pip install 'codegen25[gguf]'`, or convert the model to Q8_0"
            ) from error
        return found


def _q4_1(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Blocks of a scale, a minimum, and 16 bytes laid out as in Q4_0: fp32 [N, K]."""
    blocks = rows.reshape(len(rows), -1, 4 + BLOCK // 2)
    scale, least = np.ascontiguousarray(blocks[..., :4]).view("<f2").astype(np.float32).transpose(2, 0, 1)[..., None]
    packed = blocks[..., 4:]
    integers = np.concatenate([packed & 15, packed >> 4], axis=-1).astype(np.float32)
    out: NDArray[np.float32] = (integers * scale + least).reshape(len(rows), -1)
    return out


def _unpermuted(weight: Weight, head_dim: int) -> Weight:
    if isinstance(weight, Plain):
        return Plain(_unpermute(weight.values, head_dim), weight.dtype)
    return Quantized(_unpermute(weight.q, head_dim), _unpermute(weight.scale, head_dim), weight.packing)


def _unpermute(rows: NDArray[Any], head_dim: int) -> NDArray[Any]:
    """[heads·K, D] with row 2i, 2i+1 of a head for the pair i → first all first halves, then all second ones."""
    if len(rows) % head_dim:
        return rows  # of a wrong shape, which is found later
    return rows.reshape(-1, head_dim // 2, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)
