"""What a person names on the command line, as sources with their version, hash and date."""

from __future__ import annotations

import email
import json
import sysconfig
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path

from codegen25.data import hub, index
from codegen25.data.archives import Archive, ArchiveKind
from codegen25.data.folders import GitCommit
from codegen25.data.installed import STDLIB, Installed, StandardLibrary, normalized
from codegen25.data.readers import hash_of
from codegen25.data.source import Source, SourceKind
from codegen25.errors import CodegenError

ARCHIVES: tuple[tuple[str, ArchiveKind], ...] = (
    (".whl", "wheel"), (".tgz", "npm"), (".tar.gz", "sdist"), (".tar.bz2", "sdist"), (".tar.xz", "sdist"),
    (".zip", "sdist"),
)  # fmt: skip
TABLES: tuple[tuple[str, SourceKind], ...] = ((".parquet", "parquet"), (".jsonl", "jsonl"), (".jsonl.gz", "jsonl"))


def describe(argument: str) -> list[Source]:
    """The sources that an argument names. Raises CodegenError when it names none."""
    kind, _, rest = argument.partition(":")
    if kind in {"pypi", "npm"}:
        return index.describe(argument)
    if kind == "hub":
        return hub.describe(argument)
    if kind == "site" or argument == "stdlib":
        return _installed(argument, rest)
    path = Path(argument)
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return [_file(path)]
    folder, at, commit = argument.rpartition("@")
    if at and Path(folder).is_dir():
        return [_repository(Path(folder), commit)]
    raise CodegenError(f"{argument}: no such file or folder; check the path, or write pypi:NAME, npm:NAME, hub:NAME")


def _folder(path: Path) -> list[Source]:
    """A repository, or a folder of archives or tables and nothing else of note, or a folder of code."""
    if (path / ".git").exists() or ((path / "objects").is_dir() and (path / "HEAD").is_file()):
        return [_repository(path, "HEAD")]
    packed = [file for file in sorted(path.iterdir()) if file.is_file() and _ending(file) is not None]
    if packed:
        return [_file(file) for file in packed]
    tables = [file for file in sorted(path.rglob("*.parquet")) if file.is_file()]
    if tables:
        return [_file(file) for file in tables]
    source = Source("folder", path.resolve().name, "", str(path.absolute()), "")
    return [_hashed(source)]


def _repository(path: Path, commit: str) -> Source:
    found = GitCommit(path, commit)
    return Source("git", found.name, found.commit, str(path.absolute()), f"git:{found.commit}", found.date)


def _hashed(source: Source) -> Source:
    return replace(source, hash=hash_of(source, Path()))


def _ending(path: Path) -> SourceKind | None:
    return next((kind for ending, kind in (*ARCHIVES, *TABLES) if path.name.lower().endswith(ending)), None)


def _file(path: Path) -> Source:
    kind = _ending(path)
    if kind is None:
        endings = " ".join(ending for ending, _ in (*ARCHIVES, *TABLES))
        raise CodegenError(f"{path}: not a source; name a folder, or a file that ends in one of {endings}")
    if kind in {"parquet", "jsonl"}:
        return _hashed(Source(kind, f"{path.absolute().parent.name}/{path.name}", "", str(path.absolute()), ""))
    archive = Archive(path, kind)  # type: ignore[arg-type]  # the tables are above
    name, version = identity(archive)
    return _hashed(Source(kind, name, version, str(path.absolute()), "", archive.date))


def identity(archive: Archive) -> tuple[str, str]:
    """Name and version as the archive's own metadata has them. Raises CodegenError when it has none."""
    said = archive.metadata()
    name: object = None
    version: object = None
    if said.kind == "npm":
        try:
            fields = json.loads(said.text)
            name, version = fields.get("name"), fields.get("version")
        except (ValueError, AttributeError):
            pass
    elif said.kind == "python":
        message = email.message_from_string(said.text)
        name, version = message["Name"] and normalized(message["Name"]), message["Version"]
    if not (isinstance(name, str) and isinstance(version, str)):
        wanted = {"wheel": "METADATA", "sdist": "PKG-INFO", "npm": "package.json"}[archive.kind]
        raise CodegenError(f"{archive.path}: no {wanted} with a name and a version in it; it is no such package")
    return name, version


def _installed(argument: str, name: str) -> list[Source]:
    if argument == "stdlib":
        return [_hashed(Source("installed", STDLIB, StandardLibrary.version, "", ""))]
    site = Path(sysconfig.get_path("purelib"))
    names = [normalized(name)] if name else sorted(_names(site))
    found = [Source("installed", one, Installed(site, one).version, str(site), "") for one in names]
    return [_hashed(source) for source in found]


def _names(site: Path) -> Iterator[str]:
    return (normalized(one.metadata["Name"]) for one in distributions(path=[str(site)]) if one.metadata["Name"])
