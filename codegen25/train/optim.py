"""The optimizer's side of a step: fp32 masters beside the model's weights, AdamW or Muon, and the rate's schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Muon, Optimizer

from codegen25.train.parallel import rows_before

Kind = Literal["adamw", "muon"]
Rounding = Callable[[str, Tensor], Tensor]
EMBEDDING = "embed_tokens.weight"


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


class MasterOptimizer:
    """AdamW (Loshchilov and Hutter, 2019), or Muon for the matrices inside the blocks and AdamW for the rest, on fp32
    copies of the weights that are trained; the model keeps them rounded to its dtype.

    Muon (Jordan et al., 2024) steps as far as AdamW at the same rate: its updates are scaled by 0.2 · sqrt(longer side)
    (Liu et al., 2025), so that one schedule and one weight decay serve both.

    Matrices decay, norms do not. Rows of the embedding from `new_rows` on are new to the model and move
    `new_rows_factor` times as far as the others; Adam does not feel the scale of a gradient, so the step is scaled.

    Weights may be sharded (DTensor): so are the masters and their moments, then. `rounding` gives a rank's part of a
    weight, by its name and master, as the model is to have it (`levels.py`).
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        kind: Kind = "adamw",
        betas: tuple[float, float] = (0.9, 0.98),
        weight_decay: float = 0.01,
        new_rows: int | None = None,
        new_rows_factor: float = 1.0,
        rounding: Rounding | None = None,
    ) -> None:
        self.rounding = rounding
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.masters = {name: p.detach().float().clone() for name, p in self.parameters.items()}
        self.new_rows, self.new_rows_factor = new_rows, new_rows_factor
        self._is_fresh = True
        by_muon = [name for name, m in self.masters.items() if kind == "muon" and _is_hidden_matrix(name, m)]
        rest = [m for name, m in self.masters.items() if name not in by_muon]
        groups = [
            {"params": [m for m in rest if (m.dim() > 1) == is_matrix], "weight_decay": decay}
            for is_matrix, decay in ((True, weight_decay), (False, 0.0))
        ]
        self._optimizers: list[Optimizer] = [AdamW(groups, lr=0.0, betas=betas, eps=1e-8, fused=True)]
        if by_muon:
            matrices = [self.masters[name] for name in by_muon]
            muon = Muon(matrices, lr=0.0, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            self._optimizers.append(muon)
        # Optimizers make their state at the first step; a checkpoint of before, or that is loaded, needs it too.
        for master in rest:
            moments = {key: torch.zeros_like(master) for key in ("exp_avg", "exp_avg_sq")}
            self._optimizers[0].state[master] = {"step": torch.zeros(()), **moments}
        for name in by_muon:
            master = self.masters[name]
            self._optimizers[1].state[master] = {"momentum_buffer": torch.zeros_like(master)}
        if rounding is not None:
            self.round_into_model()

    def accumulate(self) -> None:
        """Add the gradients that the model holds to the masters' in fp32, and clear them."""
        for name, parameter in self.parameters.items():
            assert parameter.grad is not None, f"{name} took no part in the loss"
            master = self.masters[name]
            if master.grad is None:
                master.grad = torch.zeros_like(master)
            if self._is_fresh:
                master.grad.copy_(parameter.grad)
            else:
                master.grad.add_(parameter.grad)
            parameter.grad = None
        self._is_fresh = False

    def norm(self) -> float:
        """The norm of everything that was accumulated, of all ranks' shards."""
        total = nn.utils.get_total_norm([m.grad for m in self.masters.values() if m.grad is not None])
        return float(total.full_tensor() if isinstance(total, DTensor) else total)

    def step(self, rate: float, clip: float, norm: float) -> None:
        """One update from what was accumulated, whose norm is `norm`, scaled down to `clip` where that is above."""
        if norm > clip:
            for master in self.masters.values():
                if master.grad is not None:
                    master.grad.mul_(clip / (norm + 1e-6))
        for group in chain.from_iterable(optimizer.param_groups for optimizer in self._optimizers):
            group["lr"] = rate
        rows = self._new_rows()
        before = None if rows is None else rows.clone()
        for optimizer in self._optimizers:
            optimizer.step()
        if rows is not None and before is not None:
            rows.copy_(before + (rows - before) * self.new_rows_factor)
        self.discard()
        self.round_into_model()

    def discard(self) -> None:
        """Forget what was accumulated. The memory stays: to ask for it anew in every step takes its time."""
        self._is_fresh = True

    def _new_rows(self) -> Tensor | None:
        """Of the master of the embedding, a view of the new rows that lie here."""
        embedding = self.masters.get(EMBEDDING)
        if self.new_rows is None or embedding is None:
            return None
        if not isinstance(embedding, DTensor):
            return embedding[self.new_rows :]
        return embedding.to_local()[max(0, self.new_rows - rows_before(embedding)) :]

    @torch.no_grad()
    def round_into_model(self) -> None:
        for name, parameter in self.parameters.items():
            master = self.masters[name]
            if self.rounding is None:
                parameter.copy_(master)
            else:
                here = parameter.to_local() if isinstance(parameter, DTensor) else parameter
                here.copy_(self.rounding(name, master))

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, by flat names: masters and moments, fp32; changed in place by
        whoever writes into them."""
        return dict(self._state())

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        for name, master in self.masters.items():
            yield f"master.{name}", master
            for optimizer in self._optimizers:
                for key, value in optimizer.state.get(master, {}).items():
                    yield f"{key}.{name}", value

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`, whose names and shapes it must have."""
        with torch.no_grad():
            for name, tensor in self._state():
                if tensor is not state[name]:
                    tensor.copy_(state[name])
        self.round_into_model()


def _is_hidden_matrix(name: str, master: Tensor) -> bool:
    """Muon is for matrices between hidden states; embedding and head are tables of vectors."""
    return master.dim() == 2 and name != EMBEDDING and not name.startswith("lm_head.")
