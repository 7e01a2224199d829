"""What is installed in an environment as sources: packages by their RECORD, and the standard library."""

from __future__ import annotations

import csv
import sys
import sysconfig
from importlib.metadata import Distribution, distributions
from pathlib import Path

from codegen25.data.folders import Folder
from codegen25.data.manifests import identity, normalized
from codegen25.data.members import place
from codegen25.data.regular import walk
from codegen25.data.source import Metadata, Refused, is_license_file
from codegen25.errors import CodegenError

STDLIB = "python-stdlib"
# Not Python's own, copies of other projects, kept for an older Python, or made for its tests.
_LEFT_OUT = frozenset(
    ["site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "ensurepip", "idlelib", "lib2to3",
     "turtledemo"]
)  # fmt: skip


def packages(site: Path) -> dict[str, Distribution]:
    """The packages that are installed in a folder with a list of their files, by name.

    Raises CodegenError when there is no such folder.
    """
    if not site.is_dir():
        raise CodegenError(f"{site}: no such folder; name one that packages are installed in")
    found: dict[str, Distribution] = {}
    for one in distributions(path=[str(site)]):
        said = identity(_metadata(one))
        if said and one.read_text("RECORD"):
            found.setdefault(said[0], one)
    return dict(sorted(found.items()))


def _metadata(distribution: Distribution) -> Metadata:
    return Metadata("python", "METADATA", distribution.read_text("METADATA") or "")


class Installed(Folder):
    """The files that a package's RECORD lists inside its site-packages folder."""

    def __init__(self, site: Path, name: str) -> None:
        """Raises CodegenError when no such package is installed there."""
        super().__init__(site)
        found = packages(site).get(normalized(name))
        if found is None:
            raise CodegenError(f"{name}: not installed in {site} with a RECORD; install it, or name another")
        self._distribution: Distribution = found

    @property
    def version(self) -> str:
        return self._distribution.version

    def metadata(self) -> Metadata:
        return _metadata(self._distribution)

    def _list(self) -> list[str | Refused]:
        """Compiled files are left out, and so are scripts and the like, which lie outside of the folder."""
        record = csv.reader((self._distribution.read_text("RECORD") or "").splitlines())
        names = sorted({row[0] for row in record if row and not _is_made(row[0])})
        return [self._inside(name) for name in names]

    def _inside(self, name: str) -> str | Refused:
        path = place(name)
        if isinstance(path, Refused):
            return path
        folder = (self.root / path).parent
        # A link among the folders above it would lead elsewhere.
        return path if folder.resolve().is_relative_to(self.root.resolve()) else Refused(path, "path leads outside")


def _is_made(name: str) -> bool:
    """Made at installation, beside the folder or in it, and so another thing on another machine."""
    folder, _, inside = name.partition("/")
    about = folder.endswith(".dist-info") and inside != "METADATA" and not is_license_file(name)
    return about or name.endswith(".pyc") or name.startswith("../")


class StandardLibrary(Folder):
    """The Python files of the standard library of the running Python."""

    version = ".".join(map(str, sys.version_info[:3]))

    def __init__(self) -> None:
        super().__init__(Path(sysconfig.get_path("stdlib")))

    def metadata(self) -> Metadata:
        return Metadata("python", "METADATA", "License-Expression: PSF-2.0\n")

    def license_files(self) -> dict[str, str]:
        """None: what lies beside it tells the whole history of Python's licences, and of bundled programs."""
        return {}

    def _list(self) -> list[str | Refused]:
        return walk(self.root, _beside)


def _beside(path: str, is_folder: bool) -> bool:
    name = path.rpartition("/")[2]
    return name in _LEFT_OUT if is_folder else not name.endswith(".py")
