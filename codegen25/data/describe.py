"""What a person names on the command line, as sources with their version, hash and date."""

from __future__ import annotations

import sysconfig
from dataclasses import replace
from pathlib import Path

from codegen25.data.archives import Archive, ArchiveKind
from codegen25.data.installed import STDLIB, StandardLibrary, packages
from codegen25.data.manifests import normalized
from codegen25.data.readers import hash_of
from codegen25.data.repositories import GitCommit
from codegen25.data.source import Source, SourceKind
from codegen25.errors import CodegenError

ARCHIVES: dict[str, ArchiveKind] = {
    ".whl": "wheel", ".tgz": "npm", ".tar.gz": "sdist", ".tar.bz2": "sdist", ".tar.xz": "sdist", ".zip": "sdist",
}  # fmt: skip
TABLES: dict[str, SourceKind] = {".parquet": "parquet", ".jsonl": "jsonl", ".jsonl.gz": "jsonl"}
# What lies beside archives or tables without making their folder one of code.
_BESIDE = frozenset(["", ".cfg", ".json", ".lock", ".md", ".rst", ".txt"])


def describe(argument: str) -> list[Source]:
    """The sources that an argument names; their locations are absolute. Raises CodegenError when it names none.

    A folder (a repository's at HEAD), PATH@COMMIT, an archive, a table, a folder of either; `site:NAME`, `site` or
    `stdlib`; `pypi:…`, `npm:…` and `hub:…`.
    """
    kind, colon, rest = argument.partition(":")
    if colon and kind in {"pypi", "npm", "hub"}:
        return _elsewhere(kind, argument)
    if argument == "stdlib":
        return [_hashed(Source("installed", STDLIB, StandardLibrary.version, "", ""))]
    if kind == "site":
        return _installed(rest)
    path = Path(argument)
    if path.is_dir():
        return _folder(path)
    if path.exists():
        return [_file(path)]
    folder, at, commit = argument.rpartition("@")
    if at and commit and Path(folder).is_dir():
        return [_repository(Path(folder), commit)]
    raise CodegenError(f"{argument}: no such file or folder; check the path, or write pypi:NAME, npm:NAME, hub:NAME")


def _elsewhere(kind: str, argument: str) -> list[Source]:
    from codegen25.data import hub, index

    return hub.describe(argument) if kind == "hub" else index.describe(argument)


def _hashed(source: Source) -> Source:
    return replace(source, hash=hash_of(source, Path()))


def _installed(name: str) -> list[Source]:
    site = Path(sysconfig.get_path("purelib"))
    found = packages(site)
    if name and normalized(name) not in found:
        raise CodegenError(f"site:{name}: not installed in {site} with a RECORD; install it, or name another")
    names = [normalized(name)] if name else list(found)
    return [_hashed(Source("installed", one, found[one].version, str(site), "")) for one in names]


def _folder(path: Path) -> list[Source]:
    """A repository, or a folder of archives or tables and of nothing else, or a folder of code."""
    if (path / ".git").exists() or all((path / name).exists() for name in ("HEAD", "objects", "refs")):
        return [_repository(path, "HEAD")]
    inside = [one for one in sorted(path.rglob("*")) if not _is_hidden(one.relative_to(path)) and one.is_file()]
    packed = [one for one in inside if _kind(one)]
    if packed and all(one in packed or one.suffix in _BESIDE for one in inside):
        return [_file(one, path) for one in packed]
    return [_hashed(Source("folder", path.resolve().name, "", str(path.absolute()), ""))]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _repository(path: Path, commit: str) -> Source:
    found = GitCommit(path, commit)
    return Source("git", found.name, found.commit, str(path.absolute()), f"git:{found.commit}", found.date)


def _kind(path: Path) -> SourceKind | None:
    """By the longest ending that is known: a .jsonl.gz is no .gz."""
    known: dict[str, SourceKind] = {**ARCHIVES, **TABLES}
    return next((kind for ending, kind in known.items() if path.name.lower().endswith(ending)), None)


def _file(path: Path, folder: Path | None = None) -> Source:
    """An archive by its own name; a table by its path in the folder that was named, or by that and its own folder."""
    kind, location = _kind(path), str(path.absolute())
    if kind == "parquet" or kind == "jsonl":
        name = path.absolute().relative_to((folder or path.parent).absolute().parent).as_posix()
        return _hashed(Source(kind, name, "", location, ""))
    if kind == "wheel" or kind == "sdist" or kind == "npm":
        archive = Archive(path, kind)
        name, version = archive.identity()
        return _hashed(Source(kind, name, version, location, "", archive.date))
    endings = " ".join([*ARCHIVES, *TABLES])
    raise CodegenError(f"{path}: not a source; name a folder, or a file that ends in one of {endings}")
