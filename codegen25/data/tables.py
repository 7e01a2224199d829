"""Datasets as sources: Parquet and JSONL with the columns of StarCoderData, The Stack, CodeParrot, or our own.

A row is a file that knows its own repository. Tables are read a piece at a time, so they may be larger than memory.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from codegen25.data.document import Kind
from codegen25.data.source import MAX_BYTES, Entry, File, Metadata, Refused, Source
from codegen25.errors import CodegenError

CONTENT = ("content", "code", "text")
PATH = ("max_stars_repo_path", "path", "file_path", "filename")
REPOSITORY = ("max_stars_repo_name", "repo_name", "repository", "repo", "source")
VERSION = ("max_stars_repo_head_hexsha", "commit", "revision", "version")
STARS = ("max_stars_count", "stars")
LICENSE = ("max_stars_repo_licenses", "licenses", "license")
DATE = ("date",)
WANTED = (*CONTENT, *PATH, *REPOSITORY, *VERSION, *STARS, *LICENSE, *DATE, "id", "kind")
# What only StarCoderData's tables have; its makers state the licences of the whole.
STARCODERDATA = ({"max_stars_repo_path", "max_stars_repo_name", "max_stars_count", "id", "content"}, {"id", "content"})
STATEMENT = "StarCoderData: permissive licences only, opt-outs applied"
# The folders of StarCoderData that are not code, and how their texts begin.
KINDS: tuple[tuple[str, Kind, tuple[str, ...]], ...] = (
    ("issues", "issue", ("<issue_start>",)),
    ("commits", "commit", ("<commit_before>", "<reponame>")),
    ("jupyter", "jupyter", ("<jupyter_start>",)),
)
PREFIX = re.compile(r"(?:<reponame>(?P<repository>[^<\n]*))?(?:<filename>(?P<path>[^<\n]*))?(?:<gh_stars>(?P<stars>[^<\n]*))?\n?")
# Endings for rows without a path, by the folder's language.
ENDINGS = {
    "python": "py", "javascript": "js", "typescript": "ts", "java": "java", "c": "c", "cpp": "cpp", "c-sharp": "cs", "go": "go",
    "rust": "rs", "ruby": "rb", "php": "php", "scala": "scala", "kotlin": "kt", "shell": "sh", "sql": "sql", "lua": "lua",
    "perl": "pl", "r": "r", "julia": "jl", "haskell": "hs", "html": "html", "css": "css", "markdown": "md",
}  # fmt: skip
# Text of the row groups that are one part, before compression.
PART_BYTES = 64 << 20
ROWS = 256
# A line of JSON escapes its text: six characters for one at worst.
MAX_LINE = 6 * MAX_BYTES + (1 << 16)


def kind_of(place: str, content: str = "") -> Kind:
    """What the rows of a table are, by the path of its file, or by how a text begins."""
    for word, kind, openings in KINDS:
        if word in place.lower().split("/")[-1] or any(word in folder for folder in place.lower().split("/")[:-1]):
            return kind
        if content.startswith(openings[0]):
            return kind
    return "code"


class Rows:
    """Makes entries of rows. `place` is the table's path as far as the dataset named it, such as python/train.parquet."""

    def __init__(self, place: str) -> None:
        self.place = place
        folders = place.lower().split("/")[:-1]
        self._ending = next((f".{ENDINGS[name]}" for name in reversed(folders) if name in ENDINGS), "")

    def entry(self, row: dict[str, Any], number: int) -> Entry:
        """One row, `number` of the table from 1."""
        content = _first(row, CONTENT)
        name = _text(_first(row, PATH))
        where = name or f"row-{_text(row.get('id')) or number}{self._ending}"
        if not isinstance(content, str):
            return Refused(where, "row without text", f"{self.place}:{number}")
        kind = row.get("kind") if row.get("kind") in {"code", "issue", "commit", "jupyter"} else None
        return self._file(row, where, content, kind or kind_of(self.place, content))

    def _file(self, row: dict[str, Any], path: str, content: str, kind: Kind) -> Entry:
        repository, stars = _text(_first(row, REPOSITORY)), _first(row, STARS)
        if kind == "code" and content.startswith(("<reponame>", "<filename>", "<gh_stars>")):
            match = PREFIX.match(content)
            assert match is not None, "every part of it may be missing"
            repository, path = repository or match["repository"] or "", match["path"] or path
            content = content[match.end() :]
        try:
            data = content.encode()[: MAX_BYTES + 1]
        except UnicodeEncodeError:
            return Refused(path, "not UTF-8")
        known = int(stars) if isinstance(stars, int | float) and stars == stars else None
        version, date = _text(_first(row, VERSION)), _text(_first(row, DATE))
        return File(path, data, kind, repository, version, date, known, _license(_first(row, LICENSE)))


def _first(row: dict[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _license(value: Any) -> str:
    """The Stack lists what a detector found in a repository, which need not be a choice: all must be allowed."""
    if isinstance(value, list):
        return " AND ".join(one for one in value if isinstance(one, str))
    return value if isinstance(value, str) else ""


def statement(columns: set[str], file: str) -> Metadata:
    """What the makers of a dataset state of all of it."""
    code = kind_of(file) == "code"
    return Metadata("dataset", file, STATEMENT) if columns == STARCODERDATA[not code] else Metadata("")


class ParquetReader:
    """A Parquet file. `open` gives the file, wherever it lies; `place` is its path inside the dataset."""

    def __init__(self, source: Source, path: Path, open: Callable[[], IO[bytes]] | None = None) -> None:
        """Raises CodegenError when it is no Parquet file, or has no columns that are known."""
        self._where, self._place = str(path), source.name
        self._open = open or (lambda: path.open("rb"))
        self._rows = Rows(self._place)
        try:
            with self._open() as file, pq.ParquetFile(file) as table:
                self._columns, groups = list(table.schema_arrow.names), table.metadata
                self._sizes = [groups.row_group(n).total_byte_size for n in range(groups.num_row_groups)]
                self._counts = [groups.row_group(n).num_rows for n in range(groups.num_row_groups)]
        except OSError as error:
            raise CodegenError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
        except pa.ArrowException as error:
            raise CodegenError(f"{path}: not a whole Parquet file ({_line(error)}); fetch it again") from None
        if not set(CONTENT) & set(self._columns):
            columns = ", ".join(self._columns[:12])
            raise CodegenError(f"{path}: has the columns {columns}; one of {', '.join(CONTENT)} must be there")

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
        first, last = map(int, part.split(":"))
        number = sum(self._counts[:first])
        columns = [name for name in self._columns if name in WANTED]
        try:
            with self._open() as file, pq.ParquetFile(file) as table:
                groups = list(range(first, last))
                for batch in table.iter_batches(ROWS, row_groups=groups, columns=columns) if groups else ():
                    for row in batch.to_pylist():
                        number += 1
                        yield self._rows.entry(row, number)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            yield Refused("", "damaged table", f"{self._place} behind row {number}: {_line(error)}")


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


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
        """The lines that begin inside the part."""
        first, last = map(int, part.split(":"))
        with self._path.open("rb") as raw:
            file: IO[bytes] = gzip.GzipFile(fileobj=raw) if self._packed else raw  # type: ignore[assignment]
            at = first
            if first and not self._packed:
                raw.seek(first - 1)
                at += _skip(raw) - 1
            try:
                while (self._packed or at < last) and (line := file.readline(MAX_LINE)):
                    where, at = at, at + len(line)
                    if len(line) == MAX_LINE and not line.endswith(b"\n"):
                        at += _skip(file)
                        yield Refused(f"byte {where}", "line too long", self._place)
                    elif line.strip():
                        yield self._entry(line, where)
            except (EOFError, OSError, zlib.error) as error:
                yield Refused("", "truncated archive", f"{self._place} behind byte {at}: {error}")

    def _entry(self, line: bytes, at: int) -> Entry:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            return Refused(f"byte {at}", "not JSON", f"{self._place}: {error}")
        if not isinstance(row, dict):
            return Refused(f"byte {at}", "not JSON", f"{self._place}: no object")
        meta = row.pop("meta", None)
        return self._rows.entry((meta if isinstance(meta, dict) else {}) | row, at)


def _skip(file: IO[bytes]) -> int:
    """Leave the rest of a line behind; its length."""
    size = 0
    while piece := file.readline(1 << 20):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return size
