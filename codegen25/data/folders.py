"""Folders as sources: the files as they lie there.

Links are not followed, devices and pipes are not opened, and what .gitignore files leave out is not read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

from codegen25.data.ignores import Ignores
from codegen25.data.regular import read_each, read_regular, walk
from codegen25.data.source import Entry, File, Refused
from codegen25.data.trees import IGNORE, Tree
from codegen25.errors import CodegenError


class Folder(Tree):
    """The files of a folder, in the order of their paths."""

    def __init__(self, root: Path) -> None:
        """Raises CodegenError when there is no such folder."""
        if not root.is_dir():
            raise CodegenError(f"{root}: no such folder; check the path")
        self.root = root

    def _entries(self, wanted: Callable[[str], bool]) -> Iterator[Entry]:
        for one in read_each(self.root, [path for path in self._listed if isinstance(path, Refused) or wanted(path)]):
            yield one if isinstance(one, Refused) else File(*one)

    def listing_hash(self) -> str:
        """The SHA-256 of all paths with the size and SHA-256 of what is read of each, and of all that is refused."""
        digest = hashlib.sha256()
        for entry in self.entries(""):
            if isinstance(entry, File):
                said: list[str | int] = [entry.path, len(entry.data), hashlib.sha256(entry.data).hexdigest()]
            else:
                said = [entry.path, entry.reason]
            digest.update(json.dumps(said).encode() + b"\n")
        return f"sha256:{digest.hexdigest()}"

    @cached_property
    def _listed(self) -> list[str | Refused]:
        """The paths of the files, and what is refused, sorted. Raises CodegenError when the folder cannot be read."""
        try:
            return self._list()
        except OSError as error:
            raise CodegenError(f"{self.root}: cannot be read ({error.strerror}); check its permissions") from None

    def _list(self) -> list[str | Refused]:
        ignores = Ignores(self._ignore_file)
        return walk(self.root, lambda path, folder: path.rpartition("/")[2] == ".git" or ignores.covers(path, folder))

    def _ignore_file(self, folder: str) -> bytes:
        try:
            return read_regular(self.root / folder / IGNORE)
        except OSError:
            return b""
