"""The folder of a run: what was asked of whom, samples and verdicts. The same command goes on from what is in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codegen25.data.document import write_text
from codegen25.errors import CodegenError

RUN, SCORES, VERDICTS = "run.json", "scores.json", "verdicts.jsonl"


def samples_path(folder: Path, protocol: str) -> Path:
    return folder / f"{protocol}.jsonl"


def results_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.results.jsonl"


def claim(folder: Path, asked: Mapping[str, Any]) -> None:
    """Make the folder one of samples that were `asked` for so. Raises CodegenError when it holds others."""
    path = folder / RUN
    wanted = json.loads(json.dumps(asked))
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            differing = [key for key in {**wanted, **found} if wanted.get(key) != found.get(key)]
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise CodegenError(f"{path}: not the record of a run ({error}); choose another --out") from error
        if differing:
            what = ", ".join(sorted(differing))
            raise CodegenError(f"{folder}: holds samples that were asked for otherwise ({what}); choose another --out")
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, [json.dumps(wanted, indent=1) + "\n"])


def weights(model: Path) -> str:
    """The SHA-256 of a model's files: those of its folder but for its card, or a GGUF file."""
    digest = hashlib.sha256()
    for file in sorted(model.iterdir()) if model.is_dir() else [model]:
        if file.is_file() and file.suffix != ".md":  # a card is edited, and its model stays the same
            with file.open("rb") as data:
                digest.update(f"{file.name}\0{hashlib.file_digest(data, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
