"""What is installed in an environment as sources: packages by their RECORD, and the standard library."""

from __future__ import annotations

import re
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath

from codegen25.data.folders import Folder, read_regular
from codegen25.data.source import MAX_BYTES, Entry, File, Metadata, Refused
from codegen25.errors import CodegenError

STDLIB = "python-stdlib"
# Not Python's own, or made for its tests.
_LEFT_OUT = frozenset(["site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "ensurepip"])


def normalized(name: str) -> str:
    """The one spelling of a Python package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


class Installed(Folder):
    """The files that a package's RECORD lists inside its site-packages folder."""

    def __init__(self, site: Path, name: str) -> None:
        """Raises CodegenError when no such package is installed there."""
        super().__init__(site)
        found = [one for one in distributions(path=[str(site)]) if normalized(one.metadata["Name"] or "") == name]
        if not found:
            raise CodegenError(f"{name}: not installed in {site}; install it, or name another")
        self._distribution: Distribution = found[0]

    @property
    def version(self) -> str:
        return self._distribution.version

    def entries(self, part: str) -> Iterator[Entry]:
        listed = sorted({PurePosixPath(str(file)) for file in self._distribution.files or ()})
        for path in listed:
            if path.is_absolute() or ".." in path.parts or "__pycache__" in path.parts:
                continue
            yield self._listed(path.as_posix())

    def _listed(self, path: str) -> Entry:
        try:
            data = read_regular(self.root / path, MAX_BYTES + 1)
        except OSError as error:
            return Refused(path, "cannot be read", error.strerror or "")
        return Refused(path, "not a file") if data is None else File(path, data)

    def metadata(self) -> Metadata:
        text = self._distribution.read_text("METADATA") or self._distribution.read_text("PKG-INFO") or ""
        return Metadata("python", "METADATA", text)


class StandardLibrary(Folder):
    """The standard library of the running Python, without its tests and what is installed beside it."""

    def __init__(self) -> None:
        super().__init__(Path(sysconfig.get_path("stdlib")))

    version = ".".join(map(str, sys.version_info[:3]))

    def entries(self, part: str) -> Iterator[Entry]:
        for entry in super().entries(part):
            if not _LEFT_OUT & set(entry.path.split("/")):
                yield entry

    def metadata(self) -> Metadata:
        return Metadata("python", "METADATA", "License-Expression: PSF-2.0\n")
