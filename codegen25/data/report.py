"""A corpus to look at: one HTML page with its figures, its charts and the reasons for what was left out.

The page stands on its own, runs nothing, and its bytes depend on the corpus alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from codegen25.data.charts import bar, bars, card, columns, escape, page, table, tiles
from codegen25.data.corpus import Corpus
from codegen25.data.document import write_text
from codegen25.data.plain import binary, share, short
from codegen25.data.stats import Sums, stats

# Bars of a group, and shards that are listed.
ROWS = 16
SHARDS = 200
EVIDENCE = {
    "header": "header of the file", "file": "licence file", "metadata": "package metadata",
    "declared": "declared by the builder", "dataset": "dataset's statement",
}  # fmt: skip
_KEY = (
    '<span class="key kept"></span>left after the stage &nbsp; <span class="key gone"></span>dropped by it; '
    "every file has one outcome"
)


def write_report(corpus: Corpus, path: Path) -> None:
    """Write the page. Raises CodegenError when a file of the corpus is damaged."""
    found = stats(corpus)
    totals = found["totals"]
    parts = [
        _head(found),
        card("From files to documents", _funnel(found), _KEY),
        '<div class="cards">',
        card("Tokens by language", _groups(found["languages"], totals)),
        card("Tokens by licence", _groups(found["licenses"], totals)),
        card("How licences are known", _groups(_renamed(found["evidence"]), totals), "Tokens by kind of evidence."),
        *_redactions(found),
        card("Length of documents", _lengths(found["lengths"]), "Documents by tokens, from each number to its double."),
        *_near(found["similarity"]),
        card("Tokens by source", _groups(found["sources"], totals, found["source_count"])),
        "</div>",
        card("Why files were left out", _reasons(found)),
        card("Shards", _shards(corpus)),
        card("Settings", _settings(corpus), "What decided the bytes of this corpus, beside its sources."),
    ]
    write_text(path, [page("Corpus", "\n".join(parts))])


def _head(found: dict[str, Any]) -> str:
    totals, files = found["totals"], found["files"]
    values = {
        "tokens": short(totals["tokens"]),
        "documents": f"{totals['documents']:,}",
        "of text": short(totals["bytes"], "B"),
        "sources": f"{found['source_count']:,}",
        "languages": f"{len(found['languages']):,}",
        "files read": f"{files:,}",
        "of them kept": share(totals["documents"], files) or "-",
    }
    splits = ", ".join(f"{short(sums['tokens'])} {escape(name)}" for name, sums in found["splits"].items())
    return (
        f'<header>\n<h1>Corpus</h1>\n<p class="soft">Tokens by split: {splits}. Fingerprint '
        f"<code>{escape(found['fingerprint'][:16])}</code>, vocabulary <code>{escape(found['vocabulary'][:16])}</code>."
        f'</p>\n<div class="tiles">\n{tiles(values)}\n</div>\n</header>'
    )


def _funnel(found: dict[str, Any]) -> str:
    files = max(1, found["files"])
    rows = [bar("files read", 1, 0, f"{found['files']:,}", "")]
    for row in found["funnel"]:
        dropped = f"−{row['dropped']:,}" if row["dropped"] else "0"  # noqa: RUF001
        rows.append(bar(row["stage"], row["left"] / files, row["dropped"] / files, f"{row['left']:,}", dropped))
    return bars(rows)


def _groups(groups: dict[str, Sums], totals: Sums, count: int = 0) -> str:
    """Bars of tokens, as long as their part of the largest. `count` is of groups, where not all of them are given."""
    shown = list(groups.items())[:ROWS]
    most = max([1, *(sums["tokens"] for _, sums in shown)])
    rows = []
    for name, sums in shown:
        tokens = sums["tokens"]
        rows.append(bar(name, tokens / most, 0, short(tokens), share(tokens, totals["tokens"])))
    more = max(count, len(groups)) - len(shown)
    return bars(rows) + (f'\n<p class="soft">and {more:,} more</p>' if more else "")


def _renamed(groups: dict[str, Sums]) -> dict[str, Sums]:
    return {EVIDENCE.get(name, name): sums for name, sums in groups.items()}


def _lengths(lengths: dict[str, int]) -> str:
    return columns({binary(int(length)): count for length, count in lengths.items()})


def _near(similarity: dict[str, int]) -> list[str]:
    """How alike near copies are to what was kept of them, where any were looked for."""
    if not similarity:
        return []
    first, last = (int(100 * float(edge) + 0.5) for edge in (min(similarity), max(similarity)))
    filled = {f"{n / 100:.2f}": similarity.get(f"{n / 100:.2f}", 0) for n in range(first, last + 1)}
    note = f"{sum(similarity.values()):,} near copies by their Jaccard similarity to the one that was kept."
    return [card("How alike near copies are", columns(filled, every=5), note)]


def _redactions(found: dict[str, Any]) -> list[str]:
    if not found["redactions"]:
        return []
    most = max(found["redactions"].values())
    rows = [bar(kind, count / most, 0, f"{count:,}") for kind, count in found["redactions"].items()]
    return [card("Redacted", bars(rows), f"In {found['redacted_documents']:,} documents.")]


def _reasons(found: dict[str, Any]) -> str:
    rows = []
    for one in found["reasons"]:
        part = share(one["count"], found["files"])
        rows.append([escape(one["reason"]), escape(one["stage"]), f"{one['count']:,}", part, _samples(one["samples"])])
    return table(["reason", "stage", "files", "of all", "samples"], rows, numbers=(2, 3))


def _samples(samples: list[dict[str, str]]) -> str:
    lines = []
    for one in samples:
        source = " ".join(filter(None, [one["source"], one["version"]]))
        detail = f' <span class="soft">{escape(one["detail"])}</span>' if one["detail"] else ""
        lines.append(f"<li><code>{escape(source)}</code> <code>{escape(one['path'])}</code>{detail}</li>")
    return f"<details><summary>{len(samples)}</summary><ul>{''.join(lines)}</ul></details>"


def _shards(corpus: Corpus) -> str:
    entries = [entry for shards in corpus.manifest["splits"].values() for entry in shards]
    rows = [
        [
            escape(one["name"]), f"{one['documents']:,}", f"{one['tokens']:,}", short(one["bytes"], "B"),
            f"<code>{escape(one['sha256'][:16])}</code>", f"<code>{escape(one['table_sha256'][:16])}</code>",
        ]
        for one in entries[:SHARDS]
    ]  # fmt: skip
    more = f'\n<p class="soft">and {len(entries) - SHARDS:,} more</p>' if len(entries) > SHARDS else ""
    return table(["shard", "documents", "tokens", "text", "SHA-256", "of its table"], rows, numbers=(1, 2, 3)) + more


def _settings(corpus: Corpus) -> str:
    said = corpus.manifest["settings"]
    values = {name: json.dumps(said[name], ensure_ascii=False) for name in sorted(said)}
    return table(["setting", "value"], [[escape(name), f"<code>{escape(v)}</code>"] for name, v in values.items()])
