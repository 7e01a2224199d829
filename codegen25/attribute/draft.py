"""Drafts from the corpus: what stands there behind the last tokens of a text (REST, He et al., 2023).

The index has to be of the model's own vocabulary. A draft is verified like any other, and never changes a text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from codegen25.attribute.build import left_out
from codegen25.attribute.index import Index, check_vocabulary
from codegen25.attribute.search import Searchable
from codegen25.tokenizer import Tokenizer

# How many of the last tokens have to stand in the corpus, the most first; and how many places there are asked.
LENGTHS = (16, 8, 5)
PLACES = 8


class CorpusDraft:
    """Guesses by the longest end of a text that stands in the corpus, and by most of what follows it there."""

    def __init__(self, index: Index, tokenizer: Tokenizer) -> None:
        """Raises CodegenError when the index is of another vocabulary."""
        check_vocabulary(index.folder, index.vocabulary, tokenizer)
        self._shards = [shard.tokens for shard in index.shards]
        self._left_out = left_out(tokenizer)
        self._end = tokenizer.eot

    def propose(self, ids: Sequence[int], limit: int) -> Sequence[int]:
        """At most `limit` ids that follow there."""
        for length in LENGTHS:
            query = np.array(ids[-length:], np.uint16)
            if query.size < length or self._left_out[query[0]] or self._end in query:
                continue
            found = [(shard, *shard.interval(query)) for shard in self._shards]
            if guesses := [g for shard, first, last in found for g in self._behind(shard, first, last, length, limit)]:
                likely = Counter(guess[0] for guess in guesses).most_common(1)[0][0]
                return next(guess for guess in guesses if guess[0] == likely)
        return ()

    def _behind(self, shard: Searchable, first: int, last: int, length: int, limit: int) -> list[list[int]]:
        """What stands behind some of the places of these ranks, up to the end of the document."""
        if first == last:
            return []
        ranks = np.unique(np.linspace(first, last - 1, PLACES).astype(np.int64))
        guesses = []
        for document, place in zip(*(part.tolist() for part in shard.locate(ranks)), strict=True):
            end = min(place + length + limit, int(shard.ends[document]) - 1)
            if place + length < end:
                guesses.append(shard.ids[place + length : end].tolist())
        return guesses
