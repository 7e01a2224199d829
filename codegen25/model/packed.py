"""The layout of quantized matrices: integers and one scale a group, packed, unpacked and named in `config.json`.

`docs/formats.md` describes it byte by byte, for readers in other languages; a test holds the two together.

Shapes: N outputs, K inputs, G groups along the inputs, P bytes of a packed row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from codegen25.errors import CodegenError

METHOD = "codegen25"
VERSION = 1
GROUPS = {4: 32, 8: 64}  # bits to group size
LEVELS = {4: (-8, 7), 8: (-127, 127)}  # bits to smallest and largest integer
AGAIN = "quantize the model again"


@dataclass(frozen=True)
class Packing:
    """How one matrix is stored: `bits` an integer, and a scale for every `group_size` neighbours along the inputs."""

    bits: int
    group_size: int

    def __post_init__(self) -> None:
        if self.bits not in GROUPS:
            raise CodegenError(f"{self.bits!r} bits a weight: only 4 and 8 can be stored")
        if type(self.group_size) is not int or self.group_size <= 0 or self.group_size % 2:
            raise CodegenError(f"groups of {self.group_size!r} weights: a positive even number is needed")


# The family's own recipe: what costs little stays in 8 bits (the rows of the vocabulary, and the keys and values that
# every query shares), the bulk is in 4.
SENSITIVE = ("embed_tokens", "lm_head", "k_proj", "v_proj")
BULK = ("q_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PLANS: dict[int, dict[str, Packing]] = {
    bits: dict.fromkeys(SENSITIVE, Packing(8, GROUPS[8])) | dict.fromkeys(BULK, Packing(bits, GROUPS[bits]))
    for bits in (4, 8)
}


def packing_of(plan: Mapping[str, Packing], name: str) -> Packing | None:
    """How the tensor `name` (`….mlp.up_proj.weight`) is stored; None for one that is not quantized, such as a norm.

    A plan's keys are modules: a whole path (`model.layers.0.mlp.up_proj`) goes before a last name (`up_proj`).
    """
    module = name.removesuffix(".weight")
    return plan.get(module) or plan.get(module.rpartition(".")[2])


def to_json(plan: Mapping[str, Packing]) -> dict[str, Any]:
    """The value of `quantization_config` in `config.json`."""
    modules = {module: asdict(packing) for module, packing in plan.items()}
    return {"quant_method": METHOD, "version": VERSION, "modules": modules}


def from_json(value: Any, origin: str) -> dict[str, Packing]:
    """The plan in `quantization_config`; empty where there is none. Raises `CodegenError` for another method."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or value.get("quant_method") != METHOD:
        method = value.get("quant_method") if isinstance(value, Mapping) else value
        raise CodegenError(f"{origin}: quantized by {method!r}, which cannot be read; use the unquantized model")
    if value.get("version") != VERSION:
        raise CodegenError(f"{origin}: quantization version {value.get('version')!r}, not {VERSION}; {AGAIN}")
    if not value.get("modules"):
        raise CodegenError(f"{origin}: quantization_config is incomplete (no modules); {AGAIN}")
    try:
        return {str(module): Packing(p["bits"], p["group_size"]) for module, p in value["modules"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise CodegenError(f"{origin}: quantization_config is incomplete ({error!r}); {AGAIN}") from error
    except CodegenError as error:
        raise CodegenError(f"{origin}: quantization_config asks for {error}; {AGAIN}") from error


def check_shape(shape: torch.Size, packing: Packing, name: str) -> None:
    """Raise `CodegenError` unless a matrix of this shape divides into groups."""
    if len(shape) != 2 or shape[1] % packing.group_size:
        raise CodegenError(
            f"{name}: shape {list(shape)} does not divide into groups of {packing.group_size} along the inputs; "
            "such a model cannot be quantized, use it as it is"
        )


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
    integer = torch.int8 if packing.bits == 8 else torch.uint8
    row = packed.shape[1] * 8 // packing.bits if packed.ndim == 2 else 0
    if packed.dtype != integer or not row or row % packing.group_size:
        raise CodegenError(
            f"{name}.q is {packed.dtype} {list(packed.shape)}, "
            f"not rows of {packing.bits}-bit groups of {packing.group_size}; {AGAIN}"
        )
    wanted = [len(packed), row // packing.group_size]
    if scale.dtype != torch.float16 or list(scale.shape) != wanted:
        raise CodegenError(f"{name}.scale is {scale.dtype} {list(scale.shape)}, not float16 {wanted}; {AGAIN}")
    if not bool(scale.isfinite().all()):
        raise CodegenError(f"{name}.scale is not finite; {AGAIN}")
    return dequantize(packed, scale, packing)


def dequantized(
    stored: Iterable[tuple[str, Tensor]], plan: Mapping[str, Packing], origin: str
) -> Iterator[tuple[str, Tensor]]:
    """Stored tensors as plain ones: `X.q` and `X.scale`, in either order, become `X` in fp32; others pass.

    Raises `CodegenError` where the plan and the tensors disagree.
    """
    halves: dict[str, Tensor] = {}
    for stored_name, tensor in stored:
        name, _, part = stored_name.rpartition(".")
        if part not in ("q", "scale"):
            if packing_of(plan, stored_name):
                raise CodegenError(f"{origin}: tensor {stored_name} should be quantized by config.json; {AGAIN}")
            yield stored_name, tensor
            continue
        other = halves.pop(f"{name}.{'scale' if part == 'q' else 'q'}", None)
        if other is None:
            halves[stored_name] = tensor
            continue
        packing = packing_of(plan, name)
        if packing is None:
            raise CodegenError(f"{origin}: config.json does not say how {name} is quantized; {AGAIN}")
        packed, scale = (tensor, other) if part == "q" else (other, tensor)
        yield name, _checked(f"{origin}: tensor {name}", packed, scale, packing)
    if halves:
        raise CodegenError(f"{origin}: tensor {min(halves)} is there without its other half; {AGAIN}")
