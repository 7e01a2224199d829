"""What serving asks of an index of a corpus; `attribute.inline` answers. Without an index none of it is there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from codegen25.complete import Model
from codegen25.engine.answer import Guard

# `start`, `end` (characters), `kind`, `count` and `sources` of a run of an answer, as in `complete --json`.
Span = Mapping[str, Any]
Spans = tuple[Span, ...]


class Attribution(Protocol):
    """An index, and perhaps a policy, beside one model. Called from several threads at once."""

    @property
    def guard(self) -> Callable[[], Guard] | None:
        """Makes what watches an answer, one for each; None without a policy."""
        ...

    def drafting(self) -> Model:
        """The model, with drafts from the corpus where these are possible."""
        ...

    def spans(self, text: str) -> Sequence[Span]:
        """Where the text stands in the corpus, in order."""
        ...


def placed(spans: Iterable[Span], at: int, length: int = sys.maxsize) -> Spans:
    """The spans of a text that begins at character `at` of another one of `length`, as far as they lie in that."""
    moved = ({**span, "start": max(0, span["start"] + at), "end": min(length, span["end"] + at)} for span in spans)
    return tuple(span for span in moved if span["start"] < span["end"])


def member(spans: Spans | None) -> dict[str, Any]:
    """What is added to the last news of an answer; nothing without an index."""
    return {} if spans is None else {"attribution": list(spans)}
