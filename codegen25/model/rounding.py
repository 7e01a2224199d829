"""Weights at their nearest levels, and the scales that lose least.

Shapes: N outputs, K inputs, G groups along the inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from codegen25.model.plan import LEVELS, Packing

# The largest weight of a group may lie beyond the last level, which makes the steps of all others finer.
STRETCH = (0.78, 0.82, 0.86, 0.90, 0.94, 0.98, 1.02, 1.06)


def nearest(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
    """The integer level nearest to `weight / scale`, as floats; level 0 where the scale is 0."""
    low, high = LEVELS[bits]
    return torch.where(scale == 0, 0.0, weight / scale).nan_to_num_(0.0).round_().clamp_(low, high)


def fit_scales(weight_NK: Tensor, packing: Packing, importance_K: Tensor | None = None) -> Tensor:
    """The scale of every group, fp16 [N, G], that loses least in the (weighted) mean square.

    At 8 bits the largest weight is the last level. At 4 bits a search: the largest weight meets the longer, negative
    end of the levels, whichever its sign (so a scale may be negative) or the shorter one, and may be clipped; each
    candidate is then moved to the least-squares scale of its own integers.
    """
    weight_NGg = weight_NK.view(len(weight_NK), -1, packing.group_size)
    largest_NG1 = weight_NGg.gather(-1, weight_NGg.abs().argmax(-1, keepdim=True))
    if packing.bits == 8:
        return (largest_NG1[..., 0].abs() / LEVELS[8][1]).half()
    importance = weight_NGg.new_ones(1) if importance_K is None else importance_K.view(-1, packing.group_size)
    best = torch.full_like(largest_NG1, torch.inf)
    scales = torch.full_like(largest_NG1, torch.inf, dtype=torch.float16)  # stays where no fp16 scale will do
    for end in LEVELS[packing.bits]:
        for stretch in STRETCH:
            integers = nearest(weight_NGg, largest_NG1 / end * stretch, packing.bits)
            energy = (importance * integers.square()).sum(-1, keepdim=True)
            fitted = (importance * weight_NGg * integers).sum(-1, keepdim=True) / energy.clamp_min(1e-30)
            candidate = fitted.half()
            rounded = nearest(weight_NGg, candidate.float(), packing.bits) * candidate
            loss = (importance * (weight_NGg - rounded).square()).sum(-1, keepdim=True)
            better = loss < best
            best, scales = torch.where(better, loss, best), torch.where(better, candidate, scales)
    return scales[..., 0]


def round_to_nearest(weight_NK: Tensor, packing: Packing) -> tuple[Tensor, Tensor]:
    """Integers [N, K] and scales, fp16 [N, G]."""
    scale_NG = fit_scales(weight_NK, packing)
    scale_NK = scale_NG.float().repeat_interleave(packing.group_size, dim=1)
    return nearest(weight_NK, scale_NK, packing.bits), scale_NG
