"""Datasets of the Hugging Face Hub as sources: their Parquet files are read where they lie, columns and pieces of them.

`hub:OWNER/DATASET/FOLDER` names them, `hub:OWNER/DATASET@REVISION/FOLDER` at a revision. Anything else that fsspec
opens works alike, a folder of the same layout as `hub:file:///FOLDER`.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from codegen25.data.plain import first_line
from codegen25.data.source import Entry, Metadata, Source
from codegen25.data.tables import ParquetReader
from codegen25.errors import CodegenError

REVISION = r"refs/[\w-]+/[\w.-]+|[\w.-]+"
NAME = re.compile(
    rf"(?P<repository>\w[\w.-]*/\w[\w.-]*?)(?:@(?P<revision>{REVISION}))?(?:/(?P<folder>[^@]+))?", re.ASCII
)
AT_COMMIT = re.compile(r"hf://datasets/[^@]+@(?P<commit>[0-9a-f]{40})(?:/.*)?")
# Blocks of a file, the last few of which are kept: columns lie apart, and are read by turns.
MAX_FOOTER = 1 << 26
OPENED = {"block_size": 4 << 20, "cache_type": "blockcache", "cache_options": {"maxblocks": 16}}


def describe(argument: str) -> list[Source]:
    """The one source that `hub:…` names. Raises CodegenError when it cannot be reached."""
    rest = argument.removeprefix("hub:").rstrip("/")
    if "://" in rest:
        source = Source("hub", rest.partition("://")[2].rpartition("/")[2], "", rest, "")
        return [replace(source, hash=HubReader(source, Path()).revision)]
    match = NAME.fullmatch(rest)
    if match is None:
        raise CodegenError(f"{argument}: not a dataset's name; write hub:OWNER/DATASET or hub:OWNER/DATASET/FOLDER")
    commit = _commit(match["repository"], match["revision"])
    folder = f"/{match['folder']}" if match["folder"] else ""
    location = f"hf://datasets/{match['repository']}@{commit}{folder}"
    # The folder is part of the name: what else tells two folders of a commit apart is where they lie.
    return [Source("hub", match["repository"] + folder, commit, location, f"git:{commit}")]


def _commit(repository: str, revision: str | None) -> str:
    """The commit that a revision stands for, so that a lock means the same files later."""
    try:
        from huggingface_hub import HfApi
    except ModuleNotFoundError:
        raise CodegenError(f"hub:{repository}: needs huggingface-hub; pip install 'codegen25[hub]'") from None
    try:
        return str(HfApi().dataset_info(repository, revision=revision).sha)
    except _network_errors() as error:
        said = f"cannot be reached ({first_line(error)}); check the name, the network, your login"
        raise CodegenError(f"hub:{repository}: {said}") from None


@cache
def _network_errors() -> tuple[type[Exception], ...]:
    """What a request may raise, or a name that is none. The Hub's client lets its HTTP library's errors through."""
    try:
        from huggingface_hub.errors import HfHubHTTPError
    except ModuleNotFoundError:
        return (OSError, ValueError, NotImplementedError)
    return (OSError, ValueError, NotImplementedError, *HfHubHTTPError.__bases__)


class HubReader:
    """All Parquet files below a location, in the order of their paths; a part is a file and a range of row groups."""

    def __init__(self, source: Source, root: Path) -> None:
        self._source = source

    @cached_property
    def _files(self) -> tuple[Any, str, list[str]]:
        """The file system, the location in it, and the paths of the tables below that."""
        location = self._source.location
        try:
            system, base = fsspec.core.url_to_fs(location)
            base = base.rstrip("/")
            listed = [path for path in system.find(base) if path.endswith(".parquet")]
        except ImportError as error:
            raise CodegenError(f"{location}: {first_line(error)}; pip install 'codegen25[hub]'") from None
        except _network_errors() as error:
            raise CodegenError(
                f"{location}: cannot be read ({first_line(error)}); check the network and the name"
            ) from None
        found = sorted(path for path in listed if not (_is_hidden(path, base) or _is_elsewhere(system, path, base)))
        if not found:
            raise CodegenError(f"{location}: no Parquet files there; name another folder of the dataset")
        return system, base, found

    @property
    def revision(self) -> str:
        """The hash that a lock holds: the commit, where the location names one, or that of a listing.

        Listed are the paths of the tables, their sizes and their footers, which say where everything in them lies.
        """
        _, base, found = self._files
        if match := AT_COMMIT.fullmatch(self._source.location):
            return f"git:{match['commit']}"
        digest = hashlib.sha256()
        try:
            for path in found:
                with self._open(path) as file:
                    digest.update(json.dumps([path.removeprefix(base), *_footer(file)]).encode())
        except OSError as error:
            raise CodegenError(f"{path}: cannot be read ({error.strerror}); check the network and the path") from None
        return f"sha256:{digest.hexdigest()}"

    def _open(self, path: str) -> io.RawIOBase:
        return _Streamed(self._files[0], path)

    def _table(self, path: str) -> ParquetReader:
        _, base, _ = self._files
        # Language and kind stand in the folders, the last of the location being one.
        place = f"{base.rpartition('/')[2]}/{path.removeprefix(base).lstrip('/')}"
        named = Source("parquet", place, self._source.version, path, "")
        return ParquetReader(named, Path(path), lambda: self._open(path))

    @cached_property
    def _said(self) -> Metadata:
        return self._table(self._files[2][0]).metadata()

    def metadata(self) -> Metadata:
        """What the makers of the first table state; `entries` holds the others to it."""
        return self._said

    def license_files(self) -> dict[str, str]:
        return {}

    def parts(self) -> list[str]:
        found = self._files[2]
        return [f"{number}|{part}" for number, path in enumerate(found) for part in self._table(path).parts()]

    def entries(self, part: str) -> Iterator[Entry]:
        """The rows of a part. Raises CodegenError for a table of another dataset, OSError when the network fails."""
        number, _, groups = part.partition("|")
        path = self._files[2][int(number)]
        table = self._table(path)
        if self._said.kind and not table.metadata().kind:
            raise CodegenError(f"{path}: not of the dataset that the first table is of; name its folder by itself")
        yield from table.entries(groups)


def _is_hidden(path: str, base: str) -> bool:
    return any(part.startswith(".") for part in path.removeprefix(base).split("/"))


def _is_elsewhere(system: Any, path: str, base: str) -> bool:
    """Whether a folder on the way is a link, which may lead in circles."""
    if not isinstance(system, LocalFileSystem) or path == base:
        return False
    folder = Path(path).parent
    return folder.resolve() != Path(base).resolve() / folder.relative_to(base)


def _footer(file: io.RawIOBase) -> tuple[int, str]:
    """The size of a Parquet file, and the SHA-256 of its footer, whose length stands before the last four bytes."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 8))
    length = min(int.from_bytes((file.read(8) or b"")[:4], "little"), MAX_FOOTER)
    file.seek(max(0, size - 8 - length))
    return size, hashlib.sha256(file.read(length + 8) or b"").hexdigest()


class _Streamed(io.RawIOBase):
    """A file of any file system. Whatever the network does to it is an OSError with a number.

    pyarrow's errors for damaged files have none; a build must not take the one for the other.
    """

    def __init__(self, system: Any, path: str) -> None:
        self._path = path
        with _network(path):
            self._file = system.open(path, "rb", **OPENED)

    def readinto(self, buffer: Any) -> int:
        with _network(self._path):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


@contextmanager
def _network(path: str) -> Iterator[None]:
    try:
        yield
    except _network_errors() as error:
        number = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
        raise OSError(number, first_line(error), path) from None
