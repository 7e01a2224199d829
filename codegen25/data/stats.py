"""What a corpus is made of, and what became of every file that was read: counts, as numbers and as text.

Texts are never read. The columns of one shard are in memory at a time, and a batch of what was dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from codegen25.data.corpus import DROPPED, Corpus
from codegen25.data.plain import aligned, first_line, plain, share, short
from codegen25.errors import CodegenError

# In the order in which a file meets them.
STAGES = ("read", "opt-out", "filter", "language", "licence", "benchmark", "exact copy", "near copy", "share")
SAMPLES = 3
# More sources than that are counted and not listed.
SOURCES = 1000
# Groups of documents: the column that tells them apart, and what it is called.
GROUPS = {
    "languages": ("language", "language"), "licenses": ("license", "licence"), "sources": ("source", "source"),
    "evidence": ("evidence_kind", "licence known by"), "kinds": ("kind", "kind"),
}  # fmt: skip
MEASURES = ("documents", "tokens", "bytes")
Sums = dict[str, int]


def stats(corpus: Corpus) -> dict[str, Any]:
    """Everything that there is to count, ready for JSON; groups begin with the one that has most tokens.

    Raises CodegenError when a file of the corpus is damaged.
    """
    groups, lengths, redactions, redacted = _documents(corpus)
    splits = groups.pop("splits")
    found: dict[str, Any] = {name: _by_tokens(sums) for name, sums in groups.items()}
    powers = range(min(lengths), max(lengths) + 1) if lengths else range(0)
    return {
        "fingerprint": corpus.fingerprint,
        "vocabulary": corpus.vocabulary,
        "totals": {measure: sum(sums[measure] for sums in splits.values()) for measure in MEASURES},
        "splits": {split: splits.get(split, dict.fromkeys(MEASURES, 0)) for split in corpus.splits},
        **found,
        "sources": dict(list(found["sources"].items())[:SOURCES]),
        "source_count": len(found["sources"]),
        "lengths": {f"{2**power}": lengths[power] for power in powers},
        "redactions": dict(sorted(redactions.items())),
        "redacted_documents": redacted,
        **_dropped(corpus),
    }


def _documents(corpus: Corpus) -> tuple[dict[str, dict[str, Sums]], Counter[int], Counter[str], int]:
    """Groups of documents, their lengths as powers of two, redactions by kind, and documents that have some."""
    groups: dict[str, dict[str, Sums]] = {name: {} for name in ("splits", *GROUPS)}
    lengths: Counter[int] = Counter()
    redactions: Counter[str] = Counter()
    redacted = 0
    for split, shard in corpus.all_shards():
        table = shard.documents.read([*(column for column, _ in GROUPS.values()), "tokens", "bytes", "redactions"])
        _add(groups["splits"], split, (len(table), _sum(table, "tokens"), _sum(table, "bytes")))
        for name, (column, _) in GROUPS.items():
            for value, sums in _grouped(table, column):
                _add(groups[name], value, sums)
        # A number's exponent in base two: lengths from 2**n to below 2**(n + 1) are one column.
        lengths.update((np.frexp(table.column("tokens").to_numpy())[1] - 1).tolist())
        lists = table.column("redactions").combine_chunks()
        redactions.update(pc.struct_field(pc.list_flatten(lists), "kind").to_pylist())
        redacted += int(np.count_nonzero(pc.list_value_length(lists).to_numpy(zero_copy_only=False)))
    return groups, lengths, redactions, redacted


def _sum(table: pa.Table, column: str) -> int:
    return int(pc.sum(table.column(column)).as_py() or 0)


def _grouped(table: pa.Table, column: str) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """Each value of a column with its documents, tokens and bytes."""
    by = table.group_by(column).aggregate([("tokens", "count"), ("tokens", "sum"), ("bytes", "sum")])
    names = (column, "tokens_count", "tokens_sum", "bytes_sum")
    for value, *sums in zip(*(by.column(name).to_pylist() for name in names), strict=True):
        yield value, tuple(sums)


def _add(groups: dict[str, Sums], name: str, sums: tuple[int, int, int]) -> None:
    into = groups.setdefault(name, dict.fromkeys(MEASURES, 0))
    for measure, value in zip(MEASURES, sums, strict=True):
        into[measure] += value


def _by_tokens(groups: dict[str, Sums]) -> dict[str, Sums]:
    return dict(sorted(groups.items(), key=lambda item: (-item[1]["tokens"], item[0])))


# ------------------------------------------------------------------------------------------------- what was dropped


def _dropped(corpus: Corpus) -> dict[str, Any]:
    """The files read, what is left after each stage, the reasons with samples, and how alike near copies are."""
    counts: Counter[tuple[str, str]] = Counter()
    samples: dict[tuple[str, str], list[dict[str, str]]] = {}
    similarity: Counter[str] = Counter()
    for batch in _batches(corpus):
        by = batch.group_by(["stage", "reason"]).aggregate([([], "count_all")])
        for row in by.to_pylist():
            stage, reason, count = row["stage"], row["reason"], row["count_all"]
            counts[stage, reason] += count
            _sample(samples.setdefault((stage, reason), []), batch, stage, reason)
        near = batch.filter(pc.equal(batch.column("stage"), "near copy")).column("detail")
        found = pc.struct_field(pc.extract_regex(near, r"^(?P<is>[01]\.\d\d) of "), "is")
        similarity.update(value for value in found.to_pylist() if value is not None)
    reasons = sorted(counts, key=lambda key: (_stage(key[0]), -counts[key], key))
    return {
        "files": corpus.manifest["files"],
        "funnel": _funnel(corpus.manifest["files"], counts),
        "reasons": [
            {"stage": key[0], "reason": key[1], "count": counts[key], "samples": samples[key]} for key in reasons
        ],
        "similarity": dict(sorted(similarity.items())),
    }


def _batches(corpus: Corpus) -> Iterator[pa.Table]:
    path = corpus.folder / DROPPED
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowException) as error:
        raise CodegenError(f"{path}: cannot be read ({first_line(error)}); build the corpus again") from None


def _sample(samples: list[dict[str, str]], batch: pa.Table, stage: str, reason: str) -> None:
    """The first few files of a reason."""
    if len(samples) < SAMPLES:
        same = pc.and_(pc.equal(batch.column("stage"), stage), pc.equal(batch.column("reason"), reason))
        rows = batch.filter(same).slice(0, SAMPLES - len(samples))
        samples += rows.select(["source", "version", "path", "detail"]).to_pylist()


def _stage(name: str) -> tuple[int, str]:
    return (STAGES.index(name), "") if name in STAGES else (len(STAGES), name)


def _funnel(files: int, counts: Mapping[tuple[str, str], int]) -> list[dict[str, Any]]:
    dropped: Counter[str] = Counter()
    for (stage, _), count in counts.items():
        dropped[stage] += count
    rows, left = [], files
    for stage in sorted({*STAGES, *dropped}, key=_stage):
        left -= dropped[stage]
        rows.append({"stage": stage, "dropped": dropped[stage], "left": left})
    return rows


# ------------------------------------------------------------------------------------------------------------- text


def stats_text(found: dict[str, Any], rows: int = 12) -> str:
    """The counts for a terminal; of each group the first `rows`."""
    totals = found["totals"]
    parts = [_group_text("split", {"all": totals, **found["splits"]}, totals, rows)]
    for name, (_, title) in GROUPS.items():
        more = found["source_count"] - len(found[name]) if name == "sources" else 0
        parts.append(_group_text(title, found[name], totals, rows, more))
    parts.append(_funnel_text(found))
    parts.append(_reasons_text(found["reasons"]))
    if found["redactions"]:
        redacted = ", ".join(f"{count:,} {kind}" for kind, count in found["redactions"].items())
        parts.append([f"redacted in {found['redacted_documents']:,} documents: {plain(redacted)}"])
    parts.append([f"fingerprint {found['fingerprint'][:16]}, vocabulary {found['vocabulary'][:16]}"])
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _group_text(title: str, groups: dict[str, Sums], totals: Sums, rows: int, more: int = 0) -> list[str]:
    table = [(title, "tokens", "", "documents", "text")]
    for name, sums in list(groups.items())[:rows]:
        tokens = sums["tokens"]
        size = short(sums["bytes"], "B")
        table.append((name or "-", short(tokens), share(tokens, totals["tokens"]), f"{sums['documents']:,}", size))
    more += max(0, len(groups) - rows)
    return aligned(table) + ([f"… and {more:,} more"] if more else [])


def _funnel_text(found: dict[str, Any]) -> list[str]:
    files = found["files"]
    table = [("from files to documents", "dropped", "left", ""), ("files", "", f"{files:,}", share(files, files))]
    table += [
        (row["stage"], f"{row['dropped']:,}", f"{row['left']:,}", share(row["left"], files)) for row in found["funnel"]
    ]
    return aligned(table)


def _reasons_text(reasons: list[dict[str, Any]]) -> list[str]:
    """Reasons with their first sample each."""
    lines = aligned([("dropped because", "files"), *[(one["reason"], f"{one['count']:,}") for one in reasons]])
    samples = [""] + [f"  {_name(one['samples'][0])}" for one in reasons]
    return [line + sample for line, sample in zip(lines, samples, strict=True)]


def _name(sample: dict[str, str]) -> str:
    return plain(":".join(filter(None, [sample["source"], sample["path"]])))


def plot(found: dict[str, Any], path: Path) -> None:
    """Draw the counts as SVG or PNG, by the file's ending. Raises CodegenError when that is not possible."""
    from codegen25.data.figure import draw  # matplotlib takes a second to load

    draw(found, path)
