"""What is learned from: numbered documents that become examples, in the way of a stage.

`Batches` asks for examples by number and knows neither files nor tokenizers. `Corrupted` is what `multi` and `mono`
learn: text as it is, or with holes cut into it.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from codegen25.tokenizer import Tokenizer
from codegen25.train.objective import Example, Objective, example
from codegen25.train.texts import BYTES_PER_TOKEN, Entry, Texts


class Examples(Protocol):
    """Documents by number, from 0. An example depends on its number, the generator's seed and the window alone."""

    def __len__(self) -> int:
        """How many documents an epoch has."""
        ...

    def fingerprint(self) -> str:
        """A SHA-256, in hexadecimal, of the documents in their order and of how they become examples."""
        ...

    def size(self, document: int) -> int:
        """About how many ids its example would have without a window, known without making it: ranks share by it."""
        ...

    def example(self, document: int, rng: random.Random, window: int) -> Example:
        """At most `window` ids; all chance comes from `rng`."""
        ...


@dataclass(frozen=True)
class Corrupted:
    """Texts, each left whole or with holes cut into it, as `objective` says.

    With `fill`, a text of more than that many ids comes up once for every `fill` ids that it has, cut at another place
    each time; without, every text comes up once an epoch, and of a long one a piece is learned.
    """

    texts: Texts
    tokenizer: Tokenizer
    objective: Objective
    fill: int | None = None

    @cached_property
    def _ends(self) -> npt.NDArray[np.int64]:
        """Behind which number each text ends, (texts,)."""
        sizes = np.asarray(self.texts.sizes, np.int64)
        times = np.ones_like(sizes) if self.fill is None else np.maximum(1, -(-sizes // self.fill))
        return np.cumsum(times)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def fingerprint(self) -> str:
        how = json.dumps([self.texts.fingerprint(), asdict(self.objective), self.fill])
        return hashlib.sha256(how.encode()).hexdigest()

    def text(self, document: int) -> int:
        """The number of the text that a document is of."""
        return int(np.searchsorted(self._ends, document, side="right"))

    def size(self, document: int) -> int:
        return int(self.texts.sizes[self.text(document)])

    def example(self, document: int, rng: random.Random, window: int) -> Example:
        entry = self.texts.entry(self.text(document))
        if entry.head and not entry.text:
            return _piece(entry, rng, window)
        made = example(self.tokenizer, entry.text, self.objective, rng, window - len(entry.head), entry.language)
        return replace(made, ids=[*entry.head, *made.ids], learned=[True] * len(entry.head) + made.learned)


def _piece(entry: Entry, rng: random.Random, window: int) -> Example:
    """A run of the ids of a document that has a structure of its own: it is learned as it is."""
    first = rng.randrange(max(1, len(entry.head) - window + 1))
    ids = list(entry.head[first : first + window])
    return Example(ids, [True] * len(ids), left_out=BYTES_PER_TOKEN * (len(entry.head) - len(ids)))
