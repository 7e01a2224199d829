"""A suggestion as an item of LSP, of either kind."""

from __future__ import annotations

import re

from lsprotocol import types

from codegen25.serve.lsp_suggest import Cursor
from codegen25.serve.lsp_text import units

# Characters of a menu's line.
LABEL = 60
_WORD = re.compile(r"\w*\Z")


def inline_item(cursor: Cursor, text: str, where: types.Range, chosen: str) -> types.InlineCompletionItem:
    """Ghost text. `chosen` of a menu stands in `where` and is to be part of the item.

    A range keeps the text where it began while it is typed along; with text on the right of the cursor Neovim would
    draw over it, so there it is left out, which means the cursor.
    """
    if chosen:
        return types.InlineCompletionItem(chosen + text, range=where)
    return types.InlineCompletionItem(text, range=where if cursor.is_at_end else None)


def completion_item(cursor: Cursor, text: str, position: types.Position, encoding: str) -> types.CompletionItem:
    """A menu's item. It replaces the word in front of the cursor by itself and the text, as menus filter by words."""
    found = _WORD.search(cursor.prefix)
    word = found[0] if found else ""
    start = types.Position(position.line, max(0, position.character - units(word, encoding)))
    whole = word + text
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
    )
