"""Which documents of a corpus that is built hold the problems of a benchmark: the index finds where to look.

What counts is decided by `data.decontaminate`, as when a corpus is built; here it reads only documents that share a row
of tokens with a problem, or with a normalised index a row of lexemes whatever names are in it. A copy that shares none,
such as prose that was wrapped anew in all its lines, is found by building alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from codegen25.attribute import normalized
from codegen25.attribute.index import IndexedShard
from codegen25.attribute.search import Searchable
from codegen25.attribute.suffixes import Ids
from codegen25.attribute.trace import Tracer
from codegen25.data.decontaminate import MIN_RENAMED, Benchmarks, pieces_of
from codegen25.data.problems import Problem

# Tokens or lexemes in a row that a document must have in common with a problem to be read; of what is shorter, all.
TOKENS, LEXEMES = 10, 30
# A row that stands in more places says nothing of where it is from; a copy of a problem has others.
MOST_PLACES = 2000


def contaminated(tracer: Tracer, problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """The documents that hold a problem: what is known of them, and which problem it is, where, and how it is found."""
    judge = Benchmarks(problems)
    rows: list[dict[str, Any]] = []
    tokens, lexemes = _token_rows(tracer, problems), _lexeme_rows(problems)
    for shard in tracer.index.shards:
        for document in _candidates(shard, tokens, lexemes):
            hit = judge.found(shard.text(document), shard.origins["language"][document])
            if hit:
                row = {
                    name: shard.origins[name][document] for name in ("id", "source", "version", "path", "license")
                }  # fmt: skip
                why = {"benchmark": hit.benchmark, "how": hit.how, "problem": hit.detail}
                rows.append(row | {"split": shard.split} | why)
    return rows


def _candidates(shard: IndexedShard, tokens: list[Ids], lexemes: list[Ids]) -> list[int]:
    """The documents of a shard that share a row with a problem."""
    found: set[int] = set()
    for searchable, rows in ((shard.tokens, tokens), (shard.lexemes, lexemes)):
        if searchable is not None:
            found.update(document for row in rows for document in _holding(searchable, row))
    return sorted(found)


def _holding(searchable: Searchable, row: Ids) -> Iterable[int]:
    first, last = searchable.interval(row)
    if not first < last <= first + MOST_PLACES:
        return ()
    documents, _ = searchable.locate(np.arange(first, last))
    holding: list[int] = documents.tolist()
    return holding


def _token_rows(tracer: Tracer, problems: Iterable[Problem]) -> list[Ids]:
    """The rows of tokens that a match may begin with, in all that counts of the problems."""
    found: dict[bytes, Ids] = {}
    for text in {text for one in map(pieces_of, problems) for text in (*one.texts, *one.running, *one.signed)}:
        # The first and the last token depend on what stands around a text.
        ids = np.array(tracer.tokenizer.encode(text), np.uint16)[1:-1]
        begins = np.flatnonzero(~tracer.left_out[ids])
        found |= {row.tobytes(): row for row in _rows(ids[begins[0] :] if begins.size else ids[:0], TOKENS)}
    return [row for row in found.values() if not tracer.left_out[row[0]]]


def _lexeme_rows(problems: Iterable[Problem]) -> list[Ids]:
    """The rows of lexemes in the problems' code, names left out."""
    found: dict[bytes, Ids] = {}
    for text in {text for one in problems for text in pieces_of(one).code}:
        symbols = normalized.symbols(normalized.stream(text))
        if symbols.size >= MIN_RENAMED:
            found |= {row.tobytes(): row for row in _rows(symbols, LEXEMES)}
    return list(found.values())


def _rows(ids: Ids, most: int) -> Iterator[Ids]:
    """All rows of `most`, or the one row of all where there are fewer."""
    length = min(most, ids.size)
    return (ids[at : at + length] for at in range(ids.size - length + 1) if length)
