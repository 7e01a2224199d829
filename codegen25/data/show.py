"""One document as text: where it comes from, why it may be used, what was taken out of it, and what it says."""

from __future__ import annotations

import re

from codegen25.data.corpus import Corpus, Place
from codegen25.data.plain import aligned_left, plain
from codegen25.errors import CodegenError

_ID = re.compile(r"[0-9a-f]{1,64}")


def show(corpus: Corpus, wanted: str) -> str:
    """The document whose id begins with `wanted`, or that `wanted` names as SOURCE:PATH, for a terminal.

    Lines that something was redacted in are marked. Raises CodegenError when no document, or more than one, is meant.
    """
    place = find(corpus, wanted)
    return "\n".join([*_about(place), "", *_lines(place)]) + "\n"


def find(corpus: Corpus, wanted: str) -> Place:
    """The document that is meant, by its id's first digits or as SOURCE:PATH. Raises CodegenError unless it is one."""
    if _ID.fullmatch(wanted):
        return corpus.find(wanted)
    if ":" not in wanted:
        raise CodegenError(f"{plain(wanted)}: names no document; give the first digits of its id, or SOURCE:PATH")
    return corpus.find_path(wanted)


def _about(place: Place) -> list[str]:
    document, evidence = place.document, place.document.evidence
    ids = place.shard.document_ids(place.index)
    redacted = ", ".join(f"{one.kind} in line {one.line}" for one in document.redactions)
    rows = [
        ("id", document.id),
        ("source", f"{document.source} {document.version}".rstrip()),
        ("path", document.path),
        ("licence", document.license),
        ("evidence", f"{evidence.kind} {evidence.file}, {evidence.confidence:.0%} sure: {evidence.text}"),
        ("language", document.language if document.kind == "code" else f"{document.language} ({document.kind})"),
        ("date", document.date or "not known"),
        ("stars", "not known" if document.stars is None else f"{document.stars:,}"),
        ("size", f"{len(ids):,} tokens, {len(document.content.encode()):,} bytes"),
        ("redacted", redacted or "nothing"),
        ("stands in", f"{place.split}, {place.shard.path.name}, document {place.index}"),
    ]
    return aligned_left(rows)


def _lines(place: Place) -> list[str]:
    """The text with numbered lines; `!` marks those that something was taken out of."""
    document = place.document
    marked = {one.line for one in document.redactions}
    lines = document.content.removesuffix("\n").split("\n")
    width = len(f"{len(lines)}")
    return [
        f"{'!' if number in marked else ' '}{number:>{width}}  {_printed(line)}".rstrip()
        for number, line in enumerate(lines, start=1)
    ]


def _printed(line: str) -> str:
    """A line of code: tabs stay what they are, a terminal's escape sequences do not."""
    return "\t".join(plain(part) for part in line.removesuffix("\r").split("\t"))
