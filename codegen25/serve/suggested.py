"""What was just suggested, so that text which is typed along a suggestion asks the model for nothing."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from codegen25.engine.answer import Finish
from codegen25.serve.ask import Ask
from codegen25.serve.attribution import Spans, placed

# Texts behind a cursor that are remembered, and suggestions in front of each.
TEXTS, EACH = 64, 8

_Key = tuple[object, ...]


@dataclass(frozen=True)
class Suggestion:
    """An answer's text, how it ended, and where it stands in the corpus when there is one."""

    text: str
    finish: Finish
    attribution: Spans | None = None

    def behind(self, typed: int) -> Suggestion:
        """Without its first `typed` characters; what these are a part of is still attributed."""
        rest = self.text[typed:]
        spans = None if self.attribution is None else placed(self.attribution, -typed, len(rest))
        return Suggestion(rest, self.finish, spans)


class Suggested:
    """The last whole suggestions to requests that are answered alike each time."""

    def __init__(self) -> None:
        self._known: OrderedDict[_Key, list[tuple[str, Suggestion]]] = OrderedDict()

    def rest(self, ask: Ask) -> Suggestion | None:
        """The rest of a suggestion that the text in front of the cursor has grown along."""
        key = _key(ask)
        if key is None or key not in self._known:
            return None
        prefix = ask.parts[0]
        for before, whole in reversed(self._known[key]):
            if prefix.startswith(before) and (before + whole.text).startswith(prefix):
                rest = whole.behind(len(prefix) - len(before))
                if rest.text or prefix == before:
                    return rest
        return None

    def remember(self, ask: Ask, suggestion: Suggestion) -> None:
        key = _key(ask)
        if key is None:
            return
        known = self._known.setdefault(key, [])
        known.append((ask.parts[0], suggestion))
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
    like = ask.parts[1], ask.max_tokens, ask.sampling, ask.stop, ask.banned, ask.lines, ask.least_indent, ask.echo
    return *like, ask.anchor, ask.patience
