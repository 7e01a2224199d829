"""LLaMA in PyTorch: the reference for every faster path, and the model that is trained.

What a query may see is not decided here: attention calls `attend(layer, q, k, v)`, and the caller chooses
`causal` (one document a row), `Packed` (several documents a row, which cannot see each other) or a cache
(`engine/torch.py`). So there is one model, and no flag in it.

Shapes: B rows, T tokens, S keys, D hidden, H heads, G key/value heads, K head size, F feed-forward, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codegen25.config import ModelConfig

# attend(layer, q_BHTK, k_BGTK, v_BGTK) -> o_BHTK
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


def causal(layer: int, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
    """Every token sees itself and what is before it in its row."""
    return F.scaled_dot_product_attention(q_BHTK, k_BGTK, v_BGTK, is_causal=True, enable_gqa=True)


class Packed:
    """Several documents in a row, each seeing itself alone: `document_BT` numbers the document of every token."""

    def __init__(self, document_BT: Tensor) -> None:
        same_BTS = document_BT[:, :, None] == document_BT[:, None, :]
        T = document_BT.shape[1]
        before_TS = torch.ones(T, T, dtype=torch.bool, device=document_BT.device).tril()
        self.mask_B1TS = (same_BTS & before_TS)[:, None]

    def __call__(self, layer: int, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q_BHTK, k_BGTK, v_BGTK, attn_mask=self.mask_B1TS, enable_gqa=True)


def rotary(positions_BT: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin, each [B, 1, T, K] in fp32 (RoPE, Su et al., 2021), for halves rotated against each other."""
    frequency = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions_BT.device) / head_dim)
    angle_BTK = torch.cat([positions_BT[..., None].float() * frequency] * 2, dim=-1)
    return angle_BTK.cos()[:, None], angle_BTK.sin()[:, None]


def rotate(x_BHTK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + K/2) of a head by its position's angle."""
    x1, x2 = x_BHTK.chunk(2, dim=-1)
    return (x_BHTK * cos + torch.cat([-x2, x1], dim=-1) * sin).to(x_BHTK.dtype)


class Attention(nn.Module):
    def __init__(self, c: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, c.head_dim
        self.q_proj = nn.Linear(c.hidden_size, c.heads * c.head_dim, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, c.kv_heads * c.head_dim, bias=False)
        self.v_proj = nn.Linear(c.hidden_size, c.kv_heads * c.head_dim, bias=False)
        self.o_proj = nn.Linear(c.heads * c.head_dim, c.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor, rope: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        B, T, _ = x_BTD.shape
        q, k, v = (
            proj(x_BTD).view(B, T, -1, self.head_dim).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        o_BHTK = attend(self.layer, rotate(q, *rope), rotate(k, *rope), v)
        out: Tensor = self.o_proj(o_BHTK.transpose(1, 2).reshape(B, T, -1))
        return out


class FeedForward(nn.Module):
    """SwiGLU (Shazeer, 2020)."""

    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.up_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))
        return out


class RMSNorm(nn.Module):
    """x / rms(x) · weight, in fp32 inside (Zhang and Sennrich, 2019)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps, self.weight = eps, nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class Block(nn.Module):
    def __init__(self, c: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = Attention(c, layer)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = FeedForward(c)

    def forward(self, x_BTD: Tensor, rope: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), rope, attend)
        out: Tensor = x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))
        return out


class Llama(nn.Module):
    """The whole model. Parameter names are those of a Hugging Face folder without the leading `model.`.

    `hidden` gives the final states, `head` turns states into logits; they are apart so that training and scoring
    can take logits in chunks, and decoding only for the rows it needs.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tied:
            self.lm_head.weight = self.embed_tokens.weight

    def hidden(self, tokens_BT: Tensor, positions_BT: Tensor | None = None, attend: Attend = causal) -> Tensor:
        """Token ids, int64 [B, T], to normalised final states [B, T, D] in the weights' dtype."""
        if positions_BT is None:
            positions_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)[None]
        rope = rotary(positions_BT, self.config.head_dim, self.config.rope_theta)
        x_BTD: Tensor = self.embed_tokens(tokens_BT)
        rope = (rope[0].to(x_BTD.dtype), rope[1].to(x_BTD.dtype))
        for block in self.layers:
            x_BTD = block(x_BTD, rope, attend)
        out: Tensor = self.norm(x_BTD)
        return out

    def head(self, x: Tensor) -> Tensor:
        """States [..., D] to logits [..., V], fp32."""
        return F.linear(x, self.lm_head.weight).float()

    def forward(self, tokens_BT: Tensor, positions_BT: Tensor | None = None, attend: Attend = causal) -> Tensor:
        """Token ids, int64 [B, T], to logits, fp32 [B, T, V]."""
        return self.head(self.hidden(tokens_BT, positions_BT, attend))

    def init_weights(self, generator: torch.Generator, std: float = 0.02) -> None:
        """Normal(0, std) matrices, norms at one: the publisher's `initializer_range`."""
        for name, parameter in self.named_parameters():
            if name.endswith("norm.weight"):
                nn.init.ones_(parameter)
            else:
                nn.init.normal_(parameter, std=std, generator=generator)
