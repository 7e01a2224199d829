"""A shard: NAME.tokens, the ids of its documents in a row, and NAME.parquet, what each document is, in the same order.

NAME.tokens, all little-endian: a header of 128 bytes, the ids (uint16), zeros up to a multiple of 8, and where each
document ends in the ids (uint64). Every document ends with `<|endoftext|>`. The header holds the magic, the version of
the format, the vocabulary's size and SHA-256, how many documents and tokens there are, and the SHA-256 of everything
behind the header followed by the header's own fields. Both files are written aside, and get their names when whole.
"""

from __future__ import annotations

import hashlib
import os
import struct
from array import array
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from codegen25.data.document import Document
from codegen25.data.mapped import Format
from codegen25.data.table import DocumentTable, DocumentTableWriter
from codegen25.data.tokens import Vocabulary
from codegen25.errors import CodegenError

MAGIC = b"CG25TOKS"
VERSION = 1
HEADER_BYTES = 128
_FIELDS = struct.Struct("<8sII32sQQ")
# Ids that are looked through at a time.
_CHUNK = 1 << 22


class Header(NamedTuple):
    """The fields of a header but its checksum, in their order in the file."""

    magic: bytes
    version: int
    size: int
    vocabulary: bytes
    documents: int
    tokens: int

    def pack(self) -> bytes:
        return _FIELDS.pack(*self)

    @property
    def ends_at(self) -> int:
        """Where the ends of documents begin in the file."""
        return HEADER_BYTES + (2 * self.tokens + 7) // 8 * 8

    @property
    def file_bytes(self) -> int:
        return self.ends_at + 8 * self.documents


FORMAT = Format("shard of tokens", "build the corpus again", MAGIC, VERSION, HEADER_BYTES, _FIELDS, Header)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ShardWriter:
    """Writes one shard: `add` its documents inside a `with` block, then `close`. Without `close` it leaves nothing.

    `stem` is the path of both files without their endings. Memory holds 8 bytes per document and a few MB of text.
    """

    def __init__(self, stem: Path, vocabulary: Vocabulary) -> None:
        self._stem, self._vocabulary = stem, vocabulary
        self._end = np.array([vocabulary.end], "<u2").tobytes()
        self._aside = stem.with_name(f".{stem.name}.tokens.{os.getpid()}")
        self._table = DocumentTableWriter(stem.with_name(f".{stem.name}.parquet.{os.getpid()}"))
        self._file = self._aside.open("wb")
        self._file.write(bytes(HEADER_BYTES))
        self._hash = hashlib.sha256()
        self._ends = array("Q")
        self._tokens = self._bytes = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def add(self, document: Document, ids: npt.NDArray[np.uint16]) -> None:
        """One more document and its ids, to which `<|endoftext|>` is added."""
        assert ids.size == 0 or int(ids.max()) < self._vocabulary.size, "ids of another vocabulary"
        self._write(ids.astype("<u2", copy=False).tobytes() + self._end)
        self._tokens += ids.size + 1
        self._ends.append(self._tokens)
        self._bytes += self._table.add(document, ids.size + 1)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)

    def close(self) -> dict[str, Any]:
        """Put both files in their places; what the manifest says of them."""
        self._write(bytes(-2 * self._tokens % 8))
        self._write(np.array(self._ends, "<u8").tobytes())
        name = bytes.fromhex(self._vocabulary.hash)
        fields = Header(MAGIC, VERSION, self._vocabulary.size, name, len(self._ends), self._tokens).pack()
        self._hash.update(fields)
        self._file.seek(0)
        self._file.write(fields + self._hash.digest())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._table.close()
        hashes = {"sha256": file_sha256(self._aside), "table_sha256": file_sha256(self._table.path)}
        # The tokens last: where they are, their table is.
        self._table.path.replace(self._stem.with_name(f"{self._stem.name}.parquet"))
        self._aside.replace(self._stem.with_name(f"{self._stem.name}.tokens"))
        _sync_folder(self._stem.parent)
        counts = {"documents": len(self._ends), "tokens": self._tokens, "bytes": self._bytes}
        return {"name": self._stem.name, **counts, **hashes}

    def discard(self) -> None:
        """Remove what is not in its place yet."""
        self._aside.unlink(missing_ok=True)
        self._table.discard()
        with suppress(OSError):  # a full disk, which was met before
            self._file.close()


def _sync_folder(folder: Path) -> None:
    """Make renames inside a folder last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Shard:
    """A shard that is read where it lies: ids are mapped into memory, and the table is read when it is asked for."""

    def __init__(self, path: Path, vocabulary: str = "") -> None:
        """`path` is that of NAME.tokens; `vocabulary` the hash that it must have, "" for any.

        Raises CodegenError when it is no whole shard, or one of another vocabulary.
        """
        self.path = path
        self._map, self.header = FORMAT.open(path)
        if vocabulary and self.vocabulary != vocabulary:
            raise CodegenError(
                f"{path}: was made with vocabulary {self.vocabulary[:12]}, not {vocabulary[:12]}; build the corpus "
                "again with the tokenizer of the model"
            )
        ends = self._map[self.header.ends_at : self.header.file_bytes].view("<u8")
        self.ends: npt.NDArray[np.uint64] = np.array(ends, np.uint64)
        self.ids: np.memmap[Any, np.dtype[np.uint16]] = self._ids()
        self._check_ends()

    def _check_ends(self) -> None:
        starts = np.concatenate([np.zeros(1, np.uint64), self.ends])
        if not (np.all(starts[:-1] < starts[1:]) and starts[-1] == self.header.tokens):
            raise FORMAT.wrong(self.path, "has ends of documents that do not increase to its last token")

    def _ids(self) -> Any:
        return self._map[HEADER_BYTES : HEADER_BYTES + 2 * self.header.tokens].view("<u2")

    def __len__(self) -> int:
        """How many documents there are."""
        return len(self.ends)

    @property
    def vocabulary(self) -> str:
        """The hash of the vocabulary that the ids are of."""
        return self.header.vocabulary.hex()

    def document_ids(self, index: int) -> npt.NDArray[np.uint16]:
        """The ids of one document, `<|endoftext|>` included; a view of the file."""
        start = int(self.ends[index - 1]) if index else 0
        return self.ids[start : int(self.ends[index])]

    def locate(self, position: int) -> tuple[int, int]:
        """The document that the token at `position` belongs to, and its place in that document."""
        if not 0 <= position < self.header.tokens:
            raise IndexError(position)
        index = int(np.searchsorted(self.ends, np.uint64(position), side="right"))
        return index, position - (int(self.ends[index - 1]) if index else 0)

    @cached_property
    def documents(self) -> DocumentTable:
        """The table beside the tokens. Raises CodegenError when it is none of as many documents."""
        table = DocumentTable(self.path.with_suffix(".parquet"))
        if len(table) != len(self):
            raise FORMAT.wrong(self.path, f"has {len(self)} documents, and its table {len(table)}")
        return table

    def document(self, index: int) -> Document:
        """One document with its text."""
        return self.documents.document(index)

    def __iter__(self) -> Iterator[Document]:
        """All documents in order, a few MB of text in memory at a time."""
        return iter(self.documents)

    @property
    def table(self) -> pa.Table:
        """What there is to know of the documents but their texts, a row for each."""
        return self.documents.read()

    def verify(self) -> None:
        """Read every byte. Raises CodegenError when one is not what was written, or an id not in the vocabulary."""
        FORMAT.verify(self.path, self._map)
        for start in range(0, self.header.tokens, _CHUNK):
            if int(self.ids[start : start + _CHUNK].max()) >= self.header.size:
                raise FORMAT.wrong(self.path, f"has ids beyond its vocabulary of {self.header.size}")
