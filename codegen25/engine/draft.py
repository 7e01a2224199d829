"""Drafts: guesses of what follows, for the model to verify in one step. A wrong guess costs time, never text.

Code repeats itself: what stands behind the last place where the text went like this often comes again (prompt lookup
decoding, Saxena, 2023; LLMA, Yang et al., 2023). Looked through are the text itself, related texts such as open files,
and what was answered before: while somebody types the first letters of a suggestion, all of it is still the best guess.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Protocol

# Tokens that two texts may be compared backwards; and how many earlier places, the latest first, are compared.
LONGEST_MATCH = 32
PLACES = 24
# An earlier answer is taken up again behind that many equal tokens, or behind all there are.
SURE_MATCH = 8
REMEMBERED = 64


class Draft(Protocol):
    """Something that guesses."""

    def propose(self, ids: Sequence[int], limit: int) -> Sequence[int]:
        """At most `limit` ids that may follow `ids`, none without a guess. Called once a step: microseconds count."""
        ...


class Suffixes:
    """Texts in which the end of another text is looked up. They grow at their end; a step costs what was added.

    Every pair of tokens knows the place behind its latest occurrence, and every such place the one before it. Single
    tokens know their latest place only.
    """

    def __init__(self, ids: Iterable[int] = ()) -> None:
        self.ids: list[int] = []
        self._latest: dict[tuple[int, int], int] = {}
        self._latest_one: dict[int, int] = {}
        self._earlier: list[int] = []  # by place; -1 where there is none
        self.extend(ids)

    def extend(self, ids: Iterable[int]) -> None:
        known, latest, earlier = self.ids, self._latest, self._earlier
        for id in ids:
            place = len(known)
            if place >= 2:
                pair = (known[-2], known[-1])
                earlier.append(latest.get(pair, -1))
                latest[pair] = place
            else:
                earlier.append(-1)
            if place:
                self._latest_one[known[-1]] = place
            known.append(id)

    def find(self, ids: Sequence[int]) -> tuple[int, int]:
        """(how many tokens at the end of `ids` stand here too, the place behind them); (0, 0) when none do.

        The longest such end counts, and of equal ones the latest; of very many places only the latest are tried.
        """
        at = self._latest_one.get(ids[-1], 0)
        best = int(at > 0)
        if len(ids) < 2:
            return best, at
        place = self._latest.get((ids[-2], ids[-1]), -1)
        most = min(LONGEST_MATCH, len(ids))
        for _ in range(PLACES):
            if place < 0 or best == most:
                break
            length = 2
            while length < most and length < place and self.ids[place - 1 - length] == ids[-1 - length]:
                length += 1
            if length > best:
                best, at = length, place
            place = self._earlier[place]
        return best, at


class Lookup:
    """Looks the end of one growing text up in itself and in `related` texts. The longest match wins, itself first.

    Matches of fewer than `shortest` tokens do not count. Several lookups may share `own`, which they keep up to date.
    """

    def __init__(self, own: Suffixes, related: Sequence[Sequence[int]] = (), shortest: int = 1) -> None:
        self._own, self._related, self._shortest = own, related, shortest
        self._texts: list[Suffixes] | None = None

    def propose(self, ids: Sequence[int], limit: int) -> Sequence[int]:
        """What followed there. From call to call `ids` may only grow at its end."""
        if self._texts is None:
            self._texts = [self._own, *(_indexed(tuple(text)) for text in self._related)]
        self._own.extend(ids[len(self._own.ids) :])
        found = [(text.find(ids), text) for text in self._texts]
        (length, place), text = max(found, key=lambda match: match[0][0])
        return text.ids[place : place + limit] if length >= self._shortest else ()


@lru_cache(maxsize=32)
def _indexed(ids: tuple[int, ...]) -> Suffixes:
    """Open files come with request after request."""
    return Suffixes(ids)


class Earlier:
    """The last answers, each with the end of its prompt; goes on with the one that `ids` is in the middle of."""

    _BORDER = -1  # no id: nothing matches across two answers

    def __init__(self) -> None:
        self._answers: deque[list[int]] = deque(maxlen=REMEMBERED)
        self._all = Suffixes()
        self._added = 0

    def remember(self, prompt: Sequence[int], answer: Sequence[int]) -> None:
        """`answer` was shown behind `prompt`."""
        if not answer:
            return
        self._answers.append([self._BORDER, *prompt[-LONGEST_MATCH:], *answer])
        self._added += 1
        if self._added > 2 * REMEMBERED:  # forget the older ones
            self._all, self._added = Suffixes(), len(self._answers)
            for known in self._answers:
                self._all.extend(known)
        else:
            self._all.extend(self._answers[-1])

    def propose(self, ids: Sequence[int], limit: int) -> Sequence[int]:
        length, place = self._all.find(ids)
        if length < min(SURE_MATCH, len(ids)):
            return ()
        going = self._all.ids[place : place + limit]
        return going[: going.index(self._BORDER)] if self._BORDER in going else going
