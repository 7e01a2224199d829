"""Regular files alone: what else may lie in a folder (links, pipes, devices) is told apart and never opened."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path

from codegen25.data.source import MAX_BYTES, Refused

_WITHOUT_WAITING = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


def open_regular(path: Path | str, *, follow: bool = False) -> BufferedReader:
    """Open a regular file; a link only where `follow` says so. Raises OSError for anything else."""
    descriptor = os.open(path, _WITHOUT_WAITING | (0 if follow else os.O_NOFOLLOW))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path | str) -> bytes:
    """The first MAX_BYTES + 1 bytes of a regular file that is no link. Raises OSError."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        return file.read(min(size, MAX_BYTES) + 1)


def shown(name: str | bytes) -> str:
    """A name that is not UTF-8, as one that is: its foreign bytes are written out."""
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "backslashreplace")


def walk(root: Path, skip: Callable[[str, bool], bool]) -> list[str | Refused]:
    """The POSIX paths of the regular files under a folder, and what is there besides, sorted by path.

    `skip` is asked of every path, with whether it is a folder; what it names is not looked into and not told of.
    Raises OSError when the folder itself cannot be read.
    """
    found: dict[str, str | Refused] = {}
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(root / folder) as entries:
                listed = list(entries)
        except OSError as error:
            if not folder:
                raise
            found[folder] = Refused(folder, "unreadable", error.strerror or "")
            continue
        for entry in listed:
            path = f"{folder}/{entry.name}" if folder else entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            if not _is_utf8(entry.name):
                found[path] = Refused(shown(path), "name is not UTF-8")
            elif skip(path, is_folder):
                continue
            elif is_folder:
                waiting.append(path)
            else:
                found[path] = _file_or_refused(entry, path)
    return [found[path] for path in sorted(found)]


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _file_or_refused(entry: os.DirEntry[str], path: str) -> str | Refused:
    if entry.is_symlink():
        return Refused(path, "link")
    return path if entry.is_file(follow_symlinks=False) else Refused(path, "not a file")


def read_each(root: Path, paths: list[str | Refused]) -> Iterator[tuple[str, bytes] | Refused]:
    """What `walk` found, with the bytes of the files; one that cannot be read any more is refused."""
    for path in paths:
        if isinstance(path, Refused):
            yield path
            continue
        try:
            data = read_regular(root / path)
        except OSError as error:
            yield Refused(path, "unreadable", error.strerror or "")
        else:
            yield path, data
