"""Prefix reuse: sequences that nobody works on are kept, and a prompt that begins like one goes on from there.

A backend knows fork and truncate only. The entries are kept sorted by their ids: those with the longest common prefix
of a prompt then stand right beside the place where the prompt itself would stand, so a lookup is a binary search.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from codegen25.engine.backend import Backend

# Few bytes of a backend that shares pages, but every entry keeps its ids here too.
MOST_ENTRIES = 512
_WIDTH = 4


def _key(ids: Sequence[int]) -> bytes:
    """Big-endian, so that bytes are ordered as the ids are."""
    return np.asarray(ids, dtype=">u4").tobytes()


def _ids(key: bytes) -> NDArray[np.uint32]:
    return np.frombuffer(key, dtype=np.uint32)  # compared for equality only


def common_prefix(a: bytes, b: bytes) -> int:
    """How many ids two keys begin with alike."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n // _WIDTH
    return int((_ids(a[:n]) != _ids(b[:n])).argmax())


class PrefixCache:
    """Idle sequences and the ids they hold. Every sequence in it belongs to it."""

    def __init__(self, backend: Backend, budget: int) -> None:
        self._backend, self._budget = backend, budget
        self._keys: list[bytes] = []  # sorted, and none is the beginning of another
        self._used: dict[bytes, int] = {}  # key to sequence, the least recently used first

    def __len__(self) -> int:
        return len(self._keys)

    def take(self, ids: Sequence[int], busy: Iterable[tuple[int, Sequence[int]]] = ()) -> tuple[int, int]:
        """(a sequence for the caller, how many of `ids` it holds): all but the last one at the most.

        An entry that `ids` goes on from is handed over; of one that went another way a fork is cut, as it is of a
        `busy` sequence, given with the ids that it holds, that has more in common.
        """
        key = _key(ids)
        length, source = max(
            ((common_prefix(key, _key(others)), other) for other, others in busy if others[0] == ids[0]), default=(0, 0)
        )
        place = bisect_left(self._keys, key)
        near = [(common_prefix(key, other), other) for other in self._keys[max(0, place - 1) : place + 1]]
        cached, other = max(near, default=(0, b""))
        most = len(ids) - 1
        if min(most, cached) >= min(most, length):
            length = cached
            if 0 < length <= most and len(other) == length * _WIDTH:
                return self._remove(other), length
            source = self._touch(other) if min(most, length) else 0
        length = min(most, length)
        if not length:
            return self._backend.new(), 0
        fork = self._backend.fork(source)
        self._backend.truncate(fork, length)
        return fork, length

    def put(self, sequence: int, ids: Sequence[int]) -> None:
        """Take over a sequence that holds `ids`. An entry that is the beginning of another is not kept."""
        key = _key(ids)
        place = bisect_left(self._keys, key)
        if not ids:
            self._backend.free(sequence)
            return
        if place < len(self._keys) and self._keys[place].startswith(key):
            self._touch(self._keys[place])
            self._backend.free(sequence)
            return
        if place and key.startswith(self._keys[place - 1]):
            self._backend.free(self._remove(self._keys[place - 1]))
            place -= 1
        self._keys.insert(place, key)
        self._used[key] = sequence

    def shrink(self) -> None:
        """Free what was not used for longest while the backend's caches are over the budget."""
        while self._keys and (len(self) > MOST_ENTRIES or self._backend.cache_bytes > self._budget):
            self._backend.free(self._remove(next(iter(self._used))))

    def clear(self) -> None:
        while self._keys:
            self._backend.free(self._remove(self._keys[-1]))

    def _touch(self, key: bytes) -> int:
        self._used[key] = sequence = self._used.pop(key)
        return sequence

    def _remove(self, key: bytes) -> int:
        del self._keys[bisect_left(self._keys, key)]
        return self._used.pop(key)
