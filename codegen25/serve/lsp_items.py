"""A suggestion as an item of LSP, of either kind."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lsprotocol import types

from codegen25.serve.attribution import Spans
from codegen25.serve.lsp_suggest import Cursor, Suggestion
from codegen25.serve.lsp_text import units

# Characters of a menu's line.
LABEL = 60
# Runs when an item is accepted that stands in a corpus; its one argument is the attribution.
SOURCES = "codegen25.sources"
# Characters of what is told of it.
LINE = 400
_WORD = re.compile(r"\w*\Z")


def inline_item(cursor: Cursor, found: Suggestion, where: types.Range, chosen: str) -> types.InlineCompletionItem:
    """Ghost text. `chosen` of a menu stands in `where` and is to be part of the item.

    A range keeps the text where it began while it is typed along; with text on the right of the cursor Neovim would
    draw over it, so there it is left out, which means the cursor.
    """
    whole = found.behind(chosen)
    keeps = bool(chosen) or cursor.is_at_end
    return types.InlineCompletionItem(
        whole.text, range=where if keeps else None, command=_command(whole.attribution)
    )  # fmt: skip


def completion_item(
    cursor: Cursor, suggestion: Suggestion, position: types.Position, encoding: str
) -> types.CompletionItem:
    """A menu's item. It replaces the word in front of the cursor by itself and the text, as menus filter by words."""
    found = _WORD.search(cursor.prefix)
    word = found[0] if found else ""
    suggestion = suggestion.behind(word)
    start = types.Position(position.line, max(0, position.character - units(word, encoding)))
    whole, spans = suggestion.text, suggestion.attribution
    first = whole.strip().partition("\n")[0]
    return types.CompletionItem(
        label=first if len(first) <= LABEL else first[: LABEL - 1] + "…",
        kind=types.CompletionItemKind.Text,
        detail="codegen25",
        documentation=whole,
        sort_text=" ",  # before all that is visible; Emacs refuses messages with NUL
        filter_text=whole.partition("\n")[0] or first,
        preselect=True,
        insert_text_format=types.InsertTextFormat.PlainText,
        insert_text_mode=types.InsertTextMode.AsIs,
        text_edit=types.TextEdit(types.Range(start, position), whole),
        command=_command(spans),
        data={"attribution": list(spans)} if spans else None,
    )


def _command(spans: Spans) -> types.Command | None:
    """Tells the sources of what was accepted; None for text that is nobody's."""
    return types.Command("Where this text stands", SOURCES, arguments=[list(spans)]) if spans else None


def told(spans: object) -> list[str]:
    """A line for each run of an accepted text, from what a client sends back of a command's argument."""
    lines = []
    for span in spans if isinstance(spans, list) else ():
        sources = span.get("sources") if isinstance(span, dict) else None
        if isinstance(sources, list) and sources and isinstance(sources[0], dict):
            lines.append(_line(sources[0], len(sources) - 1))
    return lines


def _line(source: Mapping[str, Any], others: int) -> str:
    name = f"{source.get('source', '')} {source.get('version', '')}".strip()
    where = f"{source.get('path', '')}:{source.get('first_line', '')}-{source.get('last_line', '')}"
    more = f", and {others} more sources" if others else ""
    return f"what was accepted stands in {name}, {where} ({source.get('license', '')}){more}"[:LINE]
