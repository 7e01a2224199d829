"""How much to run in a step: how long drafts should be, from what was accepted lately and what tokens cost here, and
how much of a long prompt.

A draft of k tokens, each right with probability a when all before it were, gives (1 - a^(k+1)) / (1 - a) tokens in one
step (Leviathan et al., 2023, equation 1). What k more tokens cost depends on machine, model and company in the batch,
so it is measured while running.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Where drafts do not pay, one is tried again after this many steps; the model or the text may have changed.
PROBE_EVERY = 32
PROBE_LENGTH = 2
# Who waits for a chunk of somebody's prompt, or cancels one, should not wait for longer; fewer tokens do not pay.
CHUNK_SECONDS = 0.5
SMALLEST_CHUNK = 32


class StepCost:
    """Seconds of a forward pass by its number of tokens, a moving average learned at run time.

    Below eight tokens each number has its average, from there on they share one per quarter of an octave. Between known
    numbers it is interpolated. Beyond them it is taken to grow with the square root: so cheap that long drafts are
    tried where they have been right, and not where they have been wrong. What was not measured for a while is unknown
    again: one slow step must not scare for ever.
    """

    _WEIGHT = 0.2  # of the newest measurement
    _OUTLIER = 2.0  # times the average: more says something about the machine's other work
    _LASTS = 64  # steps

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._measured: dict[int, int] = {}  # in which step, last
        self._step = 0
        self._known: tuple[list[int], list[float]] = ([1], [1.0])

    @staticmethod
    def _bucket(tokens: int) -> int:
        step = max(1, 1 << max(0, tokens.bit_length() - 3))
        return tokens // step * step

    def record(self, tokens: int, seconds: float) -> None:
        bucket = self._bucket(tokens)
        average = self._seconds.get(bucket, seconds)
        self._seconds[bucket] = average + self._WEIGHT * (min(seconds, self._OUTLIER * average) - average)
        self._step += 1
        self._measured[bucket] = self._step
        order = sorted(known for known, step in self._measured.items() if step > self._step - self._LASTS)
        if len(order) < len(self._seconds):
            self._seconds = {known: self._seconds[known] for known in order}
            self._measured = {known: self._measured[known] for known in order}
        self._known = order, [self._seconds[known] for known in order]

    def seconds(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        known, seconds = self._known
        out: NDArray[np.float64] = np.interp(tokens, known, seconds) * np.sqrt(np.maximum(1, tokens / known[-1]))
        return out


class Chunk:
    """How many prompt tokens run in one step: `most`, or fewer where these take long, from the speed measured lately.

    `parameters`: of the model; before anything is measured it tells small models from large ones.
    """

    _WEIGHT = 0.3

    def __init__(self, most: int, parameters: int) -> None:
        self._most = most
        self._per_second = 1e11 / parameters  # two ordinary cores

    def record(self, tokens: int, seconds: float) -> None:
        if tokens >= min(SMALLEST_CHUNK, self._most):
            self._per_second += self._WEIGHT * (tokens / seconds - self._per_second)

    @property
    def tokens(self) -> int:
        in_time = int(CHUNK_SECONDS * self._per_second) // SMALLEST_CHUNK * SMALLEST_CHUNK
        return min(self._most, max(SMALLEST_CHUNK, in_time))


class Acceptance:
    """The probability that a drafted token is right: its share lately, older steps fading, and a guess to begin with.

    `steps` counts those in which a draft could have been made and was not.
    """

    _FADE = 0.9
    _GUESS_WEIGHT = 4.0  # tokens that the first guess is worth

    def __init__(self, guess: float) -> None:
        self.guess = guess
        self.idle = 0
        self._right = 0.0
        self._tried = 0.0

    @property
    def rate(self) -> float:
        return (self._right + self.guess * self._GUESS_WEIGHT) / (self._tried + self._GUESS_WEIGHT)

    def record(self, drafted: int, accepted: int) -> None:
        """The tokens behind the first wrong one were not tried."""
        self.idle = 0
        self._right = self._FADE * self._right + accepted
        self._tried = self._FADE * self._tried + min(drafted, accepted + 1)


def expected_tokens(rate: float, drafted: int) -> float:
    """Tokens that a step gives with so many drafted ones, the model's own one included."""
    rate = min(rate, 0.999)
    return (1 - rate ** (drafted + 1)) / (1 - rate)


def draft_length(rate: float, limit: int, tokens: int, others: float, cost: StepCost) -> int:
    """The length up to `limit` with the most expected tokens per second of the whole step.

    `tokens` run in the step without this draft, and `others` are expected from the other requests in it.
    """
    expected = np.array([others + expected_tokens(rate, drafted) for drafted in range(limit + 1)])
    return int((expected / cost.seconds(tokens + np.arange(limit + 1))).argmax())
