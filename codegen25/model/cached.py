"""Where models from the hub are kept once they are fetched: in the cache of the user, quantized, a folder for each.

`CACHE/hub/OWNER--MODEL/int8` is a model folder like any other, with `origin.json` beside its weights, written last;
`whole` instead of `int8` holds the files as they were published.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

ORIGIN = "origin.json"
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
WHOLE = 0  # instead of a number of bits
BITS = (8, 4)  # in the order in which one is taken when nothing is said


def cache_folder() -> Path:
    """Where the XDG base directory specification puts it."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "codegen25"


def place(name: str, bits: int) -> Path:
    """Where the model with the hub id `name` is kept in so many bits, or whole, be it there or not."""
    return cache_folder() / "hub" / name.replace("/", "--") / (f"int{bits}" if bits else "whole")


def fetched(name: str, bits: int | None = None) -> Path | None:
    """The folder of a hub id that was fetched, in `bits` (or `WHOLE`) or whatever is quantized; None without one."""
    if not HUB_ID.fullmatch(name):
        return None
    return next((found for b in (BITS if bits is None else [bits]) if origin(found := place(name, b))), None)


def origin(folder: Path) -> dict[str, Any]:
    """What `origin.json` says: repository, commit, license, date, and the hashes of what was fetched; {} without it."""
    try:
        said = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
