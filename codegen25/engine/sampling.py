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


def probabilities(logits: Row, sampling: Sampling) -> NDArray[np.float64]:
    """The distribution that is sampled from: temperature, then top-k, top-p, min-p. fp64 [V], sums to 1.

    Each filter looks at what the one before it left. Ties at top-k's border are decided for the lower id.
    """
    assert sampling.temperature > 0, "greedy choice has no distribution"
    shifted = logits.astype(np.float64) - logits.max()
    with np.errstate(over="ignore"):  # to -inf, at temperatures that are as good as 0
        p = np.exp(shifted / sampling.temperature)
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    keep = len(p) if sampling.top_k == 0 else min(sampling.top_k, len(p))
    order = order[:keep]
    if sampling.top_p < 1:
        mass = np.cumsum(p[order]) / p[order].sum()
        # the token that crosses the border stays in
        order = order[: int(np.searchsorted(mass, sampling.top_p)) + 1]
    order = order[p[order] >= sampling.min_p * p[order[0]]]
    out = np.zeros_like(p)
    out[order] = p[order]
    normalised: NDArray[np.float64] = out / out.sum()
    return normalised


def choose(logits: Row, sampling: Sampling, rng: np.random.Generator) -> int:
    """The next token's id. Greedy takes the lowest id of equal logits."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    p = probabilities(logits, sampling)
    return int(min(np.searchsorted(np.cumsum(p), rng.random(), side="right"), np.flatnonzero(p)[-1]))
