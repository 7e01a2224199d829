"""CodeGen2 in PyTorch (Nijkamp et al., 2023): the architecture of GPT-J, with attention and feed-forward side by side.

It stands in for a `Llama` behind `engine/torch.py`: the same `hidden` and `head`, attention chosen by the caller. Here
only a part of every head is rotated, and neighbours against each other.

Shapes: B rows, T tokens, D hidden, H heads, K head size, R rotated part of it, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codegen25.errors import CodegenError
from codegen25.model.checkpoint import NoInit, as_device, as_dtype, read_file
from codegen25.model.folder import AGAIN, check_size, weight_files
from codegen25.model.llama import Attend, causal
from codegen25.model.older import OlderShape, read_shape

# Buffers that follow from the config.
IGNORED = (".attn.causal_mask", ".attn.bias", ".attn.masked_bias", ".attn.embed_positions")


def rotary(positions_BT: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """cos and sin, each [B, 1, T, R] in fp32, every angle twice in a row."""
    frequency = 10000.0 ** (-torch.arange(0, size, 2, dtype=torch.float32, device=positions_BT.device) / size)
    angle_BTR = (positions_BT[..., None].float() * frequency).repeat_interleave(2, dim=-1)
    return angle_BTR.cos()[:, None], angle_BTR.sin()[:, None]


def rotate(x_BHTK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (2i, 2i + 1) of the first R inputs of a head by its position's angle; the others stay."""
    size = cos.shape[-1]
    turned = x_BHTK[..., :size]
    across = torch.stack([-turned[..., 1::2], turned[..., ::2]], dim=-1).flatten(-2)
    return torch.cat([(turned * cos + across * sin).to(x_BHTK.dtype), x_BHTK[..., size:]], dim=-1)


class Attention(nn.Module):
    def __init__(self, shape: OlderShape, layer: int) -> None:
        super().__init__()
        c = shape.config
        self.layer, self.heads, self.parts = layer, c.heads, shape.parts
        self.qkv_proj = nn.Linear(c.hidden_size, 3 * c.hidden_size, bias=False)
        self.out_proj = nn.Linear(c.hidden_size, c.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor, rope: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        B, T, D = x_BTD.shape
        # Every part holds the queries, the values and the keys, in this order, of its share of the heads.
        parts = self.qkv_proj(x_BTD).view(B, T, self.parts, 3, D // self.parts)
        q, v, k = (parts[:, :, :, i].reshape(B, T, self.heads, -1).transpose(1, 2) for i in range(3))
        o_BHTK = attend(self.layer, rotate(q, *rope), rotate(k, *rope), v)
        out: Tensor = self.out_proj(o_BHTK.transpose(1, 2).reshape(B, T, D))
        return out


class FeedForward(nn.Module):
    def __init__(self, shape: OlderShape) -> None:
        super().__init__()
        c = shape.config
        self.fc_in = nn.Linear(c.hidden_size, c.intermediate_size)
        self.fc_out = nn.Linear(c.intermediate_size, c.hidden_size)

    def forward(self, x_BTD: Tensor) -> Tensor:
        out: Tensor = self.fc_out(F.gelu(self.fc_in(x_BTD), approximate="tanh"))
        return out


class Block(nn.Module):
    def __init__(self, shape: OlderShape, layer: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(shape.config.hidden_size, eps=shape.eps)
        self.attn = Attention(shape, layer)
        self.mlp = FeedForward(shape)

    def forward(self, x_BTD: Tensor, rope: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        normed = self.ln_1(x_BTD)
        out: Tensor = x_BTD + self.attn(normed, rope, attend) + self.mlp(normed)
        return out


class CodeGen2(nn.Module):
    """The whole model. Parameter names are those of a Hugging Face folder without the leading `transformer.`."""

    def __init__(self, shape: OlderShape) -> None:
        super().__init__()
        self.config, self.shape = shape.config, shape
        c = shape.config
        self.wte = nn.Embedding(c.vocab_size, c.hidden_size)
        self.h = nn.ModuleList(Block(shape, layer) for layer in range(c.layers))
        self.ln_f = nn.LayerNorm(c.hidden_size, eps=shape.eps)
        self.lm_head = nn.Linear(c.hidden_size, c.vocab_size)

    @property
    def norm(self) -> nn.LayerNorm:
        """What tells dtype and device, as in a `Llama`."""
        return self.ln_f

    def hidden(self, tokens_BT: Tensor, positions_BT: Tensor | None = None, attend: Attend = causal) -> Tensor:
        """Token ids, int64 [B, T], to normalised final states [B, T, D] in the weights' dtype."""
        if positions_BT is None:
            positions_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)[None]
        rope = rotary(positions_BT, self.shape.rotary_dim)
        x_BTD: Tensor = self.wte(tokens_BT)
        for block in self.h:
            x_BTD = block(x_BTD, rope, attend)
        out: Tensor = self.ln_f(x_BTD)
        return out

    def head(self, x: Tensor) -> Tensor:
        """States [..., D] to logits [..., V], fp32."""
        logits: Tensor = self.lm_head(x)
        return logits.float()

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Token ids, int64 [B, T], to logits, fp32 [B, T, V]."""
        return self.head(self.hidden(tokens_BT))


def load_codegen2(folder: Path, *, dtype: str = "bfloat16", device: str = "cpu") -> CodeGen2:
    """The model in `folder`, in `dtype` on `device`.

    Raises `CodegenError` for a folder of another kind, for damaged files, and where config and tensors disagree.
    """
    wanted, place, shape = as_dtype(dtype), as_device(device), read_shape(folder)
    check_size(shape.config, weight_files(folder), folder)
    with torch.device("meta"), NoInit():
        model = CodeGen2(shape)
    missing = {name: parameter.shape for name, parameter in model.named_parameters()}
    for name, tensor in _stored(folder):
        ours = name.removeprefix("transformer.")
        if ours not in missing or missing[ours] != tensor.shape:
            raise CodegenError(
                f"{folder}: tensor {name} {list(tensor.shape)} is not part of the model that its config describes; "
                f"{AGAIN}"
            )
        del missing[ours]
        owner, _, leaf = ours.rpartition(".")
        setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor.to(device=place, dtype=wanted)))
        del tensor
    if missing:
        raise CodegenError(f"{folder}: tensor {min(missing)} is missing, with {len(missing) - 1} others; {AGAIN}")
    return model


def _stored(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for path in weight_files(folder):
        for name, tensor in read_file(path):
            if not name.endswith(IGNORED):
                yield name, tensor
            del tensor
