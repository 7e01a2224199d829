"""Packages of an index as sources: found by the index that pip or npm is configured for, fetched, checked, never run.

A source archive's code would run if pip resolved it, so Python packages are found by the simple API (PEP 503, 691).
"""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from codegen25.data.installed import normalized
from codegen25.data.shards import file_sha256
from codegen25.data.source import Source, SourceKind
from codegen25.errors import CodegenError

PYTHON = re.compile(r"pypi:(?P<name>[\w.-]+)(?:==(?P<version>[\w.!+-]+))?(?P<sdist>#sdist)?")
NPM = re.compile(r"npm:(?P<name>(?:@[\w.-]+/)?[\w.-]+)(?:@(?P<version>[\w.+-]+))?")
ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
SDIST = (".tar.gz", ".zip", ".tar.bz2", ".tar.xz")
TIMEOUT = 60
MAX_ARCHIVE = 1 << 30


@dataclass(frozen=True)
class Listed:
    """A file of a project, as an index lists it; `sha256` and `date` are "" where it does not say."""

    name: str
    url: str
    sha256: str
    date: str = ""


def is_remote(source: Source) -> bool:
    """Whether the archive must be fetched before it can be read."""
    return source.location.startswith(("pypi:", "npm:"))


def describe(argument: str) -> list[Source]:
    """The source that `pypi:NAME==VERSION`, `pypi:NAME#sdist` or `npm:NAME@VERSION` names; the newest without a version.

    Raises CodegenError when the index has no such thing.
    """
    if match := PYTHON.fullmatch(argument):
        return [_python(normalized(match["name"]), match["version"], sdist=bool(match["sdist"]))]
    if match := NPM.fullmatch(argument):
        return [_npm(match["name"], match["version"] or "latest")]
    raise CodegenError(f"{argument}: not a package; write pypi:NAME==VERSION or npm:NAME@VERSION")


def fetch(source: Source, cache: Path) -> Path:
    """The archive of a source in `cache`, fetched where it is not there yet.

    Raises CodegenError when it cannot be had, or is not the one that was locked.
    """
    wanted = source.hash.removeprefix("sha256:")
    index, _, name = source.location.partition(":")
    ending = ".tgz" if index == "npm" else next((e for e in (".whl", *SDIST) if name.endswith(e)), "")
    path = cache / f"{wanted}{ending}"
    if path.exists():
        if file_sha256(path) != wanted:
            raise CodegenError(f"{path}: is not what was fetched; remove it")
        return path
    cache.mkdir(parents=True, exist_ok=True)
    if index == "npm":
        data = _pack(name)
    else:
        listed = next((one for one in _project(source.name) if one.name == name), None)
        if listed is None:
            raise CodegenError(f"{source.name}: the index no longer has {name}; lock another release")
        data = _get(listed.url, "*/*")[0]
    if hashlib.sha256(data).hexdigest() != wanted:
        raise CodegenError(f"{source.name}: what the index gives is not what was locked ({name}); lock it again")
    _put(path, data)
    return path


def _put(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_bytes(data)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------------------- Python


def _python(name: str, version: str | None, *, sdist: bool) -> Source:
    """Rather a wheel for any machine than sources, rather sources than a wheel of compiled code."""
    releases: dict[str, dict[SourceKind, Listed]] = {}
    for listed in _project(name):
        if found := _release(name, listed.name):
            kind, its_version = found
            releases.setdefault(its_version, {})[kind] = listed
    if version is None:
        stable = [one for one in releases if (v := _version(one)) is not None and not v.is_prerelease]
        version = max(stable, key=lambda one: Version(one), default=None)
    files = next((files for one, files in releases.items() if _version(one) == _version(version or "")), None)
    kinds: tuple[SourceKind, ...] = ("sdist",) if sdist else ("wheel", "sdist")
    kind = next((kind for kind in kinds if files and kind in files), None)
    if files is None or kind is None or version is None:
        raise CodegenError(f"pypi:{name}=={version}: no {' or '.join(kinds)} in the index; name another version")
    listed = files[kind]
    digest = listed.sha256 or hashlib.sha256(_get(listed.url, "*/*")[0]).hexdigest()
    return Source(kind, name, version, f"pypi:{listed.name}", f"sha256:{digest}", listed.date)


def _release(name: str, file: str) -> tuple[SourceKind, str] | None:
    """The kind and version of a file by its name; None for other packages' and compiled ones."""
    if file.endswith("-none-any.whl"):
        parts = file.split("-")
        return ("wheel", parts[1]) if len(parts) >= 5 and normalized(parts[0]) == name else None
    ending = next((ending for ending in SDIST if file.endswith(ending)), None)
    if ending is None:
        return None
    stem = file.removesuffix(ending)
    places = [match.start() for match in re.finditer("-", stem)]
    return next((("sdist", stem[at + 1 :]) for at in reversed(places) if normalized(stem[:at]) == name), None)


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _indexes() -> list[str]:
    """Where pip looks, in its order."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    said = dict(line.partition("=")[::2] for line in listed.stdout.splitlines() if "=" in line)
    known = {key.partition(".")[2]: value.strip("'\"") for key, value in said.items()}
    first = os.environ.get("PIP_INDEX_URL") or known.get("index-url", "https://pypi.org/simple")
    more = os.environ.get("PIP_EXTRA_INDEX_URL") or known.get("extra-index-url", "")
    return [first, *more.split()]


def _project(name: str) -> list[Listed]:
    """What the first index that knows the project lists of it. Raises CodegenError when none does."""
    said = ""
    for index in _indexes():
        if index.startswith("file:"):
            continue  # folders of wheels, made for one machine
        url = f"{index.rstrip('/')}/{name}/"
        try:
            data, kind = _get(url, ACCEPT)
        except CodegenError as error:
            said = str(error)
            continue
        return _listed_json(data, url) if "json" in kind else _listed_html(data, url)
    raise CodegenError(f"pypi:{name}: not found ({said}); check its name, and the index that pip is configured for")


def _listed_json(data: bytes, url: str) -> list[Listed]:
    found = []
    for file in json.loads(data)["files"]:
        date = str(file.get("upload-time") or "")
        address = urllib.parse.urljoin(url, file["url"])
        found.append(Listed(file["filename"], address, file["hashes"].get("sha256", ""), date))
    return found


class _Links(html.parser.HTMLParser):
    """The links of a page of PEP 503."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self.found: list[Listed] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get("href")
        if tag == "a" and target:
            address, _, fragment = urllib.parse.urljoin(self._url, target).partition("#")
            name = urllib.parse.unquote(urllib.parse.urlsplit(address).path.rpartition("/")[2])
            digest = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else ""
            self.found.append(Listed(name, address, digest))


def _listed_html(data: bytes, url: str) -> list[Listed]:
    links = _Links(url)
    links.feed(data.decode(errors="replace"))
    return links.found


def _get(url: str, accept: str) -> tuple[bytes, str]:
    """The body and its type. Raises CodegenError, naming the host alone: addresses may hold passwords."""
    address = urllib.parse.urlsplit(url)
    headers = {"Accept": accept, "User-Agent": "codegen25"}
    if address.username is not None:
        login = f"{urllib.parse.unquote(address.username)}:{urllib.parse.unquote(address.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        url = address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
            data = answer.read(MAX_ARCHIVE + 1)
            kind = str(answer.headers.get("Content-Type", ""))
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise CodegenError(f"{address.hostname}: {reason}; check the network") from None
    if len(data) > MAX_ARCHIVE:
        raise CodegenError(f"{address.hostname}: an archive of more than {MAX_ARCHIVE} bytes; leave it out")
    return data, kind


# ---------------------------------------------------------------------------------------------------------------- npm


def _npm(name: str, version: str) -> Source:
    said = _run_npm("view", f"{name}@{version}", "name", "version", "time", "--json")
    try:
        fields: dict[str, Any] = json.loads(said)
        version, date = str(fields["version"]), str(fields.get("time", {}).get(fields["version"], ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CodegenError(f"npm:{name}@{version}: not one release; name a version that the registry has") from None
    digest = hashlib.sha256(_pack(f"{name}@{version}")).hexdigest()
    return Source("npm", name, version, f"npm:{name}@{version}", f"sha256:{digest}", date)


def _pack(name: str) -> bytes:
    """The tarball of a release, as the registry has it."""
    with tempfile.TemporaryDirectory() as folder:
        _run_npm("pack", name, "--ignore-scripts", "--pack-destination", folder)
        return next(Path(folder).glob("*.tgz")).read_bytes()


def _run_npm(*arguments: str) -> str:
    npm = shutil.which("npm")
    if npm is None:
        raise CodegenError("npm: not installed; install Node.js, which brings it, for packages of npm")
    done = subprocess.run([npm, *arguments], capture_output=True, text=True, check=False, timeout=10 * TIMEOUT)
    if done.returncode:
        line = next((line for line in done.stderr.splitlines() if "error" in line.lower()), "failed")
        raise CodegenError(f"npm {arguments[0]} {arguments[1]}: {line}; check the name and the network")
    return done.stdout
