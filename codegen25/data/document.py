"""One document of the corpus: its text, where it came from, why it may be used, and what was taken out of it.

Nothing in the corpus is anonymous. Documents are told apart by the SHA-256 of their content.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from codegen25.errors import CodegenError

# What a text is. Of all but code, the control strings that the dataset wrote into it are its structure.
Kind = Literal["code", "issue", "commit", "jupyter"]
# From the weakest to the strongest: which of two equal documents' licences is better known.
EVIDENCE = ("dataset", "declared", "metadata", "file", "header")


@dataclass(frozen=True)
class Evidence:
    """Why a licence was decided: one of `EVIDENCE`, the file inside the source, its words, and how sure (0 to 1)."""

    kind: str
    file: str
    text: str
    confidence: float


@dataclass(frozen=True)
class Redaction:
    """What was replaced: "email", "ip", "key" or "password", and the line of the document it stands in, from 1."""

    kind: str
    line: int


@dataclass(frozen=True)
class Document:
    """A text of the corpus; `id` is the SHA-256 of the UTF-8 `content`, in hexadecimal.

    `source` and `version` name a package and its release, or a repository and its commit; `path` is inside it.
    `license` is an SPDX expression. `date` is the source's in ISO 8601, "" where it is not known; `stars` likewise.
    """

    id: str
    content: str
    source: str
    version: str
    path: str
    license: str
    evidence: Evidence
    language: str
    kind: Kind = "code"
    date: str = ""
    stars: int | None = None
    redactions: tuple[Redaction, ...] = ()


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


def from_json(fields: dict[str, Any]) -> Document:
    """The document of a JSON object, as `asdict` makes one. Raises TypeError or KeyError when it is none."""
    evidence, redactions = Evidence(**fields["evidence"]), fields.get("redactions", ())
    return Document(**fields | {"evidence": evidence, "redactions": tuple(Redaction(**one) for one in redactions)})


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
                    yield from_json(json.loads(line))
                except (ValueError, TypeError, KeyError) as error:
                    raise CodegenError(f"{path}:{number}: not a document ({error}); build the corpus again") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CodegenError(f"{path}: cannot be read ({error}); build the corpus first") from error
