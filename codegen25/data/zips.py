"""The members of a zip, read where they lie."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from codegen25.data.members import ArchiveBomb, Damaged, Member, Wanted, iso_day, most_bytes, place
from codegen25.data.regular import open_regular
from codegen25.data.source import MAX_BYTES, Refused

# The list of entries is read in one piece; of MAX_ENTRIES with names of ordinary length it takes half of this.
MAX_LIST_BYTES = 64 << 20
# Only these are unpacked a piece at a time, in bounded memory; wheels use no others.
_METHODS = frozenset([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
_ENCRYPTED, _PATCH, _UTF8 = 0x41, 0x20, 0x800
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, OverflowError)


class _Bounded(BufferedReader):
    """A file of which no huge piece is read at once, whatever the zip says of the size of its list."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_LIST_BYTES:
            raise zipfile.BadZipFile(f"a list of entries of {size} bytes")
        return super().read(size)


def zip_members(path: Path, wanted: Wanted) -> Iterator[Member | Refused]:
    """The members in the order of the zip's list, folders left out.

    Raises Damaged when the list cannot be read, ArchiveBomb, and OSError.
    """
    with _Bounded(open_regular(path, follow=True).detach()) as file:
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError) as error:
            raise Damaged(str(error)) from None
        with archive:
            members = archive.infolist()
            # No entry is unpacked to more than the list says of it.
            if sum(info.file_size for info in members) > most_bytes(path.stat().st_size):
                raise ArchiveBomb
            yield from (_member(archive, info, wanted) for info in members if not info.is_dir())


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, wanted: Wanted) -> Member | Refused:
    path = place(_name(info))
    if isinstance(path, Refused):
        return path
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return Refused(path, "link" if kind == stat.S_IFLNK else "not a file")
    if info.flag_bits & _ENCRYPTED:
        return Refused(path, "encrypted")
    if info.compress_type not in _METHODS or info.flag_bits & _PATCH:
        return Refused(path, "unknown compression", f"method {info.compress_type}")
    day = iso_day(*info.date_time[:3])
    if not wanted(path):
        return Member(path, None, day)
    try:
        with archive.open(info) as file:
            return Member(path, file.read(MAX_BYTES + 1), day)
    except _DAMAGE as error:
        return Refused(path, "damaged", str(error))


def _name(info: zipfile.ZipInfo) -> str | bytes:
    """The name as it stands in the zip; old ones do not say that theirs is UTF-8."""
    return info.orig_filename if info.flag_bits & _UTF8 else info.orig_filename.encode("cp437")
