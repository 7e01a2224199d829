"""A commit of a git repository as a source: from its objects alone, nothing of the work tree is looked at.

What the commit's own .gitignore files leave out is left out, though it was committed. No hook, filter or other program
is run, nothing is fetched, and nothing is written.
"""

from __future__ import annotations

import errno
import re
import stat
import weakref
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from dulwich.errors import NotGitRepository, RefFormatError
from dulwich.objects import ObjectID
from dulwich.objectspec import AmbiguousShortId, parse_commit
from dulwich.refs import SymrefLoop
from dulwich.repo import InvalidWorktreeConfiguration, Repo, UnsupportedExtension, UnsupportedVersion

from codegen25.data.git_objects import DAMAGE, Objects, TooLarge
from codegen25.data.ignores import Ignores
from codegen25.data.regular import shown, walk
from codegen25.data.source import MAX_BYTES, Entry, File, Refused
from codegen25.data.trees import IGNORE, Tree
from codegen25.errors import CodegenError

# Folders may contain each other's objects any number of times: a few of them make billions of paths.
MAX_FILES = 1_000_000
MAX_PATH = 4096
_SUBMODULE = 0o160000
# What is not looked at, or with care: loose objects.
_NOT_OPENED = re.compile(r"hooks|lfs|logs|modules|worktrees|objects/[0-9a-f]{2}")
_UNUSABLE = (
    AmbiguousShortId, InvalidWorktreeConfiguration, RefFormatError, SymrefLoop, UnsupportedExtension,
    UnsupportedVersion,
)  # fmt: skip


class Found(NamedTuple):
    """A file of the commit."""

    path: str
    blob: ObjectID


class GitCommit(Tree):
    """The files of a commit, in the order of their paths."""

    def __init__(self, root: Path, commit: str = "HEAD") -> None:
        """`commit` is a commit, a tag or a branch. Raises CodegenError when there is no such repository or commit."""
        self.root = root
        try:
            _check_files(root)
            self._repository = Repo(str(root))
            weakref.finalize(self, self._repository.close)
            name = parse_commit(self._repository, commit).id
            self._objects = Objects(self._repository.object_store)
            self._commit = self._objects.commit(name)
        except NotGitRepository:
            raise CodegenError(f"{root}: not a git repository; name the folder that holds .git") from None
        except KeyError:
            raise CodegenError(f"{root}: has no commit {commit}; fetch it, or name another") from None
        except (*_UNUSABLE, *DAMAGE, TooLarge) as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise CodegenError(f"{root}: {commit} cannot be read ({why}); clone it again, or name another") from None

    @property
    def commit(self) -> str:
        """The commit's name, in hexadecimal."""
        return self._commit.id.decode()

    @property
    def date(self) -> str:
        """When it was committed, in UTC; "" where that is no time."""
        try:
            return datetime.fromtimestamp(self._commit.commit_time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        except (ValueError, OverflowError, OSError):
            return ""

    @property
    def name(self) -> str:
        """The remote that it came from, as HOST/OWNER/REPOSITORY; else the folder's name."""
        try:
            url = self._repository.get_config().get((b"remote", b"origin"), b"url").decode("utf-8", "replace")
        except KeyError:
            url = ""
        return remote_name(url) or self.root.resolve().name.removesuffix(".git")

    def _entries(self, wanted: Callable[[str], bool]) -> Iterator[Entry]:
        for one in self._found:
            if isinstance(one, Refused):
                yield one
            elif wanted(one.path):
                yield self._file(one)

    def _file(self, found: Found) -> Entry:
        try:
            return File(found.path, self._objects.blob(found.blob, MAX_BYTES))
        except KeyError:
            return Refused(found.path, "not in the clone", f"{found.blob.decode()} was never fetched")
        except TooLarge as error:
            return Refused(found.path, "too large", str(error))
        except DAMAGE as error:
            return Refused(found.path, "damaged", str(error))

    @cached_property
    def _found(self) -> list[Found | Refused]:
        found = sorted(self._walk(), key=lambda one: one.path)
        return [*found, Refused("", "too many entries", f"more than {MAX_FILES}")] if len(found) > MAX_FILES else found

    def _walk(self) -> Iterator[Found | Refused]:
        """All paths, those of a folder after each other; one more than MAX_FILES at most."""
        files: dict[str, ObjectID] = {}
        ignores = Ignores(lambda folder: self._ignore_file(files.get(folder)))
        waiting = [("", self._commit.tree)]
        count = 0
        while waiting:
            folder, tree = waiting.pop()
            listed = self._list(folder, tree)
            if isinstance(listed, Refused):
                yield listed
                continue
            rules = [one for name, mode, one in listed if name == IGNORE.encode() and stat.S_ISREG(mode)]
            if rules:
                files[folder] = rules[0]
            for name, mode, one in listed:
                path = _path(folder, name)
                if isinstance(path, str):
                    if ignores.covers(path, stat.S_ISDIR(mode)):
                        continue
                    if stat.S_ISDIR(mode):
                        waiting.append((path, one))
                        continue
                yield _leaf(path, mode, one)
                count += 1
                if count > MAX_FILES:
                    return

    def _list(self, folder: str, tree: ObjectID) -> list[tuple[bytes, int, ObjectID]] | Refused:
        try:
            return self._objects.tree(tree)
        except KeyError:
            return Refused(folder, "not in the clone", f"{tree.decode()} was never fetched")
        except TooLarge as error:
            return Refused(folder, "too large", str(error))
        except DAMAGE as error:
            return Refused(folder, "damaged", str(error))

    def _ignore_file(self, blob: ObjectID | None) -> bytes:
        entry = self._file(Found(IGNORE, blob)) if blob else None
        return entry.data if isinstance(entry, File) else b""


def _check_files(root: Path) -> None:
    """Raises OSError when a pipe or the like is where git keeps a file: whoever opened it would wait for ever."""
    folder = next((one for one in (root / ".git", root) if (one / "objects").is_dir()), None)
    if folder is None:
        return
    for one in walk(folder, lambda path, is_folder: is_folder and bool(_NOT_OPENED.fullmatch(path))):
        if isinstance(one, Refused) and one.reason == "not a file":
            raise OSError(errno.EINVAL, f"{one.path} is no regular file")


def _path(folder: str, name: bytes) -> str | Refused:
    """A path inside the repository, of a name that git itself would accept."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return Refused(shown(folder.encode() + b"/" * bool(folder) + name), "name is not UTF-8")
    path = f"{folder}/{text}" if folder else text
    if text.lower() in ("", ".", "..", ".git") or "/" in text:
        return Refused(path, "path leads outside")
    return path if len(path) <= MAX_PATH else Refused(path[:MAX_PATH], "path too long")


def _leaf(path: str | Refused, mode: int, one: ObjectID) -> Found | Refused:
    if isinstance(path, Refused):
        return path
    if stat.S_ISREG(mode):
        return Found(path, one)
    kind = stat.S_IFMT(mode)
    return Refused(path, {stat.S_IFLNK: "link", _SUBMODULE: "submodule"}.get(kind, "not a file"))


def remote_name(url: str) -> str:
    """A remote's URL as HOST/OWNER/REPOSITORY, without user, password and port; "" for a path on some machine."""
    match = re.fullmatch(r"(?:ssh|git|https?|git\+ssh)://(?:[^/@]*@)?([\w.-]+)(?::\d*)?/(.+)", url) or re.fullmatch(
        r"(?:[^/@:]+@)?([\w-]+(?:\.[\w-]+)+):(?!/)(.+)", url
    )
    if not match:
        return ""
    path = match[2].partition("?")[0].partition("#")[0].strip("/").removesuffix(".git")
    return f"{match[1].lower()}/{path}" if re.fullmatch(r"[\w.~+-]+(?:/[\w.~+-]+)*", path) else ""
