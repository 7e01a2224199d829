"""A person's source file: read as text, a cursor found in it, new text inserted, written back whole or not at all.

What is not inserted keeps every byte: byte order mark, line endings (also mixed ones) and permissions. Models see and
write `\\n` only; `Source` translates in both directions.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from codegen25.errors import CodegenError, UsageError

# More than any source file has; a device or a dump named by mistake does not fill the memory.
MAX_BYTES = 32 << 20
_BOM = b"\xef\xbb\xbf"
_AT = re.compile(r"([0-9]{1,9})(?::([0-9]{1,9}))?")


@dataclass(frozen=True)
class Cursor:
    """A place between characters: line and column from 1, the column in characters (a tab is one); None = line end."""

    line: int
    column: int | None = None

    @classmethod
    def parse(cls, at: str) -> Cursor:
        """`LINE:COL`, or `LINE` for the end of that line. Raises `UsageError` for anything else."""
        match = _AT.fullmatch(at)
        if not match or 0 in (numbers := [int(number) for number in match.groups() if number is not None]):
            raise UsageError(f"--at {at}: write LINE:COL, both counted from 1, or LINE alone for the end of the line")
        return cls(*numbers)

    def __str__(self) -> str:
        return str(self.line) if self.column is None else f"{self.line}:{self.column}"


@dataclass(frozen=True)
class Source:
    """A text and the exact bytes it was read from. `name` is what messages call it."""

    name: str
    data: bytes

    @cached_property
    def raw(self) -> str:
        """The characters, line endings as in the file, without a byte order mark."""
        return self.data.removeprefix(_BOM).decode()

    @cached_property
    def text(self) -> str:
        """The characters with every line ending (`\\r\\n`, `\\r`) as `\\n`: what a model is shown."""
        return self.raw.replace("\r\n", "\n").replace("\r", "\n")

    @cached_property
    def newline(self) -> str:
        """The line ending used most, `\\n` where there is none."""
        pairs = self.raw.count("\r\n")
        counts = {"\n": self.raw.count("\n") - pairs, "\r\n": pairs, "\r": self.raw.count("\r") - pairs}
        return max(counts, key=lambda ending: counts[ending])

    @cached_property
    def _lines(self) -> list[str]:
        return self.text.split("\n")

    def offset(self, cursor: Cursor) -> int:
        """Where `cursor` stands in `text`. Raises `CodegenError` when it is outside."""
        if cursor.line > len(self._lines):
            raise CodegenError(
                f"{self.name}: line {cursor.line} is outside the file; name a line from 1 to {len(self._lines)}"
            )
        line = self._lines[cursor.line - 1]
        column = len(line) + 1 if cursor.column is None else cursor.column
        if column > len(line) + 1:
            raise CodegenError(
                f"{self.name}: column {column} is outside line {cursor.line}; name a column from 1 to {len(line) + 1}"
            )
        return sum(len(before) + 1 for before in self._lines[: cursor.line - 1]) + column - 1

    def cursor(self, offset: int) -> Cursor:
        """The line and column of an offset in `text`: the inverse of `offset`."""
        before = self.text[:offset]
        return Cursor(before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1)

    def parts(self, offsets: Sequence[int]) -> list[str]:
        """`text` cut at `offsets`, which ascend: n + 1 parts around n holes."""
        edges = [0, *offsets, len(self.text)]
        return [self.text[start:end] for start, end in pairwise(edges)]

    def insert(self, spans: Sequence[tuple[int, str]]) -> bytes:
        """The file's bytes with each (offset in `text`, new text) inserted; offsets ascend."""
        pairs = [match.start() for match in re.finditer("\r\n", self.raw)]
        in_text = [start - earlier for earlier, start in enumerate(pairs)]
        pieces, done = [], 0
        for offset, span in spans:
            at = offset + bisect_left(in_text, offset)
            pieces += [self.raw[done:at], span.replace("\r\n", "\n").replace("\n", self.newline)]
            done = at
        bom = _BOM if self.data.startswith(_BOM) else b""
        return bom + "".join([*pieces, self.raw[done:]]).encode()


def read_source(path: Path) -> Source:
    """The file at `path`. Raises `CodegenError` when it cannot be read or is no UTF-8 text."""
    try:
        with path.open("rb") as file:
            return read_stream(file, str(path))
    except OSError as error:
        raise CodegenError(f"{path}: cannot be read ({error.strerror}); name a readable text file") from None


def read_stream(stream: BinaryIO, name: str) -> Source:
    """All of an open stream. Raises `CodegenError` when it is no UTF-8 text, or more than `MAX_BYTES`."""
    data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise CodegenError(f"{name}: larger than {MAX_BYTES >> 20} MB; name a source file, or a part of it")
    if b"\0" in data:
        raise CodegenError(f"{name}: a binary file (byte {data.index(0)} is zero); name a UTF-8 text file")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        bad = f"byte 0x{data[error.start]:02x} at {error.start}"
        raise CodegenError(f"{name}: not UTF-8 text ({bad}); convert it first, for example with iconv") from None
    return Source(name, data)


def check_replaceable(path: Path) -> None:
    """Raise `CodegenError` when `replace_file` would be refused: a protected file is not replaced behind its back."""
    target = path.resolve()
    if not target.is_file():
        raise CodegenError(f"{path}: not a regular file, so nothing can be inserted; leave --apply out")
    for place in (target, target.parent):
        if not os.access(place, os.W_OK):
            raise CodegenError(f"{place}: is read only; make it writable (chmod u+w), or leave --apply out")


def replace_file(path: Path, old: bytes, new: bytes) -> None:
    """Put `new` in place of `old` in the file at `path`: written aside in its folder, then renamed over it.

    The file keeps its mode, owner and group, and a symbolic link stays one; a hard link is parted from its twins.
    Raises `CodegenError`, the file as it was, when its content is no longer `old` or anything refuses.
    """
    check_replaceable(path)
    target = path.resolve()
    aside: Path | None = None
    try:
        try:
            handle, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", suffix=".partial", dir=target.parent)
            aside = Path(name)
            with os.fdopen(handle, "wb") as file:
                file.write(new)
                file.flush()
                _copy_owner_and_mode(target, handle)
                os.fsync(handle)
            if target.read_bytes() != old:
                raise CodegenError(f"{path}: was changed meanwhile and is left as it is; run the command again")
            aside.replace(target)
        finally:
            if aside is not None:
                aside.unlink(missing_ok=True)
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "free some space and run the command again" if is_full else "check the permissions of its folder"
        raise CodegenError(f"{path}: cannot be written ({error.strerror}), the file is unchanged; {remedy}") from error


def _copy_owner_and_mode(target: Path, handle: int) -> None:
    """Owner first: changing it clears the set-id bits of the mode."""
    wanted, made = target.stat(), os.fstat(handle)
    if (wanted.st_uid, wanted.st_gid) != (made.st_uid, made.st_gid):
        os.fchown(handle, wanted.st_uid, wanted.st_gid)
    os.fchmod(handle, stat.S_IMODE(wanted.st_mode))
