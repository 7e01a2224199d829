"""Python packages of the index that pip is configured for, by the simple API (PEP 503, 592, 691, 700).

pip itself would run a source archive's code to learn its requirements; here nothing is resolved, so nothing is run.
Folders of files (`find-links`, an index at file:) are not looked at: they are made for one machine.
"""

from __future__ import annotations

import ast
import html.parser
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from codegen25.data.download import NotFound, Page, beside, page, save
from codegen25.data.source import Source, SourceKind
from codegen25.errors import CodegenError

ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Listed:
    """A file of a project, as an index lists it; `sha256` and `date` are "" where it does not say."""

    name: str
    url: str
    sha256: str
    date: str = ""
    yanked: bool = False


@dataclass(frozen=True)
class Release:
    """A file that can be read on any machine: a wheel without compiled code, or sources."""

    kind: SourceKind
    version: Version
    file: Listed


def find(name: str, version: str | None, *, sdist: bool) -> Source:
    """The release of a project, the newest stable one without `version`: rather a wheel than its sources.

    A wheel of compiled code is none. Raises CodegenError when the index has no such release.
    """
    kinds: tuple[SourceKind, ...] = ("sdist",) if sdist else ("wheel", "sdist")
    wanted = None if version is None else _version(name, version)
    found = [one for one in releases(name, project(name)) if one.kind in kinds]
    if wanted is None:
        found = [one for one in found if not (one.version.is_prerelease or one.file.yanked)]
        wanted = max((one.version for one in found), default=None)
    found = [one for one in found if one.version == wanted]
    if not found:
        what = f"pypi:{name}" if version is None else f"pypi:{name}=={version}"
        raise CodegenError(f"{what}: the index has no {' or '.join(kinds)} of it for any machine; name another release")
    # Of wheels, that for Python 3 alone has the last name.
    best = max(found, key=lambda one: (one.kind == kinds[0], not one.file.name.endswith(".zip"), one.file.name))
    file = best.file
    digest = file.sha256 or _sha256(file.url)
    return Source(
        best.kind, canonicalize_name(name), str(best.version), f"pypi:{file.name}", f"sha256:{digest}", file.date
    )


def _sha256(url: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return save(url, Path(folder, "archive"))


def link(name: str, file: str) -> str:
    """Where a file of a project is now. Raises CodegenError when the index no longer has it."""
    found = next((one for one in project(name) if one.name == file), None)
    if found is None:
        raise CodegenError(f"pypi:{name}: the index does not have {file}; lock another release")
    return found.url


def _version(name: str, text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        raise CodegenError(f"pypi:{name}=={text}: not a version; write one such as 1.2.3") from None


def releases(name: str, files: Sequence[Listed]) -> Iterator[Release]:
    """Those of the files that belong to the project and run on any machine."""
    for file in files:
        try:
            if file.name.endswith(".whl"):
                project_name, version, _, tags = parse_wheel_filename(file.name)
                kind: SourceKind = "wheel"
                wanted = any(tag.abi == "none" and tag.platform == "any" for tag in tags)
            else:
                project_name, version = parse_sdist_filename(file.name)
                kind, wanted = "sdist", True
        except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
            continue
        if wanted and project_name == canonicalize_name(name):
            yield Release(kind, version, file)


def project(name: str) -> list[Listed]:
    """The files of a project in the first index that has it.

    Raises CodegenError when none has, or one that is asked before cannot be reached: another's project of the same
    name must not be taken for it.
    """
    for index in indexes():
        if urlsplit(index).scheme == "file":
            continue
        try:
            found = page(f"{index.rstrip('/')}/{quote(canonicalize_name(name), safe='')}/", ACCEPT)
        except NotFound:
            continue
        return files(found)
    raise CodegenError(f"pypi:{name}: not found; check its name, and the index that pip is configured for")


def files(found: Page) -> list[Listed]:
    """The files that a page lists. Raises CodegenError when it is no such page."""
    if "json" not in found.kind:
        links = _Links(found.url)
        links.feed(found.data.decode(errors="replace"))
        return links.found
    try:
        return [_listed(file, found.url) for file in json.loads(found.data)["files"]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        where = urlsplit(found.url).hostname
        raise CodegenError(f"{where}: not a list of files; check the index that pip is configured for") from None


def _listed(file: dict[str, Any], url: str) -> Listed:
    digest, date = file["hashes"].get("sha256", ""), file.get("upload-time")
    name, address = str(file["filename"]), beside(url, str(file["url"]))
    return Listed(name, address, _digest(digest), date if isinstance(date, str) else "", bool(file.get("yanked")))


def _digest(text: Any) -> str:
    return text if isinstance(text, str) and SHA256.fullmatch(text) else ""


class _Links(html.parser.HTMLParser):
    """The links of a page of PEP 503."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self.found: list[Listed] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        try:
            target = beside(self._url, said.get("href") or "")
        except ValueError:  # no address at all
            return
        if tag == "base":
            self._url = target
        if tag == "a" and said.get("href"):
            address, _, fragment = target.partition("#")
            name = unquote(urlsplit(address).path.rpartition("/")[2])
            self.found.append(
                Listed(name, address, _digest(fragment.removeprefix("sha256=")), "", "data-yanked" in said)
            )


# ------------------------------------------------------------------------------------------------------ configuration


def indexes() -> list[str]:
    """Where pip looks, in its order. Raises CodegenError where there is no pip to ask."""
    first = os.environ.get("PIP_INDEX_URL")
    if first is None:
        first = _configured().get("index-url") or _default()
    more = os.environ.get("PIP_EXTRA_INDEX_URL")
    return [first.strip(), *(_configured().get("extra-index-url", "") if more is None else more).split()]


@cache
def _configured() -> dict[str, str]:
    """The settings in pip's files, those of a single command last, as pip gives them the last word."""
    return configured(_pip("config", "list"))


def configured(listed: str) -> dict[str, str]:
    """The settings that `pip config list` writes, as KEY='VALUE' with Python's escapes; the environment's apart."""
    said: dict[str, str] = {}
    for line in sorted(listed.splitlines(), key=lambda line: not line.startswith("global.")):
        key, _, value = line.partition("=")
        place, _, name = key.partition(".")
        if place in {"global", "download", "install"} and name:
            said[name] = str(ast.literal_eval(value))
    return said


@cache
def _default() -> str:
    """The index that pip asks when it is not configured, as its help has it."""
    said = re.search(r"\(default\s+(https?://[^\s)]+)\)", _pip("help", "download"))
    if said is None:
        raise CodegenError("pip: does not say which index it asks; set PIP_INDEX_URL")
    return said[1]


def _pip(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CodegenError("pip: cannot be asked which index it is configured for; install pip, or set PIP_INDEX_URL")
    return done.stdout
