"""Building an index: shard by shard, in as many processes as asked for, here or on Ray.

A shard whose suffix file is there, whole and of the same bytes, is not sorted again: so a build that was killed goes
on, and a corpus that grew costs only its new shards. Memory: `BUILD_BYTES_PER_TOKEN` bytes a token of the largest
shard, for each process.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen25.attribute.index import SUFFIXES, check_vocabulary, shard_checksum, write_manifest
from codegen25.attribute.normalized import END, symbols_of
from codegen25.attribute.suffixes import MOST_TOKENS, Kind, SuffixFile, sort_suffixes, write_suffixes
from codegen25.data.corpus import Corpus
from codegen25.data.engine import Engine, Task
from codegen25.data.shards import Shard
from codegen25.errors import CodegenError
from codegen25.tokenizer import Tokenizer

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Built:
    """What an index has: bytes of its files, tokens of its shards, and how many files were made anew."""

    shards: int
    tokens: int
    index_bytes: int
    shard_bytes: int
    made: int

    def to_json(self) -> dict[str, Any]:
        """With bytes per token: of the index of tokens alone, and together with the shards."""
        per = (self.index_bytes + self.shard_bytes) / max(1, self.tokens)
        return asdict(self) | {"bytes_per_token": round(per, 3)}


@lru_cache(maxsize=8)
def left_out(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """bool [65536]: ids that no match begins with: blank ones, and `<|endoftext|>`."""
    flags = np.zeros(1 << 16, np.bool_)
    blank = [id for id in tokenizer.tokens_starting_with(b"") if tokenizer.token_bytes(id).isspace()]
    flags[[*blank, tokenizer.eot]] = True
    return flags


def build_index(
    corpus: Corpus,
    out: Path,
    tokenizer: Tokenizer,
    engine: Engine,
    *,
    splits: tuple[str, ...] = (),
    normalized: bool = False,
    progress: Progress = lambda *_: None,
) -> Built:
    """Make the index of a corpus, or bring it up to date. Without `splits` all are in it.

    Raises CodegenError when a shard is not whole, too large, or not of the tokenizer's vocabulary.
    """
    check_vocabulary(corpus.folder, corpus.vocabulary, tokenizer)
    for split in splits:
        if split not in corpus.splits:
            raise CodegenError(f"{corpus.folder}: has no split {split}; it has {', '.join(corpus.splits)}")
    out.mkdir(parents=True, exist_ok=True)
    entries = [
        {"name": one["name"], "split": split, "sha256": shard_checksum(_tokens(corpus, one["name"])).hex()}
        for split in splits or corpus.splits
        for one in corpus.manifest["splits"][split]
    ]
    kinds: list[Kind] = ["tokens", "lexemes"] if normalized else ["tokens"]
    items = [json.dumps([entry["name"], kind]) for kind in kinds for entry in entries]
    made = done = 0
    engine.start()
    arguments = (str(corpus.folder.absolute()), str(out.absolute()), corpus.vocabulary, left_out(tokenizer))
    progress(0, len(items))
    for was_made in engine.run(indexer, arguments, items):
        done, made = done + 1, made + int(was_made)
        progress(done, len(items))
    write_manifest(out, corpus, entries, normalized)
    _remove_others(out, {f"{entry['name']}.{SUFFIXES[kind]}" for entry in entries for kind in kinds})
    shards = [Shard(_tokens(corpus, entry["name"])).header for entry in entries]
    index_bytes = sum((out / f"{entry['name']}.{SUFFIXES['tokens']}").stat().st_size for entry in entries)
    tokens = sum(header.tokens for header in shards)
    return Built(len(entries), tokens, index_bytes, sum(header.file_bytes for header in shards), made)


def _tokens(corpus: Corpus, name: str) -> Path:
    return corpus.folder / f"{name}.tokens"


def _remove_others(out: Path, names: set[str]) -> None:
    """Files of shards that the corpus no longer has, and what a killed build left aside."""
    for kind in SUFFIXES.values():
        for path in (*out.glob(f"*.{kind}"), *out.glob(f".*.{kind}.*")):
            if path.name not in names:
                path.unlink(missing_ok=True)


def indexer(corpus: str, out: str, vocabulary: str, flags: NDArray[np.bool_]) -> Task:
    """A task that makes one suffix file, [shard, kind] in JSON, and says whether it had to ("1") or not ("0")."""

    def task(item: str) -> str:
        name, kind = json.loads(item)
        shard = Shard(Path(corpus) / f"{name}.tokens", vocabulary)
        path, checksum = Path(out) / f"{name}.{SUFFIXES[kind]}", shard_checksum(shard.path)
        if _is_whole(path, kind, vocabulary, checksum):
            return "0"
        shard.verify()
        if shard.header.tokens > MOST_TOKENS:
            raise CodegenError(f"{shard.path}: has over {MOST_TOKENS} tokens; build the corpus with smaller shards")
        if kind == "tokens":
            write_suffixes(path, kind, vocabulary, checksum, sort_suffixes(np.array(shard.ids), flags))
        else:
            symbols, ends = symbols_of(document.content for document in shard)
            only_ends = np.zeros(1 << 16, np.bool_)
            only_ends[END] = True
            places = sort_suffixes(symbols, only_ends)
            write_suffixes(path, kind, vocabulary, checksum, places, symbols, ends)
        return "1"

    return task


def _is_whole(path: Path, kind: Kind, vocabulary: str, checksum: bytes) -> bool:
    """Whether the file is there and as it was written; one that is not is made anew."""
    if not path.exists():
        return False
    try:
        SuffixFile(path, kind, vocabulary, checksum).verify()
    except CodegenError:
        return False
    return True
