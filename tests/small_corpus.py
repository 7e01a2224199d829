"""A finished corpus of documents that a test makes up, with reasons for those that were left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codegen25.data.corpus import Corpus, write_manifest
from codegen25.data.document import Document, Evidence, Kind, Redaction, content_id
from codegen25.data.shards import ShardWriter
from codegen25.data.tokens import BulkTokenizer, Vocabulary
from codegen25.model.hf_tokenizer import tokenizer_json

DROPPED = ("source", "version", "path", "stage", "reason", "detail")


@cache
def vocabulary() -> Vocabulary:
    return Vocabulary.from_json(json.dumps(tokenizer_json()))


@cache
def tokenizer() -> BulkTokenizer:
    return BulkTokenizer(vocabulary())


def document(content: str, **fields: Any) -> Document:
    """A document with this text; what is not given is made up."""
    made_up: dict[str, Any] = {
        "source": "example", "version": "1.0", "path": "example/module.py", "license": "MIT", "language": "python",
        "evidence": Evidence("file", "LICENSE", "MIT License", 0.98), "date": "2024-05-01",
    }  # fmt: skip
    return Document(id=content_id(content), content=content, **made_up | fields)


def many(count: int) -> list[Document]:
    """Documents that differ in everything."""
    kinds: list[Kind] = ["code", "code", "issue", "commit", "jupyter"]
    return [
        document(
            f"def f{n}(x):\n" + f"    x += {n}\n" * (n % 7) + "    return x\n" * (n % 3),
            source=f"source{n % 5}",
            path=f"pkg/m{n}.py",
            license=("MIT", "Apache-2.0", "BSD-3-Clause")[n % 3],
            language=("python", "c")[n % 2],
            kind=kinds[n % 5],
            stars=None if n % 4 else n,
            evidence=Evidence(("file", "header", "metadata")[n % 3], "LICENSE", "MIT License", 1 - n % 10 / 100),
            redactions=(Redaction("email", 1), Redaction("key", 2))[: n % 3],
        )
        for n in range(count)
    ]


def write_shard(stem: Path, documents: Sequence[Document]) -> dict[str, Any]:
    """A shard of the documents; what the manifest says of it."""
    with ShardWriter(stem, vocabulary()) as writer:
        if documents:
            ids, ends = tokenizer().encode_batch([d.content for d in documents], [d.kind for d in documents])
            for one, its in zip(documents, np.split(ids, ends[:-1].astype(np.int64)), strict=True):
                writer.add(one, its)
        return writer.close()


@dataclass(frozen=True)
class Settings:
    """What a manifest asks a recipe for."""

    vocabulary: Vocabulary

    def settings(self) -> dict[str, Any]:
        return {"policy": "permissive", "near": True}


def write_corpus(
    folder: Path, splits: dict[str, list[list[Document]]], dropped: Sequence[Sequence[str]] = ()
) -> Corpus:
    """A corpus of shards, given as lists of documents by split; `dropped` are rows of DROPPED."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = {
        split: [write_shard(folder / f"{split}-{number:05d}", one) for number, one in enumerate(shards)]
        for split, shards in splits.items()
    }
    columns = {name: pa.array([row[n] for row in dropped], pa.string()) for n, name in enumerate(DROPPED)}
    pq.write_table(pa.table(columns), folder / "dropped.parquet")
    kept = sum(len(one) for shards in splits.values() for one in shards)
    write_manifest(folder, Settings(vocabulary()), "f" * 64, entries, files=kept + len(dropped))  # type: ignore[arg-type]
    return Corpus(folder)
