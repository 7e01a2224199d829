"""Trees of files as sources: what a folder and a commit of a repository have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from codegen25.data.manifests import MANIFESTS, top_metadata
from codegen25.data.source import MAX_LICENSE_BYTES, Entry, File, Metadata, is_license_file

IGNORE = ".gitignore"


class Tree(ABC):
    """Files in the order of their paths, read in one part; those at the top say whose it is."""

    @abstractmethod
    def _entries(self, wanted: Callable[[str], bool]) -> Iterator[Entry]:
        """The files whose paths are wanted, and all that is refused."""

    def metadata(self) -> Metadata:
        """From PKG-INFO, pyproject.toml or package.json at the top."""
        return top_metadata(dict(self._read(lambda path: path in MANIFESTS)))

    def license_files(self) -> dict[str, str]:
        found = self._read(is_license_file)
        return {path: data[:MAX_LICENSE_BYTES].decode("utf-8", "replace") for path, data in found}

    def parts(self) -> list[str]:
        return [""]

    def entries(self, part: str) -> Iterator[Entry]:
        return self._entries(lambda path: True)

    def _read(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
        yield from ((entry.path, entry.data) for entry in self._entries(wanted) if isinstance(entry, File))
