"""Tracing files: one, or all of a folder, and how much of each stands in the corpus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codegen25.attribute.trace import Match, Tracer
from codegen25.errors import CodegenError
from codegen25.files import Source, read_source

# Folders that are not somebody's own code.
_NOT_OURS = frozenset({"node_modules", "__pycache__", "venv", "site-packages"})


@dataclass(frozen=True)
class TracedFile:
    """A file by its path inside the folder, its text as it was read, and the matches in it."""

    path: str
    source: Source
    matches: tuple[Match, ...]

    @property
    def attributed(self) -> list[Match]:
        """The matches that are not common."""
        return [match for match in self.matches if not match.common]

    @property
    def overlap(self) -> int:
        """Characters that stand in attributed matches."""
        total = reached = 0
        for match in sorted(self.attributed, key=lambda one: one.start):
            total += max(0, match.end - max(match.start, reached))
            reached = max(reached, match.end)
        return total

    def lines(self, match: Match) -> tuple[int, int]:
        """The first and the last line of a match, from 1."""
        text = self.source.raw
        return text.count("\n", 0, match.start) + 1, text.count("\n", 0, match.end) + 1

    def to_json(self) -> dict[str, Any]:
        found = []
        for match in self.matches:
            first, last = self.lines(match)
            found.append({"first_line": first, "last_line": last} | match.to_json())
        return {"file": self.path, "characters": len(self.source.raw), "overlap": self.overlap, "attribution": found}


def trace_source(tracer: Tracer, path: str, source: Source) -> TracedFile:
    """Raises CodegenError when the text is empty or too long."""
    return TracedFile(path, source, tuple(tracer.trace(source.raw)))


def trace_folder(tracer: Tracer, folder: Path) -> Iterator[TracedFile]:
    """Every text file under a folder, in order; what is hidden, empty, no UTF-8, or other people's is passed over.

    Links are not followed. Raises CodegenError when there is nothing to trace.
    """
    count = 0
    for path in sorted(_files(folder)):
        try:
            source = read_source(path)
        except CodegenError:  # binary or not UTF-8: no source code
            continue
        if source.raw.strip():
            count += 1
            yield trace_source(tracer, path.relative_to(folder).as_posix(), source)
    if not count:
        raise CodegenError(f"{folder}: holds no text files to trace; name a folder of source code")


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name in _NOT_OURS or path.is_symlink():
            continue
        if path.is_dir():
            yield from _files(path)
        elif path.is_file():
            yield path
