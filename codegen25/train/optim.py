"""The optimizer's side of a step: fp32 master weights beside bf16 ones, AdamW, and the learning rate's schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Schedule:
    """Warm-up, stable, decay (Hu et al., 2024, MiniCPM): linear up, constant, linear down to zero at the end."""

    rate: float
    warmup: int
    steps: int
    decay: int

    def at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        up = min(1.0, (step + 1) / max(1, self.warmup))
        down = min(1.0, (self.steps - step) / max(1, self.decay))
        return self.rate * max(0.0, min(up, down))


class MasterAdamW:
    """AdamW (Loshchilov and Hutter, 2019) on fp32 copies of the weights; the model keeps them rounded to its dtype.

    Matrices decay, norms do not. Rows of the embedding from `new_rows` on are new to the model and move
    `new_rows_factor` times as far as the others; Adam does not feel the scale of a gradient, so the step is scaled.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        betas: tuple[float, float] = (0.9, 0.98),
        weight_decay: float = 0.01,
        new_rows: int | None = None,
        new_rows_factor: float = 1.0,
    ) -> None:
        self.parameters = dict(model.named_parameters())
        self.masters = {name: p.detach().float().clone() for name, p in self.parameters.items()}
        self.new_rows, self.new_rows_factor = new_rows, new_rows_factor
        groups = [
            {"params": [m for m in self.masters.values() if m.dim() == dim], "weight_decay": decay}
            for dim, decay in ((2, weight_decay), (1, 0.0))
        ]
        self.adamw = torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=1e-8, fused=True)
        for master in self.masters.values():  # AdamW makes them at its first step; a state saved before needs them too
            moments = {key: torch.zeros_like(master) for key in ("exp_avg", "exp_avg_sq")}
            self.adamw.state[master] = {"step": torch.zeros(()), **moments}

    def step(self, rate: float, clip: float) -> float:
        """One update from the gradients that the model holds, which are cleared. Returns their norm before clipping.

        Raises `FloatingPointError`, and changes no weight, when that norm is infinite or no number.
        """
        for name, parameter in self.parameters.items():
            assert parameter.grad is not None, f"{name} took no part in the loss"
            self.masters[name].grad = parameter.grad.float()
            parameter.grad = None
        norm = float(nn.utils.clip_grad_norm_(self.masters.values(), clip))
        if not math.isfinite(norm):
            raise FloatingPointError(f"the norm of the gradient is {norm}")
        for group in self.adamw.param_groups:
            group["lr"] = rate
        embedding = self.masters["embed_tokens.weight"]
        before = embedding[self.new_rows :].clone() if self.new_rows is not None else None
        self.adamw.step()
        if before is not None:
            rows = embedding[self.new_rows :]
            rows.copy_(before + (rows - before) * self.new_rows_factor)
        self.adamw.zero_grad()
        self.round_into_model()
        return norm

    @torch.no_grad()
    def round_into_model(self) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(self.masters[name])

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, by flat names: masters and both moments, fp32."""
        state = {f"master.{name}": master for name, master in self.masters.items()}
        for name, master in self.masters.items():
            for key, value in self.adamw.state[master].items():
                state[f"{key}.{name}"] = value
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        for name, master in self.masters.items():
            master.copy_(state[f"master.{name}"])
            self.adamw.state[master] = {key: state[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
        self.round_into_model()
