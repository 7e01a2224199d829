"""The one request that every dialect is translated into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from codegen25.complete import ANCHOR_LINES
from codegen25.engine.sampling import GREEDY, Sampling

# any: as the model and the stop strings will. one: the line of the cursor. auto: one where the cursor stands in a line
# with text, a block, up to a line that is indented less, where its line is blank.
Lines = Literal["any", "one", "block", "auto"]

LARGEST_REMEMBERED = 400_000  # characters
MOST_ANCHOR = 1000  # lines


@dataclass(frozen=True)
class Extra:
    """Text from elsewhere that may help: another file, a declaration, a recent edit. `name` is its path, or ''."""

    text: str
    name: str = ""


@dataclass(frozen=True)
class Ask:
    """What a client wants.

    `parts`: one text to be continued, or the n + 1 texts around n holes. `ids` may stand in its place; they are taken
    as they are. `best_of` answers are made and the `n` likeliest by mean log-probability given. `logprobs`: how many
    likely tokens to give beside each; None for none. `patience`: seconds after which an answer ends at the next line.
    Tokens of text are never those of `banned`, and only those of `allowed` where it is given. `has_ids`: they are told.

    `anchor`: lines before a cursor at which its hole opens (see `editing`); 0: at the cursor.

    `is_typing`: somebody types and looks at it, so that the prompt may be the one of the key before, grown; what was
    just suggested is not asked again. `tidy`: nothing that repeats the text behind the cursor. `client`: whose new
    request ends the one before. `warm`: only make what the next request will need.
    """

    parts: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()
    max_tokens: int = 16
    sampling: Sampling = GREEDY
    stop: tuple[str, ...] = ()
    n: int = 1
    best_of: int = 1
    logprobs: int | None = None
    echo: bool = False
    stream: bool = False
    banned: frozenset[int] = frozenset()
    allowed: frozenset[int] | None = None
    has_ids: bool = False
    extra: tuple[Extra, ...] = ()
    lines: Lines = "any"
    anchor: int = ANCHOR_LINES
    least_indent: int = 0
    patience: float | None = None
    is_typing: bool = False
    tidy: bool = False
    client: str | None = None
    warm: bool = False

    @property
    def is_remembered(self) -> bool:
        """Whether anything of it is kept for the next key; of texts without end nothing is."""
        return self.is_typing and sum(map(len, self.parts)) <= LARGEST_REMEMBERED

    @property
    def is_scored(self) -> bool:
        """Whether the log-probabilities of its tokens matter."""
        return self.logprobs is not None or self.best_of > self.n

    @property
    def holes(self) -> int:
        return max(0, len(self.parts) - 1)
