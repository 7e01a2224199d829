"""A model folder as a GGUF file with the same weights (see `gguf_write`), a tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen25.config import ModelConfig, read_config
from codegen25.errors import CodegenError
from codegen25.model import gguf_write
from codegen25.model.folder import check_vocab
from codegen25.model.gguf_write import BLOCK, GGUFTensor, interleave_halves
from codegen25.model.publisher import repair
from codegen25.model.weights import Folder, Plain, Weight

_FLOATS = {"F32": "<f4", "F16": "<f2"}


def export_gguf(source: Path, out: Path, notice: Callable[[str], None]) -> None:
    """Write the model in `source` to the file `out`: quantized matrices as they are, others in F16 or BF16.

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
    tensors = [
        GGUFTensor(theirs, _kind(source, ours, stored[ours]), shape, _blocks(source, folder.config, ours, stored))
        for ours, theirs, shape in gguf_write.tensor_names(folder.config)
    ]
    sizes = {kind: sum(tensor.nbytes for tensor in tensors if tensor.kind == kind) for kind in gguf_write.KINDS}
    most = max(sizes, key=lambda kind: sizes[kind])
    metadata = gguf_write.model_metadata(folder.config, tokenizer, most, name=source.resolve().name, eos=_end(source))
    gguf_write.write_gguf(out, metadata, tensors)


def _end(source: Path) -> int | None:
    """The (first) id that ends a text, where the folder's config names one."""
    eos = repair(read_config(source)[1], source, lambda line: None).get("eos_token_id")
    first = eos[0] if isinstance(eos, list) and eos else eos
    return first if isinstance(first, int) else None


def _kind(source: Path, name: str, weight: Weight) -> str:
    """What ggml calls the way in which a tensor will be stored."""
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


def _blocks(source: Path, config: ModelConfig, name: str, stored: Mapping[str, Weight]) -> Callable[[], NDArray[Any]]:
    """What makes the bytes of a tensor when it is its turn."""

    def make() -> NDArray[Any]:
        weight = stored[name]
        if isinstance(weight, Plain):
            blocks = _plain(source, name, weight)
        elif weight.packing.bits == 8:
            blocks = gguf_write.q8_blocks(weight.q, weight.scale)
        else:
            blocks = gguf_write.q4_blocks(weight.q, weight.scale)
        is_rotated = name.endswith(("q_proj.weight", "k_proj.weight"))
        return interleave_halves(blocks, config.head_dim) if is_rotated else blocks

    return make


def _plain(source: Path, name: str, weight: Plain) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        numbers = weight.widened().astype(_FLOATS.get(_kind(source, name, weight), "<f4"), copy=False)
    if not np.isfinite(numbers).all():
        raise CodegenError(
            f"{source}: tensor {name} holds NaN, infinity or a number too large for F16; check the weights, or use "
            "--to hf"
        )
    return weight.values if _kind(source, name, weight) == "BF16" else numbers
