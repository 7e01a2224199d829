"""Quantized matrices in PyTorch: integers and one scale a group, packed and unpacked.

`docs/formats.md` describes the layout byte by byte, for readers in other languages; a test holds the two together.

Shapes: N outputs, K inputs, G groups along the inputs, P bytes of a packed row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from codegen25.errors import CodegenError
from codegen25.model.plan import AGAIN, LEVELS, Packing, check_packed, check_shape, paired


def pack(integers_NK: Tensor, packing: Packing) -> Tensor:
    """Integers as they are stored: int8 [N, K] for 8 bits, uint8 [N, K / 2] for 4.

    In 4 bits, byte j of a group of g holds weight j in its low half and weight j + g / 2 in its high half, each plus 8:
    one mask and one shift give two runs of neighbours, with nothing to shuffle.
    """
    check_shape(integers_NK.shape, packing, "weight")
    low, high = LEVELS[packing.bits]
    assert bool(((integers_NK >= low) & (integers_NK <= high)).all()), "integers outside the levels"
    if packing.bits == 8:
        return integers_NK.to(torch.int8)
    N, K = integers_NK.shape
    halves = (integers_NK + 8).to(torch.uint8).view(N, K // packing.group_size, 2, packing.group_size // 2)
    return (halves[:, :, 0] | halves[:, :, 1] << 4).reshape(N, K // 2)


def unpack(packed_NP: Tensor, packing: Packing) -> Tensor:
    """The inverse of `pack`: int8 [N, G, group]."""
    if packing.bits == 8:
        return packed_NP.view(len(packed_NP), -1, packing.group_size)
    bytes_NGP = packed_NP.view(len(packed_NP), -1, packing.group_size // 2)
    return torch.cat([bytes_NGP & 15, bytes_NGP >> 4], dim=-1).view(torch.int8) - 8


def dequantize(packed_NP: Tensor, scale_NG: Tensor, packing: Packing) -> Tensor:
    """fp32 [N, K]: every integer times the scale of its group."""
    weight_NGg = unpack(packed_NP, packing).float()  # first, in one sweep: mixed types multiply three times slower
    return weight_NGg.mul_(scale_NG.float()[:, :, None]).view(len(packed_NP), -1)


def _checked(name: str, packed: Tensor, scale: Tensor, packing: Packing) -> Tensor:
    """Dequantize what a file holds, which may be anything."""
    check_packed(name, packing, dtype_name(packed), packed.shape, dtype_name(scale), scale.shape)
    if not bool(scale.isfinite().all()):
        raise CodegenError(f"{name}.scale is not finite; {AGAIN}")
    return dequantize(packed, scale, packing)


def dtype_name(tensor: Tensor) -> str:
    """`float16`, as numpy says it too."""
    return str(tensor.dtype).removeprefix("torch.")


def dequantized(
    stored: Iterable[tuple[str, Tensor]], plan: Mapping[str, Packing], origin: str
) -> Iterator[tuple[str, Tensor]]:
    """Stored tensors as plain ones: `X.q` and `X.scale`, in either order, become `X` in fp32; others pass.

    Raises `CodegenError` where the plan and the tensors disagree.
    """
    for name, tensor, rest in paired(stored, plan, origin):
        yield name, _checked(f"{origin}: tensor {name}", tensor, *rest) if rest else tensor
