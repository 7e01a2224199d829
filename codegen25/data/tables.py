"""Datasets as sources: files of Parquet and JSONL, a piece at a time, as they may be larger than memory."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from codegen25.data.members import most_bytes
from codegen25.data.plain import first_line
from codegen25.data.rows import CONTENT, WANTED, Rows, folder_kind
from codegen25.data.source import MAX_BYTES, Entry, Metadata, Refused, Source
from codegen25.errors import CodegenError

# What only StarCoderData's tables have; its makers state the licences of the whole.
CODE_COLUMNS = {"max_stars_repo_path", "max_stars_repo_name", "max_stars_count", "id", "content"}
OTHER_COLUMNS = {"id", "content"}
STATEMENT = "StarCoderData: permissive licences only, opt-outs applied"
# Text of the row groups that are one part, before compression.
PART_BYTES = 64 << 20
ROWS = 256
BUFFER = 1 << 20
# A line of JSON escapes its text: six characters for one at worst.
MAX_LINE = 6 * MAX_BYTES + (1 << 16)


def statement(columns: set[str], place: str) -> Metadata:
    """What the makers of a dataset state of all of it. Two columns are StarCoderData's in folders of its names only."""
    theirs = columns == CODE_COLUMNS or (columns == OTHER_COLUMNS and folder_kind(place) is not None)
    return Metadata("dataset", place, STATEMENT) if theirs else Metadata("")


class ParquetReader:
    """A Parquet file. `open` gives the file, wherever it lies; the source's name is its path inside the dataset."""

    def __init__(self, source: Source, path: Path, open: Callable[[], IO[bytes] | RawIOBase] | None = None) -> None:
        """Raises CodegenError when it is no Parquet file, or has no columns that are known."""
        self._place = source.name
        self._open = open or (lambda: path.open("rb"))
        self._rows = Rows(self._place)
        try:
            with self._opened() as table:
                self._columns, groups = list(table.schema_arrow.names), table.metadata
                self._sizes = [groups.row_group(n).total_byte_size for n in range(groups.num_row_groups)]
                self._counts = [groups.row_group(n).num_rows for n in range(groups.num_row_groups)]
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise CodegenError(f"{path}: cannot be read ({error.strerror}); check the path") from None
            raise CodegenError(f"{path}: not a whole Parquet file ({_line(error)}); fetch it again") from None
        if not set(CONTENT) & set(self._columns):
            columns = _line(", ".join(self._columns))
            raise CodegenError(f"{path}: has the columns {columns}; one of {', '.join(CONTENT)} must be there")

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        """The file, read as its pages are needed: otherwise a large group of rows is in memory at once."""
        with self._open() as file, pq.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER) as table:
            yield table

    def metadata(self) -> Metadata:
        return statement(set(self._columns), self._place)

    def license_files(self) -> dict[str, str]:
        return {}

    def parts(self) -> list[str]:
        """Row groups as FIRST:LAST, of PART_BYTES together or one alone."""
        parts: list[str] = []
        first, size = 0, 0
        for number, bytes_ in enumerate(self._sizes):
            if size and size + bytes_ > PART_BYTES:
                parts.append(f"{first}:{number}")
                first, size = number, 0
            size += bytes_
        return [*parts, f"{first}:{len(self._sizes)}"]

    def entries(self, part: str) -> Iterator[Entry]:
        """The rows of a part; what is damaged is refused. Raises OSError when the file cannot be read on."""
        first, last = map(int, part.split(":"))
        number = sum(self._counts[:first])
        columns = [name for name in self._columns if name in WANTED]
        try:
            with self._opened() as table:
                groups = list(range(first, last))
                for batch in table.iter_batches(ROWS, row_groups=groups, columns=columns) if groups else ():
                    for row in _rows(batch):
                        number += 1
                        yield self._entry(row, number)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            yield Refused("", "damaged table", f"{self._place} behind row {number}: {_line(error)}")

    def _entry(self, row: dict[str, Any] | None, number: int) -> Entry:
        if row is None:
            return Refused(f"row-{number}", "not UTF-8", f"{self._place}:{number}")
        return self._rows.entry(row, number)


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | None]:
    """The rows of a batch, None for each with bytes that are no text."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for number in range(batch.num_rows):
            try:
                yield batch.slice(number, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield None


def _line(said: Exception | str) -> str:
    """What a library said, as one line that is not long."""
    return first_line(said)[:200]


class JsonlReader:
    """A file of one JSON object a line, packed by gzip or not."""

    def __init__(self, source: Source, path: Path) -> None:
        """Raises CodegenError when it cannot be opened."""
        self._path, self._place = path, source.name
        self._rows = Rows(source.name)
        try:
            with path.open("rb") as file:
                self._packed = file.read(2) == b"\x1f\x8b"
        except OSError as error:
            raise CodegenError(f"{path}: cannot be read ({error.strerror}); check the path") from None

    def metadata(self) -> Metadata:
        return Metadata("")

    def license_files(self) -> dict[str, str]:
        return {}

    def parts(self) -> list[str]:
        """Ranges of bytes, FIRST:LAST, of a plain file; a packed one can be read from its start only."""
        size = self._path.stat().st_size
        if self._packed:
            return [f"0:{size}"]
        return [f"{first}:{min(first + PART_BYTES, size)}" for first in range(0, max(size, 1), PART_BYTES)]

    def entries(self, part: str) -> Iterator[Entry]:
        """The lines that begin inside the part. Raises OSError when the file cannot be read on."""
        first, last = map(int, part.split(":"))
        with self._path.open("rb") as raw:
            file: IO[bytes] = gzip.GzipFile(fileobj=raw) if self._packed else raw  # type: ignore[assignment]
            at, end = first, most_bytes(last) if self._packed else last
            if first:  # of the line that holds the byte before, the rest belongs to it
                file.seek(first - 1)
                at += _skip(file, end - first + 1) - 1
            try:
                while at < end and (line := file.readline(MAX_LINE)):
                    where, at = at, at + len(line)
                    if len(line) == MAX_LINE and not line.endswith(b"\n"):
                        at += _skip(file, end - at)
                        yield Refused(f"byte {where}", "line too long", self._place)
                    elif line.strip():
                        yield self._entry(line, where)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                yield Refused("", "truncated archive", f"{self._place} behind byte {at}: {_line(error)}")
            if self._packed and at >= end:
                yield Refused("", "archive bomb", f"{self._place} unpacks to many times its size")

    def _entry(self, line: bytes, at: int) -> Entry:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            return Refused(f"byte {at}", "not JSON", f"{self._place}: {_line(error)}")
        if not isinstance(row, dict):
            return Refused(f"byte {at}", "not JSON", f"{self._place}: no object")
        meta = row.pop("meta", None)
        return self._rows.entry((meta if isinstance(meta, dict) else {}) | row, at)


def _skip(file: IO[bytes], most: int) -> int:
    """Leave the rest of a line behind, or `most` bytes of it; how many they were."""
    size = 0
    while size < most and (piece := file.readline(min(1 << 20, most - size))):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return size
