"""What is known of a document that holds a match: source, version, path, lines, licence and its evidence, copyright."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from codegen25.attribute.index import IndexedShard
from codegen25.attribute.suffixes import Ids
from codegen25.tokenizer import Tokenizer

UNKNOWN = "unknown"
# Ids at the beginning of a document in which its copyright lines are looked for, and how many of these are told.
_HEAD, _MOST_LINES = 1500, 8
_COPYRIGHT = re.compile(
    r"^.*?\b(copyright\b.*(?:\d{4}|\(c\)|©|by ).*|\(c\) *\d{4}.*|©.*)$", re.IGNORECASE | re.MULTILINE
)


@dataclass(frozen=True)
class Origin:
    """A document, and the lines of it that hold the match. `license` is SPDX, or `UNKNOWN` without evidence."""

    source: str
    version: str
    path: str
    first_line: int
    last_line: int
    license: str
    evidence_kind: str
    evidence_file: str
    evidence_text: str
    evidence_confidence: float
    copyright: tuple[str, ...]
    date: str
    split: str
    id: str


class Describer:
    """Makes origins of places in shards."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._newlines = np.zeros(1 << 16, np.int64)
        for id in tokenizer.tokens_starting_with(b""):
            self._newlines[id] = tokenizer.token_bytes(id).count(b"\n")
        self._copyright = lru_cache(maxsize=1024)(self._copyright_lines)

    def line(self, shard: IndexedShard, document: int, start: int) -> int:
        """The line in which an id of a document begins, from 1; a metadata prefix, which ends with one, is no line."""
        ids = shard.shard.document_ids(document)
        has_prefix = self._tokenizer.is_control(int(ids[0])) and int(ids[0]) != self._tokenizer.eot
        return 1 + int(self._newlines[ids[:start]].sum()) - bool(has_prefix)

    def origin(self, shard: IndexedShard, document: int, first_line: int, last_line: int) -> Origin:
        """All that the corpus knows of a document."""
        row = {name: values[document] for name, values in shard.origins.items()}
        license = row["license"] if row["license"] and row["evidence_kind"] else UNKNOWN
        evidence = {name: row[name] for name in row if name.startswith("evidence_")}
        return Origin(
            source=row["source"], version=row["version"], path=row["path"], first_line=first_line,
            last_line=last_line, license=license, **evidence, copyright=self._copyright(shard, document),
            date=row["date"], split=shard.split, id=row["id"],
        )  # fmt: skip

    def _copyright_lines(self, shard: IndexedShard, document: int) -> tuple[str, ...]:
        head: Ids = shard.shard.document_ids(document)[:_HEAD]
        text = self._tokenizer.decode(head.tolist())
        found = (match.group(1).strip().rstrip("*/#\"' ") for match in _COPYRIGHT.finditer(text))
        return tuple(dict.fromkeys(line for line in found if len(line) < 200))[:_MOST_LINES]
