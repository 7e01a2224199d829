"""Which steps are not to be taken: those that are no number, or far from what the run has seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

# Steps whose loss and norm are remembered; fewer than `SEEN` say little.
MEMORY, SEEN = 64, 8
# In nats: this much above the median, twice, is a spike; this much above a uniform guess is no start of a model.
LOSS_MARGIN, GUESS_MARGIN = 2.0, 3.0
# Times the median norm that a gradient may have.
NORM_FACTOR = 50.0
# Bad steps in a row that end a run.
PATIENCE = 5


@dataclass
class Guard:
    """Judges each step before it is taken, by the losses and norms of those that were taken."""

    vocabulary: int
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    bad_in_a_row: int = 0

    def judge(self, loss: float, norm: float) -> str | None:
        """Why a step of this loss (nats, a mean) and norm of the gradient must be skipped, or None; counts it."""
        reason = self._reason(loss, norm)
        if reason is None:
            self.losses = [*self.losses, loss][-MEMORY:]
            self.norms = [*self.norms, norm][-MEMORY:]
            self.bad_in_a_row = 0
        else:
            self.bad_in_a_row += 1
        return reason

    def _reason(self, loss: float, norm: float) -> str | None:
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(norm):
            return f"the norm of the gradient is {norm}"
        if loss > math.log(self.vocabulary) + GUESS_MARGIN:
            return f"the loss is {loss:.2f}, far above that of a guess"
        if len(self.losses) >= SEEN and loss > 2 * median(self.losses) + LOSS_MARGIN:
            return f"the loss is {loss:.2f}, and was about {median(self.losses):.2f}"
        if len(self.norms) >= SEEN and norm > NORM_FACTOR * median(self.norms):
            return f"the norm of the gradient is {norm:.3g}, and was about {median(self.norms):.3g}"
        return None

    @property
    def has_given_up(self) -> bool:
        return self.bad_in_a_row >= PATIENCE

    def state(self) -> dict[str, Sequence[float] | int]:
        return {"losses": self.losses, "norms": self.norms, "bad_in_a_row": self.bad_in_a_row}

    def load_state(self, state: dict[str, list[float] | int]) -> None:
        losses, norms, bad = state["losses"], state["norms"], state["bad_in_a_row"]
        assert isinstance(losses, list) and isinstance(norms, list) and isinstance(bad, int)
        self.losses, self.norms, self.bad_in_a_row = losses, norms, bad
