"""Attention of packed rows: document by document on a CPU, where a mask would have all pairs of a row computed.

A document is worked on in blocks of queries, each against the keys up to its end, as a few large products: PyTorch's
own kernel for CPUs takes small tiles, which in bfloat16 cost about twice as long (`codegen25 bench train`).

Shapes: B rows, T tokens of a row; of one document n tokens, of a block m of them, which see e keys; H query heads in G
groups of R that share keys and values, K head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from codegen25.model.llama import Attend, Packed

# Queries of a block. Half as many make small products, twice as many compute more pairs that nobody sees.
BLOCK = 128


class ByDocument:
    """The same as `Packed`, to rounding, a call for each document: of pairs, only those that see each other are work.

    Padding counts as a document.
    """

    def __init__(self, document_BT: Tensor) -> None:
        borders = torch.ones_like(document_BT, dtype=torch.bool)
        borders[:, 1:] = document_BT[:, 1:] != document_BT[:, :-1]  # a row begins a document
        rows = [row.nonzero()[:, 0].tolist() for row in borders]
        T = document_BT.shape[1]
        self.lengths = [[end - start for start, end in pairwise([*starts, T])] for starts in rows]

    def __call__(self, layer: int, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
        return _eager(q_BHTK, k_BGTK, v_BGTK, self.lengths)


def _attend(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, lengths: list[list[int]]) -> Tensor:
    rows = [
        torch.cat([blockwise(*one) for one in zip(*(x.split(row, 1) for x in qkv), strict=True)], 1)
        for *qkv, row in zip(q_BHTK, k_BGTK, v_BGTK, lengths, strict=True)
    ]
    return torch.stack(rows)


# The lengths differ from batch to batch, and a compiled block would be compiled again for each.
_eager: Callable[..., Tensor] = torch.compiler.disable(_attend)  # type: ignore[no-untyped-call]


def goes_by_document(device: torch.device) -> bool:
    """Whether that is the quicker of the two there: on a GPU many small calls take longer than the mask."""
    return device.type == "cpu"


def packed(document_BT: Tensor) -> Attend:
    """The quicker of the two where the tensors are."""
    return ByDocument(document_BT) if goes_by_document(document_BT.device) else Packed(document_BT)


def blockwise(q_HnK: Tensor, k_GnK: Tensor, v_GnK: Tensor) -> Tensor:
    """Causal attention of one document, [H, n, K], in the dtype of its arguments.

    As in FlashAttention-2 (Dao, 2023) no probability outlives its block: the backward pass makes it again.
    """
    out: Tensor = _Blockwise.apply(q_HnK, k_GnK, v_GnK)  # type: ignore[no-untyped-call]
    return out


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_HnK: Tensor, k_GnK: Tensor, v_GnK: Tensor) -> Tensor:
        (H, n, K), G = q_HnK.shape, len(k_GnK)
        q_GRnK = (q_HnK * K**-0.5).reshape(G, H // G, n, K)
        o_GRnK = q_HnK.new_empty(G, H // G, n, K)
        for start, end in _blocks(n):
            p = _probabilities(q_GRnK[:, :, start:end], k_GnK[:, :end])
            o_GRnK[:, :, start:end] = torch.bmm(_rows(p), v_GnK[:, :end]).view(G, -1, end - start, K)
        o_HnK = o_GRnK.view(H, n, K)
        ctx.save_for_backward(q_GRnK, k_GnK, v_GnK, o_HnK)
        return o_HnK

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q_GRnK, k_GnK, v_GnK, o_HnK = ctx.saved_tensors
        G, R, n, K = q_GRnK.shape
        do_GRnK = grads[0].reshape(G, R, n, K)
        # What a row of probabilities loses for summing up to one.
        d_GRn1 = (do_GRnK * o_HnK.view(G, R, n, K)).sum(-1, keepdim=True, dtype=torch.float32).to(o_HnK.dtype)
        dq_GRnK = torch.empty_like(o_HnK).view(G, R, n, K)
        dk_GnK, dv_GnK = (torch.zeros(G, n, K, dtype=torch.float32) for _ in range(2))
        for start, end in _blocks(n):
            q_GRmK, m = q_GRnK[:, :, start:end], end - start
            p = _probabilities(q_GRmK, k_GnK[:, :end])
            do = _rows(do_GRnK[:, :, start:end])
            dv_GnK[:, :end] += torch.bmm(_rows(p).mT, do)
            dp = torch.bmm(do, v_GnK[:, :end].mT).view(G, R, m, end)
            ds = _rows(dp.sub_(d_GRn1[:, :, start:end]).mul_(p))
            dq_GRnK[:, :, start:end] = torch.bmm(ds, k_GnK[:, :end]).view(G, R, m, K)
            dk_GnK[:, :end] += torch.bmm(ds.mT, _rows(q_GRmK))
        dq_HnK = dq_GRnK.mul_(K**-0.5).view(G * R, n, K)
        return dq_HnK, dk_GnK.to(k_GnK.dtype), dv_GnK.to(v_GnK.dtype)


def _blocks(n: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + BLOCK, n)) for start in range(0, n, BLOCK))


def _rows(x_GRmX: Tensor) -> Tensor:
    """[G, R · m, X]: heads that share keys, one behind the other, are rows of one product."""
    return x_GRmX.flatten(1, 2)


def _probabilities(q_GRmK: Tensor, k_GeK: Tensor) -> Tensor:
    """[G, R, m, e] of the last m of e tokens. The queries are scaled."""
    G, R, m, _ = q_GRmK.shape
    s_GRme = torch.bmm(_rows(q_GRmK), k_GeK.mT).view(G, R, m, -1)
    s_GRme[..., -m:].masked_fill_(_later()[:m, :m], -torch.inf)
    return torch.softmax(s_GRme, -1)


@cache
def _later() -> Tensor:
    """[m, m] of a block, bool: what lies behind a token."""
    return torch.ones(BLOCK, BLOCK, dtype=torch.bool).triu_(1)
