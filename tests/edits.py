"""A model folder, changed where a test wants it damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file


def edit_config(folder: Path, **changes: Any) -> None:
    """Set keys of its `config.json`."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Write its weights again as `edit` leaves them; what is mapped from the old file stays as it is."""
    state = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    edit(state)
    (folder / "model.safetensors").unlink()
    save_file(state, folder / "model.safetensors")
