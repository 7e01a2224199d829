"""Log-probabilities of given tokens, and of the likeliest beside each: what `logprobs` and `echo` ask for.

The scheduler gives the log-probability of what it chose and of nothing else. So the tokens run once more, in a sequence
of their own; on the native engine the logits are the same to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from codegen25.engine.backend import Backend
from codegen25.engine.sampling import Row, log_softmax

# Logits of so many tokens are there at once.
CHUNK = 64


@dataclass(frozen=True)
class Scored:
    """A token, its log-probability given all before it (None for the first of all), and the likeliest in its place."""

    id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


class Scorer:
    """One growing sequence. `top`: how many likely tokens to give. Used by the thread of the engine alone."""

    def __init__(self, backend: Backend, top: int) -> None:
        self._backend, self._top = backend, top
        self._sequence: int | None = None
        self._next: Row | None = None  # log-probabilities of what comes next

    def extend(self, ids: Sequence[int], *, is_wanted: bool = True) -> list[Scored]:
        """Of the first tokens of `ids`, at most CHUNK; call again with the others.

        Those that are not wanted only stand before the others, and get no log-probability.
        """
        ids = ids[:CHUNK]
        if self._sequence is None:
            self._sequence = self._backend.new()
        (logits,) = self._backend.forward([(self._sequence, ids, is_wanted)])
        if not is_wanted:
            self._next = log_softmax(logits[-1])
            return [Scored(id, None) for id in ids]
        rows = [self._next, *map(log_softmax, logits)]
        self._next = rows.pop()
        return [self._scored(id, row) for id, row in zip(ids, rows, strict=True)]

    def _scored(self, id: int, row: Row | None) -> Scored:
        if row is None:
            return Scored(id, None)
        return Scored(id, float(row[id]), likeliest(row, self._top))

    def close(self) -> None:
        if self._sequence is not None:
            self._backend.free(self._sequence)
            self._sequence = None


def likeliest(row: Row, count: int) -> tuple[tuple[int, float], ...]:
    """(id, value) of the largest, the largest first; of equal ones the lower id."""
    if not count:
        return ()
    count = min(count, len(row))
    border = np.partition(row, len(row) - count)[len(row) - count]
    ids = np.flatnonzero(row >= border)
    ids = ids[np.argsort(-row[ids], kind="stable")[:count]]
    return tuple((int(id), float(row[id])) for id in ids)
