"""Which of several upstreams a prompt goes to: the one that has most of it in its cache, unless others have less to do.

What a prompt shares with earlier ones is known by a hash of each of its beginnings of whole blocks, so a choice costs
some microseconds however many prompts there were. An upstream that has served half of a prompt or more gets it while
its load is in proportion to the others'; otherwise the one with the fewest answers under way, and of these the one that
was chosen longest ago. Several routers know nothing of each other: each balances its own requests.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence

from codegen25.serve.upstream import Upstream

BLOCK = 32  # tokens
REMEMBERED = 1 << 16  # blocks
# More than so many answers above twice the least load is too much.
SLACK = 4


class Pool:
    """The upstreams, in the order in which they were named. For one event loop."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.all = [Upstream(url) for url in dict.fromkeys(urls)]
        self.retries = 0
        self.affine = 0  # choices for the sake of a cache
        self._served: OrderedDict[int, Upstream] = OrderedDict()  # by the hash of a prompt's beginning
        self._choices = 0

    def choose(self, prompt: Sequence[int], tried: Sequence[Upstream] = ()) -> Upstream | None:
        """Where a prompt is to run: of those that were `tried` the fewest times. None when none is up."""
        up = [one for one in self.all if one.is_up]
        if not up:
            return None
        fewest = min(tried.count(one) for one in up)
        up = [one for one in up if tried.count(one) == fewest]
        hashes = beginnings(prompt)
        least = min(up, key=lambda one: (one.under_way, one.last_chosen))
        chosen = self._holder(hashes, up)
        if chosen is not None and chosen.under_way <= 2 * least.under_way + SLACK:
            self.affine += 1
        else:
            chosen = least
        self._choices += 1
        chosen.last_chosen = self._choices
        self._remember(hashes, chosen)
        return chosen

    def forget(self, upstream: Upstream) -> None:
        """It was out, and may have lost its cache."""
        for key in [key for key, one in self._served.items() if one is upstream]:
            del self._served[key]

    def _holder(self, hashes: Sequence[int], up: Collection[Upstream]) -> Upstream | None:
        """The one that served the longest beginning of half of the prompt or more."""
        for key in reversed(hashes[len(hashes) // 2 :]):
            found = self._served.get(key)
            if found is not None and found in up:
                return found
        return None

    def _remember(self, hashes: Sequence[int], upstream: Upstream) -> None:
        for key in hashes:
            self._served[key] = upstream
            self._served.move_to_end(key)
        while len(self._served) > REMEMBERED:
            self._served.popitem(last=False)


def beginnings(prompt: Sequence[int]) -> list[int]:
    """A hash of every beginning of whole blocks, the shortest first; of all of a prompt that fills none."""
    hashes, before = [], 0
    for end in range(BLOCK, len(prompt) + 1, BLOCK):
        before = hash((before, tuple(prompt[end - BLOCK : end])))
        hashes.append(before)
    return hashes or [hash((0, tuple(prompt)))]
