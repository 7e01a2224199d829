"""Batches that are a pure function of (seed, step): stopping and resuming changes nothing.

The documents of an epoch are shuffled by a generator seeded with (seed, epoch); every document's corruption by one
seeded with (seed, epoch, document). Several documents are packed into a row and cannot see each other.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from codegen25.errors import CodegenError
from codegen25.tokenizer import Tokenizer
from codegen25.train.objective import Example, Objective, example

# Less has no room for text between the control tokens of four holes.
MIN_WINDOW = 64


@dataclass(frozen=True)
class Batch:
    """Rows of packed documents, all int64 or bool [B, T]; `document` 0 is padding.

    `targets` is the next token of the same document, and -1 where none is to be predicted.
    """

    tokens: Tensor
    positions: Tensor
    document: Tensor
    targets: Tensor

    @property
    def counted(self) -> int:
        """Tokens that are no padding."""
        return int((self.document > 0).sum())


def read_texts(path: Path) -> list[str]:
    """The `content` of every line of a JSONL file. Raises `CodegenError` naming the line that has none."""
    if not path.is_file():
        raise CodegenError(f"{path}: no such file; write it with `codegen25 data export`")
    texts = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                texts.append(_content(json.loads(line.decode())))
            except (ValueError, KeyError, TypeError) as error:
                raise CodegenError(
                    f"{path}:{number}: not a JSON object with a text as `content`; build the file again"
                ) from error
    if not texts:
        raise CodegenError(f"{path}: holds no documents; build it again")
    return texts


def _content(document: object) -> str:
    if not isinstance(document, dict) or not isinstance(document["content"], str):
        raise TypeError
    content: str = document["content"]
    content.encode()  # a lone surrogate is no text
    return content


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
    T = max(sum(len(one.ids) for one in row) for row in rows)
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
    return Batch(tokens, positions, document, targets)


@dataclass(frozen=True)
class Batches:
    """`batch(step)` for any step, without having made the ones before it."""

    texts: Sequence[str]
    tokenizer: Tokenizer
    objective: Objective
    seed: int
    documents_per_step: int
    window: int

    def __post_init__(self) -> None:
        if self.window < MIN_WINDOW:
            raise CodegenError(
                f"a window of {self.window} tokens leaves no room for spans; at least {MIN_WINDOW} are needed"
            )
        if self.documents_per_step < 1:
            raise CodegenError(f"{self.documents_per_step} documents a step cannot be learned from; ask for 1 or more")

    def fingerprint(self) -> str:
        """The SHA-256 of the documents in their order, in hexadecimal: what makes two runs' data the same."""
        digest = hashlib.sha256()
        for text in self.texts:
            data = text.encode()
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()

    def batch(self, step: int) -> Batch:
        """The batch of a step, counted from 0; it depends on nothing but the fields and the step.

        Empty documents are left out; when the step has no others, the batch is a row without targets.
        """
        first = step * self.documents_per_step
        examples = [self._example(index) for index in range(first, first + self.documents_per_step)]
        return to_batch(pack([e for e in examples if len(e.ids) > 1] or examples[:1], self.window))

    def _example(self, index: int) -> Example:
        epoch, place = divmod(index, len(self.texts))
        document = _order(self.seed, epoch, len(self.texts))[place]
        rng = random.Random(f"{self.seed}/{epoch}/{document}")
        return example(self.tokenizer, self.texts[document], self.objective, rng, self.window)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, documents: int) -> list[int]:
    order = list(range(documents))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order
