"""Personal data and secrets are replaced as StarCoderData's were: <EMAIL>, <KEY>, <PASSWORD>, and private addresses.

Replacing leaves the lines of a text where they are, so that lines of the corpus are those of its source.
"""

from __future__ import annotations

from collections.abc import Iterable

from codegen25.data.addresses import find_emails, find_ips
from codegen25.data.credentials import Span, find_credentials
from codegen25.data.document import Redaction


def redact(text: str) -> tuple[str, tuple[Redaction, ...]]:
    """The text without what was found, and what was replaced, in the order of the text.

    The result is looked through again until nothing is found, for a find can hide another: redacting it once more
    changes nothing. Each time less is left to find.
    """
    redactions: list[Redaction] = []
    while spans := _disjoint([*find_credentials(text), *find_emails(text), *find_ips(text)]):
        redactions += _redactions(text, spans)
        text = _replaced(text, spans)
    return text, tuple(sorted(redactions, key=lambda one: one.line))


def _disjoint(spans: Iterable[Span]) -> list[Span]:
    """In order; of spans that overlap, the one that begins first, the longest of those."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda one: (one.start, -one.end)):
        if not kept or span.start >= kept[-1].end:
            kept.append(span)
    return kept


def _redactions(text: str, spans: list[Span]) -> list[Redaction]:
    """One for each span that leaves something in its place."""
    found, line, at = [], 1, 0
    for span in spans:
        line, at = line + text.count("\n", at, span.start), span.start
        if span.replacement:
            found.append(Redaction(span.kind, line))
    return found


def _replaced(text: str, spans: list[Span]) -> str:
    pieces, at = [], 0
    for span in spans:
        pieces += [text[at : span.start], span.replacement]
        at = span.end
    return "".join([*pieces, text[at:]])
