"""Datasets of the Hugging Face Hub as sources: their Parquet files are read where they lie, columns and pieces of them.

`hub:OWNER/DATASET/FOLDER` names them, `hub:OWNER/DATASET@REVISION/FOLDER` at a revision. Anything else that fsspec
opens works alike, a folder of the same layout as `hub:file:///FOLDER`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec

from codegen25.data.source import Entry, Metadata, Source
from codegen25.data.tables import ParquetReader
from codegen25.errors import CodegenError

NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w.-]+))?(?:/(?P<folder>.+))?")


def describe(argument: str) -> list[Source]:
    """The one source that `hub:…` names. Raises CodegenError when it cannot be reached."""
    rest = argument.removeprefix("hub:").rstrip("/")
    if "://" in rest:
        return [Source("hub", rest.partition("://")[2].strip("/").rpartition("/")[2], "", rest, "")]
    match = NAME.fullmatch(rest)
    if match is None:
        raise CodegenError(f"{argument}: not a dataset's name; write hub:OWNER/DATASET or hub:OWNER/DATASET/FOLDER")
    commit = _commit(match["repository"], match["revision"])
    folder = f"/{match['folder']}" if match["folder"] else ""
    location = f"hf://datasets/{match['repository']}@{commit}{folder}"
    return [Source("hub", match["repository"], commit, location, f"git:{commit}")]


def _commit(repository: str, revision: str | None) -> str:
    """The commit that a revision stands for, so that a lock means the same files later."""
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError
    except ModuleNotFoundError:
        raise CodegenError(f"hub:{repository}: needs huggingface-hub; pip install 'codegen25[hub]'") from None
    try:
        return str(HfApi().dataset_info(repository, revision=revision).sha)
    except (HfHubHTTPError, OSError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CodegenError(f"hub:{repository}: cannot be reached ({line}); check the name, the network, your login") from None


class HubReader:
    """All Parquet files below a location, in the order of their paths; a part is a file and a range of row groups."""

    def __init__(self, source: Source, root: Path) -> None:
        self._source = source

    @cached_property
    def _files(self) -> tuple[Any, list[str]]:
        """The file system, and the paths of the tables in it."""
        location = self._source.location
        try:
            system, base = fsspec.core.url_to_fs(location)
            found = sorted(path for path in system.find(base) if path.endswith(".parquet"))
        except ImportError as error:
            raise CodegenError(f"{location}: {error}; pip install 'codegen25[hub]'") from None
        except (OSError, ValueError) as error:
            raise CodegenError(f"{location}: cannot be read ({error}); check the network and the name") from None
        if not found:
            raise CodegenError(f"{location}: no Parquet files there; name another folder of the dataset")
        self._base = base.rstrip("/")
        return system, found

    @property
    def revision(self) -> str:
        """The hash that a lock holds: of the commit, "" where the location has none."""
        return self._source.hash

    def _table(self, path: str) -> ParquetReader:
        system, _ = self._files
        # Language and kind stand in the folders, the last of the location being one.
        place = f"{self._base.rpartition('/')[2]}/{path.removeprefix(self._base).lstrip('/')}"
        named = Source("parquet", place, self._source.version, path, "")
        return ParquetReader(named, Path(path), lambda: system.open(path, "rb"))

    def metadata(self) -> Metadata:
        _, found = self._files
        return self._table(found[0]).metadata()

    def license_files(self) -> dict[str, str]:
        return {}

    def parts(self) -> list[str]:
        _, found = self._files
        return [f"{number}|{part}" for number, path in enumerate(found) for part in self._table(path).parts()]

    def entries(self, part: str) -> Iterator[Entry]:
        number, _, groups = part.partition("|")
        _, found = self._files
        yield from self._table(found[int(number)]).entries(groups)
