"""Whose code is in the corpus: what of a folder stands there, and which documents an opt-out takes out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from codegen25.attribute.files import TracedFile
from codegen25.attribute.origins import Origin
from codegen25.attribute.trace import Tracer
from codegen25.errors import CodegenError


def summary(files: Iterable[TracedFile]) -> dict[str, Any]:
    """How much of each file stands in the corpus, and the documents that hold it, once each."""
    rows: list[dict[str, Any]] = []
    documents: dict[str, dict[str, Any]] = {}
    for file in files:
        rows.append(
            {
                "file": file.path,
                "characters": len(file.source.raw),
                "overlap": file.overlap,
                "matches": len(file.attributed),
            }
        )
        for match in file.attributed:
            documents |= {origin.id: _about(origin) for origin in match.origins}
    totals = {name: sum(row[name] for row in rows) for name in ("characters", "overlap")}
    return {"files": rows, **totals, "documents": [documents[id] for id in sorted(documents)]}


def _about(origin: Origin) -> dict[str, Any]:
    names = ("id", "source", "version", "path", "license", "split")
    return {name: getattr(origin, name) for name in names}


def removed(tracer: Tracer, names: frozenset[str], *, copies: bool) -> list[dict[str, Any]]:
    """The documents of sources that are named, or lie under a name; with `copies`, others that hold their code, too.

    Raises CodegenError when no source of the corpus is named.
    """
    found: dict[str, dict[str, Any]] = {}
    chosen = []
    for shard in tracer.index.shards:
        for document, source in enumerate(shard.sources.tolist()):
            if _named(source, names):
                row = {name: shard.origins[name][document] for name in ("id", "source", "version", "path", "license")}
                found[row["id"]] = row | {"split": shard.split, "why": "of a source that is named"}
                chosen.append((shard, document))
    if not chosen:
        raise CodegenError(f"{tracer.index.corpus}: has no source of that list; `data stats` names its sources")
    for shard, document in chosen if copies else ():
        text = shard.text(document)
        for match in tracer.trace(text) if text.strip() else ():
            for origin in match.origins if not match.common else ():
                if origin.id not in found:
                    why = f"lines {origin.first_line} to {origin.last_line} are of {shard.sources[document]}"
                    found[origin.id] = _about(origin) | {"why": why}
    return list(found.values())


def _named(source: str, names: frozenset[str]) -> bool:
    pieces = source.split("/")
    return any("/".join(pieces[:count]) in names for count in range(1, len(pieces) + 1))
