"""The processes of a run. Alone, or as torchrun starts them: their sums, the sharding of weights, and who is lost.

Weights, masters and moments are sharded by FSDP2 (`fully_shard`, Zhao et al., 2023), a block at a time, and gradients
are summed in fp32. A thread in every process tells the store that it is alive; when one falls silent the others end,
and say which it was.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from codegen25.errors import CodegenError, say
from codegen25.model.llama import Llama

# Seconds between signs of life; without one for so long a process counts as lost, sooner when a collective call has
# failed already; then the others have so long to end by themselves. A run ends within a minute.
BEAT, SILENCE, SOON, GRACE = 2.0, 20.0, 7.0, 10.0
# A collective call that takes longer fails. What one process does alone meanwhile must be shorter.
TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class World:
    """This process among `size`, and where its tensors live."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all ranks, in double precision."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def maxima(self, values: Sequence[float]) -> list[float]:
        return self._reduced(values, dist.ReduceOp.MAX)

    def _reduced(self, values: Sequence[float], how: dist.ReduceOp.RedOpType) -> list[float]:
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, how)
        found: list[float] = tensor.tolist()
        return found

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """The world that torchrun's environment tells of; this process alone where there is none.

    Raises `CodegenError` naming the process that was lost, when one was.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World(device=device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    world = World(dist.get_rank(), dist.get_world_size(), device)
    pulse = Pulse(world)
    pulse.start()
    try:
        yield world
    except CodegenError as error:
        pulse.end(f"{error}")
        raise
    except RuntimeError as error:  # what a collective call raises when a process is gone
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun asks all to end; first it is said why
        if (lost := pulse.lost()) is None:
            raise
        raise CodegenError(lost) from error
    else:
        world.barrier()
        pulse.end("")
        dist.destroy_process_group()


class Pulse(threading.Thread):
    """Tells the store that this process lives, and listens to the others."""

    def __init__(self, world: World) -> None:
        super().__init__(name="pulse", daemon=True)
        self._world = world
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self._store = dist.TCPStore(  # type: ignore[attr-defined]
            host, port, is_master=False, timeout=timedelta(seconds=SILENCE)
        )
        self._keys = [f"codegen25/pulse/{rank}" for rank in range(world.size)]
        self._ended = threading.Event()
        self._lost: str | None = None
        self._silence = SILENCE
        # What each rank said last, and at which beat of this one: a machine that sleeps hears nothing, and misses none.
        self._heard = [(b"", 0)] * world.size
        self._beat = 0
        self._store.set(self._keys[world.rank], "0")

    def run(self) -> None:
        while not self._ended.wait(BEAT):
            self._beat += 1
            try:
                self._store.set(self._keys[self._world.rank], str(self._beat))
                self._listen(self._store.multi_get(self._keys))
            except RuntimeError:
                self._lost = self._lost or self._say("rank 0, or torchrun on its machine,", "is gone")
            if self._lost and not self._ended.wait(GRACE):
                # The main thread hangs in a call that nothing will answer.
                say(f"error: {self._lost}")
                os._exit(1)

    def _listen(self, values: Sequence[bytes]) -> None:
        for rank, value in enumerate(values):
            if value != self._heard[rank][0]:
                self._heard[rank] = value, self._beat
            if value.startswith(b"ended") and value != b"ended":
                self._lost = self._say(f"rank {rank}", f"ended: {value.decode()[len('ended ') :]}")
            elif value != b"ended" and (self._beat - self._heard[rank][1]) * BEAT > self._silence:
                self._lost = self._say(f"rank {rank}", f"has given no sign of life for {self._silence:.0f} seconds")

    def _say(self, who: str, what: str) -> str:
        return f"{who} of {self._world.size} {what}; run the same command again, it goes on from its newest checkpoint"

    def lost(self) -> str | None:
        """What was lost, behind a collective call that failed; waits for it to be noticed."""
        self._silence = SOON
        until = time.monotonic() + SOON + 2 * BEAT
        while self._lost is None and time.monotonic() < until:
            time.sleep(0.1)
        self._ended.set()
        return self._lost

    def end(self, reason: str) -> None:
        """Tell the others that this process ends; `reason` is empty when all is well."""
        self._ended.set()
        try:
            self._store.set(self._keys[self._world.rank], f"ended {reason}".strip())
        except RuntimeError:  # whoever held the store is gone, too
            return


class Exchange:
    """The mean of every rank's gradient, of which each rank gets its part: a reduce-scatter for CPUs.

    Ranks send each other the parts that these are to have, in the gradient's own dtype, and each sums its own in fp32,
    in the order of ranks. That is half of what travels when gradients are made fp32 first, and gloo's own
    reduce-scatter takes several times as long. NCCL's adds on the way, so there they must be.
    """

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: torch.Tensor, input_tensor: torch.Tensor, group: dist.ProcessGroup,
        op: dist.ReduceOp.RedOpType, async_op: bool = False,
    ) -> None:  # fmt: skip
        """`input_tensor` [ranks * n], `output_tensor` [n]: as `torch.distributed.reduce_scatter_tensor` by AVG."""
        assert op == dist.ReduceOp.AVG and not async_op, "FSDP asks for means, and waits for them"
        parts = torch.empty_like(input_tensor)
        dist.all_to_all_single(parts, input_tensor, group=group)
        total = parts.view(group.size(), -1).sum(0, dtype=torch.float32)
        output_tensor.copy_(total.div_(group.size()))


def shard(learner: nn.Module, model: Llama, world: World) -> None:
    """Shard the weights of `model`, and make calls of `learner`, which holds it, gather them a block at a time."""
    on_cpu = world.device.type == "cpu"
    policy = MixedPrecisionPolicy(reduce_dtype=None if on_cpu else torch.float32)
    mesh = init_device_mesh(world.device.type, (world.size,))
    for module in (*model.layers, learner):
        sharded = fully_shard(module, mesh=mesh, mp_policy=policy)
        if on_cpu:
            sharded.set_custom_reduce_scatter(Exchange())


def rows_before(tensor: DTensor) -> int:
    """How many of its rows lie on the ranks before this one; FSDP2 shares them out in equal runs, but for the last."""
    return -(-tensor.shape[0] // tensor.device_mesh.size()) * tensor.device_mesh.get_local_rank()


@torch.no_grad()
def unsharded(model: Llama) -> Llama:
    """A copy of a sharded model with all its weights, on every rank, all of which must ask; any other one itself."""
    weights = dict(model.named_parameters())
    if not any(isinstance(parameter, DTensor) for parameter in weights.values()):
        return model
    with torch.device("meta"):
        copy = Llama(model.config)
    for name, parameter in weights.items():
        owner, _, leaf = name.rpartition(".")
        tensor = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        setattr(copy.get_submodule(owner), leaf, nn.Parameter(tensor.detach(), requires_grad=False))
    if model.config.tied:
        copy.lm_head.weight = copy.embed_tokens.weight
    return copy
