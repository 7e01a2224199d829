"""Writing Parquet a group of rows at a time: bounded memory, and nothing left behind by a write that failed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


class RowGroupWriter:
    """Writes rows to `path`; the caller gives the file its name.

    A group of rows ends when its rows have `most_bytes` together, as the caller counts them, or when there are
    `most_rows`. `settings` are those of pyarrow's ParquetWriter.
    """

    def __init__(
        self, path: Path, schema: pa.Schema, *, most_bytes: int, most_rows: int | None = None, **settings: Any
    ) -> None:
        self.path, self._schema = path, schema
        self._most_bytes, self._most_rows = most_bytes, most_rows
        self._file = path.open("wb")
        self._writer = pq.ParquetWriter(self._file, schema, compression="zstd", **settings)
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, row: dict[str, Any], size: int) -> None:
        """One more row, of about `size` bytes."""
        self._rows.append(row)
        self._bytes += size
        if self._bytes >= self._most_bytes or len(self._rows) == self._most_rows:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            table = pa.Table.from_pylist(self._rows, schema=self._schema)
            self._writer.write_table(table, row_group_size=len(self._rows))
        self._rows, self._bytes = [], 0

    def close(self) -> None:
        """Write the last group and the footer."""
        self._flush()
        self._writer.close()
        self._file.close()

    def discard(self) -> None:
        """Remove the file, where it has no name of its own yet."""
        self.path.unlink(missing_ok=True)
        with suppress(OSError):  # a full disk, which was met before
            self._writer.close()
        self._writer.is_open = False  # or it closes itself again
        with suppress(OSError):
            self._file.close()
