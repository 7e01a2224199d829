"""A person's own repository as texts to learn: its files, through the filters and the redaction of the corpus.

Licences do not matter here, since it is one's own code and stays with its owner; secrets, generated and minified files,
vendored code and data are left out as they are of a corpus, and prose is too. What `.gitignore` leaves out is not read.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from codegen25.data import filters, languages
from codegen25.data.folders import Folder
from codegen25.data.redact import redact
from codegen25.data.source import Entry, Refused
from codegen25.errors import CodegenError

# One file in so many is held out, but at most this many.
HELDOUT, MOST = 8, 32
# Not what is filled in, and minutes are few.
PROSE = frozenset(["markdown", "restructuredtext", "tex", "json", "yaml", "html", "css", "rmarkdown", "asciidoc"])


@dataclass(frozen=True)
class SourceFile:
    path: str
    text: str
    language: str


@dataclass(frozen=True)
class Repository:
    """The files to learn and those held out, in the order of their paths; how many others there are, by reason."""

    learned: tuple[SourceFile, ...]
    heldout: tuple[SourceFile, ...]
    left_out: Counter[str]
    redacted: int


def read_repository(root: Path) -> Repository:
    """Raises `CodegenError` when `root` is no folder, or has not two files to go by."""
    left_out: Counter[str] = Counter()
    found: dict[str, SourceFile] = {}  # by text: copies would be learned and held out
    redacted = 0
    for entry in Folder(root).entries(""):
        kept = _judged(entry, left_out)
        if kept is None:
            continue
        clean, redactions = redact(kept.text)
        redacted += len(redactions)
        if clean in found:
            left_out["copy"] += 1
        else:
            found[clean] = SourceFile(kept.path, clean, kept.language)
    if len(found) < 2:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common(3)) or "it is empty"
        raise CodegenError(f"{root}: has not two files of code to learn from ({why}); name another repository")
    heldout = set(_heldout(found.values()))
    files = sorted(found.values(), key=lambda file: file.path)
    return Repository(
        tuple(file for file in files if file.path not in heldout),
        tuple(file for file in files if file.path in heldout), left_out, redacted,
    )  # fmt: skip


def _judged(entry: Entry, left_out: Counter[str]) -> SourceFile | None:
    """The file, or None and its reason counted."""
    if isinstance(entry, Refused):
        left_out[entry.reason] += 1
        return None
    if reason := filters.reject_path(entry.path):
        left_out[reason] += 1
        return None
    text, reason = filters.decode(entry.data)
    language = None if text is None else languages.detect(entry.path, text)
    if text is None or language is None:
        left_out[reason or "no programming language"] += 1
        return None
    if reason := "prose or data" if language in PROSE else filters.reject_content(text, language, entry.path):
        left_out[reason] += 1
        return None
    return SourceFile(entry.path, text, language)


def _heldout(files: Collection[SourceFile]) -> list[str]:
    """The paths held out: the first by the hash of their names, which says nothing of what is in them."""
    paths = sorted((file.path for file in files), key=lambda path: hashlib.sha256(path.encode()).digest())
    return paths[: min(MOST, max(1, len(paths) // HELDOUT))]
