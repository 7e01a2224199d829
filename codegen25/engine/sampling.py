"""From logits to the next token: pure functions on one row of logits, fp32 [V]."""

from __future__ import annotations

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
    highest = logits.max()
    shifted = logits - highest
    np.exp(shifted, out=shifted)
    return float((logits[token] - highest) - np.log(shifted.sum(dtype=np.float64)).astype(np.float32))


def probabilities(logits: Row, sampling: Sampling) -> NDArray[np.float64]:
    """The distribution that is sampled from: temperature, then top-k, top-p, min-p. fp64 [V], sums to 1.

    Each filter looks at what the one before it left. Ties at top-k's border are decided for the lower id.
    """
    out = np.zeros(len(logits))
    ids, p = _candidates(logits, sampling)
    out[ids] = p
    return out


def _candidates(logits: Row, sampling: Sampling) -> tuple[NDArray[np.int64] | slice, NDArray[np.float64]]:
    """(the ids that the filters leave, ascending, or all of them, their probabilities). Sorts no more than it must."""
    assert sampling.temperature > 0, "greedy choice has no distribution"
    p = logits.astype(np.float64)
    p -= p.max()
    with np.errstate(over="ignore"):  # to -inf, at temperatures that are as good as 0
        p /= sampling.temperature
    np.exp(p, out=p)
    ids: NDArray[np.int64] | slice = slice(None)
    if 0 < sampling.top_k < len(p):
        ids = np.sort(_largest(p, sampling.top_k))
        p = p[ids]
    if sampling.top_p < 1:
        kept = np.sort(_nucleus(p, sampling.top_p))
        ids = kept if isinstance(ids, slice) else ids[kept]
        p = p[kept]
    if sampling.min_p > 0:
        kept = np.flatnonzero(p >= sampling.min_p * p.max())
        ids = kept if isinstance(ids, slice) else ids[kept]
        p = p[kept]
    return ids, p / p.sum()


def _largest(p: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Where the k largest of p stand, the largest first; of equal ones the first."""
    border = np.partition(p, len(p) - k)[len(p) - k]
    ids = np.flatnonzero(p >= border)
    return ids[np.argsort(-p[ids], kind="stable")[:k]]


def _nucleus(p: NDArray[np.float64], top_p: float) -> NDArray[np.int64]:
    """Where the largest of p stand that together are `top_p` of all; the one that crosses the border is in."""
    total, k = p.sum(), 256
    while True:
        ids = _largest(p, min(k, len(p)))
        mass = np.cumsum(p[ids]) / total
        if mass[-1] >= top_p or len(ids) == len(p):
            return ids[: int(np.searchsorted(mass, top_p)) + 1]
        k *= 16


def choose(
    logits: Row, sampling: Sampling, rng: np.random.Generator, vocabulary: NDArray[np.bool_] | None = None
) -> int:
    """The next token's id, one of `vocabulary` (bool [V]). Greedy takes the lowest id of equal logits.

    Sampling uses exactly one number of `rng`, greedy none.
    """
    if sampling.temperature == 0:
        token = int(logits.argmax())
        if vocabulary is None or vocabulary[token]:
            return token
        return int(np.where(vocabulary, logits, np.float32(-np.inf)).argmax())
    if vocabulary is not None:
        logits = np.where(vocabulary, logits, np.float32(-np.inf))
    ids, p = _candidates(logits, sampling)
    at = int(min(np.searchsorted(np.cumsum(p), rng.random(), side="right"), np.flatnonzero(p)[-1]))
    return at if isinstance(ids, slice) else int(ids[at])
