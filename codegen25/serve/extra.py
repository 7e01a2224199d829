"""Texts from elsewhere, fitted to the window by relevance.

What is near the cursor is compared with pieces of each text by the names they share (the Jaccard index of their
identifiers). The likest pieces go into the prompt, the likest of all next to the file, each below a comment with its
path. Text without any name in common stays out: it would only cost time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from codegen25 import infill
from codegen25.serve.ask import Extra
from codegen25.tokenizer import Tokenizer

# Lines around the cursor that are looked at, and lines of a piece.
NEAR, PIECE = 24, 40
# Characters of all texts that are looked at: beyond them nobody waits for a ranking.
MOST = 400_000
_AROUND = 8000  # characters on either side of the cursor
_NAME = re.compile(r"[^\W\d]\w{2,}")


def fit(
    tokenizer: Tokenizer, extra: Sequence[Extra], prefix: str, suffix: str, budget: int
) -> tuple[tuple[Extra, ...], tuple[int, ...]]:
    """(the texts of which something was chosen, the ids of what was), at most `budget` ids."""
    wanted = names("\n".join(prefix[-_AROUND:].splitlines()[-NEAR:] + suffix[:_AROUND].splitlines()[: NEAR // 2]))
    ranked, left = [], MOST
    for number, one in enumerate(extra):
        for piece in pieces(one.text[:left]):
            alike = likeness(wanted, names(piece))
            if alike:
                ranked.append((alike, number, piece))
        left -= min(left, len(one.text))
    ranked.sort(key=lambda rank: rank[:2], reverse=True)  # of equal ones the later text: clients send the newest last
    chosen: list[tuple[int, list[int]]] = []
    for _, number, piece in ranked:
        text = f"# {extra[number].name}\n{piece}\n" if extra[number].name else f"{piece}\n"
        ids = tokenizer.encode(text)
        if len(ids) > budget:
            ids = infill.trim_right(tokenizer, text, budget, ids)
        budget -= len(ids)
        if ids:
            chosen.insert(0, (number, ids))
        if budget < PIECE:
            break
    taken = tuple(extra[number] for number in sorted({number for number, _ in chosen}))
    return taken, tuple(id for _, ids in chosen for id in ids)


def names(text: str) -> frozenset[str]:
    return frozenset(_NAME.findall(text))


def likeness(a: frozenset[str], b: frozenset[str]) -> float:
    """Shared names by all names."""
    return len(a & b) / len(a | b) if a and b else 0.0


def pieces(text: str) -> list[str]:
    """The text by PIECE lines."""
    lines = text.splitlines()
    return ["\n".join(lines[start : start + PIECE]) for start in range(0, len(lines), PIECE)]
