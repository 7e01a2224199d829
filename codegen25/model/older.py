"""CodeGen2 (1B, 3.7B, 7B, 16B): what its folders say of the older architecture that `codegen2.py` builds.

Nothing here knows PyTorch. The fused projection of queries, values and keys lies in as many parts as the accelerators
that the model was trained on; how many stands in the publisher's code alone, which is read and never run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codegen25.config import ModelConfig
from codegen25.errors import CodegenError

MODEL_TYPE = "codegen"
AGAIN = "copy or download the folder again"
_PARTS = re.compile(r"^\s*(?:self\.)?mp_num\s*=\s*(\d+)\s*(?:#.*)?$", re.MULTILINE)
_FIELDS = {
    "vocab_size": "vocab_size", "hidden_size": "n_embd", "layers": "n_layer", "heads": "n_head",
    "max_positions": "n_positions",
}  # fmt: skip


@dataclass(frozen=True)
class OlderShape:
    """`config`: sizes as every backend knows them. `rotary_dim`: how much of a head is rotated. `parts`: see above."""

    config: ModelConfig
    rotary_dim: int
    parts: int
    eps: float


def is_older(folder: Path) -> bool:
    """Whether the folder's config is of this architecture. A folder without a readable one is not."""
    try:
        hf = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(hf, dict) and hf.get("model_type") == MODEL_TYPE


def read_shape(folder: Path) -> OlderShape:
    """The shape in `folder/config.json`. Raises `CodegenError` where it is none of a CodeGen model."""
    path = folder / "config.json"
    hf: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    sizes = {ours: _count(hf, theirs, path) for ours, theirs in _FIELDS.items()}
    if sizes["hidden_size"] % sizes["heads"]:
        raise CodegenError(f"{path}: {sizes['hidden_size']} inputs do not divide into {sizes['heads']} heads; {AGAIN}")
    if hf.get("activation_function", "gelu_new") != "gelu_new":
        raise CodegenError(f"{path}: activation_function is {hf['activation_function']!r}; only gelu_new is supported")
    head_dim = sizes["hidden_size"] // sizes["heads"]
    inner = 4 * sizes["hidden_size"] if hf.get("n_inner") is None else _count(hf, "n_inner", path)
    config = ModelConfig(
        sizes["vocab_size"], sizes["hidden_size"], inner, sizes["layers"], sizes["heads"], sizes["heads"], head_dim,
        sizes["max_positions"],
    )  # fmt: skip
    rotary = head_dim if hf.get("rotary_dim") is None else _count(hf, "rotary_dim", path)
    parts = _parts(hf, folder)
    if rotary > head_dim or rotary % 2 or sizes["heads"] % parts:
        raise CodegenError(
            f"{path}: rotary_dim {rotary} of heads of {head_dim}, {sizes['heads']} heads in {parts} parts; {AGAIN}"
        )
    return OlderShape(config, rotary, parts, float(hf.get("layer_norm_epsilon", 1e-5)))


def _count(hf: Mapping[str, Any], key: str, path: Path) -> int:
    value = hf.get(key)
    if type(value) is not int or value <= 0:
        raise CodegenError(f"{path}: {key} is {value!r}, a positive number is needed; {AGAIN}")
    return value


def _parts(hf: Mapping[str, Any], folder: Path) -> int:
    """How many parts the fused projection lies in: as the config says, else the publisher's code.

    Where there is neither, 8 for CodeGen2, whose configs name a `head_dim`, and transformers' own 4 otherwise.
    """
    if hf.get("mp_num") is not None:
        return _count(hf, "mp_num", folder / "config.json")
    code = folder / "modeling_codegen.py"
    said = _PARTS.search(code.read_text(encoding="utf-8", errors="replace")) if code.is_file() else None
    if said and 0 < int(said[1]) <= 1024:
        return int(said[1])
    return 8 if hf.get("head_dim") is not None else 4
