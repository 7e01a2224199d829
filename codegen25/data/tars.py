"""The members of a tar, packed or not, read from its beginning to its end."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast

from codegen25.data.members import ArchiveBomb, Damaged, Member, Wanted, iso_day, most_bytes, place
from codegen25.data.regular import open_regular
from codegen25.data.source import MAX_BYTES, Refused

# Long names and the like; more is made to fill memories, or to keep a regular expression busy.
MAX_HEADER_BYTES = 1 << 16
_STEP = 1 << 20
_DAMAGE = (tarfile.TarError, zlib.error, lzma.LZMAError, OSError, ValueError, OverflowError, RecursionError)


class Forward:
    """The bytes of a tar, forwards only and counted: no header can send the reader back or make it read on for ever."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file, self._most = file, most
        self.position = 0
        self.last = b""

    def read(self, size: int) -> bytes:
        """For headers, as `tarfile` reads them."""
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise Damaged(f"a header of {size} bytes")
        self.last = self.take(size)
        return self.last

    def take(self, size: int) -> bytes:
        """For content. Less than `size` bytes come at the end."""
        if self.position + size > self._most:
            raise ArchiveBomb
        data = self._file.read(size)
        self.position += len(data)
        return data

    def tell(self) -> int:
        return self.position

    def seek(self, position: int) -> None:
        if position < self.position:
            raise Damaged("an entry that lies before itself")
        if position > self._most:
            raise ArchiveBomb
        while self.position < position and self.take(min(_STEP, position - self.position)):
            pass

    def rest(self) -> None:
        """Read what is left, so that the check at its end is made."""
        while self.take(min(_STEP, self._most - self.position)):
            pass


def tar_members(path: Path, wanted: Wanted) -> Iterator[Member | Refused]:
    """The members in the order of the tar, folders left out.

    Raises EOFError where it ends too early, Damaged, ArchiveBomb, and OSError when it cannot be opened.
    """
    with open_regular(path, follow=True) as packed, _unpacked(packed) as file:
        forward = Forward(file, most_bytes(path.stat().st_size))
        try:
            yield from _members(forward, wanted)
        except _DAMAGE as error:
            raise (EOFError if _ends_early(error) else Damaged)(str(error)) from None


def _ends_early(error: Exception) -> bool:
    return isinstance(error, tarfile.ReadError) and "unexpected end of data" in str(error)


def _members(forward: Forward, wanted: Wanted) -> Iterator[Member | Refused]:
    with tarfile.TarFile(fileobj=cast("BinaryIO", forward), encoding="utf-8", errors="surrogateescape") as archive:
        while info := archive.next():
            archive.members.clear()  # type: ignore[attr-defined]  # they would pile up
            if info.size < 0:
                raise Damaged("an entry of less than no bytes")
            if not info.isdir():
                yield _member(forward, info, wanted)
    # Without an end mark, tarfile takes whatever it cannot read for the end.
    if len(forward.last) < tarfile.BLOCKSIZE:
        raise EOFError("no end mark")
    if forward.last.strip(b"\0"):
        raise Damaged("a header that is none")
    forward.rest()


def _member(forward: Forward, info: tarfile.TarInfo, wanted: Wanted) -> Member | Refused:
    path = place(info.name)
    if isinstance(path, Refused):
        return path
    if not info.isreg() or info.issparse():
        return Refused(path, "link" if info.issym() or info.islnk() else "not a file")
    if not wanted(path):
        return Member(path, None, _day(info.mtime))
    size = min(info.size, MAX_BYTES + 1)
    data = forward.take(size)
    if len(data) < size:
        raise EOFError(f"ends within {path}")
    return Member(path, data, _day(info.mtime))


def _day(seconds: float) -> str:
    try:
        when = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return ""
    return iso_day(when.year, when.month, when.day)


def _unpacked(file: BinaryIO) -> BinaryIO:
    """By the first bytes, not by the name."""
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    if magic.startswith(b"BZh"):
        return cast("BinaryIO", bz2.BZ2File(file))
    if magic == b"\xfd7zXZ\0":
        return cast("BinaryIO", lzma.LZMAFile(file))
    return file
