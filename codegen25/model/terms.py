"""Licences that allow less than open ones: shown once, and that they were accepted is recorded.

The record, `licences.json` in the cache, holds for each model what its makers declare, the SHA-256 of the text that was
shown, and when it was accepted. Another text is shown again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from codegen25.data.plain import plain
from codegen25.errors import CodegenError
from codegen25.model.cached import cache_folder

# As the hub names them. What a model's makers declare is believed, but for the publisher's instruct, of which is known
# that it is for research only.
OPEN = frozenset({"apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "unlicense", "isc", "bsl-1.0"})
RESEARCH = "salesforce/codegen25-7b-instruct"


def is_open(name: str, license: str) -> bool:
    return license.lower() in OPEN and not name.lower().startswith(RESEARCH)


def agree(name: str, license: str, text: str, accept: bool, show: Callable[[str], None]) -> str:
    """See to it that the licence of the model `name` is accepted: by `accept`, at the terminal, or earlier.

    `text` is what its makers say about it. Returns the SHA-256 of that. Raises `CodegenError` when it is not accepted.
    """
    digest = hashlib.sha256(text.encode()).hexdigest()
    if is_open(name, license) or _record().get(name, {}).get("sha256") == digest:
        return digest
    said = "for research use only" if name.lower().startswith(RESEARCH) else "not known as an open licence"
    show(f"{name}: its licence ({license or 'not declared'}) is {said}:")
    for line in text.splitlines():
        show(f"  {plain(line)}")
    if not accept and not _asked(name):
        raise CodegenError(
            f"{name}: its licence must be accepted first; read it, then run `codegen25 fetch {name} --accept-license`"
        )
    _write(name, {"license": license, "sha256": digest, "accepted": datetime.now(UTC).isoformat(timespec="seconds")})
    return digest


def _asked(name: str) -> bool:
    """Whether somebody at a terminal says yes."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    sys.stderr.write(f"Do you accept these terms for {name}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _path() -> Path:
    return cache_folder() / "licences.json"


def _record() -> dict[str, Any]:
    path = _path()
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CodegenError(f"{path}: cannot be read; remove it, licences are asked about again then") from error
    return record if isinstance(record, dict) else {}


def _write(name: str, entry: dict[str, str]) -> None:
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(_record() | {name: entry}, indent=1) + "\n", encoding="utf-8")
    aside.replace(path)


def terms_text(folder: Path) -> str:
    """What a downloaded repository says about its licence: its licence file, else the part of its card about it."""
    for path in sorted(folder.glob("LICENSE*")):
        return path.read_text(encoding="utf-8", errors="replace")
    card = folder / "README.md"
    if not card.is_file():
        return "(neither a licence file nor a card says more)"
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    heads = [number for number, line in enumerate(lines) if line.startswith("#")]
    about = [number for number in heads if "licen" in lines[number].lower()]
    if not about:
        return "\n".join(lines)
    end = next((number for number in heads if number > about[0]), len(lines))
    return "\n".join(lines[about[0] : end]).strip()
