"""Near copies: found by MinHash (Broder 1997) in bands (Indyk and Motwani 1998), believed only by true Jaccard.

Documents with an equal band are candidates. Candidates are compared by all their shingles, best rank first: a document
is dropped when a document that is kept shares a band with it and is a near copy of it. So nothing is dropped for the
sake of a text that is dropped itself, and no more comparisons are made than members times what is kept of them.
"""

from __future__ import annotations

import os
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import rensa
from numpy.typing import NDArray

from codegen25.data.shingles import Hashes, distinct, mixed, ngrams
from codegen25.errors import CodegenError

NGRAM = 5
# Of copies with a Jaccard similarity J, 1 - (1 - J^ROWS)^BANDS become candidates: 0.995 of them at 0.7.
BANDS, ROWS = 42, 6
THRESHOLD = 0.7
SEED = 1
# Texts to sign at a time: MinHash is faster over several.
SIGN_BATCH = 64
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
# What a reader keeps of the shingles that it has read.
CACHE_BYTES = 64 << 20

Shingles = NDArray[np.uint32]


class Copy(NamedTuple):
    """The document that is kept instead, and the Jaccard similarity of the two."""

    kept: int
    similarity: float


def bands(documents: Sequence[Hashes]) -> Hashes:
    """The hashes (documents, BANDS) of the bands of each document's MinHash, from the distinct hashes of its n-grams.

    Equal rows in different bands do not give equal hashes. A document without n-grams meets no other of this call.
    """
    sizes = np.array([grams.size for grams in documents], dtype=np.uint64)
    offsets = np.concatenate((np.zeros(1, dtype=np.uint64), np.cumsum(sizes, dtype=np.uint64)))
    tokens = np.concatenate([*documents, np.empty(0, dtype=np.uint64)])
    digests = rensa.RMinHash.digest_matrix_from_flat_token_hashes(tokens, offsets, BANDS * ROWS, SEED).to_rows()
    rows = np.array(digests, dtype=np.uint64).reshape(len(documents), BANDS, ROWS)
    rows[sizes == 0, :, 0] = np.flatnonzero(sizes == 0)[:, None]
    hashes = np.broadcast_to(np.arange(BANDS, dtype=np.uint64), rows.shape[:2])
    for row in range(ROWS):
        hashes = mixed(hashes * MULTIPLIER + rows[:, :, row])
    return hashes


class ShingleWriter:
    """Scratch that near copies are compared by: every document's shingles in 32 bits, ascending, one after another.

    Written aside; `close` puts it in place. Leaving the context without that removes it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._aside = path.with_name(f".{path.name}.{os.getpid()}")
        self._file = self._aside.open("wb")
        self._at = 0

    def add(self, grams: Hashes) -> tuple[int, int]:
        """Write a document's shingles; the byte they begin at and their number, by which they are read back."""
        # Half a hash is one as well. In about one of ten thousand documents two of a thousand shingles become one.
        folded = distinct(grams.astype(np.uint32)).astype("<u4", copy=False)
        at, self._at = self._at, self._at + folded.nbytes
        self._file.write(folded.tobytes())
        return at, folded.size

    def close(self) -> None:
        self._file.close()
        self._aside.replace(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._file.close()
        self._aside.unlink(missing_ok=True)


def signed(texts: Sequence[str], writer: ShingleWriter) -> Iterator[dict[str, Any]]:
    """Of each text, what its near copies are found and compared by: its bands, and where `writer` put its shingles."""
    found = [ngrams(text, NGRAM) for text in texts]
    for grams, banded in zip(found, bands(found), strict=True):
        at, count = writer.add(grams)
        yield {"shingles_at": at, "shingles": count, "bands": banded}


class ShingleReader:
    """Reads shingles by their place; up to `limit` bytes of those that were asked for last stay in memory."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit, self._bytes = limit, 0
        self._read: OrderedDict[tuple[Path, int, int], Shingles] = OrderedDict()

    def load(self, path: Path, at: int, count: int) -> Shingles:
        """The shingles at a place that `ShingleWriter.add` gave. Raises CodegenError when they are not there."""
        place = path, at, count
        if place in self._read:
            self._read.move_to_end(place)
            return self._read[place]
        file = os.open(path, os.O_RDONLY)
        try:
            data = os.pread(file, 4 * count, at)
        finally:
            os.close(file)
        if len(data) != 4 * count:
            raise CodegenError(f"{path}: shorter than it was written; remove it and build again")
        self._read[place] = shingles = np.frombuffer(data, dtype="<u4")
        self._bytes += shingles.nbytes
        while self._bytes > self._limit and len(self._read) > 1:
            self._bytes -= self._read.popitem(last=False)[1].nbytes
        return shingles


def jaccard(a: NDArray[Any], b: NDArray[Any]) -> float:
    """How much of two sets is in both (0 to 1), from their members, each once; 0 when both are empty."""
    both = np.sort(np.concatenate((a, b)))
    shared = np.count_nonzero(both[1:] == both[:-1])
    return float(shared / (both.size - shared)) if both.size else 0.0


def clusters(groups: Iterable[Iterable[int]]) -> list[list[tuple[int, ...]]]:
    """Groups of documents that are linked, if over other groups: nothing is a candidate across two clusters.

    A group is given once and ascending, whatever came; groups, and clusters by their first, are in order.
    """
    unique = sorted({members for group in groups if len(members := tuple(sorted(set(group)))) > 1})
    parents: dict[int, int] = {}

    def root(document: int) -> int:
        while (parent := parents.setdefault(document, document)) != document:
            parents[document] = document = parents[parent]
        return document

    for group in unique:
        first = root(group[0])
        for member in group[1:]:
            parents[root(member)] = first
    found: defaultdict[int, list[tuple[int, ...]]] = defaultdict(list)
    for group in unique:
        found[root(group[0])].append(group)
    return list(found.values())


def near_copies(
    groups: Iterable[Iterable[int]],
    rank: Callable[[int], Any],
    load: Callable[[int], NDArray[Any]],
    threshold: float = THRESHOLD,
) -> dict[int, Copy]:
    """What to drop of groups of candidates: each dropped document with the one of best rank that is kept instead.

    Documents are decided by `rank`, least first, then by number: one is dropped when a kept one of its groups has a
    Jaccard similarity of `threshold` or more to it, by the distinct shingles that `load` gives. Depends on nothing
    else; clusters can be worked on apart.
    """
    groups_of: defaultdict[int, list[int]] = defaultdict(list)
    for number, members in enumerate(groups):
        for member in set(members):
            groups_of[member].append(number)
    kept_of: defaultdict[int, list[int]] = defaultdict(list)  # what is kept of each group: places in the order of rank
    order = sorted(groups_of, key=lambda document: (rank(document), document))
    sizes: dict[int, int] = {}
    dropped: dict[int, Copy] = {}
    for place, document in enumerate(order):
        shingles = load(document)
        for other in sorted({kept for group in groups_of[document] for kept in kept_of[group]}):
            small, large = sorted((shingles.size, sizes[other]))
            if not small or small / large < threshold:  # above which no Jaccard similarity is
                continue
            similarity = jaccard(shingles, load(order[other]))
            if similarity >= threshold:
                dropped[document] = Copy(order[other], similarity)
                break
        else:
            sizes[place] = shingles.size
            for group in groups_of[document]:
                kept_of[group].append(place)
    return dropped
