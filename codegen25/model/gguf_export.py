"""A model folder as a GGUF file, a tensor at a time: with the same weights (see `gguf_write`), or in another kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen25.config import ModelConfig, read_config
from codegen25.errors import CodegenError
from codegen25.model import gguf_write
from codegen25.model.convert import rounded
from codegen25.model.folder import check_vocab, stored_name
from codegen25.model.gguf_write import BLOCK, GGUFTensor, interleave_halves
from codegen25.model.plan import GROUPS, PLANS, Packing, check_shape, packing_of
from codegen25.model.publisher import repair
from codegen25.model.weights import Folder, Plain, Quantized, Weight

TARGETS = {"f16": 0, "q8_0": 8, "q4_0": 4}  # bits of a matrix, 0 for none
_FLOATS = {"F32": "<f4", "F16": "<f2"}


def export_gguf(source: Path, out: Path, notice: Callable[[str], None], kind: str | None = None) -> None:
    """Write the model in `source` to the file `out`: quantized matrices as they are, others in F16 or BF16.

    `kind`, one of `TARGETS`, makes all matrices F16 (quantized ones are multiplied out), or 8 bits, or 4 bits but for
    those that `PLANS` keeps in 8.

    Raises `CodegenError` when `source` is no sound model folder, when `out` exists or cannot be written, and when the
    weights have no exact form in GGUF (groups that are no multiple of 32, numbers too large for F16).
    """
    if not source.is_dir():
        raise CodegenError(f"{source}: not a model folder; only folders are exported")
    if out.exists() or out.is_symlink():
        raise CodegenError(f"{out}: exists already; remove it or name another file")
    folder = Folder(source, notice)
    tokenizer = folder.tokenizer()
    check_vocab(folder.config, tokenizer, source)
    stored = dict(folder.weights())
    tensors = []
    for ours, theirs, shape in gguf_write.tensor_names(folder.config):
        to = _kind(source, ours, stored[ours], kind)
        tensors.append(GGUFTensor(theirs, to, shape, _blocks(source, folder.config, ours, stored, to)))
    sizes = {kind: sum(tensor.nbytes for tensor in tensors if tensor.kind == kind) for kind in gguf_write.KINDS}
    most = max(sizes, key=lambda kind: sizes[kind])
    metadata = gguf_write.model_metadata(folder.config, tokenizer, most, name=source.resolve().name, eos=_end(source))
    gguf_write.write_gguf(out, metadata, tensors)


def _end(source: Path) -> int | None:
    """The (first) id that ends a text, where the folder's config names one."""
    eos = repair(read_config(source)[1], source, lambda line: None).get("eos_token_id")
    first = eos[0] if isinstance(eos, list) and eos else eos
    return first if isinstance(first, int) else None


def _kind(source: Path, name: str, weight: Weight, kind: str | None) -> str:
    """What ggml calls the way in which a tensor will be stored."""
    if kind is not None and len(weight.shape) == 2:
        packing = packing_of(PLANS[TARGETS[kind]], stored_name(name)) if TARGETS[kind] else None
        if packing:
            check_shape(weight.shape, packing, f"{source}: tensor {name}")
        return f"Q{packing.bits}_0" if packing else "F16"
    if isinstance(weight, Plain):
        return "F32" if len(weight.shape) == 1 else "BF16" if weight.dtype == "bfloat16" else "F16"
    if weight.packing.group_size % BLOCK:
        raise CodegenError(
            f"{source}: tensor {name} has groups of {weight.packing.group_size}, GGUF needs a multiple of {BLOCK}; "
            "quantize the model again"
        )
    if not np.isfinite(weight.scale).all():
        raise CodegenError(f"{source}: tensor {name} has a scale that is not finite; quantize the model again")
    return f"Q{weight.packing.bits}_0"


def _blocks(
    source: Path, config: ModelConfig, name: str, stored: Mapping[str, Weight], kind: str
) -> Callable[[], NDArray[Any]]:
    """What makes the bytes of a tensor when it is its turn."""

    def make() -> NDArray[Any]:
        weight = _in_bits(stored[name], {"Q4_0": 4, "Q8_0": 8}.get(kind), f"{source}: tensor {name}")
        if isinstance(weight, Plain):
            blocks = _plain(source, name, weight, kind)
        elif weight.packing.bits == 8:
            blocks = gguf_write.q8_blocks(weight.q, weight.scale)
        else:
            blocks = gguf_write.q4_blocks(weight.q, weight.scale)
        is_rotated = name.endswith(("q_proj.weight", "k_proj.weight"))
        return interleave_halves(blocks, config.head_dim) if is_rotated else blocks

    return make


def _in_bits(weight: Weight, bits: int | None, key: str) -> Weight:
    """The weight in so many bits, as it is where it is in those; None: multiplied out."""
    if isinstance(weight, Quantized) and weight.packing.bits == bits:
        return weight
    plain = weight if isinstance(weight, Plain) else Plain(weight.widened(), "float32")
    if bits is None:
        return plain
    packing = Packing(bits, GROUPS[bits])
    return Quantized(*rounded(plain, packing, key), packing)


def _plain(source: Path, name: str, weight: Plain, kind: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        numbers = weight.widened().astype(_FLOATS.get(kind, "<f4"), copy=False)
    if not np.isfinite(numbers).all():
        raise CodegenError(
            f"{source}: tensor {name} holds NaN, infinity or a number too large for F16; check the weights, or use "
            "--to hf"
        )
    return weight.values if kind == "BF16" else numbers
