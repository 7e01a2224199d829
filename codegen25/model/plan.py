"""How the matrices of a quantized folder are stored: the plan in `config.json`, and whether tensors keep to it.

Nothing here knows PyTorch: the native engine and the PyTorch reference read folders by the same plan. The layout
itself, byte by byte, is described in `docs/formats.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from codegen25.errors import CodegenError

Stored = TypeVar("Stored")

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
        if type(self.bits) is not int or self.bits not in GROUPS:
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


def check_shape(shape: Sequence[int], packing: Packing, name: str) -> None:
    """Raise `CodegenError` unless a matrix of this shape divides into groups."""
    if len(shape) != 2 or shape[1] % packing.group_size:
        raise CodegenError(
            f"{name}: shape {list(shape)} does not divide into groups of {packing.group_size} along the inputs; "
            "such a model cannot be quantized, use it as it is"
        )


def check_packed(
    name: str, packing: Packing, q_dtype: str, q_shape: Sequence[int], scale_dtype: str, scale_shape: Sequence[int]
) -> None:
    """Raise `CodegenError` unless `name.q` and `name.scale`, which may be anything, are what `packing` says."""
    integer = "int8" if packing.bits == 8 else "uint8"
    row = q_shape[1] * 8 // packing.bits if len(q_shape) == 2 else 0
    if q_dtype != integer or not row or row % packing.group_size:
        raise CodegenError(
            f"{name}.q is {q_dtype} {list(q_shape)}, "
            f"not rows of {packing.bits}-bit groups of {packing.group_size}; {AGAIN}"
        )
    wanted = [q_shape[0], row // packing.group_size]
    if scale_dtype != "float16" or list(scale_shape) != wanted:
        raise CodegenError(f"{name}.scale is {scale_dtype} {list(scale_shape)}, not float16 {wanted}; {AGAIN}")


def paired(
    stored: Iterable[tuple[str, Stored]], plan: Mapping[str, Packing], origin: str
) -> Iterator[tuple[str, Stored, tuple[Stored, Packing] | None]]:
    """Stored tensors by matrix: `X.q` and `X.scale`, in either order, come as (`X`, q, (scale, packing)).

    Others come as (name, tensor, None). Raises `CodegenError` where the plan and the names disagree.
    """
    halves: dict[str, Stored] = {}
    for stored_name, tensor in stored:
        name, _, part = stored_name.rpartition(".")
        if not plan or part not in ("q", "scale"):
            if packing_of(plan, stored_name):
                raise CodegenError(f"{origin}: tensor {stored_name} should be quantized by config.json; {AGAIN}")
            yield stored_name, tensor, None
            continue
        other = halves.pop(f"{name}.{'scale' if part == 'q' else 'q'}", None)
        if other is None:
            halves[stored_name] = tensor
            continue
        packing = packing_of(plan, name)
        if packing is None:
            raise CodegenError(f"{origin}: config.json does not say how {name} is quantized; {AGAIN}")
        q, scale = (tensor, other) if part == "q" else (other, tensor)
        yield name, q, (scale, packing)
    if halves:
        raise CodegenError(f"{origin}: tensor {min(halves)} is there without its other half; {AGAIN}")
