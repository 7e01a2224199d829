"""Model shapes as a plain table, and the Hugging Face `config.json` they are read from and written to.

A `ModelConfig` says everything that determines the tensors and the arithmetic of a LLaMA; what the tokenizer
determines (ids of `<|endoftext|>`, `<eom>`, …) is looked up by name in the tokenizer and never stored here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from codegen25.errors import CodegenError


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a LLaMA (Touvron et al., 2023), with grouped-query attention where `kv_heads < heads`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    max_positions: int
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    tied: bool = False

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "max_positions"):
            if getattr(self, name) <= 0:
                raise CodegenError(f"model config: {name} is {getattr(self, name)}, it must be positive")
        if self.heads % self.kv_heads:
            raise CodegenError(f"model config: {self.heads} heads do not divide into {self.kv_heads} kv heads")
        if self.head_dim <= 0 or self.head_dim % 2:
            raise CodegenError(
                f"model config: head_dim is {self.head_dim}, rotary embedding needs a positive even number"
            )

    @property
    def parameters(self) -> int:
        """How many numbers the model holds; a tied head counts once."""
        attention = self.hidden_size * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        per_layer = attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tied else 2)
        return embeddings + self.layers * per_layer + self.hidden_size

    def with_vocab(self, vocab_size: int) -> ModelConfig:
        return replace(self, vocab_size=vocab_size)

    def to_hf(self) -> dict[str, Any]:
        """The keys of a Hugging Face LLaMA `config.json` that this shape determines."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_positions,
            "rope_theta": self.rope_theta,
            "rms_norm_eps": self.rms_norm_eps,
            "tie_word_embeddings": self.tied,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
        }


def _number(hf: Mapping[str, Any], key: str, origin: str, default: float | None = None) -> float:
    value = hf.get(key)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CodegenError(f"{origin}: {key} is {value!r}, a number is needed; is this the config of a LLaMA?")
    return value


def _rope_theta(hf: Mapping[str, Any], origin: str) -> float:
    """`rope_theta` at the top level (transformers 4) or inside `rope_parameters` (transformers 5)."""
    rope = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise CodegenError(f"{origin}: the rotary settings are {rope!r}, an object is needed; export the folder again")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise CodegenError(f"{origin}: rotary scaling {kind!r} is not supported; use a model without rope_scaling")
    return _number({**rope, **hf} if hf.get("rope_theta") is not None else rope, "rope_theta", origin, 10000.0)


def from_hf(hf: Mapping[str, Any], origin: str = "config.json") -> ModelConfig:
    """The shape in a Hugging Face LLaMA config. Raises `CodegenError` for another architecture or missing keys."""
    if hf.get("model_type") != "llama":
        raise CodegenError(f"{origin}: model_type is {hf.get('model_type')!r}; only 'llama' models can be loaded")
    if hf.get("attention_bias") or hf.get("mlp_bias"):
        raise CodegenError(f"{origin}: a LLaMA with biases is not supported")
    if hf.get("hidden_act", "silu") != "silu":
        raise CodegenError(f"{origin}: hidden_act is {hf['hidden_act']!r}; only 'silu' is supported")
    heads, hidden = int(_number(hf, "num_attention_heads", origin)), int(_number(hf, "hidden_size", origin))
    if heads <= 0:
        raise CodegenError(f"{origin}: num_attention_heads is {heads}, it must be positive")
    return ModelConfig(
        vocab_size=int(_number(hf, "vocab_size", origin)),
        hidden_size=hidden,
        intermediate_size=int(_number(hf, "intermediate_size", origin)),
        layers=int(_number(hf, "num_hidden_layers", origin)),
        heads=heads,
        kv_heads=int(_number(hf, "num_key_value_heads", origin, heads)),
        head_dim=int(_number(hf, "head_dim", origin, hidden // heads)),
        max_positions=int(_number(hf, "max_position_embeddings", origin, 2048)),
        rope_theta=_rope_theta(hf, origin),
        rms_norm_eps=_number(hf, "rms_norm_eps", origin, 1e-6),
        tied=bool(hf.get("tie_word_embeddings", False)),
    )


def read_config(folder: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """The shape in `folder/config.json`, and the whole file. Raises `CodegenError` when it is no LLaMA's config."""
    path = folder / "config.json"
    if not folder.is_dir():
        raise CodegenError(f"{folder}: no such folder; name a model folder or a built-in model such as nano")
    if not path.is_file():
        raise CodegenError(f"{folder}: no config.json, so this is no model folder; name a Hugging Face model folder")
    try:
        hf = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise CodegenError(f"{path}: not valid JSON ({error}); copy or export the folder again") from error
    if not isinstance(hf, dict):
        raise CodegenError(f"{path}: not a JSON object; copy or export the folder again")
    return from_hf(hf, str(path)), hf


# Our own sizes, and the publisher's. `nano` continues SmolLM2-135M and keeps its vocabulary.
SHAPES: dict[str, ModelConfig] = {
    "pico": ModelConfig(49216, 256, 768, 8, 4, 2, 64, 2048, tied=True),
    "nano": ModelConfig(49216, 576, 1536, 30, 9, 3, 64, 8192, 100000.0, 1e-5, tied=True),
    "350m": ModelConfig(51200, 1024, 2816, 24, 16, 8, 64, 2048, tied=True),
    "1b": ModelConfig(51200, 2048, 5632, 22, 32, 4, 64, 2048),
    "3b": ModelConfig(51200, 2560, 6912, 32, 32, 8, 80, 2048),
    "7b": ModelConfig(51200, 4096, 11008, 32, 32, 32, 128, 2048),
}
