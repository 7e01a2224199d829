"""What more tokens would bring: a power law through a run's losses, continued.

loss(tokens) = floor + scale (tokens / last)^-exponent, the form of Hoffmann et al., 2022 (their L(N, D) for one model),
by least squares: linear in floor and scale, and the exponent by trying. How far to believe it is said by fits to
losses drawn with replacement (Efron, 1979). Losses that warm-up and decay bend are no part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codegen25.train.runs import Point, Run

EXPONENTS = np.geomspace(0.02, 1.0, 40)
# Fewer losses, or such as span less than this factor of tokens, show no law.
FEWEST, SPAN = 24, 4.0
DRAWS, INTERVAL = 200, (10, 90)  # percent
TIMES = (2, 4, 10)  # the tokens of a run, that forecasts are made for

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Forecast:
    """The law: of the training loss, nats a token. `last` tokens are where it was fitted to the end."""

    last: float
    floor: float
    scale: float
    exponent: float
    draws: tuple[tuple[float, float, float], ...]
    """The same three numbers of every draw."""

    def at(self, tokens: float) -> float:
        """The loss that is expected after so many tokens."""
        return _law(self.floor, self.scale, self.exponent, tokens / self.last)

    def interval(self, tokens: float) -> tuple[float, float]:
        """What eight of ten draws expect."""
        values = [_law(*draw, tokens / self.last) for draw in self.draws]
        low, high = np.percentile(values, INTERVAL)
        return float(low), float(high)


def _law(floor: float, scale: float, exponent: float, times: float) -> float:
    """The loss at so many times the tokens of the fit."""
    return floor + scale * float(times**-exponent)


def forecast(run: Run) -> Forecast | None:
    """The law of a run's losses while its rate was at its height; None where they are too few."""
    rates = dict(run.curve("rate"))
    highest = max(rates.values(), default=0.0)
    return fit([point for point in run.curve("loss") if rates.get(point[0], 0.0) >= highest * (1 - 1e-9)])


def fit(points: Sequence[Point], seed: int = 0) -> Forecast | None:
    """The law through `points`, pairs of tokens and loss; None where they are too few, or too close together."""
    if len(points) < FEWEST or points[-1][0] < SPAN * points[0][0]:
        return None
    x, y = np.array(points, dtype=np.float64).T
    last = float(x[-1])
    powers = (x / last)[None, :] ** -EXPONENTS[:, None]
    floor, scale, exponent = _fitted(powers, y)
    rng = np.random.default_rng(seed)
    chosen = (rng.integers(0, len(y), len(y)) for _ in range(DRAWS))
    draws = tuple(_fitted(powers[:, of], y[of]) for of in chosen)
    return Forecast(last, floor, scale, exponent, draws)


def _fitted(powers: _Floats, y: _Floats) -> tuple[float, float, float]:
    """Floor, scale and exponent, the first two not negative. `powers` is [exponents, points]."""
    means, mean = powers.mean(1), y.mean()
    spread = ((powers - means[:, None]) ** 2).sum(1)
    scale = np.maximum(((powers - means[:, None]) * (y - mean)).sum(1) / np.maximum(spread, 1e-12), 0.0)
    floor = mean - scale * means
    without = powers @ y / (powers**2).sum(1)  # the best scale where there is no floor
    scale, floor = np.where(floor < 0, without, scale), np.maximum(floor, 0.0)
    errors = ((floor[:, None] + scale[:, None] * powers - y) ** 2).sum(1)
    best = int(errors.argmin())
    return float(floor[best]), float(scale[best]), float(EXPONENTS[best])
