"""LoRA (Hu et al., 2021): a low-rank sum beside frozen matrices, and the files by which PEFT knows it.

A matrix W of an adapted layer acts as W + (alpha / rank) B A, of which A [rank, in] and B [out, rank] are trained; B
begins as zeros, so the model begins as it was. Format: PEFT's checkpoint, `adapter_config.json` and
`adapter_model.safetensors` (https://huggingface.co/docs/peft/developer_guides/checkpoint).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from codegen25.errors import CodegenError, UsageError
from codegen25.model.checkpoint import write_json, write_safetensors
from codegen25.model.llama import Llama

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ATTENTION, FEED_FORWARD = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
# What PEFT puts before the names of a Hugging Face LLaMA.
_PREFIX = "base_model.model.model."
# Variants that act otherwise than W + s B A: what their setting is in an adapter without them.
_WITHOUT = {"use_dora": False, "use_rslora": False, "bias": "none", "fan_in_fan_out": False, "lora_bias": False,
            "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None, "layers_to_transform": None}  # fmt: skip


@dataclass(frozen=True)
class Lora:
    """How large the sums are, how they are scaled, and which layers of a block have one."""

    rank: int = 16
    alpha: float = 32.0
    layers: tuple[str, ...] = ATTENTION + FEED_FORWARD

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UsageError(f"a rank of {self.rank}: must be 1 or more")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise UsageError(f"an alpha of {self.alpha}: must be positive")
        if unknown := [name for name in self.layers if name not in ATTENTION + FEED_FORWARD]:
            raise UsageError(f"{unknown[0]}: no layer of a block; choose from {', '.join(ATTENTION + FEED_FORWARD)}")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


class AdaptedLinear(nn.Module):
    """A frozen layer with its sum. A is drawn as PEFT draws it: uniform, by He et al. (2015) with a = sqrt(5)."""

    def __init__(self, base: nn.Linear, lora: Lora, generator: torch.Generator) -> None:
        super().__init__()
        self.base, self.scale = base, lora.scale
        like = base.weight
        bound = 1 / math.sqrt(base.in_features)
        first = torch.empty(lora.rank, base.in_features).uniform_(-bound, bound, generator=generator)
        self.a = nn.Parameter(first.to(like))
        self.b = nn.Parameter(torch.zeros(base.out_features, lora.rank, dtype=like.dtype, device=like.device))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.base.weight) + F.linear(F.linear(x, self.a), self.b) * self.scale

    @torch.no_grad()
    def merged(self) -> Tensor:
        """The one matrix that does the same, summed in fp32 and rounded to the dtype of the frozen one."""
        product = self.b.float() @ self.a.float()
        return (self.base.weight.float() + self.scale * product).to(self.base.weight.dtype)


def adapt(model: Llama, lora: Lora, seed: int = 0) -> None:
    """Freeze `model` and put a sum beside each of the named layers: what asks for gradients then are the sums."""
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    for block in model.layers:
        for owner in (block.self_attn, block.mlp):
            for name in lora.layers:
                if isinstance(layer := getattr(owner, name, None), nn.Linear):
                    setattr(owner, name, AdaptedLinear(layer, lora, generator))


def adapted(model: Llama) -> dict[str, AdaptedLinear]:
    """The adapted layers by their names in the model, such as `layers.0.self_attn.q_proj`."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, AdaptedLinear)}


def merged_weights(model: Llama) -> Iterator[tuple[str, Tensor]]:
    """The weights of the plain model that does what `model` with its sums does, under the names of `Llama`."""
    layers = adapted(model)
    for name, parameter in model.named_parameters():
        owner, _, leaf = name.rpartition(".")
        if owner.endswith(".base"):
            yield f"{owner.removesuffix('.base')}.{leaf}", layers[owner.removesuffix(".base")].merged()
        elif owner not in layers:
            yield name, parameter.detach()


def write_adapter(model: Llama, lora: Lora, folder: Path, base: str) -> None:
    """Write the sums into `folder`, which is there; `base` is the model that they belong to. Raises OSError."""
    named = {}
    for name, layer in adapted(model).items():
        for side, tensor in (("A", layer.a), ("B", layer.b)):
            named[f"{_PREFIX}{name}.lora_{side}.weight"] = tensor.detach().float().cpu().contiguous()
    write_safetensors(named, folder / WEIGHTS)
    write_json(
        folder / CONFIG,
        {
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": lora.rank,
            "lora_alpha": lora.alpha, "lora_dropout": 0.0, "target_modules": list(lora.layers),
            "inference_mode": True, "init_lora_weights": True, **_WITHOUT,
        },
    )  # fmt: skip


def read_adapter(folder: Path) -> tuple[Lora, dict[str, Tensor]]:
    """An adapter's settings, and its tensors by names such as `layers.0.self_attn.q_proj.a`.

    Raises `CodegenError` when `folder` holds none, or one of a kind that is no plain sum.
    """
    path = folder / CONFIG
    try:
        said: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8")))
        tensors = load_file(folder / WEIGHTS)
        if said.get("peft_type") != "LORA":
            raise CodegenError(f"{path}: an adapter of the kind {said.get('peft_type')!r}; only LORA can be read")
        lora = Lora(int(said["r"]), float(said["lora_alpha"]), tuple(sorted(said["target_modules"])))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CodegenError(
            f"{folder}: no sound adapter ({error}); name a folder with {CONFIG} and {WEIGHTS}"
        ) from error
    for name, plain in _WITHOUT.items():
        if said.get(name, plain) not in (plain, None):
            raise CodegenError(f"{path}: {name} is {said[name]!r}, which is not supported; merge it with PEFT")
    named = {}
    for name, tensor in tensors.items():
        layer, _, side = name.removeprefix(_PREFIX).removesuffix(".weight").rpartition(".lora_")
        if not (name.startswith(_PREFIX) and name.endswith(".weight") and side in ("A", "B")):
            raise CodegenError(f"{folder / WEIGHTS}: {name} is no part of a LoRA of a LLaMA; export the adapter again")
        named[f"{layer}.{side.lower()}"] = tensor
    return lora, named


def load_adapter(model: Llama, folder: Path) -> Lora:
    """Adapt `model` as `folder` says, its sums in the model's dtype. Raises `CodegenError` when they do not fit it."""
    lora, named = read_adapter(folder)
    adapt(model, lora)
    layers = adapted(model)
    expected = {f"{name}.{side}": getattr(layer, side) for name, layer in layers.items() for side in ("a", "b")}
    if set(named) != set(expected):
        odd = sorted(set(named) ^ set(expected))[0]
        raise CodegenError(f"{folder}: does not fit the model: {odd} is only in one of them; name its base model")
    for name, parameter in expected.items():
        if named[name].shape != parameter.shape:
            shapes = f"{list(named[name].shape)}, and must be {list(parameter.shape)}"
            raise CodegenError(f"{folder}: does not fit the model: {name} is {shapes}; name its base model")
        with torch.no_grad():
            parameter.copy_(named[name])
    return lora
