"""A policy applied while a model writes: no long run of code under a licence that is not allowed.

The engine asks before each token whether the answer may go on so (`engine.answer.Guard`). It may not when its last
lexemes, as many as the policy names, stand verbatim in the corpus, and none of the documents that hold them has an
allowed licence. A document without evidence for its licence allows nothing.

What is asked for every token has to be cheap. A run of n lexemes holds one of the blocks of n / 2 that the answer falls
into; so only where the last block stands in the corpus the last n lexemes are looked up, too.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from codegen25.attribute.trace import MOST_LOCATED, Tracer
from codegen25.data import policy as licences
from codegen25.data import spdx
from codegen25.errors import CodegenError

# Fewer lexemes than these are nobody's.
FEWEST = 10
# As `data.lexemes` cuts them, but for escapes and entities.
_LEXEME = re.compile(rb"[A-Za-z0-9_]+|[!$%&*+\-./:<=>?@\[\]^{|}~]")
# What may become tokens together with what stands before it; and signs in a row that are more than any token.
_PIECE = re.compile(rb"[A-Za-z0-9_\x80-\xff]+|[^\sA-Za-z0-9_\x80-\xff]+|")
_RULED = re.compile(rb"[^\sA-Za-z0-9_\x80-\xff]{17,}")
# From the end of a line on a text becomes the same tokens whatever stood before; of a long line, this much is read.
_LEAD = 400


@dataclass(frozen=True)
class Policy:
    """Which licences may be repeated, and how many `lexemes` of the others in a row."""

    allowed: licences.Policy
    lexemes: int = 40

    def allows(self, license: str, evidence_kind: str) -> bool:
        """Whether a document's licence is allowed. One without evidence is unknown, which is not."""
        return bool(license and evidence_kind) and self.allowed.allows(license)


def read_policy(name: str) -> Policy:
    """A TOML file with `allow` and `exceptions`, SPDX licences, and `lexemes`; or a policy of corpora by its name.

    Raises CodegenError when it is none.
    """
    path = Path(name)
    if not path.is_file():
        return Policy(licences.read_policy(name))
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CodegenError(f"{path}: no policy ({error}); write allow = [licences] and lexemes = number") from error
    unknown = sorted(found.keys() - {"allow", "exceptions", "lexemes"})
    if unknown:
        raise CodegenError(f"{path}: {unknown[0]!r} is no key of a policy; it has allow, exceptions, lexemes")
    lexemes = found.get("lexemes", Policy.lexemes)
    if type(lexemes) is not int or lexemes < FEWEST:
        raise CodegenError(f"{path}: lexemes cannot be {lexemes!r}; give a whole number of {FEWEST} or more")
    allow = _identifiers(path, found, "allow")
    return Policy(licences.Policy(path.stem, allow, _identifiers(path, found, "exceptions")), lexemes)


def _identifiers(path: Path, found: dict[str, Any], key: str) -> frozenset[str]:
    names = found.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CodegenError(f"{path}: {key} cannot be {names!r}; give a list of SPDX identifiers")
    known = {name: spdx.identifier(name, exception=key == "exceptions") for name in names}
    for name, identifier in known.items():
        if identifier is None:
            raise CodegenError(f"{path}: {name!r} is not on the SPDX list; write it as spdx.org/licenses does")
    return frozenset(filter(None, known.values()))


class PolicyGuard:
    """Watches one answer. Give each answer its own."""

    def __init__(self, tracer: Tracer, policy: Policy) -> None:
        self._tracer, self._policy = tracer, policy
        self._block = policy.lexemes // 2 - 2  # two for words and signs that have only begun
        self._base = 0  # where the block begins that is not full yet
        self._stands = False  # whether the last full block stands in the corpus
        self._allows = cache(policy.allows)

    def allows(self, answer: bytes) -> bool:
        """Whether the answer, UTF-8 so far, holds no run at its end that the policy forbids."""
        if not self._stands and len(answer) - self._base <= self._block:
            return True  # a lexeme has a byte at least
        found = _lexemes(answer, self._base)
        # The last lexeme may go on.
        while len(found) > self._block:
            end = found[self._block - 1][1]
            self._stands = self._find(answer, self._base, end) is not None
            found, self._base = found[self._block :], end
        return not self._stands or self._window_allowed(answer)

    def _window_allowed(self, answer: bytes) -> bool:
        found = _lexemes(answer, 0)
        most = self._policy.lexemes - 1
        if len(found) < most:
            return True
        start = found[-most][0]
        query = self._find(answer, start, len(answer))
        return query is None or not query.size or self._licensed(query)

    def _find(self, answer: bytes, start: int, end: int) -> Any:
        """The whole tokens between two places, uint16, when they stand somewhere, or when there are none; else None."""
        tokenizer, lead = self._tracer.tokenizer, max(0, start - _LEAD, answer.rfind(b"\n", 0, start))
        while lead < start and answer[lead] & 0xC0 == 0x80:
            lead += 1  # to where a character begins
        text = answer[lead:end].decode(errors="ignore")
        kept = text.removesuffix(tokenizer.last_piece(text))
        ids = np.array(tokenizer.encode(kept), np.uint16)
        begins = lead + np.concatenate([[0], np.cumsum(self._tracer.lengths[ids])])[:-1]
        inside = ids[begins >= _told_from(answer, lead, start)]
        told = np.flatnonzero(~self._tracer.left_out[inside])
        if not told.size:
            return inside[:0]
        query = inside[told[0] :]
        return query if any(s.tokens.interval(query)[0] < s.tokens.interval(query)[1] for s in self._shards) else None

    @property
    def _shards(self) -> Any:
        return self._tracer.index.shards

    def _licensed(self, query: Any) -> bool:
        """Whether one of the documents that hold the query has an allowed licence."""
        for shard in self._shards:
            first, last = shard.tokens.interval(query)
            if first == last:
                continue
            documents, _ = shard.tokens.locate(np.arange(first, last, max(1, (last - first) // MOST_LOCATED)))
            kinds, names = shard.origins["evidence_kind"], shard.origins["license"]
            if any(self._allows(names[one], kinds[one]) for one in set(documents.tolist())):
                return True
        return False


def _lexemes(answer: bytes, at: int) -> list[tuple[int, int]]:
    """Where lexemes start and end; one that repeats the one before it does not count."""
    found: list[tuple[int, int]] = []
    last = b""
    for match in _LEXEME.finditer(answer, at):
        if match.group() != last:
            found.append(match.span())
        last = match.group()
    return found


def _told_from(answer: bytes, lead: int, start: int) -> int:
    """From where on what begins at `start` becomes the same tokens in any text.

    How the first word, or the first signs in a row, become tokens depends on what stands before them. A ruled line that
    `start` lies in is taken whole: without it there may be nothing left.
    """
    for ruled in _RULED.finditer(answer, lead):
        if ruled.start() < start < ruled.end():
            return ruled.start()
    piece = _PIECE.match(answer, start)
    assert piece is not None, "it matches nothing, too"
    return piece.end()
