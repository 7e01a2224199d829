"""The table of a shard: a row per document with all that is known of it, and its text, as Parquet.

The text is a column of its own, so that the rest is read without it; groups of rows are small, so that one document is
read without the others. The same documents give the same bytes with the same pyarrow.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from os import fsync
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codegen25.data.document import Document, Evidence, Redaction
from codegen25.data.plain import first_line
from codegen25.data.row_groups import RowGroupWriter
from codegen25.errors import CodegenError

_WORDS = ("source", "version", "path", "license", "evidence_kind", "evidence_file", "language", "kind", "date")
SCHEMA = pa.schema(
    [
        ("id", pa.string()), *[(name, pa.string()) for name in _WORDS], ("evidence_text", pa.string()),
        ("evidence_confidence", pa.float64()), ("stars", pa.int64()),
        ("redactions", pa.list_(pa.struct([("kind", pa.string()), ("line", pa.int64())]))),
        ("tokens", pa.uint64()), ("bytes", pa.uint64()), ("lines", pa.uint64()), ("content", pa.large_string()),
    ]
)  # fmt: skip
COLUMNS = [name for name in SCHEMA.names if name != "content"]
# A group of rows ends when it holds this much text, or this many rows.
GROUP_BYTES = 2 << 20
GROUP_ROWS = 1024


class DocumentTableWriter:
    """Writes the rows of a table to `path`; the caller gives the file its name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows = RowGroupWriter(
            path,
            SCHEMA,
            most_bytes=GROUP_BYTES,
            most_rows=GROUP_ROWS,
            compression_level=3,
            use_dictionary=[*_WORDS, "evidence_text"],
            write_statistics=["source", "language", "license", "tokens", "bytes"],
            write_page_checksum=True,
        )

    def add(self, document: Document, tokens: int) -> int:
        """One more row; how many bytes its text has."""
        row = row_of(document, tokens)
        self._rows.add(row, row["bytes"])
        return int(row["bytes"])

    def close(self) -> None:
        """Everything to the disk."""
        self._rows.close()
        with self.path.open("rb") as file:
            fsync(file.fileno())

    def discard(self) -> None:
        """Remove the file, where it has no name of its own yet."""
        self._rows.discard()


def row_of(document: Document, tokens: int) -> dict[str, Any]:
    """A document as a row. `lines` counts a last line that has no line break, too."""
    content, evidence = document.content, document.evidence
    return {
        "id": document.id, "source": document.source, "version": document.version, "path": document.path,
        "license": document.license, "evidence_kind": evidence.kind, "evidence_file": evidence.file,
        "evidence_text": evidence.text, "evidence_confidence": evidence.confidence, "language": document.language,
        "kind": document.kind, "date": document.date, "stars": document.stars,
        "redactions": [{"kind": one.kind, "line": one.line} for one in document.redactions], "tokens": tokens,
        "bytes": len(content.encode()), "lines": content.count("\n") + (not content.endswith("\n") and content != ""),
        "content": content,
    }  # fmt: skip


def document_of(row: dict[str, Any]) -> Document:
    """The document of a row; the inverse of `row_of`."""
    evidence = {name: row[f"evidence_{name}"] for name in ("kind", "file", "text", "confidence")}
    same = ("id", "content", "source", "version", "path", "license", "language", "kind", "date", "stars")
    redactions = tuple(Redaction(**one) for one in row["redactions"])
    return Document(evidence=Evidence(**evidence), redactions=redactions, **{name: row[name] for name in same})


class DocumentTable:
    """Reads a table: columns, or single documents."""

    def __init__(self, path: Path) -> None:
        """Raises CodegenError when the file is no such table."""
        self._path = path
        with self._reading():
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
            groups = self._file.metadata
            if not self._file.schema_arrow.equals(SCHEMA):
                raise pa.ArrowInvalid("it has other columns")
            lengths: list[int] = [groups.row_group(number).num_rows for number in range(groups.num_row_groups)]
        self._starts = [0, *accumulate(lengths)]
        self._group: tuple[int, pa.Table] | None = None

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Around calls of pyarrow, to which a damaged file is one of several errors."""
        try:
            yield
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            what = first_line(error)
            raise CodegenError(f"{self._path}: not a table of documents ({what}); build the corpus again") from None

    def __len__(self) -> int:
        return self._starts[-1]

    def read(self, columns: Sequence[str] = COLUMNS) -> pa.Table:
        """Some columns of all rows. Raises CodegenError when the file is damaged."""
        with self._reading():
            return self._file.read(list(columns))

    def _read_group(self, number: int) -> pa.Table:
        """A group of rows; the last one read is kept, as neighbours are often asked for together."""
        if self._group is None or self._group[0] != number:
            with self._reading():
                self._group = number, self._file.read_row_group(number)
        return self._group[1]

    def document(self, index: int) -> Document:
        """One document. Raises IndexError when there is none of that number."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._starts, index) - 1
        return document_of(self._read_group(number).slice(index - self._starts[number], 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Document]:
        for number in range(len(self._starts) - 1):
            for row in self._read_group(number).to_pylist():
                yield document_of(row)
