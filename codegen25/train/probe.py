"""What the machine can do, and how much of it a run uses: the peak of its matrix products, and FLOPs per token."""

from __future__ import annotations

import time

import torch

from codegen25.config import ModelConfig

# Of the square matrices that the peak is measured with, and for how many seconds.
SIDE, SECONDS = 2048, 0.6


def native_dtype(device: torch.device) -> str:
    """`bfloat16` where the device multiplies it faster than fp32: AVX512-BF16 and AMX on a CPU, and GPUs."""
    if device.type != "cpu":
        return "bfloat16"
    has = torch.cpu.get_capabilities()
    return "bfloat16" if has.get("avx512_bf16") or has.get("amx_bf16") else "float32"


@torch.no_grad()
def gemm_peak(
    dtype: torch.dtype = torch.bfloat16, device: str | torch.device = "cpu", seconds: float = SECONDS
) -> float:
    """FLOP/s of the best of some products of large square matrices, as many as fit into `seconds`."""
    device = torch.device(device)
    side = SIDE if device.type == "cpu" else 4 * SIDE
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = a @ b
    best = float("inf")
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or best == float("inf"):
        _synchronize(device)
        began = time.perf_counter()
        torch.mm(a, b, out=out)
        _synchronize(device)
        best = min(best, time.perf_counter() - began)
    return float(2 * side**3 / best)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def training_flops(config: ModelConfig, tokens: int, learned: int, pairs: int) -> float:
    """FLOPs of a step, forward and backward, that its result needs: what is done twice or for padding does not count.

    Two a weight and token forward and four backward (Kaplan et al., 2020); the head only for the `learned` tokens; of
    attention the products with keys and values of the `pairs` (token, token it may see).
    """
    per_layer = config.hidden_size * config.head_dim * (2 * config.heads + 2 * config.kv_heads)
    per_layer += 3 * config.hidden_size * config.intermediate_size
    matrices = 6.0 * config.layers * per_layer * tokens
    head = 6.0 * config.vocab_size * config.hidden_size * learned
    attention = 12.0 * config.layers * config.heads * config.head_dim * pairs
    return matrices + head + attention
