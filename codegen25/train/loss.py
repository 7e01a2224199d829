"""Cross entropy over a large vocabulary without a [tokens, vocabulary] block: logits live for one chunk at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from codegen25.model.llama import Llama
from codegen25.train.attention import goes_by_document, packed
from codegen25.train.batches import Batch
from codegen25.train.memory import chunk_of


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Both gradients are taken in the forward pass, while a chunk's logits exist; the backward pass scales them."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, chunk: int) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=x_ND.device)
        wants_x, wants_weight = ctx.needs_input_grad[:2]
        grad_x = torch.empty_like(x_ND) if wants_x else None
        # Of a frozen head it would be a third of the work, for nothing.
        grad_weight = torch.zeros_like(weight_VD, dtype=torch.float32) if wants_weight else None
        p_NV = weight_VD.new_empty(min(chunk, len(x_ND)), len(weight_VD), dtype=torch.float32)
        for start in range(0, len(x_ND), chunk):
            x, target = x_ND[start : start + chunk], targets_N[start : start + chunk, None]
            logits = (x @ weight_VD.T).float()
            p = torch.softmax(logits, -1, out=p_NV[: len(x)])
            # The likeliest token tells the normalizer: `logsumexp` takes longer than all three products do.
            log_z = logits.amax(-1) - p.amax(-1).log()
            total += (log_z - logits.gather(1, target)[:, 0]).sum()
            del logits
            # d loss / d logits = softmax - one-hot
            p.scatter_add_(1, target, torch.full_like(target, -1, dtype=torch.float32))
            gradient = p.to(x.dtype)
            if grad_x is not None:
                grad_x[start : start + chunk] = gradient @ weight_VD
            if grad_weight is not None:
                grad_weight += gradient.T @ x
        ctx.save_for_backward(grad_x, None if grad_weight is None else grad_weight.to(weight_VD.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        scaled = [one if one is None else one.mul_(grads[0].to(one.dtype)) for one in ctx.saved_tensors]
        return scaled[0], scaled[1], None, None


def cross_entropy_sum(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, chunk: int | None = None) -> Tensor:
    """The sum over N states of -log p(target), fp32, in nats; x and weight in one dtype, targets int64 in [0, V).

    `chunk` states are worked on at a time. Without states (N = 0) the sum and both gradients are zero.
    """
    if chunk is None:  # even ones: a small rest would be a slow product
        parts = max(1, -(-len(x_ND) // chunk_of(len(weight_VD))))
        chunk = max(1, -(-len(x_ND) // parts))
    total: Tensor = _ChunkedCrossEntropy.apply(x_ND, weight_VD, targets_N, chunk)  # type: ignore[no-untyped-call]
    return total


class Learner(nn.Module):
    """The model with its loss, as one module: what FSDP gathers weights for."""

    def __init__(self, model: Llama) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        """The sum of -log p over the batch's targets, fp32, in nats. Only states that predict reach the head."""
        if goes_by_document(batch.tokens.device):  # what rows are for then is padding alone
            batch = batch.unpadded()
        x_BTD = self.model.hidden(batch.tokens, batch.positions, packed(batch.document))
        wanted = batch.targets >= 0
        return cross_entropy_sum(x_BTD[wanted], self.model.lm_head.weight, batch.targets[wanted])
