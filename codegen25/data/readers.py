"""From a source to its reader, by its kind; what is read is what the lock names, or nothing is."""

from __future__ import annotations

import hashlib
import sysconfig
from pathlib import Path

from codegen25.data.archives import Archive
from codegen25.data.folders import Folder
from codegen25.data.hub import HubReader
from codegen25.data.installed import STDLIB, Installed, StandardLibrary
from codegen25.data.regular import open_regular
from codegen25.data.repositories import GitCommit
from codegen25.data.source import Reader, Source
from codegen25.data.tables import JsonlReader, ParquetReader
from codegen25.errors import CodegenError


def open_source(source: Source, root: Path) -> Reader:
    """The reader of a source; a relative location starts from `root`.

    Raises CodegenError when it is not there, or cannot be a source of its kind.
    """
    path = root / source.location
    match source.kind:
        case "folder":
            return Folder(path)
        case "git":
            return GitCommit(path, source.version)
        case "installed":
            if source.name == STDLIB:
                return StandardLibrary()
            return Installed(installed_folder(source, root), source.name)
        case "wheel" | "sdist" | "npm":
            return Archive(path, source.kind)
        case "parquet":
            return ParquetReader(source, path)
        case "jsonl":
            return JsonlReader(source, path)
        case "hub":
            return HubReader(source, root)


def installed_folder(source: Source, root: Path) -> Path:
    """Where a package is installed: its location, or site-packages of the running Python."""
    return root / source.location if source.location else Path(sysconfig.get_path("purelib"))


def hash_of(source: Source, root: Path) -> str:
    """The hash that a source has now, in the form of its kind. Raises CodegenError when it cannot be read."""
    if source.kind not in {"folder", "git", "installed", "hub"}:
        return _file_hash(root / source.location)
    reader = open_source(source, root)
    if isinstance(reader, GitCommit):
        return f"git:{reader.commit}"
    if isinstance(reader, HubReader):
        return reader.revision
    return reader.listing_hash() if isinstance(reader, Folder) else source.hash


def _file_hash(path: Path) -> str:
    try:
        with open_regular(path, follow=True) as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise CodegenError(f"{path}: cannot be read ({error.strerror}); fetch it again") from None


def check(source: Source, root: Path) -> None:
    """Raises CodegenError when a source is not what its hash says."""
    if source.hash and (found := hash_of(source, root)) != source.hash:
        is_not = f"{found[:19]}…, not {source.hash[:19]}…"
        raise CodegenError(f"{source.name}: is not what was locked ({is_not}); restore it or lock it again")
