"""Objects of a git repository, read in bounded memory, each held to its name, which is the hash of its content.

An object may be stored as a change of another one, that of a third; all of them are unpacked to read it, so the size
of each is looked up before (the format: gitformat-pack).
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from dulwich.errors import ApplyDeltaError, ChecksumMismatch, FileFormatException, WrongObjectException
from dulwich.object_store import DiskObjectStore
from dulwich.objects import Commit, ObjectID, RawObjectID, hex_to_sha, parse_tree
from dulwich.pack import Pack, PackFileDisappeared, UnresolvedDeltas

from codegen25.data.regular import open_regular

# Of folders and of what files are stored as changes of; larger ones would fill memories.
MAX_OBJECT_BYTES = 1 << 26
MAX_CHAIN = 10_000
_TYPES = {1: b"commit", 2: b"tree", 3: b"blob", 4: b"tag"}
_OFFSET_DELTA, _NAMED_DELTA = 6, 7
# A name may be loose, packed, or in a repository that this one borrows from, which may borrow in turn.
MAX_BORROWED = 5
# What is raised, by dulwich too, over bytes that are no object.
DAMAGE = (
    ApplyDeltaError, AssertionError, ChecksumMismatch, EOFError, FileFormatException, IndexError, OSError,
    OverflowError, PackFileDisappeared, RecursionError, TypeError, UnresolvedDeltas, ValueError, WrongObjectException,
    struct.error, zlib.error,
)  # fmt: skip


class TooLarge(Exception):
    """An object, or one that it is stored as a change of, is not to be unpacked."""


class Objects:
    """Reads objects by name (hexadecimal). Raises KeyError for one that is missing, one of DAMAGE, or TooLarge."""

    def __init__(self, store: DiskObjectStore) -> None:
        self._store = store

    def blob(self, name: ObjectID, most: int) -> bytes:
        """The content of a file of at most `most` bytes."""
        return self._read(name, b"blob", most)

    def tree(self, name: ObjectID) -> list[tuple[bytes, int, ObjectID]]:
        """The entries of a folder: name, mode and object."""
        data = self._read(name, b"tree", MAX_OBJECT_BYTES)
        return [(path, mode, ObjectID(one)) for path, mode, one in parse_tree(data, len(name) // 2)]

    def commit(self, name: ObjectID) -> Commit:
        return Commit.from_string(self._read(name, b"commit", MAX_OBJECT_BYTES))

    def _read(self, name: ObjectID, kind: bytes, most: int) -> bytes:
        for number, size in enumerate(_sizes(self._store, name, MAX_BORROWED)):
            if size > (MAX_OBJECT_BYTES if number else most):
                raise TooLarge(f"{size} bytes")
        number, data = self._store.get_raw(name)
        digest = hashlib.sha1 if len(name) == 40 else hashlib.sha256
        if _TYPES.get(number) != kind or digest(b"%b %d\0" % (kind, len(data)) + data).hexdigest() != name.decode():
            raise ValueError("its content is another's")
        return data


def _sizes(store: DiskObjectStore, name: ObjectID, borrowed: int) -> Iterator[int]:
    """The size of an object, then of all that must be unpacked for it. Raises KeyError when it is not there."""
    for pack in store.packs:
        try:
            offset = pack.index.object_offset(hex_to_sha(name))
        except KeyError:
            continue
        yield from _packed_sizes(pack, offset)
        return
    try:
        yield _loose_size(Path(os.fsdecode(store.path)) / name[:2].decode() / name[2:].decode())
    except FileNotFoundError:
        for other in store.alternates if borrowed else ():
            if isinstance(other, DiskObjectStore) and name in other:
                yield from _sizes(other, name, borrowed - 1)
                return
        raise KeyError(name) from None


def _loose_size(path: Path) -> int:
    with open_regular(path, follow=True) as file:
        stored = os.fstat(file.fileno()).st_size
        header = zlib.decompressobj().decompress(file.read(256), 64)
    _, _, size = header.partition(b"\0")[0].partition(b" ")
    return max(stored if stored > MAX_OBJECT_BYTES else 0, int(size))


def _packed_sizes(pack: Pack, offset: int) -> Iterator[int]:
    """The size of the object at an offset, of the change that makes it, and so on down to what is no change."""
    for _ in range(MAX_CHAIN):
        with open_regular(os.fsdecode(pack.data.path), follow=True) as file:
            file.seek(offset)
            head = file.read(256)
        kind, size, at = _entry_header(head)
        if kind not in (_OFFSET_DELTA, _NAMED_DELTA):
            yield size
            return
        back, at = _distance(head, at) if kind == _OFFSET_DELTA else (0, at)
        base = head[at : at + pack.object_format.oid_length]
        at += 0 if kind == _OFFSET_DELTA else len(base)
        change = zlib.decompressobj().decompress(head[at:], 32)
        _, after = _varint(change, 0)
        result, _ = _varint(change, after)
        yield from (result, size)
        if kind == _OFFSET_DELTA and not 0 < back < offset:
            raise ValueError("a change of what is not in the pack")
        offset = offset - back if back else pack.index.object_offset(RawObjectID(base))
    raise ValueError("a change of a change, too often")


def _entry_header(head: bytes) -> tuple[int, int, int]:
    """Type, size and where it ends."""
    size, at, shift = head[0] & 15, 1, 4
    while head[at - 1] & 0x80:
        size |= (head[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return head[0] >> 4 & 7, size, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, at, shift = value | (byte & 0x7F) << shift, at + 1, shift + 7
        if not byte & 0x80:
            return value, at


def _distance(head: bytes, at: int) -> tuple[int, int]:
    """How far back in the pack lies what is changed."""
    value = head[at] & 0x7F
    while head[at] & 0x80:
        at += 1
        value = (value + 1) << 7 | head[at] & 0x7F
    return value, at + 1
