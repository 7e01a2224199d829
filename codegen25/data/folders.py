"""Folders as sources: the files as they lie there.

Links are not followed, devices and pipes are not opened, and what .gitignore files leave out is not read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from codegen25.data.ignores import Ignores
from codegen25.data.manifests import MANIFESTS, top_metadata
from codegen25.data.regular import read_each, read_regular, walk
from codegen25.data.source import MAX_LICENSE_BYTES, Entry, File, Metadata, Refused, is_license_file
from codegen25.errors import CodegenError

IGNORE = ".gitignore"


class Folder:
    """The files of a folder, in the order of their paths."""

    def __init__(self, root: Path) -> None:
        """Raises CodegenError when there is no such folder."""
        if not root.is_dir():
            raise CodegenError(f"{root}: no such folder; check the path")
        self.root = root

    def metadata(self) -> Metadata:
        """From PKG-INFO, pyproject.toml or package.json at the top."""
        return top_metadata(dict(self._read([path for path in self._listed if path in MANIFESTS])))

    def license_files(self) -> dict[str, str]:
        found = self._read([p for p in self._listed if isinstance(p, str) and is_license_file(p)])
        return {path: data[:MAX_LICENSE_BYTES].decode("utf-8", "replace") for path, data in found}

    def parts(self) -> list[str]:
        return [""]

    def entries(self, part: str) -> Iterator[Entry]:
        for one in read_each(self.root, self._listed):
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

    def _read(self, paths: list[str | Refused]) -> Iterator[tuple[str, bytes]]:
        yield from (one for one in read_each(self.root, paths) if not isinstance(one, Refused))
