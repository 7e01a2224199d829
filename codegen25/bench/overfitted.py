"""A model that knows some texts by heart and nothing else: what a policy has to hold against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from codegen25.config import ModelConfig
from codegen25.engine.backend import Logits, Row

# A place in a text is known again by so many tokens before it, or by fewer where there are none as long.
LONGEST = 24


class Overfitted:
    """Implements `Backend`. The likeliest token is the one that followed in the texts, all others are far behind."""

    def __init__(self, texts: Iterable[Sequence[int]], vocab_size: int) -> None:
        self.config = ModelConfig(vocab_size, 8, 8, 1, 1, 1, head_dim=8, max_positions=2048)
        self.cache_bytes = 0
        self._next: dict[tuple[int, ...], int] = {}
        for text in texts:
            for place in range(1, len(text)):
                for length in range(1, min(LONGEST, place) + 1):
                    self._next.setdefault(tuple(text[place - length : place]), text[place])
        self._sequences: dict[int, list[int]] = {}
        self._made = 0

    def new(self) -> int:
        self._made += 1
        self._sequences[self._made] = []
        return self._made

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        out = []
        for sequence, tokens, wants_all in rows:
            held = self._sequences[sequence]
            first = len(held) + 1 if wants_all else len(held) + len(tokens)
            held.extend(tokens)
            out.append(np.stack([self._logits(held[:end]) for end in range(first, len(held) + 1)]))
        return out

    def _logits(self, held: list[int]) -> Logits:
        logits = np.linspace(-10, -11, self.config.vocab_size, dtype=np.float32)
        for length in range(1, min(LONGEST, len(held)) + 1):
            if (known := self._next.get(tuple(held[-length:]))) is not None:
                logits[known] = length
        return logits

    def fork(self, sequence: int) -> int:
        made = self.new()
        self._sequences[made] = list(self._sequences[sequence])
        return made

    def truncate(self, sequence: int, length: int) -> None:
        del self._sequences[sequence][length:]

    def length(self, sequence: int) -> int:
        return len(self._sequences[sequence])

    def free(self, sequence: int) -> None:
        del self._sequences[sequence]
