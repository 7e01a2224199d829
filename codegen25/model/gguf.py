"""Read a LLaMA and its byte-level BPE out of a GGUF file, as Hugging Face tensors and a `tokenizer.json`.

llama.cpp stores the query and key projections with the two halves of every head interleaved; Hugging Face folders
keep the halves apart, and so the rows are put back here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codegen25.config import ModelConfig
from codegen25.errors import CodegenError

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


class GGUF:
    """An open file. Raises `CodegenError` when it is not a LLaMA's, or when the `gguf` package is missing."""

    def __init__(self, path: Path) -> None:
        try:
            import gguf
        except ImportError as error:
            raise CodegenError(
                f"{path}: reading GGUF needs the gguf package; `pip install codegen25[torch]`"
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

    def field(self, key: str, default: Any = None) -> Any:
        """A metadata value. Raises `CodegenError` when the file has none and there is no default."""
        field = self._reader.get_field(key)
        if field is None:
            if default is not None:
                return default
            raise CodegenError(f"{self.path}: has no {key}; it cannot be read as a LLaMA")
        return field.contents()

    def config(self) -> ModelConfig:
        """The shape. What the format lets a file leave out is as llama.cpp takes it then."""
        names = {tensor.name for tensor in self._reader.tensors}
        heads, hidden = self.field("llama.attention.head_count"), self.field("llama.embedding_length")
        head_dim = self.field("llama.attention.key_length", hidden // heads)
        if self.field("llama.rope.dimension_count", head_dim) != head_dim:
            raise CodegenError(f"{self.path}: rotates a part of every head only; such a LLaMA is not supported")
        if (scaling := self.field("llama.rope.scaling.type", "none")) != "none":
            raise CodegenError(f"{self.path}: rotary scaling {scaling!r} is not supported; use a model without")
        return ModelConfig(
            vocab_size=len(self.field("tokenizer.ggml.tokens")),
            hidden_size=hidden,
            intermediate_size=self.field("llama.feed_forward_length"),
            layers=self.field("llama.block_count"),
            heads=heads,
            kv_heads=self.field("llama.attention.head_count_kv", heads),
            head_dim=head_dim,
            max_positions=self.field("llama.context_length"),
            rope_theta=float(self.field("llama.rope.freq_base", 10000.0)),
            rms_norm_eps=float(np.float32(self.field("llama.attention.layer_norm_rms_epsilon"))),
            tied="output.weight" not in names,
        )

    def tokens(self) -> list[str]:
        """The vocabulary in id order, in the byte-level alphabet."""
        return list(self.field("tokenizer.ggml.tokens"))

    def control(self) -> dict[str, int]:
        """The control tokens (GGUF token type 3) by name."""
        types = self.field("tokenizer.ggml.token_type")
        return {token: id for id, (token, kind) in enumerate(zip(self.tokens(), types, strict=True)) if kind == 3}

    def merges(self) -> list[tuple[str, str]]:
        pairs = (merge.split(" ") for merge in self.field("tokenizer.ggml.merges"))
        return [(left, right) for left, right in pairs]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor by our name, fp32. Raises `CodegenError` at one that a LLaMA without biases has not."""
        head_dim = self.config().head_dim
        for tensor in self._reader.tensors:
            name, kind = _NAMES.get(tensor.name), ""
            if name is None:
                match = _LAYER_TENSOR.fullmatch(tensor.name)
                if not match or match[2] not in _LAYER_NAMES:
                    raise CodegenError(f"{self.path}: the tensor {tensor.name} has no place in a LLaMA without biases")
                kind = match[2]
                name = f"layers.{match[1]}.{_LAYER_NAMES[kind]}.weight"
            try:
                array: NDArray[np.float32] = self._dequantize(tensor.data, tensor.tensor_type)
            except NotImplementedError as error:
                raise CodegenError(f"{self.path}: {error}; convert the model to Q8_0 or F16 first") from error
            if kind in ("attn_q", "attn_k"):
                array = _unpermute(array, head_dim)
            yield name, torch.from_numpy(np.array(array, dtype=np.float32))


def _unpermute(rows: NDArray[np.float32], head_dim: int) -> NDArray[np.float32]:
    """[heads·K, D] with row 2i, 2i+1 of a head for the pair i → first all first halves, then all second ones."""
    heads = rows.shape[0] // head_dim
    return rows.reshape(heads, head_dim // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)
