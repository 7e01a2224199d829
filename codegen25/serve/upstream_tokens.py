"""Tokens by their names in an upstream's `logprobs`: `token_id:17` (vLLM, when it is asked to), or their text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen25.serve import upstream_wire as wire
from codegen25.serve.openai_logprobs import token_text
from codegen25.serve.scoring import Scored
from codegen25.tokenizer import Tokenizer

_BY_ID = "token_id:"


class Names:
    """The names of a tokenizer's tokens."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._text = np.zeros(vocab_size, dtype=np.bool_)
        self._text[list(tokenizer.tokens_starting_with(b""))] = True

    @cached_property
    def _ids(self) -> dict[str, int]:
        ids = [*self._tokenizer.control.values(), *self._tokenizer.tokens_starting_with(b"")]
        return {token_text(self._tokenizer, id): id for id in ids}

    def id(self, name: object) -> int | None:
        """The token of that name; None when there is none."""
        if not isinstance(name, str):
            return None
        number = name.removeprefix(_BY_ID)
        if len(number) < len(name) and number.isascii() and number.isdigit() and len(number) < 10:
            return int(number)
        return self._ids.get(name)

    def banned(self, vocabulary: NDArray[np.bool_]) -> list[int]:
        """Tokens of text that a vocabulary lacks: those that were forbidden."""
        return [int(id) for id in np.flatnonzero(self._text & ~vocabulary)]

    def likely(self, answer: Mapping[str, Any]) -> dict[int, float]:
        """The likeliest first tokens of an answer, by log-probability. Raises `Failed` for what is no answer."""
        wire.read_chunk(answer)
        rows = self._member(answer, "top_logprobs")
        return dict(self._top(answer, rows[0])) if rows else {}

    def scored(self, answer: Mapping[str, Any], ids: Iterable[int]) -> list[Scored]:
        """The last tokens of an echoed prompt, `ids`, with what `logprobs` says of them. Raises `Failed`."""
        wire.read_chunk(answer)
        wanted = list(ids)
        logprobs, tops = self._member(answer, "token_logprobs"), self._member(answer, "top_logprobs")
        if min(len(logprobs), len(tops)) < len(wanted):
            raise wire.garbage(answer)
        made = []
        rows = zip(wanted, logprobs[-len(wanted) :], tops[-len(wanted) :], strict=True)
        for id, logprob, top in rows:
            if logprob is not None and not isinstance(logprob, int | float):
                raise wire.garbage(answer)
            made.append(Scored(id, logprob, () if top is None else tuple(self._top(answer, top))))
        return made

    def _member(self, answer: Mapping[str, Any], name: str) -> list[Any]:
        logprobs = answer["choices"][0].get("logprobs")
        found = logprobs.get(name) if isinstance(logprobs, dict) else None
        if found is None:
            return []
        if not isinstance(found, list):
            raise wire.garbage(answer)
        return found

    def _top(self, answer: Mapping[str, Any], row: Any) -> list[tuple[int, float]]:
        """(id, log-probability), the largest first; tokens that we do not know are left out."""
        if not isinstance(row, dict) or not all(isinstance(value, int | float) for value in row.values()):
            raise wire.garbage(answer)
        known = [(id, float(value)) for name, value in row.items() if (id := self.id(name)) is not None]
        return sorted(known, key=lambda pair: -pair[1])
