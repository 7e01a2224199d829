"""Where files come from: wheels, source archives, installed packages, and the running Python's standard library.

Each is given as a Package: name, version, core metadata, and its Python files as (path, bytes). Nothing is unpacked
to disk and nothing is executed.
"""

from __future__ import annotations

import re
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath

from codegen25.data.filters import MAX_BYTES
from codegen25.errors import CodegenError

STDLIB = "python-stdlib"
# Tests and examples apart: parts that are copies of other projects or kept for an older Python.
_STDLIB_LEFT_OUT = frozenset(
    ["test", "tests", "idlelib", "lib2to3", "site-packages", "turtledemo", "ensurepip", "__pycache__"]
)


@dataclass(frozen=True)
class Pin:
    """One line of the recipe. Held-out packages are never trained on."""

    name: str
    version: str
    heldout: bool


@dataclass(frozen=True)
class Package:
    """A package at one version; `files` reads its .py files, at most MAX_BYTES + 1 bytes of each, in path order."""

    name: str
    version: str
    metadata: Message
    files: Callable[[], Iterator[tuple[str, bytes]]]


def normalized(name: str) -> str:
    """A project name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(path: Path) -> list[Pin]:
    """The lines `name==version`, with `#heldout` behind it for a held-out package; other comments are skipped.

    Raises CodegenError for a file that cannot be read, a line of another form, or a package named twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CodegenError(f"{path}: cannot be read ({error}); give a list of name==version lines") from error
    pins: dict[str, Pin] = {}
    for number, line in enumerate(lines, start=1):
        requirement, _, comment = line.partition("#")
        if not requirement.strip():
            continue
        match = re.fullmatch(r"([A-Za-z0-9][\w.-]*)==([\w.!+-]+)", requirement.strip())
        if not match:
            raise CodegenError(f"{path}:{number}: {line.strip()!r} is not name==version")
        pin = Pin(normalized(match[1]), match[2], comment.strip() == "heldout")
        if pin.name in pins:
            raise CodegenError(f"{path}:{number}: {match[1]} is listed twice; keep one line")
        pins[pin.name] = pin
    return list(pins.values())


def _metadata(data: bytes) -> Message:
    return BytesParser().parsebytes(data, headersonly=True)


def read_wheel(path: Path) -> Package:
    """A wheel, read in place. Raises CodegenError when it is not one."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(archive.namelist())
            metadata = _metadata(archive.read(next(n for n in names if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))))
    except (OSError, zipfile.BadZipFile, StopIteration) as error:
        raise CodegenError(f"{path}: not a readable wheel; download it again") from error

    def files() -> Iterator[tuple[str, bytes]]:
        with zipfile.ZipFile(path) as archive:
            for name in names:
                if name.endswith(".py"):
                    with archive.open(name) as file:
                        yield name, file.read(MAX_BYTES + 1)

    return Package(normalized(metadata["Name"]), metadata["Version"], metadata, files)


def read_sdist(path: Path) -> Package:
    """A source archive (.tar.gz), read in place, paths without its top folder. Raises CodegenError if it is none."""
    try:
        with tarfile.open(path) as archive:
            names = sorted(member.name for member in archive if member.isfile())
            info = archive.extractfile(next(n for n in names if re.fullmatch(r"[^/]+/PKG-INFO", n)))
            assert info is not None  # regular files only
            metadata = _metadata(info.read())
    except (OSError, EOFError, tarfile.TarError, StopIteration) as error:
        raise CodegenError(f"{path}: not a readable source archive; download it again") from error

    def files() -> Iterator[tuple[str, bytes]]:
        with tarfile.open(path) as archive:
            found = []
            for member in archive:  # in the order of the archive: seeking back in a gzip starts over
                if member.isfile() and member.name.endswith(".py"):
                    file = archive.extractfile(member)
                    assert file is not None
                    found.append((member.name.partition("/")[2], file.read(MAX_BYTES + 1)))
            yield from sorted(found)

    return Package(normalized(metadata["Name"]), metadata["Version"], metadata, files)


def _read_files(paths: Iterable[tuple[str, Path]]) -> Iterator[tuple[str, bytes]]:
    for name, path in sorted(paths):
        with path.open("rb") as file:
            yield name, file.read(MAX_BYTES + 1)


def read_site(folder: Path) -> Iterator[Package]:
    """The packages installed in a folder (site-packages, or `pip install --target`), by their RECORD."""
    if not folder.is_dir():
        raise CodegenError(f"{folder}: no such folder; give one that packages are installed in")
    for found in distributions(path=[str(folder)]):
        listed = [PurePosixPath(str(file)) for file in found.files or []]
        paths = [(str(p), folder / p) for p in listed if p.suffix == ".py" and ".." not in p.parts]
        present = [(name, path) for name, path in paths if path.is_file()]
        metadata = _metadata((found.read_text("METADATA") or found.read_text("PKG-INFO") or "").encode())
        if metadata["Name"] and metadata["Version"]:
            yield Package(
                normalized(metadata["Name"]),
                metadata["Version"],
                metadata,
                lambda present=present: _read_files(present),  # type: ignore[misc]
            )


def stdlib() -> Package:
    """The standard library of the running Python, tests and bundled copies left out."""
    root = Path(sysconfig.get_path("stdlib"))
    metadata = Message()
    metadata["License-Expression"] = "PSF-2.0"

    def files() -> Iterator[tuple[str, bytes]]:
        paths = ((path.relative_to(root).as_posix(), path) for path in root.rglob("*.py") if path.is_file())
        return _read_files((name, path) for name, path in paths if not _STDLIB_LEFT_OUT & set(name.split("/")))

    return Package(STDLIB, ".".join(map(str, sys.version_info[:3])), metadata, files)


def find_packages(pins: list[Pin], wheels: Iterable[Path], sites: Iterable[Path]) -> list[Package]:
    """The pinned packages, in the order of the pins, from archives first, then from installed folders.

    A local version (1.0+cpu) satisfies its public one, as for pip. Raises CodegenError naming those that are missing.
    """
    packages: list[Package] = []
    for folder in wheels:
        if not folder.is_dir():
            raise CodegenError(f"{folder}: no such folder; give one with downloaded wheels")
        packages += [read_wheel(path) for path in sorted(folder.glob("*.whl"))]
        packages += [read_sdist(path) for path in sorted(folder.glob("*.tar.gz"))]
    for folder in sites:
        packages += sorted(read_site(folder), key=lambda package: (package.name, package.version))
    found: dict[tuple[str, str], Package] = {}
    for package in packages:
        for version in (package.version, package.version.partition("+")[0]):
            found.setdefault((package.name, version), package)
    missing = [f"{pin.name}=={pin.version}" for pin in pins if (pin.name, pin.version) not in found]
    if missing:
        raise CodegenError(
            f"not found: {' '.join(missing)}; fetch with `pip download --no-deps -d DIR`, pass --wheels DIR"
        )
    return [found[pin.name, pin.version] for pin in pins]
