"""Folders as sources: files as they lie there, or as a commit of a git repository holds them.

Links are not followed, devices and pipes are not opened, and what .gitignore files leave out is not read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from dulwich.errors import NotGitRepository
from dulwich.objects import Blob, Commit, Tree
from dulwich.objectspec import parse_commit
from dulwich.repo import Repo
from pathspec import GitIgnoreSpec

from codegen25.data.source import MAX_BYTES, MAX_LICENSE_BYTES, Entry, File, Metadata, Refused, is_license_file
from codegen25.errors import CodegenError

IGNORE = ".gitignore"


class Ignored(NamedTuple):
    """A .gitignore and the folder that it speaks of ("" or ending in a slash)."""

    folder: str
    spec: GitIgnoreSpec

    @classmethod
    def of(cls, folder: str, data: bytes) -> Ignored:
        return cls(folder, GitIgnoreSpec.from_lines(data.decode(errors="replace").splitlines()))


def ignores(rules: tuple[Ignored, ...], path: str) -> bool:
    """Whether a path is left out; folders end in a slash. The nearest file that says anything of it decides."""
    for rule in reversed(rules):
        said = rule.spec.check_file(path[len(rule.folder) :]).include
        if said is not None:
            return bool(said)
    return False


def read_regular(path: Path, limit: int) -> bytes | None:
    """The first `limit` bytes of a regular file; None for anything else. Raises OSError."""
    # A link is not followed, and a pipe without a writer does not make us wait.
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        return file.read(limit) if stat.S_ISREG(os.fstat(handle).st_mode) else None


class _Folder:
    """What both kinds have in common: metadata and licences are files like the others."""

    def parts(self) -> list[str]:
        return [""]

    def entries(self, part: str) -> Iterator[Entry]:
        raise NotImplementedError

    def metadata(self) -> Metadata:
        """From PKG-INFO, pyproject.toml or package.json at the top."""
        top = {e.path: e.data for e in self._files() if e.path in {"PKG-INFO", "pyproject.toml", "package.json"}}
        if "PKG-INFO" in top:
            return Metadata("python", "PKG-INFO", top["PKG-INFO"].decode(errors="replace"))
        if "pyproject.toml" in top and (text := project_metadata(top["pyproject.toml"])):
            return Metadata("python", "pyproject.toml", text)
        if "package.json" in top:
            return Metadata("npm", "package.json", top["package.json"].decode(errors="replace"))
        return Metadata("")

    def license_files(self) -> dict[str, str]:
        found = (entry for entry in self._files() if is_license_file(entry.path))
        return {entry.path: entry.data[:MAX_LICENSE_BYTES].decode(errors="replace") for entry in found}

    def _files(self) -> Iterator[File]:
        yield from (entry for entry in self.entries("") if isinstance(entry, File))

    def listing_hash(self) -> str:
        """The SHA-256 of the paths and contents of all files, as far as they are read."""
        digest = hashlib.sha256()
        for entry in self._files():
            digest.update(json.dumps([entry.path, hashlib.sha256(entry.data).hexdigest()]).encode() + b"\n")
        return f"sha256:{digest.hexdigest()}"


def project_metadata(data: bytes) -> str:
    """The [project] table of a pyproject.toml as lines of METADATA; "" where it says nothing of a licence."""
    try:
        project: dict[str, Any] = tomllib.loads(data.decode()).get("project", {})
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        return ""
    if not isinstance(project, dict):
        return ""
    license, lines = project.get("license"), []
    if isinstance(license, str):
        lines.append(f"License-Expression: {license}")
    elif isinstance(license, dict) and isinstance(license.get("text"), str):
        lines.append(f"License: {license['text'].splitlines()[0] if license['text'] else ''}")
    classifiers = project.get("classifiers", [])
    lines += [f"Classifier: {one}" for one in classifiers if isinstance(one, str)] if lines or classifiers else []
    return "\n".join(line for line in lines if "\n" not in line) + "\n" if lines else ""


class Folder(_Folder):
    """The files of a folder, in the order of their paths."""

    def __init__(self, root: Path) -> None:
        """Raises CodegenError when there is no such folder."""
        if not root.is_dir():
            raise CodegenError(f"{root}: no such folder; check the path")
        self.root = root

    def entries(self, part: str) -> Iterator[Entry]:
        yield from self._walk("", ())

    def _walk(self, folder: str, rules: tuple[Ignored, ...]) -> Iterator[Entry]:
        try:
            found = sorted(os.scandir(self.root / folder), key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            yield Refused(folder, "cannot be read", error.strerror or "")
            return
        own = next((entry for entry in found if entry.name == IGNORE and entry.is_file(follow_symlinks=False)), None)
        if own is not None and (data := read_regular(Path(own.path), MAX_BYTES)):
            rules = (*rules, Ignored.of(folder, data))
        for entry in found:
            path = folder + entry.name
            try:
                path.encode()
            except UnicodeEncodeError:
                yield Refused(os.fsencode(path).decode(errors="backslashreplace"), "name is not UTF-8")
                continue
            inside = entry.is_dir(follow_symlinks=False)
            if entry.name == ".git" or ignores(rules, path + "/" * inside):
                continue
            if inside:
                yield from self._walk(path + "/", rules)
            else:
                yield self._entry(path, entry)

    def _entry(self, path: str, entry: os.DirEntry[str]) -> Entry:
        if entry.is_symlink():
            return Refused(path, "link")
        if not entry.is_file(follow_symlinks=False):
            return Refused(path, "not a file")
        try:
            data = read_regular(Path(entry.path), MAX_BYTES + 1)
        except OSError as error:
            return Refused(path, "cannot be read", error.strerror or "")
        return Refused(path, "not a file") if data is None else File(path, data)


class GitCommit(_Folder):
    """The files of a commit, from its objects: the work tree is not looked at."""

    def __init__(self, root: Path, commit: str = "HEAD") -> None:
        """`commit` is anything that names one. Raises CodegenError when there is no such repository or commit."""
        try:
            self._repository = Repo(str(root))
            self._commit: Commit = parse_commit(self._repository, commit.encode())
        except NotGitRepository:
            raise CodegenError(f"{root}: not a git repository; name the folder that holds .git") from None
        except (KeyError, ValueError):
            raise CodegenError(f"{root}: has no commit {commit}; fetch it, or name another") from None
        self.root = root

    @property
    def commit(self) -> str:
        return self._commit.id.decode()

    @property
    def date(self) -> str:
        return datetime.fromtimestamp(self._commit.commit_time, UTC).isoformat()

    @property
    def name(self) -> str:
        """The remote it came from, without scheme, user and password (host/owner/repository); else the folder's name."""
        try:
            url = self._repository.get_config().get((b"remote", b"origin"), b"url").decode(errors="replace")
        except KeyError:
            return self.root.resolve().name.removesuffix(".git")
        plain = re.sub(r"^\w+://", "", url)
        plain = re.sub(r"^[^/@]*@", "", plain)
        return re.sub(r"^([^/:]+):(?:\d+/)?(?!/)", r"\1/", plain).removesuffix("/").removesuffix(".git").lstrip("/")

    def entries(self, part: str) -> Iterator[Entry]:
        yield from self._walk(self._commit.tree, "", ())

    def _walk(self, tree: bytes, folder: str, rules: tuple[Ignored, ...]) -> Iterator[Entry]:
        try:
            listed = self._repository.object_store[tree]
        except KeyError:
            yield Refused(folder, "object not there", "the clone is partial; fetch it whole")
            return
        assert isinstance(listed, Tree)
        found = sorted(listed.items(), key=lambda item: item.path)
        for item in found:
            if item.path == IGNORE.encode() and stat.S_ISREG(item.mode) and (data := self._blob(item.sha)) is not None:
                rules = (*rules, Ignored.of(folder, data))
        for item in found:
            try:
                path = folder + item.path.decode()
            except UnicodeDecodeError:
                yield Refused(folder + item.path.decode(errors="backslashreplace"), "name is not UTF-8")
                continue
            inside = stat.S_ISDIR(item.mode)
            if ignores(rules, path + "/" * inside):
                continue
            if inside:
                yield from self._walk(item.sha, path + "/", rules)
            else:
                yield self._entry(path, item.mode, item.sha)

    def _entry(self, path: str, mode: int, sha: bytes) -> Entry:
        if stat.S_ISLNK(mode):
            return Refused(path, "link")
        if not stat.S_ISREG(mode):
            return Refused(path, "submodule")
        data = self._blob(sha)
        return Refused(path, "object not there", "the clone is partial") if data is None else File(path, data)

    def _blob(self, sha: bytes) -> bytes | None:
        try:
            blob = self._repository.object_store[sha]
        except KeyError:
            return None
        assert isinstance(blob, Blob)
        return blob.data[: MAX_BYTES + 1]
