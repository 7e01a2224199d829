"""Where holes open for people who type: the hole of the key before, if it will do (see `editing`).

Clients do not say which file a request belongs to. A session is found by its text: the one whose hole the new prefix
goes on from. Extra texts stand in front, as text of their own, and stay the same as long as their session's hole does,
since whatever changes in front is computed anew.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from codegen25.editing import Anchor, Limits, place
from codegen25.engine.backend import Facts
from codegen25.serve.ask import Ask, Extra
from codegen25.serve.extra import fit

REMEMBERED = 64
# Answers' lengths are rounded up to it, so that requests that differ in them share a prompt.
ROUND = 128
# The share of a prompt that extra texts may take.
EXTRA_SHARE = 4


@dataclass(frozen=True)
class _Session:
    client: str | None
    window: int  # of the prompt and its extra texts
    lines: int  # before the cursor, at which holes open
    anchor: Anchor
    extra: tuple[Extra, ...]  # those that were chosen
    extra_ids: tuple[int, ...]


@dataclass(frozen=True)
class Placed:
    """Ids of a prompt, and the bytes behind it that the answer has to begin with (see `healing`)."""

    ids: tuple[int, ...]
    required: bytes
    trimmed: bool


class Sessions:
    """The open holes of all who type on one model, the least recently used forgotten."""

    def __init__(self, model: Facts) -> None:
        self._model = model
        self._sessions: OrderedDict[int, _Session] = OrderedDict()
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def place(self, ask: Ask) -> Placed:
        """The prompt of a request with one hole. Only one of somebody who types looks at others, and is remembered."""
        prefix, suffix = ask.parts
        rounded = -(-max(1, ask.max_tokens) // ROUND) * ROUND
        window = self._model.window - min(rounded, self._model.window // 2)
        number, old = self._nearest(ask, window) if ask.is_remembered else (None, None)
        extra, extra_ids = self._extra(ask, old, window)
        size = window - len(extra_ids)
        limits = Limits(size, size // 6)
        keeps = old is not None and old.extra_ids == extra_ids
        anchor, prompt = place(
            self._model.tokenizer, limits, old.anchor if old and keeps else None, prefix, suffix, lines=ask.anchor
        )  # fmt: skip
        if ask.is_remembered:
            self._remember(number, _Session(ask.client, window, ask.anchor, anchor, extra, extra_ids))
        return Placed((*extra_ids, *prompt.ids), prompt.required, anchor.trimmed)

    def _extra(self, ask: Ask, old: _Session | None, window: int) -> tuple[tuple[Extra, ...], tuple[int, ...]]:
        prefix, suffix = ask.parts
        if (
            old is not None
            and prefix.startswith(old.anchor.before)
            and set(old.extra) <= set(ask.extra)
            and (old.extra or not ask.extra)
        ):
            return old.extra, old.extra_ids
        return fit(self._model.tokenizer, ask.extra, prefix, suffix, window // EXTRA_SHARE)

    def _nearest(self, ask: Ask, window: int) -> tuple[int | None, _Session | None]:
        """The session that goes on: one whose hole will do, or one of the same beginning; the latest of equal ones."""
        prefix, suffix = ask.parts
        best: tuple[int, int, _Session] | None = None
        for number, session in self._sessions.items():
            if (session.client, session.window, session.lines) != (ask.client, window, ask.anchor):
                continue
            anchor = session.anchor
            goes_on = prefix.startswith(anchor.before)
            rank = 2 * goes_on + anchor.has_behind(suffix)
            if rank and (best is None or rank >= best[0]):
                best = rank, number, session
        return (best[1], best[2]) if best else (None, None)

    def _remember(self, number: int | None, session: _Session) -> None:
        if number is None:
            self._numbers += 1
            number = self._numbers
        self._sessions[number] = session
        self._sessions.move_to_end(number)
        if len(self._sessions) > REMEMBERED:
            self._sessions.popitem(last=False)
