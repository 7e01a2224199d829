"""The index of a corpus: a folder with a suffix file for each shard, and `index.json`, which is written last.

Shards are searched one by one, so none but the pages that a search touches need be in memory, and new shards are added
without touching the old ones. Each file is bound to the bytes of its shard and to the vocabulary.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen25.attribute.search import Searchable
from codegen25.attribute.suffixes import Kind, SuffixFile
from codegen25.data.corpus import Corpus
from codegen25.data.document import write_text
from codegen25.data.shards import HEADER_BYTES, Shard
from codegen25.data.table import COLUMNS
from codegen25.errors import CodegenError
from codegen25.model.vocabulary import vocabulary_of
from codegen25.tokenizer import Tokenizer

MANIFEST = "index.json"
FORMAT = 1
FOLDER = "attribution"
SUFFIXES: dict[Kind, str] = {"tokens": "suffixes", "lexemes": "lexemes"}
_KEYS = {"corpus", "vocabulary", "shards", "normalized"}
_ENTRY_KEYS = {"name", "split", "sha256"}
_ORIGIN = [name for name in COLUMNS if name not in ("redactions", "tokens", "bytes", "lines", "stars")]
# Where a shard's header keeps its checksum (docs/formats.md).
_CHECKSUM_AT, _CHECKSUM_BYTES = 64, 32


def shard_checksum(path: Path) -> bytes:
    """The SHA-256 that a shard's header holds: of all its bytes. Raises CodegenError when it cannot be read."""
    try:
        with path.open("rb") as file:
            found = file.read(HEADER_BYTES)[_CHECKSUM_AT : _CHECKSUM_AT + _CHECKSUM_BYTES]
    except OSError as error:
        raise CodegenError(f"{path}: cannot be read ({error.strerror}); build the corpus again") from None
    if len(found) < _CHECKSUM_BYTES:
        raise CodegenError(f"{path}: is no shard of tokens; build the corpus again")
    return found


@lru_cache(maxsize=8)
def vocabulary_hash(tokenizer: Tokenizer) -> str:
    """The SHA-256 that names the tokenizer's vocabulary; taken once, as it takes a while."""
    return vocabulary_of(tokenizer).hash


def check_vocabulary(folder: Path, vocabulary: str, tokenizer: Tokenizer) -> None:
    """Raises CodegenError when what lies in the folder was made with another vocabulary than the tokenizer's."""
    ours = vocabulary_hash(tokenizer)
    if vocabulary != ours:
        raise CodegenError(
            f"{folder}: has vocabulary {vocabulary[:12]}, not {ours[:12]}; name a model of its own with --tokenizer"
        )


class IndexedShard:
    """A shard with its suffixes; its document table is read when it is asked for."""

    def __init__(self, folder: Path, path: Path, split: str, vocabulary: str, normalized: bool) -> None:
        """Raises CodegenError when shard or suffixes are not whole, or do not belong together."""
        self.split, self.shard = split, Shard(path, vocabulary)
        checksum = shard_checksum(path)

        def opened(kind: Kind) -> SuffixFile:
            return SuffixFile(folder / f"{path.stem}.{SUFFIXES[kind]}", kind, vocabulary, checksum)

        self.tokens = Searchable(self.shard.ids, self.shard.ends, opened("tokens").places)
        self.lexemes: Searchable | None = None
        if normalized:
            file = opened("lexemes")
            self.lexemes = Searchable(file.symbols, np.array(file.ends), file.places)

    @cached_property
    def origins(self) -> dict[str, list[Any]]:
        """What is known of the documents but their texts, by column."""
        found: dict[str, list[Any]] = self.shard.documents.read(_ORIGIN).to_pydict()
        return found

    @cached_property
    def sources(self) -> NDArray[np.object_]:
        """The source of each document."""
        return np.array(self.origins["source"], dtype=object)

    def text(self, document: int) -> str:
        """The text of a document."""
        return self.shard.document(document).content


@dataclass(frozen=True)
class Index:
    """An index that is open. `normalized` says whether it also knows lexemes."""

    folder: Path
    corpus: Path
    vocabulary: str
    normalized: bool
    shards: list[IndexedShard]

    @classmethod
    def open(cls, folder: Path) -> Index:
        """The index in a folder, or in the folder `attribution` of a corpus.

        Raises CodegenError when there is none, or when the corpus is not as it was when the index was made.
        """
        if not (folder / MANIFEST).exists() and (folder / FOLDER / MANIFEST).exists():
            folder = folder / FOLDER
        manifest = read_manifest(folder)
        corpus = Path(os.path.normpath(folder / manifest["corpus"]))
        vocabulary, normalized = str(manifest["vocabulary"]), bool(manifest["normalized"])
        shards = []
        for entry in manifest["shards"]:
            path = corpus / f"{entry['name']}.tokens"
            if shard_checksum(path).hex() != entry["sha256"]:
                raise CodegenError(f"{path}: has changed since {folder} was made; run attribute index again")
            shards.append(IndexedShard(folder, path, entry["split"], vocabulary, normalized))
        return cls(folder, corpus, vocabulary, normalized, shards)


def write_manifest(folder: Path, corpus: Corpus, entries: list[dict[str, Any]], normalized: bool) -> None:
    """Declare the folder an index: its files are whole and in their places."""
    where = os.path.relpath(corpus.folder.absolute(), folder.absolute())
    made = {"format": FORMAT, "corpus": where, "vocabulary": corpus.vocabulary, "normalized": normalized}
    write_text(folder / MANIFEST, [json.dumps(made | {"shards": entries}, indent=1, ensure_ascii=False) + "\n"])


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises CodegenError when the folder is no index."""
    path = folder / MANIFEST
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        whole = found["format"] == FORMAT and found.keys() >= _KEYS and isinstance(found["corpus"], str)
        whole = whole and all(e.keys() >= _ENTRY_KEYS and "/" not in e["name"] for e in found["shards"])
    except (FileNotFoundError, NotADirectoryError):
        raise CodegenError(f"{folder}: not an index; make one with `codegen25 attribute index CORPUS`") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CodegenError(f"{path}: not the manifest of an index ({error!r}); run attribute index again") from None
    if not whole:
        raise CodegenError(f"{path}: not an index of this version of codegen25; run attribute index again")
    return found
