"""What everything above the model asks of it: run new tokens of some sequences, and manage their caches.

A backend owns the key/value caches. Callers hold small integers, get logits as numpy arrays, and so know neither
PyTorch nor the native kernel. Decoding, verification of drafts and prefill are all `forward`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from codegen25.config import ModelConfig
from codegen25.tokenizer import Tokenizer

Logits = NDArray[np.float32]
# (sequence, its new token ids, whether the logits of all of them are wanted or only those of the last)
Row = tuple[int, Sequence[int], bool]


class Backend(Protocol):
    """One model and the caches of the sequences that it is working on."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def cache_bytes(self) -> int:
        """Bytes that the caches of all sequences take now; what sequences share is counted once."""
        ...

    def new(self) -> int:
        """An empty sequence."""
        ...

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        """Append tokens to sequences. One array per row: logits fp32 [n, V] of all its tokens, or [1, V] of the last.

        A sequence may stand in one row only. Raises `ValueError` for an empty row or an unknown sequence, and
        `MemoryError` when the caches cannot grow; what the sequences held before, they still hold then.
        """
        ...

    def fork(self, sequence: int) -> int:
        """A new sequence that shares the past of this one and goes its own way from here."""
        ...

    def truncate(self, sequence: int, length: int) -> None:
        """Forget all but the first `length` tokens."""
        ...

    def length(self, sequence: int) -> int:
        """How many tokens the sequence holds."""
        ...

    def free(self, sequence: int) -> None:
        """Give the sequence's cache back; the number may be used again."""
        ...


class Facts(Protocol):
    """What is known of a model that need not run here: enough to write prompts for it and to read its answers."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def config(self) -> ModelConfig: ...

    @property
    def window(self) -> int:
        """Tokens of a prompt and its answer together."""
        ...

    @property
    def span_vocabulary(self) -> NDArray[np.bool_]:
        """What may come inside a span, bool [V]."""
        ...
