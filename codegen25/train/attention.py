"""Attention of packed rows: document by document on a CPU, where a mask would have all pairs of a row computed."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from codegen25.model.llama import Attend, Packed


class ByDocument:
    """The same as `Packed`, to rounding, a call for each document: of pairs, only those that see each other are work.

    Padding counts as a document.
    """

    def __init__(self, document_BT: Tensor) -> None:
        borders = torch.ones_like(document_BT, dtype=torch.bool)
        borders[:, 1:] = document_BT[:, 1:] != document_BT[:, :-1]  # a row begins a document
        starts = borders.flatten().nonzero()[:, 0]
        ends = torch.cat([starts[1:], starts.new_tensor([document_BT.numel()])])
        self.lengths: list[int] = (ends - starts).tolist()

    def __call__(self, layer: int, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
        return _eager(q_BHTK, k_BGTK, v_BGTK, self.lengths)


def _attend(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, lengths: list[int]) -> Tensor:
    B, _, T, _ = q_BHTK.shape
    parts = (_split(x, lengths) for x in (q_BHTK, k_BGTK, v_BGTK))
    done = [
        F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)[0].transpose(0, 1)
        for q, k, v in zip(*parts, strict=True)
    ]
    o_NHK = torch.cat(done)
    return o_NHK.view(B, T, *o_NHK.shape[1:]).transpose(1, 2)


# The lengths differ from batch to batch, and a compiled block would be compiled again for each.
_eager: Callable[..., Tensor] = torch.compiler.disable(_attend)  # type: ignore[no-untyped-call]


def _split(x_BHTK: Tensor, lengths: list[int]) -> list[Tensor]:
    """[1, H, n, K] for each document."""
    pieces = torch.split(x_BHTK.transpose(1, 2).flatten(0, 1), lengths)
    return [piece.transpose(0, 1)[None] for piece in pieces]


def packed(document_BT: Tensor) -> Attend:
    """The quicker of the two where the tensors are: on a GPU many small calls take longer than the mask."""
    return ByDocument(document_BT) if document_BT.device.type == "cpu" else Packed(document_BT)
