"""Batches that are a pure function of (seed, step): stopping, resuming and other numbers of ranks change nothing.

The documents of an epoch come in an order that (seed, epoch) decides, and an example is drawn by a generator seeded
with (seed, epoch, document). The documents of a step are shared out among the ranks; each packs its own into rows, in
which documents cannot see each other.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from codegen25.errors import CodegenError
from codegen25.train.examples import Examples
from codegen25.train.objective import Example

# Less has no room for text between the control tokens of four holes.
MIN_WINDOW = 64
# Rounds of the permutation; four make a Feistel network pseudorandom (Luby and Rackoff, 1988).
ROUNDS = 4


@dataclass(frozen=True)
class Batch:
    """Rows of packed documents, all int64 [B, T]; `document` 0 is padding.

    `targets` is the next token of the same document, and -1 where none is to be predicted. `cut` of the documents did
    not fit the window as a whole, and `left_out` characters of them are not here.
    """

    tokens: Tensor
    positions: Tensor
    document: Tensor
    targets: Tensor
    cut: int = 0
    left_out: int = 0

    @property
    def counted(self) -> int:
        """Tokens that are no padding."""
        return int((self.document > 0).sum())

    @property
    def learned(self) -> int:
        """How many targets there are."""
        return int((self.targets >= 0).sum())

    def unpadded(self) -> Batch:
        """The same documents in one row, [1, counted], numbered anew."""
        kept = self.document > 0
        positions = self.positions[kept][None]
        document = (positions == 0).cumsum(-1)
        return replace(
            self, tokens=self.tokens[kept][None], positions=positions, document=document,
            targets=self.targets[kept][None],
        )  # fmt: skip

    def to(self, device: torch.device) -> Batch:
        names = ("tokens", "positions", "document", "targets")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})


def pack(examples: Sequence[Example], window: int) -> list[list[Example]]:
    """First fit, longest first: every row holds at most `window` ids."""
    rows: list[tuple[int, list[Example]]] = []
    for one in sorted(examples, key=lambda e: -len(e.ids)):
        for i, (used, row) in enumerate(rows):
            if used + len(one.ids) <= window:
                row.append(one)
                rows[i] = (used + len(one.ids), row)
                break
        else:
            rows.append((len(one.ids), [one]))
    return [row for _, row in rows]


def to_batch(rows: Sequence[Sequence[Example]]) -> Batch:
    """Packed rows as tensors, padded on the right to the longest row."""
    T = max(_ids(row) for row in rows)
    tokens, positions, document = (torch.zeros(len(rows), T, dtype=torch.int64) for _ in range(3))
    targets = torch.full((len(rows), T), -1, dtype=torch.int64)
    for b, row in enumerate(rows):
        t = 0
        for number, one in enumerate(row, 1):
            ids, n = torch.tensor(one.ids, dtype=torch.int64), len(one.ids)
            tokens[b, t : t + n] = ids
            positions[b, t : t + n] = torch.arange(n)
            document[b, t : t + n] = number
            targets[b, t : t + n - 1] = torch.where(torch.tensor(one.learned[1:], dtype=torch.bool), ids[1:], -1)
            t += n
    left_out = [one.left_out for row in rows for one in row]
    return Batch(tokens, positions, document, targets, sum(n > 0 for n in left_out), sum(left_out))


def _ids(row: Sequence[Example]) -> int:
    return sum(len(one.ids) for one in row)


def empty_batch() -> Batch:
    """A row of one token without a target: what a rank learns that has nothing left in a step."""
    return to_batch([[Example([0], [False])]])


def permuted(place: int, count: int, key: str) -> int:
    """Where `place` of [0, count) goes in the permutation that `key` names: a Feistel network, walked until inside.

    Nothing is shuffled in memory, however many documents there are.
    """
    bits = max(1, ((count - 1).bit_length() + 1) // 2)
    mask = (1 << bits) - 1
    while True:
        left, right = place >> bits, place & mask
        for turn in range(ROUNDS):
            digest = hashlib.blake2b(f"{key}/{turn}/{right}".encode(), digest_size=8).digest()
            left, right = right, left ^ int.from_bytes(digest, "little") & mask
        place = left << bits | right
        if place < count:
            return place


class Numbered(NamedTuple):
    """A document in an epoch."""

    epoch: int
    document: int


@dataclass(frozen=True)
class Batches:
    """`batch(step, rank, world)` for any step, without having made the ones before it.

    `pass_tokens` bounds what goes through the model at once, padding included: a step's rows are learned in as many
    passes as that takes, at least a row each.
    """

    examples: Examples
    seed: int
    documents_per_step: int
    window: int
    pass_tokens: int = 4096

    def __post_init__(self) -> None:
        if self.window < MIN_WINDOW:
            raise CodegenError(
                f"a window of {self.window} tokens leaves no room for spans; at least {MIN_WINDOW} are needed"
            )
        if self.documents_per_step < 1:
            raise CodegenError(f"{self.documents_per_step} documents a step cannot be learned from; ask for 1 or more")

    def numbers(self, step: int) -> list[Numbered]:
        """The documents of a step, counted from 0, whoever learns them."""
        count = len(self.examples)
        first = step * self.documents_per_step
        places = (divmod(index, count) for index in range(first, first + self.documents_per_step))
        return [Numbered(epoch, permuted(place, count, f"{self.seed}/{epoch}")) for epoch, place in places]

    def share(self, step: int, rank: int, world: int) -> list[Numbered]:
        """What a rank learns of a step: the largest document left goes to the rank with the fewest ids so far."""
        if world == 1:
            return self.numbers(step)
        sized = [(min(self.window, self.examples.size(one.document)), one) for one in self.numbers(step)]
        loads = [0] * world
        mine = []
        for size, one in sorted(sized, key=lambda pair: -pair[0]):  # stable: equal ones keep the step's order
            least = loads.index(min(loads))
            loads[least] += size
            if least == rank:
                mine.append(one)
        return mine

    def batch(self, step: int, rank: int = 0, world: int = 1) -> list[Batch]:
        """The passes of a rank's share of a step; they depend on nothing but the fields and the arguments.

        Documents of less than two ids have nothing to learn and are left out; where no others are there is no pass.
        """
        made = [self._example(one) for one in self.share(step, rank, world)]
        rows = sorted(pack([one for one in made if len(one.ids) > 1], self.window), key=_ids, reverse=True)
        passes: list[list[list[Example]]] = []
        for row in rows:  # the first of a pass is its longest
            if not passes or (len(passes[-1]) + 1) * _ids(passes[-1][0]) > self.pass_tokens:
                passes.append([])
            passes[-1].append(row)
        return [to_batch(one) for one in passes]

    def _example(self, one: Numbered) -> Example:
        rng = random.Random(f"{self.seed}/{one.epoch}/{one.document}")
        return self.examples.example(one.document, rng, self.window)
