"""From documents that stay to shards: which document goes into which, and writing one.

Documents keep the order of the lock, so a shard depends on the documents alone and not on who wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from codegen25.data.document import Document, write_text
from codegen25.data.engine import Task
from codegen25.data.parts import PartFiles, document_of, rows
from codegen25.data.prefix import metadata_prefix
from codegen25.data.recipe import Recipe
from codegen25.data.shards import ShardWriter
from codegen25.data.tokens import BulkTokenizer

SPLITS = ("train", "heldout")
# Text that is tokenized in one call: enough for speed, little for memory.
BATCH_BYTES = 4 << 20


@dataclass
class Plan:
    """What goes into one shard: rows of parts, in order; `places` are (part, row)."""

    name: str
    places: list[tuple[int, int]] = field(default_factory=list)
    bytes: int = 0


def over_share(parts: Sequence[PartFiles], gone: Container[tuple[int, int]], limit: int) -> list[tuple[int, int]]:
    """Documents beyond `limit` bytes of their source, so that no large one outweighs the others.

    Documents are taken in the order of their ids, which makes the choice a fair draw; one that does not fit is passed
    over for smaller ones.
    """
    held: dict[str, list[tuple[str, int, int, int]]] = {}
    for row in _alive(parts, gone, ("id", "source", "bytes")):
        held.setdefault(row["source"], []).append((row["id"], row["bytes"], row["part"], row["row"]))
    over = []
    for documents in held.values():
        size = 0
        for _, length, part, number in sorted(documents):
            if size + length > limit:
                over.append((part, number))
            else:
                size += length
    return sorted(over)


def plan(parts: Sequence[PartFiles], gone: Container[tuple[int, int]], shard_bytes: int) -> list[Plan]:
    """The shards of both splits; each but the last of a split holds `shard_bytes` of text or a document more."""
    plans: list[Plan] = []
    current: dict[str, Plan] = {}
    counts = dict.fromkeys(SPLITS, 0)
    for row in _alive(parts, gone, ("heldout", "bytes")):
        split = SPLITS[row["heldout"]]
        if split not in current or current[split].bytes >= shard_bytes:
            current[split] = Plan(f"{split}-{counts[split]:05d}")
            counts[split] += 1
            plans.append(current[split])
        current[split].places.append((row["part"], row["row"]))
        current[split].bytes += row["bytes"]
    return plans


def _alive(
    parts: Sequence[PartFiles], gone: Container[tuple[int, int]], columns: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    for files in parts:
        for row in rows(files.kept, ("part", "row", *columns), batch=4096):
            if (row["part"], row["row"]) not in gone:
                yield row


def packer(recipe: Recipe, folder: str, keys: Sequence[str], out: str) -> Task:
    """A task that writes the shard whose name it is given, and gives what the manifest says of it as JSON.

    `folder` holds the parts, `keys` names them by number, and the shard's places lie in `out`/NAME.npy.
    """
    tokenizer = BulkTokenizer(recipe.vocabulary)
    parts = [PartFiles(Path(folder), key) for key in keys]

    def task(name: str) -> str:
        done = Path(out) / f"{name}.done"
        if not done.exists():
            with ShardWriter(Path(out) / name, recipe.vocabulary) as writer:
                for batch in _batches(_documents(parts, np.load(Path(out) / f"{name}.npy"))):
                    _add(writer, tokenizer, recipe, batch)
                summary = writer.close()
            write_text(done, [json.dumps(summary)])
        return done.read_text(encoding="utf-8")

    return task


def _documents(parts: Sequence[PartFiles], places: np.ndarray) -> Iterator[Document]:
    """The documents at places (n, 2) of (part, row), sorted."""
    for number in np.unique(places[:, 0]):
        wanted = set(places[places[:, 0] == number, 1].tolist())
        for row in rows(parts[number].kept, ("row", "about", "content")):
            if row["row"] in wanted:
                yield document_of(row)


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.content)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _add(writer: ShardWriter, tokenizer: BulkTokenizer, recipe: Recipe, documents: list[Document]) -> None:
    ids, ends = tokenizer.encode_batch([d.content for d in documents], [d.kind for d in documents])
    for document, one in zip(documents, np.split(ids, ends[:-1].astype(np.int64)), strict=True):
        if recipe.metadata_prefix:
            one = np.concatenate([metadata_prefix(document, tokenizer), one])
        writer.add(document, one)
