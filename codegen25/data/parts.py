"""What one worker leaves of one part of a source: scratch files of the build, whole or not there.

KEY.kept.parquet has a row per document that may be used, KEY.dropped.parquet one per file that may not, KEY.shingles
what near copies are compared by. KEY.done is written last: without it the other three do not count.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from codegen25.data.dedup import BANDS
from codegen25.data.document import Document, from_json, write_text
from codegen25.data.row_groups import RowGroupWriter

# A batch holds about this much text before it is written, which bounds a worker's memory.
BATCH_BYTES = 8 << 20

KEPT = pa.schema(
    [
        ("part", pa.uint32()), ("row", pa.uint32()), ("id", pa.string()), ("source", pa.string()),
        ("rank", pa.string()), ("heldout", pa.bool_()), ("bytes", pa.uint32()), ("shingles_at", pa.uint64()),
        ("shingles", pa.uint32()),
        ("bands", pa.list_(pa.uint64(), BANDS)), ("about", pa.string()), ("content", pa.large_string()),
    ]
)  # fmt: skip
DROPPED = pa.schema([(name, pa.string()) for name in ("source", "version", "path", "stage", "reason", "detail")])


@dataclass(frozen=True)
class Drop:
    """A file that is not in the corpus: where it stands, and at which stage and why it fell."""

    source: str
    version: str
    path: str
    stage: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class PartFiles:
    """The names of a part's files in a folder."""

    folder: Path
    key: str

    @property
    def kept(self) -> Path:
        return self.folder / f"{self.key}.kept.parquet"

    @property
    def dropped(self) -> Path:
        return self.folder / f"{self.key}.dropped.parquet"

    @property
    def shingles(self) -> Path:
        return self.folder / f"{self.key}.shingles"

    @property
    def done(self) -> Path:
        return self.folder / f"{self.key}.done"

    def summary(self) -> dict[str, Any] | None:
        """What was noted when the part was done; None when it is not."""
        try:
            found: dict[str, Any] = json.loads(self.done.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return found

    def finish(self, summary: dict[str, Any]) -> None:
        write_text(self.done, [json.dumps(summary)])


class Table:
    """A Parquet file that `close` puts in its place; leaving the context without that leaves nothing."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        self._rows = RowGroupWriter(aside, schema, most_bytes=BATCH_BYTES, compression_level=1)
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.discard()

    def add(self, row: dict[str, Any], size: int) -> None:
        """One more row, of about `size` bytes."""
        self._rows.add(row, size)
        self.count += 1

    def close(self) -> None:
        self._rows.close()
        self._rows.path.replace(self._path)


class DropTable(Table):
    """Files that are not in the corpus."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, DROPPED)

    def drop(self, drop: Drop) -> None:
        self.add(vars(drop), 64 + len(drop.path) + len(drop.detail))


def about(document: Document) -> str:
    """All of a document but its text, as JSON."""
    return json.dumps(asdict(document) | {"content": ""}, ensure_ascii=False)


def document_of(row: dict[str, Any]) -> Document:
    """The document of a row of KEPT."""
    return from_json(json.loads(row["about"]) | {"content": row["content"]})


def rows(path: Path, columns: Iterable[str] | None = None, batch: int = 256) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, a batch in memory at a time."""
    with pq.ParquetFile(path) as file:
        for chunk in file.iter_batches(batch_size=batch, columns=None if columns is None else list(columns)):
            yield from chunk.to_pylist()
