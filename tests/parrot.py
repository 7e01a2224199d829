"""A backend that has learned texts by heart: what followed the longest end of a sequence there is the likeliest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from codegen25.config import ModelConfig
from codegen25.engine.backend import Logits, Row

LONGEST = 24


class Parrot:
    """Implements `Backend`. What never followed is unlikely, and smaller ids are likelier than larger ones."""

    def __init__(self, texts: Sequence[Sequence[int]], vocab_size: int) -> None:
        self.config = ModelConfig(vocab_size, 8, 8, 1, 1, 1, head_dim=8, max_positions=2048)
        self.cache_bytes = 0
        self._texts = [list(text) for text in texts]
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
        logits: Logits = np.linspace(-10, -11, self.config.vocab_size, dtype=np.float32)
        for text in self._texts:
            for at in range(1, len(text)):
                length = 0
                while length < min(LONGEST, at, len(held)) and text[at - 1 - length] == held[-1 - length]:
                    length += 1
                if length:
                    logits[text[at]] = max(logits[text[at]], np.float32(length))
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
