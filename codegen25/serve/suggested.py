"""What was just suggested, so that text which is typed along a suggestion asks the model for nothing."""

from __future__ import annotations

from collections import OrderedDict

from codegen25.engine.answer import Finish
from codegen25.serve.ask import Ask

# Texts behind a cursor that are remembered, and suggestions in front of each.
TEXTS, EACH = 64, 8

_Key = tuple[object, ...]


class Suggested:
    """The last whole suggestions to requests that are answered alike each time."""

    def __init__(self) -> None:
        self._known: OrderedDict[_Key, list[tuple[str, str, Finish]]] = OrderedDict()

    def rest(self, ask: Ask) -> tuple[str, Finish] | None:
        """The rest of a suggestion that the text in front of the cursor has grown along, and how it ended."""
        key = _key(ask)
        if key is None or key not in self._known:
            return None
        prefix = ask.parts[0]
        for before, text, finish in reversed(self._known[key]):
            if prefix.startswith(before) and (before + text).startswith(prefix):
                rest = text[len(prefix) - len(before) :]
                if rest or prefix == before:
                    return rest, finish
        return None

    def remember(self, ask: Ask, text: str, finish: Finish) -> None:
        key = _key(ask)
        if key is None:
            return
        known = self._known.setdefault(key, [])
        known.append((ask.parts[0], text, finish))
        del known[:-EACH]
        self._known.move_to_end(key)
        if len(self._known) > TEXTS:
            self._known.popitem(last=False)

    def forget(self) -> None:
        self._known.clear()


def _key(ask: Ask) -> _Key | None:
    """What must be equal; None for requests whose answers are not remembered."""
    if not ask.is_remembered or ask.warm or ask.holes != 1 or ask.best_of > 1 or ask.logprobs is not None:
        return None
    if ask.sampling.temperature > 0:
        return None
    return ask.parts[1], ask.max_tokens, ask.sampling, ask.stop, ask.banned, ask.lines, ask.least_indent, ask.echo
