"""A small LLaMA twice: in the native kernel, and in PyTorch with the weights that the kernel holds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codegen25 import _native
from codegen25.config import ModelConfig
from codegen25.model.llama import Llama

MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def matrix(weight: Tensor, bits: int) -> _native.Matrix:
    return _native.Matrix.quantized(weight.detach().numpy(), bits, "float32")


def twins(
    config: ModelConfig,
    *,
    bits: int = 8,
    seed: int = 0,
    isa: str = "",
    threads: int = 1,
    layers: int | None = None,
    cache_limit: int = 0,
) -> tuple[_native.Engine, Llama]:
    """The engine (of the first `layers`), and the model in fp32 whose matrices are the engine's, multiplied out."""
    model = Llama(config)
    model.init_weights(torch.Generator().manual_seed(seed), std=0.15)
    made: dict[str, _native.Matrix] = {}
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            made[name] = matrix(parameter, bits)
            parameter.data = torch.from_numpy(made[name].dequantized())
        else:
            parameter.data += 0.1 * torch.randn(len(parameter), generator=torch.Generator().manual_seed(seed))
    if layers is not None:
        model.layers = model.layers[:layers]
    rows = []
    for n, block in enumerate(model.layers):
        weights = [
            made[f"layers.{n}.{'mlp' if name in MATRICES[4:] else 'self_attn'}.{name}.weight"] for name in MATRICES
        ]
        assert isinstance(block.input_layernorm, nn.Module) and isinstance(block.post_attention_layernorm, nn.Module)
        norms = [
            norm.weight.detach().numpy()  # type: ignore[operator]
            for norm in (block.input_layernorm, block.post_attention_layernorm)
        ]
        rows.append((norms[0], *weights[:4], norms[1], *weights[4:]))
    engine = _native.Engine(
        hidden=config.hidden_size, intermediate=config.intermediate_size, heads=config.heads,
        kv_heads=config.kv_heads, head_dim=config.head_dim, max_positions=config.max_positions,
        rope_theta=config.rope_theta, eps=config.rms_norm_eps, embedding=made["embed_tokens.weight"],
        head=made.get("lm_head.weight"), layers=rows, norm=model.norm.weight.detach().numpy(),
        threads=threads, isa=isa, cache_limit=cache_limit,
    )  # fmt: skip
    return engine, model


def rounded(x: Tensor) -> Tensor:
    """Activations as the kernel sees them: 8 bits in groups of 64."""
    columns = x.shape[-1]
    padded = F.pad(x, (0, -columns % 64))
    groups = padded.view(*x.shape[:-1], -1, 64)
    scale = groups.abs().amax(-1, keepdim=True) / 127
    whole = torch.where(scale > 0, groups / scale, 0.0).round()
    return (whole * scale).view_as(padded)[..., :columns]


def round_activations(model: Llama) -> None:
    """From here on every matrix of `model` sees what it would see in the kernel."""
    for module in model.layers.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),))
    model.norm.register_forward_hook(lambda _, inputs, output: rounded(output))  # what the head multiplies


def bf16_cache(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention to keys and values that were kept in bf16."""
    k, v = k.bfloat16().float(), v.bfloat16().float()
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
