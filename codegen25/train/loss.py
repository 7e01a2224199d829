"""Cross entropy over a large vocabulary without a [tokens, vocabulary] block: logits live for one chunk at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from codegen25.model.llama import Llama, Packed
from codegen25.train.batches import Batch


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Both gradients are taken in the forward pass, while a chunk's logits exist; the backward pass scales them."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, chunk: int) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=x_ND.device)
        grad_x, grad_weight = torch.empty_like(x_ND), None
        if ctx.needs_input_grad[1]:  # of a frozen head it would be a third of the work, for nothing
            grad_weight = torch.zeros_like(weight_VD, dtype=torch.float32)
        for start in range(0, len(x_ND), chunk):
            x, target = x_ND[start : start + chunk], targets_N[start : start + chunk]
            logits = (x @ weight_VD.T).float()
            log_z = logits.logsumexp(-1)
            total += (log_z - logits.gather(1, target[:, None])[:, 0]).sum()
            # d loss / d logits = softmax - one-hot
            probability = torch.exp_(logits.sub_(log_z[:, None]))
            probability.scatter_add_(1, target[:, None], torch.full_like(target, -1, dtype=torch.float32)[:, None])
            gradient = probability.to(x.dtype)
            grad_x[start : start + chunk] = gradient @ weight_VD
            if grad_weight is not None:
                grad_weight += gradient.T @ x
        ctx.save_for_backward(grad_x, None if grad_weight is None else grad_weight.to(weight_VD.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        grad_x, grad_weight = ctx.saved_tensors
        scaled = None if grad_weight is None else grad_weight * grads[0].to(grad_weight.dtype)
        return grad_x * grads[0].to(grad_x.dtype), scaled, None, None


def cross_entropy_sum(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, chunk: int = 256) -> Tensor:
    """The sum over N states of -log p(target), fp32, in nats; x and weight in one dtype, targets int64 in [0, V).

    Without states (N = 0) the sum and both gradients are zero.
    """
    total: Tensor = _ChunkedCrossEntropy.apply(x_ND, weight_VD, targets_N, chunk)  # type: ignore[no-untyped-call]
    return total


class Learner(nn.Module):
    """The model with its loss, as one module: what FSDP gathers weights for."""

    def __init__(self, model: Llama) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        """The sum of -log p over the batch's targets, fp32, in nats. Only states that predict reach the head."""
        x_BTD = self.model.hidden(batch.tokens, batch.positions, Packed(batch.document))
        wanted = batch.targets >= 0
        return cross_entropy_sum(x_BTD[wanted], self.model.lm_head.weight, batch.targets[wanted])
