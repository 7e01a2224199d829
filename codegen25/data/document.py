"""One document of the corpus, and the JSON Lines file that holds many.

A document carries where it came from and why it may be used; nothing in the corpus is anonymous. Documents are told
apart by the SHA-256 of their content, so ordering by `id` is at once deterministic and a shuffle.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from codegen25.errors import CodegenError


@dataclass(frozen=True)
class Document:
    """A source file: `id` is the SHA-256 of the UTF-8 `content`; `evidence` is what `license` was decided from."""

    id: str
    content: str
    source: str
    version: str
    path: str
    license: str
    evidence: str
    language: str = "python"


def content_id(content: str) -> str:
    """The SHA-256 of the text in UTF-8, in hexadecimal."""
    return hashlib.sha256(content.encode()).hexdigest()


def write_text(path: Path, pieces: Iterable[str]) -> None:
    """Write the pieces aside, then rename: a reader never meets half a file."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(pieces)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_documents(path: Path, documents: Iterable[Document]) -> None:
    """One JSON object per line, in the order given."""
    write_text(path, (json.dumps(asdict(document), ensure_ascii=False) + "\n" for document in documents))


def read_documents(path: Path) -> Iterator[Document]:
    """The documents of a file written by `write_documents`, one at a time.

    Raises CodegenError when the file cannot be read or a line is no document.
    """
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield Document(**json.loads(line))
                except (ValueError, TypeError) as error:
                    raise CodegenError(f"{path}:{number}: not a document ({error}); build the corpus again") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CodegenError(f"{path}: cannot be read ({error}); build the corpus first") from error
