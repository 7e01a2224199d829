"""Wheels, source archives and npm tarballs, read where they lie: nothing is unpacked to disk, and nothing is run.

Whatever an archive says of itself may be a lie, so every number is bounded: bytes of an entry, bytes of all, entries.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Literal, NamedTuple, cast

from codegen25.data.source import (
    MAX_BYTES,
    MAX_LICENSE_BYTES,
    Entry,
    File,
    Metadata,
    Refused,
    is_license_file,
)
from codegen25.errors import CodegenError

# Text is packed to a third or a tenth. What unpacks to more than this many times its size is made to fill memories.
MAX_RATIO = 100
# Below this there is no harm in any ratio.
HARMLESS_BYTES = 64 << 20
MAX_ENTRIES = 200_000
DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)

ArchiveKind = Literal["wheel", "sdist", "npm"]


class Member(NamedTuple):
    """An entry as the archive names it. `mtime` is "" or in ISO 8601."""

    path: str
    data: bytes
    mtime: str


def unsafe(path: str) -> str | None:
    """Why an entry of this name is not read; None where there is nothing against it."""
    if not path.isprintable() and any(ord(character) < 32 for character in path):
        return "name with control characters"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "name is not UTF-8"
    outside = path.startswith("/") or "\\" in path or path[1:2] == ":" or ".." in path.split("/")
    return "path leads outside" if outside else None


class _Bounded(io.RawIOBase):
    """What a decompressor gives, up to a number of bytes."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self._file, self._left = file, limit

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ArchiveBomb
        return data


class ArchiveBomb(Exception):
    """More came out of an archive than may."""


class Archive:
    """One archive as a source."""

    def __init__(self, path: Path, kind: ArchiveKind) -> None:
        """Raises CodegenError when there is no such file."""
        self.path, self.kind = path, kind
        try:
            self._limit = max(HARMLESS_BYTES, MAX_RATIO * path.stat().st_size)
        except OSError as error:
            raise CodegenError(f"{path}: cannot be read ({error.strerror}); fetch it again") from None

    def parts(self) -> list[str]:
        return [""]

    def entries(self, part: str) -> Iterator[Entry]:
        """Every file of the archive, in its order."""
        for one in self._members():
            yield one if isinstance(one, Refused) else File(one.path, one.data)

    def metadata(self) -> Metadata:
        return self._said[0]

    def license_files(self) -> dict[str, str]:
        return self._said[1]

    @property
    def date(self) -> str:
        """When the newest file in it was written: archives tell nothing closer to when they were released."""
        return self._said[2]

    @cached_property
    def _said(self) -> tuple[Metadata, dict[str, str], str]:
        """In one pass: what the archive says of itself, its licence files, the date of its newest file."""
        metadata, licenses, newest = Metadata(""), {}, ""
        for one in self._members():
            if isinstance(one, Refused):
                continue
            newest = max(newest, one.mtime)
            if self._is_metadata(one.path):
                text = one.data.decode(errors="replace")
                metadata = Metadata("npm" if self.kind == "npm" else "python", one.path, text)
            elif is_license_file(one.path):
                licenses[one.path] = one.data[:MAX_LICENSE_BYTES].decode(errors="replace")
        return metadata, licenses, newest if newest >= "1981" and self.kind != "npm" else ""

    def _is_metadata(self, path: str) -> bool:
        if self.kind == "wheel":
            folder, _, name = path.rpartition("/")
            return name == "METADATA" and folder.endswith(".dist-info") and "/" not in folder
        return path == ("package.json" if self.kind == "npm" else "PKG-INFO")

    def _members(self) -> Iterator[Member | Refused]:
        """Each name once; what is wrong with the archive itself ends it and is counted."""
        seen: set[str] = set()
        try:
            members = self._zipped() if zipfile.is_zipfile(self.path) else self._tarred()
            for number, one in enumerate(members):
                if number >= MAX_ENTRIES:
                    yield Refused("", "too many entries", f"more than {MAX_ENTRIES}")
                    return
                if one.path in seen:
                    yield Refused(one.path, "name appears twice")
                    continue
                seen.add(one.path)
                yield one
        except ArchiveBomb:
            yield Refused("", "archive bomb", f"unpacks to more than {self._limit} bytes")
        except DAMAGE as error:
            if not seen:
                raise CodegenError(f"{self.path}: cannot be read as an archive ({error}); fetch it again") from None
            yield Refused("", "truncated archive", str(error))

    def _zipped(self) -> Iterator[Member | Refused]:
        left = self._limit
        with zipfile.ZipFile(self.path) as archive:
            if sum(info.file_size for info in archive.infolist()) > self._limit:
                raise ArchiveBomb
            for info in archive.infolist():
                if info.is_dir():
                    continue
                one = self._unzip(archive, info)
                left -= len(one.data) if isinstance(one, Member) else 0
                if left < 0:
                    raise ArchiveBomb
                yield one

    def _unzip(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member | Refused:
        mode = info.external_attr >> 16
        if reason := unsafe(info.filename):
            return Refused(_printable(info.filename), reason)
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            return Refused(info.filename, "link" if stat.S_ISLNK(mode) else "not a file")
        if info.flag_bits & 1:
            return Refused(info.filename, "encrypted")
        try:
            with archive.open(info) as file:
                data = file.read(MAX_BYTES + 1)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
            return Refused(info.filename, "damaged", str(error))
        except NotImplementedError as error:  # a compression that zipfile does not know
            return Refused(info.filename, "unknown compression", str(error))
        year, month, day, *_ = info.date_time
        path = self._inside(info.filename) if self.kind == "sdist" else info.filename
        return Member(path, data, f"{year:04d}-{month:02d}-{day:02d}")

    def _tarred(self) -> Iterator[Member | Refused]:
        with _decompressed(self.path) as file:
            bounded = cast("IO[bytes]", _Bounded(file, self._limit))
            with tarfile.open(fileobj=bounded, mode="r|", errors="surrogateescape") as archive:
                for info in archive:
                    if not info.isdir():
                        yield self._untar(archive, info)

    def _untar(self, archive: tarfile.TarFile, info: tarfile.TarInfo) -> Member | Refused:
        if reason := unsafe(info.name):
            return Refused(_printable(info.name), reason)
        path = self._inside(info.name)
        if not info.isreg():
            return Refused(path, "link" if info.issym() or info.islnk() else "not a file")
        file = archive.extractfile(info)
        assert file is not None, "a regular file has content"
        data = file.read(MAX_BYTES + 1)
        if len(data) < min(info.size, MAX_BYTES + 1):
            raise EOFError("ends within a file")
        return Member(path, data, _iso_date(info.mtime))

    def _inside(self, path: str) -> str:
        """A path without the folder that the whole archive lies in."""
        return path.removeprefix("./").partition("/")[2] or path


def _iso_date(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return ""


def _printable(name: str) -> str:
    return name.encode(errors="backslashreplace").decode().replace("\0", "\\0")


def _decompressed(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"BZh"):
        return bz2.open(path)
    if magic == b"\xfd7zXZ\0":
        return lzma.open(path)
    return cast("IO[bytes]", gzip.open(path))
