"""A suffix file: the places of a shard where matches may begin, in the order of the suffixes that begin there.

It is built on `pydivsufsort` (libdivsufsort, Yuta Mori), which sorts bytes: of big-endian ids it keeps the even places.
Places of blank tokens are left out, since what formatting made tells of no origin, and so are the ends of documents. No
text that is looked for holds `<|endoftext|>`, so no match runs across the border of two documents, however the suffixes
behind a border are ordered.

All little-endian: a header of 192 bytes, the places (uint32), and in the file of a normalised shard its symbols
(uint16) and where each document ends in them (uint64), each part filled up to a multiple of 8. The header holds the
magic, the version of the format, the kind, the SHA-256 of the vocabulary and of the shard, the three lengths, and the
SHA-256 of everything behind the header followed by the header's own fields.
"""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from codegen25.data.mapped import Format

MAGIC = b"CG25SUFX"
VERSION = 1
HEADER_BYTES = 192
KINDS = ("tokens", "lexemes")
# Bytes that a token of the largest shard takes while its suffixes are sorted, measured and rounded up; see `build`.
BUILD_BYTES_PER_TOKEN = 26
# libdivsufsort counts bytes in 31 bits.
MOST_TOKENS = (1 << 30) - 1
_FIELDS = struct.Struct("<8sII32s32sQQQ")

Kind = Literal["tokens", "lexemes"]
Ids = NDArray[np.uint16]
Places = NDArray[np.uint32]
Ends = NDArray[np.uint64]
NO_IDS, NO_ENDS = np.empty(0, np.uint16), np.empty(0, np.uint64)


class Header(NamedTuple):
    """The fields of a header but its checksum, in their order in the file."""

    magic: bytes
    version: int
    kind: int
    vocabulary: bytes
    shard: bytes
    places: int
    symbols: int
    documents: int

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Where places, symbols and ends begin in the file, and how many bytes each has."""
        sizes = (4 * self.places, 2 * self.symbols, 8 * self.documents)
        starts = [HEADER_BYTES]
        for size in sizes:
            starts.append(starts[-1] + _padded(size))
        return list(zip(starts, sizes, strict=False))

    @property
    def file_bytes(self) -> int:
        start, size = self.parts[-1]
        return start + _padded(size)


def _padded(size: int) -> int:
    return (size + 7) // 8 * 8


FORMAT = Format("file of suffixes", "run attribute index again", MAGIC, VERSION, HEADER_BYTES, _FIELDS, Header)


def sort_suffixes(ids: Ids, left_out: NDArray[np.bool_]) -> Places:
    """The places of `ids` in the order of their suffixes, but for those of ids that `left_out` (bool [65536]) marks.

    A suffix that is the beginning of another goes first. Memory: `BUILD_BYTES_PER_TOKEN` bytes an id.
    """
    import pydivsufsort

    assert ids.size <= MOST_TOKENS, "callers refuse larger shards"
    if not ids.size:
        return np.empty(0, np.uint32)
    places = pydivsufsort.divsufsort(ids.astype(">u2").view(np.uint8))
    places = places[places % 2 == 0] // 2
    kept: Places = places[~left_out[ids[places]]].astype("<u4")
    return kept


def write_suffixes(
    path: Path,
    kind: Kind,
    vocabulary: str,
    shard: bytes,
    places: Places,
    symbols: Ids = NO_IDS,
    ends: Ends = NO_ENDS,
) -> None:
    """Write the file aside, and give it its name when it is whole. `vocabulary` is hexadecimal, `shard` 32 bytes."""
    name = bytes.fromhex(vocabulary)
    fields = _FIELDS.pack(MAGIC, VERSION, KINDS.index(kind), name, shard, places.size, symbols.size, ends.size)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    digest = hashlib.sha256()
    try:
        with aside.open("wb") as file:
            file.write(bytes(HEADER_BYTES))
            for part in (places.astype("<u4"), symbols.astype("<u2"), ends.astype("<u8")):
                for data in (part.data, bytes(-part.nbytes % 8)):
                    file.write(data)
                    digest.update(data)
            digest.update(fields)
            file.seek(0)
            file.write(fields + digest.digest())
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


class SuffixFile:
    """A suffix file, read where it lies: `places`, and of a normalised shard `symbols` and `ends`."""

    def __init__(self, path: Path, kind: Kind, vocabulary: str, shard: bytes) -> None:
        """Raises CodegenError when it is no whole file of this kind, vocabulary and shard."""
        self.path = path
        self._map, self.header = FORMAT.open(path)
        if (self.header.kind, self.header.vocabulary.hex()) != (KINDS.index(kind), vocabulary):
            raise FORMAT.wrong(path, "is an index of another vocabulary or kind")
        if self.header.shard != shard:
            raise FORMAT.wrong(path, "was made of a shard that has changed since")
        (a, n), (b, m), (c, k) = self.header.parts
        self.places: Any = self._map[a : a + n].view("<u4")
        self.symbols: Any = self._map[b : b + m].view("<u2")
        self.ends: Any = self._map[c : c + k].view("<u8")

    def verify(self) -> None:
        """Read every byte. Raises CodegenError when one is not what was written."""
        FORMAT.verify(self.path, self._map)
