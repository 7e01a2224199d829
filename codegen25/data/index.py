"""Packages of the index that pip or npm is configured for, as sources: found, fetched, checked and never run."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from codegen25.data import npm, pypi
from codegen25.data.download import save
from codegen25.data.shards import file_sha256
from codegen25.data.source import Source
from codegen25.errors import CodegenError

PYTHON = re.compile(r"pypi:(?P<name>\w[\w.-]*)(?:==(?P<version>[\w.!+-]+))?(?P<sdist>#sdist)?", re.ASCII)
ENDINGS = (".whl", ".tar.gz", ".zip", ".tgz")


def is_remote(source: Source) -> bool:
    """Whether the archive must be fetched before it can be read."""
    return source.location.startswith(("pypi:", "npm:"))


def describe(argument: str) -> list[Source]:
    """The source that `pypi:NAME==VERSION` or `npm:NAME@VERSION` names, the newest release without a version.

    `#sdist` behind a Python package asks for its source archive even where there is a wheel for any machine.
    Raises CodegenError when the index has no such thing.
    """
    if match := PYTHON.fullmatch(argument):
        return [pypi.find(match["name"], match["version"], sdist=bool(match["sdist"]))]
    if argument.startswith("npm:") and (match := npm.PACKAGE.fullmatch(argument.removeprefix("npm:"))):
        return [npm.find(match["name"], match["version"] or "latest")]
    raise CodegenError(f"{argument}: not a package; write pypi:NAME==VERSION or npm:NAME@VERSION")


def fetch(source: Source, cache: Path) -> Path:
    """The archive of a source in `cache`, named by its hash, fetched where it is not there yet.

    Raises CodegenError when it cannot be had, is not the one that was locked, or the one in `cache` is not.
    """
    index, _, name = source.location.partition(":")
    kind, _, wanted = source.hash.partition(":")
    if kind != "sha256":
        raise CodegenError(f"{source.name}: has no sha256 to know it by; lock it again")
    ending = ".tgz" if index == "npm" else next((ending for ending in ENDINGS if name.endswith(ending)), "")
    path = cache / f"{wanted}{ending}"
    try:
        if not path.exists():
            cache.mkdir(parents=True, exist_ok=True)
            _fetch(source, index, name, path)
        elif file_sha256(path) != wanted:
            raise CodegenError(f"{path}: is not what was fetched; remove it")
    except OSError as error:
        raise CodegenError(
            f"{error.filename or cache}: {error.strerror}; free space, or choose another cache"
        ) from None
    return path


def _fetch(source: Source, index: str, name: str, path: Path) -> None:
    """Fetch an archive aside, then give it its name. What comes damaged is asked for once more."""
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        for _ in range(2):
            aside = npm.pack(name, Path(folder)) if index == "npm" else Path(folder, "archive")
            digest = file_sha256(aside) if index == "npm" else save(pypi.link(source.name, name), aside)
            if f"sha256:{digest}" == source.hash:
                aside.replace(path)
                return
    raise CodegenError(f"{source.name}: what the index gives is not what was locked ({name}); lock it again")
