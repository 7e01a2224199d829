"""Which documents of a corpus that is built hold the problems of a benchmark: the index finds where to look.

What counts is decided by `data.decontaminate`, as when a corpus is built; here it reads only documents that share a row
of tokens with a problem, or with a normalised index a row of lexemes whatever names are in it. So a problem that was
wrapped or indented otherwise in all its lines, and is prose, is found by building alone.
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
from codegen25.data.decontaminate import MIN_RENAMED, Benchmarks
from codegen25.data.problems import Problem

# Tokens in a row that a document must have in common with a problem to be read.
TOKENS = 8
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
        for row in rows if searchable else ():
            found.update(_holding(searchable, row))
    return sorted(found)


def _holding(searchable: Searchable, row: Ids) -> Iterable[int]:
    first, last = searchable.interval(row)
    if not first < last <= first + MOST_PLACES:
        return ()
    documents, _ = searchable.locate(np.arange(first, last))
    holding: list[int] = documents.tolist()
    return holding


def _token_rows(tracer: Tracer, problems: Iterable[Problem]) -> list[Ids]:
    """Every row of TOKENS tokens in the problems' texts that a match may begin with."""
    texts = {text for one in problems for text in (one.prompt + one.solution + one.suffix, one.prompt, one.test)}
    found: dict[bytes, Ids] = {}
    for text in texts:
        ids = np.array(tracer.tokenizer.encode(text), np.uint16)
        begins = np.flatnonzero(~tracer.left_out[ids])
        found |= {row.tobytes(): row for row in _rows(ids, begins.tolist(), TOKENS)}
    return list(found.values())


def _lexeme_rows(problems: Iterable[Problem]) -> list[Ids]:
    """Every row of MIN_RENAMED lexemes in the problems' programs, names left out."""
    found: dict[bytes, Ids] = {}
    for text in {one.prompt + one.solution + one.suffix for one in problems}:
        symbols = normalized.symbols(normalized.stream(text))
        found |= {row.tobytes(): row for row in _rows(symbols, range(symbols.size), MIN_RENAMED)}
    return list(found.values())


def _rows(ids: Ids, begins: Iterable[int], length: int) -> Iterator[Ids]:
    return (ids[at : at + length] for at in begins if at + length <= ids.size)
