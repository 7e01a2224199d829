"""From logits to the next token: pure functions on one row of logits, fp32 [V]."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codegen25.errors import UsageError

Row = NDArray[np.float32]


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. Temperature 0 is greedy, exact and reproducible; the filters then change nothing.

    top-k keeps the k likeliest tokens (0: all), top-p the smallest set with that much probability (Holtzman et al.,
    2020), min-p those at least that fraction as likely as the likeliest (Nguyen et al., 2024). The repetition penalty
    divides the logits of tokens that already stand in prompt or answer (Keskar et al., 2019).
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        # `not (…)` so that NaN is refused too
        if not 0 <= self.temperature < float("inf"):
            raise UsageError(f"temperature is {self.temperature}; it must be 0 (greedy) or a positive number")
        if self.top_k < 0:
            raise UsageError(f"top-k is {self.top_k}; it must be 0 (off) or positive")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top-p is {self.top_p}; it must be above 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise UsageError(f"min-p is {self.min_p}; it must be between 0 and 1")
        if not 0 < self.repetition_penalty < float("inf"):
            raise UsageError(f"repetition penalty is {self.repetition_penalty}; it must be positive (1 is off)")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; it must not be negative")


GREEDY = Sampling()


def log_softmax(logits: Row) -> Row:
    """Natural log-probabilities, fp32; -inf logits stay -inf."""
    shifted = logits - logits.max()
    out: Row = shifted - np.log(np.exp(shifted, dtype=np.float32).sum(dtype=np.float64)).astype(np.float32)
    return out


def penalize(logits: Row, seen: Collection[int], penalty: float) -> Row:
    """Make tokens that were seen less likely (penalty > 1), whatever the sign of their logit."""
    if penalty == 1.0 or not seen:
        return logits
    ids = np.fromiter(seen, dtype=np.int64)
    out = logits.copy()
    out[ids] = np.where(out[ids] > 0, out[ids] / penalty, out[ids] * penalty)
    return out


def logprob(logits: Row, token: int) -> float:
    """`log_softmax(logits)[token]`, without the row of it."""
    best = logits.argmax()
    others = logits - logits[best]
    np.exp(others, out=others)
    others[best] = 0  # exact beside the small ones, so that fp32 is enough for their sum
    return float(logits[token] - logits[best]) - math.log1p(float(others.sum()))


def probabilities(logits: Row, sampling: Sampling) -> NDArray[np.float64]:
    """The distribution that is sampled from: temperature, then top-k, top-p, min-p. fp64 [V], sums to 1.

    Each filter looks at what the one before it left. Ties at top-k's border are decided for the lower id.
    """
    out = np.zeros(len(logits))
    ids, p = _candidates(logits, sampling)
    out[ids] = p / p.sum()
    return out


def choose(logits: Row, sampling: Sampling, rng: np.random.Generator) -> int:
    """The next token's id. Greedy takes the lowest id of equal logits; sampling uses exactly one number of `rng`."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    ids, p = _candidates(logits, sampling)
    at = _draw(p, rng.random())
    return at if isinstance(ids, slice) else int(ids[at])


def _candidates(logits: Row, sampling: Sampling) -> tuple[NDArray[np.int64] | slice, NDArray[np.float64]]:
    """(the ids that the filters leave, ascending, or all of them; what their probabilities are in proportion to).

    Sorts no more than it must, since vocabularies are long and what is likely is short.
    """
    assert sampling.temperature > 0, "greedy choice has no distribution"
    ids: NDArray[np.int64] | slice = slice(None)
    if 0 < sampling.top_k < len(logits):
        ids = np.sort(_largest(logits, sampling.top_k))
    p = logits[ids].astype(np.float64)
    p -= p.max()
    with np.errstate(over="ignore"):  # to -inf, at temperatures that are as good as 0
        p /= sampling.temperature
    np.exp(p, out=p)
    if sampling.top_p < 1:
        kept = np.sort(_nucleus(logits[ids], p, sampling.top_p))
        ids, p = kept if isinstance(ids, slice) else ids[kept], p[kept]
    if sampling.min_p > 0:
        kept = np.flatnonzero(p >= sampling.min_p * p.max())
        ids, p = kept if isinstance(ids, slice) else ids[kept], p[kept]
    return ids, p


def _largest(logits: Row, k: int) -> NDArray[np.int64]:
    """Where the k largest stand, the largest first; of equal ones the first."""
    border = np.partition(logits, len(logits) - k)[len(logits) - k]
    ids = np.flatnonzero(logits >= border)
    return ids[np.argsort(-logits[ids], kind="stable")[:k]]


def _nucleus(logits: Row, p: NDArray[np.float64], top_p: float) -> NDArray[np.int64]:
    """Where the likeliest stand that together are `top_p` of all; the one that crosses the border is in."""
    total, k = p.sum(), 256
    while True:
        ids = _largest(logits, min(k, len(p)))
        mass = np.cumsum(p[ids]) / total
        if mass[-1] >= top_p or len(ids) == len(p):
            return ids[: int(np.searchsorted(mass, top_p)) + 1]
        k *= 16


def _draw(p: NDArray[np.float64], number: float) -> int:
    """Where the cumulated p reach `number` (of [0, 1)) of their sum: looked for by blocks, then inside one."""
    block = 256
    sums = np.add.reduceat(p, np.arange(0, len(p), block))
    ends = np.cumsum(sums)
    left = number * ends[-1]
    which = min(int(np.searchsorted(ends, left, side="right")), int(np.flatnonzero(sums)[-1]))
    if which:
        left -= ends[which - 1]
    inside = p[which * block : (which + 1) * block]
    at = min(int(np.searchsorted(np.cumsum(inside), left, side="right")), int(np.flatnonzero(inside)[-1]))
    return which * block + at
