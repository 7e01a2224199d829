"""A finished corpus: a folder of shards by split, what was dropped, and the manifest, which is written last."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from codegen25.data.document import Document, write_text
from codegen25.data.plain import plain
from codegen25.data.shards import Shard, file_sha256
from codegen25.errors import CodegenError

if TYPE_CHECKING:
    from codegen25.data.recipe import Recipe

MANIFEST = "corpus.json"
DROPPED = "dropped.parquet"
LOCK = "lock.json"
FORMAT = 1
# What is read of a manifest, and of its entry for a shard.
_KEYS = {"fingerprint", "vocabulary", "settings", "files", "splits", "sha256"}
_SHARD_KEYS = {"name", "documents", "tokens", "bytes", "sha256", "table_sha256"}


@dataclass(frozen=True)
class Place:
    """Where a document stands: its split, its shard and its number in it."""

    split: str
    shard: Shard
    index: int

    @property
    def document(self) -> Document:
        return self.shard.document(self.index)


def write_manifest(
    folder: Path, recipe: Recipe, fingerprint: str, splits: Mapping[str, Sequence[dict[str, Any]]], *, files: int
) -> None:
    """Declare the folder a corpus: everything else in it is written and in its place.

    `splits` are the shards of each split as `ShardWriter.close` told of them; `files` is how many were read.
    """
    others = {name: file_sha256(folder / name) for name in (DROPPED, LOCK) if (folder / name).exists()}
    manifest = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "vocabulary": {"sha256": recipe.vocabulary.hash, "size": recipe.vocabulary.size, "end": recipe.vocabulary.end},
        "settings": recipe.settings(),
        "files": files,
        "totals": {split: total(shards) for split, shards in splits.items()},
        "splits": {split: list(shards) for split, shards in splits.items()},
        "sha256": others,
    }
    write_text(folder / MANIFEST, [json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"])


def total(shards: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Documents, tokens and bytes of text in all shards."""
    return {name: sum(shard[name] for shard in shards) for name in ("documents", "tokens", "bytes")}


class Corpus:
    """A corpus to read from: `shards`, `documents` and `find`; `manifest` is its corpus.json."""

    def __init__(self, folder: Path) -> None:
        """Raises CodegenError when the folder is no finished corpus."""
        self.folder = folder
        self.manifest = _read_manifest(folder)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of everything that decided the bytes of the corpus."""
        return str(self.manifest["fingerprint"])

    @property
    def vocabulary(self) -> str:
        """The hash of the vocabulary that ids are of."""
        return str(self.manifest["vocabulary"]["sha256"])

    @cached_property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.manifest["splits"])

    def shards(self, split: str) -> list[Shard]:
        """The shards of a split, in order. Raises CodegenError when there is no such split, or a shard is not whole."""
        return list(self._shards(split))

    def _shards(self, split: str) -> Iterator[Shard]:
        """One at a time: a large corpus has more of them than files can be open."""
        if split not in self.splits:
            raise CodegenError(f"{self.folder}: has no split {split}; it has {', '.join(self.splits)}")
        for entry in self.manifest["splits"][split]:
            yield Shard(self.folder / f"{entry['name']}.tokens", self.vocabulary)

    def documents(self, split: str) -> Iterator[Document]:
        """The documents of a split with their texts, in order, a few MB at a time."""
        for shard in self._shards(split):
            yield from shard

    def all_shards(self) -> Iterator[tuple[str, Shard]]:
        """Every shard with its split."""
        for split in self.splits:
            for shard in self._shards(split):
                yield split, shard

    def find(self, id_prefix: str) -> Place:
        """The document whose id begins so. Raises CodegenError when there is none, or more than one."""
        found = self._where(["id"], lambda table: pc.starts_with(table.column("id"), id_prefix))
        return self._only(f"an id that begins with {plain(id_prefix)}", found)

    def find_path(self, name: str) -> Place:
        """The document that SOURCE:PATH names. Raises CodegenError when there is none, or more than one."""

        def same(table: pa.Table) -> pa.ChunkedArray:
            names = pc.binary_join_element_wise(table.column("source"), table.column("path"), ":")
            return pc.equal(names, name)

        return self._only(f"the name {plain(name)}", self._where(["source", "path"], same))

    def _where(self, columns: list[str], matches: Callable[[pa.Table], pa.ChunkedArray]) -> list[Place]:
        return [
            Place(split, shard, index)
            for split, shard in self.all_shards()
            for index in pc.indices_nonzero(matches(shard.documents.read(columns))).to_pylist()
        ]

    def _only(self, what: str, places: list[Place]) -> Place:
        if not places:
            raise CodegenError(f"{self.folder}: no document has {what}; {DROPPED} lists what was left out")
        if len(places) > 1:
            some = "; ".join(f"{d.id[:12]} {d.source}:{d.path}" for d in (place.document for place in places[:5]))
            raise CodegenError(f"{self.folder}: {len(places)} documents have {what}; say which by id: {plain(some)}")
        return places[0]

    def verify(self) -> None:
        """Read every byte. Raises CodegenError when a file is not what was written."""
        for name, wanted in self.manifest["sha256"].items():
            _check(self.folder / name, wanted)
        for split in self.splits:
            for entry, shard in zip(self.manifest["splits"][split], self._shards(split), strict=True):
                shard.verify()
                _check(shard.path, entry["sha256"])
                _check(shard.path.with_suffix(".parquet"), entry["table_sha256"])
                if (len(shard.documents), shard.header.tokens) != (entry["documents"], entry["tokens"]):
                    raise CodegenError(f"{shard.path}: is not what {MANIFEST} says; build the corpus again")


def _check(path: Path, wanted: str) -> None:
    try:
        found = file_sha256(path)
    except OSError as error:
        raise CodegenError(f"{path}: cannot be read ({error.strerror}); build the corpus again") from None
    if found != wanted:
        raise CodegenError(f"{path}: is damaged (its checksum is another); build the corpus again")


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        is_known = manifest["format"] == FORMAT
        entries = [entry for shards in manifest["splits"].values() for entry in shards]
        is_whole = manifest.keys() >= _KEYS and "sha256" in manifest["vocabulary"]
        is_whole = is_whole and all(entry.keys() >= _SHARD_KEYS and "/" not in entry["name"] for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        raise CodegenError(f"{folder}: not a finished corpus; run data build again") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CodegenError(f"{path}: not a corpus's manifest ({error!r}); run data build again") from None
    if not is_known or not is_whole:
        raise CodegenError(f"{path}: not a manifest of this version of codegen25; run data build again")
    return manifest
