"""Typing: one hole that stays open while a burst of keys grows the text in front of the cursor.

A prompt is anchored (see `infill`): `head <mask_1> suffix <|endoftext|> <sep> <mask_1> tail`. Where the hole opens is
chosen when the burst begins, and head and suffix are fitted to the window then, with room for the tail to grow. So each
key only appends to the prompt or, when text is deleted, shortens it, and a cache of its longest common prefix with the
one before leaves the key's own tokens to compute. The hole opens anew when the text in front of it or behind the cursor
has changed, or when the tail has no more room.

`place` decides this and computes nothing else; `Editing` asks a model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from codegen25 import infill
from codegen25.complete import ANCHOR_LINES, Model
from codegen25.engine import healing
from codegen25.engine.answer import Request
from codegen25.engine.scheduler import Scheduler
from codegen25.errors import UsageError
from codegen25.tokenizer import Tokenizer

# Suggestions that are kept to be typed along, or gone back to.
REMEMBERED = 8
# Text that is this many characters per token too long is cut before it is encoded: hardly a line of code has more.
MOST_CHARACTERS = 16


@dataclass(frozen=True)
class Limits:
    """In tokens: of the whole prompt with the bytes to heal, and of the tail with them; a byte may be a token."""

    prompt: int
    tail: int

    @classmethod
    def of(cls, window: int, max_tokens: int) -> Limits:
        """A sixth of what `max_tokens` leave of the window is for the tail. Raises `UsageError` when that is none."""
        prompt = window - max_tokens
        if max_tokens < 1 or prompt < 4 * infill.overhead(1):
            raise UsageError(f"max tokens is {max_tokens}, the window {window}; ask for 1 or more, and fewer than that")
        return cls(prompt, prompt // 6)

    @property
    def around(self) -> int:
        """Of head, suffix and control tokens."""
        return self.prompt - self.tail


@dataclass(frozen=True)
class Anchor:
    """An open hole. `context`: the ids of all of the prompt but the tail.

    `before` is the whole text in front of the hole, of which the prompt has what follows `start` (None: it begins
    inside a character). `behind` is the whole text behind the cursor, of which it has the beginning `kept`, in UTF-8.
    """

    before: str
    start: int | None
    behind: str
    kept: bytes
    context: tuple[int, ...]

    @property
    def trimmed(self) -> bool:
        """Some of the text did not fit."""
        return self.start != 0 or len(self.kept) < len(self.behind.encode())

    def has_behind(self, suffix: str) -> bool:
        """Whether the prompt holds as much of `suffix` as it can: what changed, if anything, is far from the cursor."""
        if suffix == self.behind:
            return True
        is_cut = len(self.kept) < len(self.behind.encode())
        return is_cut and suffix[: len(self.kept)].encode().startswith(self.kept)


@dataclass(frozen=True)
class Prompt:
    """Ids, and the bytes behind them that the answer has to begin with (see `healing`)."""

    ids: tuple[int, ...]
    required: bytes


def place(
    tokenizer: Tokenizer,
    limits: Limits,
    old: Anchor | None,
    prefix: str,
    suffix: str,
    *,
    lines: int = ANCHOR_LINES,
    early: bool = False,
) -> tuple[Anchor, Prompt]:
    """The prompt for a cursor between `prefix` and `suffix`, with the hole of `old` if it will do.

    A new hole opens `lines` lines before the cursor, or fewer where these are long. `early` opens one already when half
    of the tail's room is taken. Raises `CodegenError` for text that is not Unicode.
    """
    if old is not None and prefix.startswith(old.before):
        tail = _tail(tokenizer, limits.tail // (1 + early), prefix[len(old.before) :])
        if tail is not None:
            anchor = old if old.has_behind(suffix) else _anchor(tokenizer, limits, old, old.before, suffix)
            return anchor, _prompt(anchor, tail)
    before, tail = _open(tokenizer, limits, prefix, lines)
    anchor = _anchor(tokenizer, limits, old, before, suffix)
    return anchor, _prompt(anchor, tail)


def _prompt(anchor: Anchor, tail: tuple[list[int], bytes]) -> Prompt:
    ids, required = tail
    return Prompt((*anchor.context, *ids), required)


def _tail(tokenizer: Tokenizer, limit: int, text: str) -> tuple[list[int], bytes] | None:
    """The ids of a tail and its end that is to be healed; None when they are over the limit."""
    if len(text) > MOST_CHARACTERS * limit:
        return None
    kept, required = healing.split(tokenizer, text)
    ids = tokenizer.encode(kept)
    return (ids, required) if len(ids) + len(required) <= limit else None


def _open(tokenizer: Tokenizer, limits: Limits, prefix: str, lines: int) -> tuple[str, tuple[list[int], bytes]]:
    """Where to open a hole, so that its tail has as much room to grow as it takes."""
    while lines > 0:
        before, text = infill.split_tail(prefix, lines)
        tail = _tail(tokenizer, limits.tail // 2, text)
        if tail is not None:
            return before, tail
        lines //= 2
    return prefix, ([], b"")


def _anchor(tokenizer: Tokenizer, limits: Limits, old: Anchor | None, before: str, suffix: str) -> Anchor:
    """Fit the text around a hole. The head begins where the old one did if that is a fair share of the window."""
    characters = MOST_CHARACTERS * limits.around
    near = suffix[:characters]
    room = limits.around - infill.overhead(1)
    start = None if old is None or not before.startswith(old.before[: old.start]) else old.start
    if start is not None and len(before) - start <= characters:
        head = tokenizer.encode(before[start:])
        least = room // 2 if start else 0
        if least <= len(head) <= room - min(room // 4, len(tokenizer.encode(near))):
            behind = infill.trim_right(tokenizer, near, room - len(head))
            return _made(tokenizer, before, start, suffix, head, behind)
    holes = infill.fit(tokenizer, [before[-characters:], near], [""], limits.around)
    if holes.trimmed:  # with room for what is a tail now to become head, so that its beginning need not move
        holes = infill.fit(tokenizer, [before[-characters:], near], [""], limits.around - limits.tail)
    head, behind = map(list, holes.parts)
    kept = tokenizer.decode_bytes(head)
    at = len(before) - len(kept.decode(errors="replace"))
    return _made(tokenizer, before, at if before[at:].encode() == kept else None, suffix, head, behind)


def _made(
    tokenizer: Tokenizer, before: str, start: int | None, suffix: str, head: Sequence[int], behind: Sequence[int]
) -> Anchor:
    context = [*infill.context(tokenizer, [head, behind]), *infill.opening(tokenizer, 0, [])]
    return Anchor(before, start, suffix, tokenizer.decode_bytes(behind), tuple(context))


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """The length of the longest common prefix."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def recomputed(prompts: Sequence[Sequence[int]]) -> list[int]:
    """How many tokens of each prompt are to be computed where a cache holds the one before it; always the last one."""
    before: list[Sequence[int]] = [[], *prompts]
    return [max(1, len(ids) - common(old, ids)) for old, ids in zip(before, prompts, strict=False)]


class Editing:
    """The suggestions of one open file: what to ask a model at each key, and what need not be asked.

    `request`, `warm`, `known` and `remember` run nothing, so that they go with any loop; `suggest` and `run_ahead` are
    the simple ones on the model's own scheduler. `related`: texts that suggestions may repeat, as other open files.
    Raises `UsageError` when `max_tokens` leave no room in the model's window, or `stop` is no list of strings.
    """

    def __init__(
        self,
        model: Model,
        *,
        max_tokens: int = 32,
        stop: Sequence[str] = ("\n",),
        lines: int = ANCHOR_LINES,
        related: Sequence[str] = (),
    ) -> None:
        if isinstance(stop, str) or "" in stop:
            raise UsageError(f"stop is {stop!r}; pass a list of strings, none of them empty")
        self.model, self.max_tokens, self.stop, self.lines = model, max_tokens, tuple(stop), lines
        self.limits = Limits.of(model.window, max_tokens)
        self._related = tuple(tuple(model.tokenizer.encode(text)) for text in related)
        self._anchor: Anchor | None = None
        self._ahead: Anchor | None = None
        self._cached: Anchor | None = None  # whose context the model has computed
        self._shown: deque[tuple[str, str, str]] = deque(maxlen=REMEMBERED)

    def known(self, prefix: str, suffix: str) -> str | None:
        """The rest of an earlier suggestion that the author has typed along; None when the model is to be asked."""
        for before, behind, text in reversed(self._shown):
            if behind == suffix and prefix.startswith(before) and (before + text).startswith(prefix):
                rest = text[len(prefix) - len(before) :]
                if rest or prefix == before:
                    return rest
        return None

    def remember(self, prefix: str, suffix: str, text: str) -> None:
        """A whole suggestion was shown."""
        self._shown.append((prefix, suffix, text))

    def request(self, prefix: str, suffix: str) -> Request:
        """What to ask for a cursor between `prefix` and `suffix`."""
        self._anchor, prompt = self._place(self._anchor, prefix, suffix)
        return self._made(prompt, self.max_tokens)

    def computed(self) -> None:
        """The last `request` has got as far as an answer, so that its prompt is in the model's cache."""
        self._cached = self._anchor

    def warm(self, prefix: str, suffix: str) -> Request | None:
        """What to run while the author pauses, so that the next key finds it done; None when there is nothing.

        That is a prompt which is not in the cache (the cursor has moved), or the next hole, when the tail is long.
        """
        self._ahead, prompt = self._place(self._anchor, prefix, suffix, early=True)
        # One token: it comes with the logits of the prompt, and costs nothing more.
        return None if self._ahead is self._cached else self._made(Prompt(prompt.ids, b""), 1)

    def warmed(self) -> None:
        """The last `warm` was run to its end: from now on its hole is used."""
        self._anchor = self._cached = self._ahead

    def _place(self, old: Anchor | None, prefix: str, suffix: str, early: bool = False) -> tuple[Anchor, Prompt]:
        return place(self.model.tokenizer, self.limits, old, prefix, suffix, lines=self.lines, early=early)

    def _made(self, prompt: Prompt, max_tokens: int) -> Request:
        ends = infill.stops(self.model.tokenizer)
        return Request(
            prompt.ids, self.model.span_vocabulary, ends, prompt.required, max_tokens, self.stop, related=self._related
        )

    def suggest(
        self,
        prefix: str,
        suffix: str,
        *,
        is_superseded: Callable[[], bool] = lambda: False,
        on_text: Callable[[str], None] | None = None,
    ) -> str | None:
        """The suggestion for a cursor between `prefix` and `suffix`; None when `is_superseded` comes true before.

        `on_text` gets each new part of it.
        """
        known = self.known(prefix, suffix)
        if known is None:
            request = self.request(prefix, suffix)
            known = run_request(self.model.scheduler, request, is_superseded=is_superseded, on_text=on_text)
            if known is not None:
                self.computed()
                self.remember(prefix, suffix, known)
        elif on_text:
            on_text(known)
        return known

    def run_ahead(self, prefix: str, suffix: str, *, is_superseded: Callable[[], bool] = lambda: False) -> None:
        """Use a pause: see `warm`. Given up when `is_superseded` comes true."""
        request = self.warm(prefix, suffix)
        if request is not None:
            done = run_request(self.model.scheduler, request, is_superseded=is_superseded)
            if done is not None:
                self.warmed()


def run_request(
    scheduler: Scheduler,
    request: Request,
    *,
    is_superseded: Callable[[], bool] = lambda: False,
    on_text: Callable[[str], None] | None = None,
) -> str | None:
    """The answer's text; None when `is_superseded` came true before its end, which is asked before every step.

    Raises `CodegenError` when there is no memory for it. Pieces of other requests are lost: this is for one author.
    """
    ticket = scheduler.submit(request)
    text, is_whole = "", False
    try:
        while not is_whole and not is_superseded():
            for piece in scheduler.step():
                if piece.request == ticket:
                    if piece.error:
                        raise piece.error
                    text += piece.text
                    is_whole = piece.finish is not None
                    if on_text and piece.text:
                        on_text(piece.text)
    finally:
        if not is_whole:
            scheduler.cancel(ticket)
    return text if is_whole else None
