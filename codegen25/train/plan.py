"""What a run needs before anything is rented: memory by part, time, data, checkpoints, cost. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from codegen25.config import ModelConfig
from codegen25.data.plain import aligned, short
from codegen25.errors import UsageError
from codegen25.train.accelerators import ACCELERATORS, Accelerator, Cluster
from codegen25.train.memory import BF16, FP32, Memory, OptimizerName, memory, moment_numbers
from codegen25.train.probe import training_flops

Stage = Literal["multi", "mono", "instruct"]
STAGES: tuple[Stage, ...] = ("multi", "mono", "instruct")
USABLE = 0.9  # of a device's memory: the rest is its context, its libraries and the allocator's slack
BYTES_PER_TOKEN = 3.1  # of text, as in the starter corpus (docs/results.md)
MOST_ROWS, MOST_DEVICES = 4096, 1 << 20
DAY = 86400
LABELS = {
    "weights": "weights, bf16",
    "masters": "masters, fp32",
    "moments": "moments, fp32",
    "gradients": "gradients, bf16",
    "step_gradients": "gradients summed up, fp32",
    "activations": "activations",
    "recomputed": "a layer computed again",
    "logits": "logits of a chunk, head's gradient",
    "communication": "whole blocks, buffers",
}


@dataclass(frozen=True)
class Plan:
    """A run: what is learned from how many tokens, where, and how a step is cut. `mfu` is a share of the peak."""

    name: str
    config: ModelConfig
    cluster: Cluster
    tokens: int
    stage: Stage = "multi"
    window: int = 2048
    rows: int = 4
    accumulate: int = 1
    epochs: float = 1.0
    optimizer: OptimizerName = "adamw"
    mfu: float = 0.4
    price_per_hour: float | None = None

    def __post_init__(self) -> None:
        for name in ("tokens", "window", "rows", "accumulate", "epochs"):
            if not getattr(self, name) > 0:
                raise UsageError(f"--{name} {getattr(self, name)}: must be positive")
        if not 0 < self.mfu <= 1:
            raise UsageError(f"--mfu {self.mfu}: must be over 0 and at most 1, the share of the peak that is reached")
        if self.window > self.config.max_positions:
            raise UsageError(f"--window {self.window}: {self.name} has {self.config.max_positions} positions at most")
        if self.price_per_hour is not None and self.price_per_hour < 0:
            raise UsageError(f"--price-per-hour {self.price_per_hour}: must not be negative")

    # ------------------------------------------------------------------------------------------------------------ time

    @property
    def tokens_per_step(self) -> int:
        return self.cluster.devices * self.rows * self.window * self.accumulate

    @property
    def steps(self) -> int:
        return -(-self.tokens // self.tokens_per_step)

    @property
    def weight_flops(self) -> float:
        """Of a token, in the weights: the 6 of `6ND`, looked-up rows of the embedding apart."""
        return training_flops(self.config, 1, 1, 0)

    @property
    def attention_flops(self) -> float:
        """Of a token, in attention over a row that is one document: of shorter documents it is less."""
        return training_flops(self.config, 0, 0, self.window * (self.window + 1) // 2) / self.window

    @property
    def flops(self) -> float:
        """Of the whole run."""
        return self.tokens * (self.weight_flops + self.attention_flops)

    @property
    def seconds(self) -> float:
        return self.flops / (self.cluster.devices * self.cluster.accelerator.peak * self.mfu)

    @property
    def cost(self) -> float | None:
        """In the currency of `price_per_hour`, which is that of one device."""
        return None if self.price_per_hour is None else self.price_per_hour * self.cluster.devices * self.seconds / 3600

    # ---------------------------------------------------------------------------------------------------------- memory

    def memory(self, *, checkpointing: bool, rows: int | None = None, devices: int | None = None) -> Memory:
        """Bytes on a device, or what they would be with other rows or devices."""
        return memory(
            self.config, rows=rows or self.rows, window=self.window, devices=devices or self.cluster.devices,
            optimizer=self.optimizer, checkpointing=checkpointing,
        )  # fmt: skip

    def fits(self, found: Memory, accelerator: Accelerator | None = None) -> bool:
        return found.peak <= USABLE * (accelerator or self.cluster.accelerator).memory

    def most_rows(self, *, checkpointing: bool) -> int:
        """How many rows at a time fit on a device; 0 when not even one does."""
        rows = 0
        while rows < MOST_ROWS and self.fits(self.memory(checkpointing=checkpointing, rows=rows + 1)):
            rows += 1
        return rows

    def remedies(self) -> list[str]:
        """What would make it fit; empty when it does as it is."""
        if self.fits(self.memory(checkpointing=False)):
            return []
        found = []
        for checkpointing in (False, True):
            rows, how = self.most_rows(checkpointing=checkpointing), "with" if checkpointing else "without"
            if rows >= self.rows:
                found.append(f"activation checkpointing at {self.rows} rows")
            elif rows:
                found.append(f"{rows} rows at a time {how} activation checkpointing")
        if not found:
            if devices := self._enough_devices():
                found.append(f"{devices} devices, one row at a time, with activation checkpointing")
            one = self.memory(checkpointing=True, rows=1)
            if larger := [name for name, other in ACCELERATORS.items() if self.fits(one, other)]:
                found.append(f"as many of {', '.join(larger)}, one row at a time, with activation checkpointing")
        return found or ["no number of these devices: a block and its activations are over one's memory"]

    def _enough_devices(self) -> int | None:
        """The fewest, doubling, on which one row fits with checkpointing."""
        devices = self.cluster.devices
        while devices <= MOST_DEVICES:
            if self.fits(self.memory(checkpointing=True, rows=1, devices=devices)):
                return devices
            devices *= 2
        return None

    # ------------------------------------------------------------------------------------------------------------ disk

    @property
    def unique_tokens(self) -> int:
        return round(self.tokens / self.epochs)

    @property
    def text_bytes(self) -> int:
        return round(self.unique_tokens * BYTES_PER_TOKEN)

    @property
    def shard_bytes(self) -> int:
        """Of token shards; an id takes two bytes while it can."""
        return self.unique_tokens * (2 if self.config.vocab_size <= 1 << 16 else 4)

    @property
    def state_bytes(self) -> int:
        """Of one checkpoint that training goes on from: masters and moments."""
        return FP32 * (self.config.parameters + moment_numbers(self.config, self.optimizer))

    @property
    def model_bytes(self) -> int:
        """Of the model folder."""
        return BF16 * self.config.parameters

    @property
    def traffic(self) -> int:
        """Bytes that a device receives a step: bf16 weights forward and backward, and gradients, of other shards."""
        others = self.cluster.devices - 1
        return 3 * BF16 * self.config.parameters * others // self.cluster.devices * self.accumulate

    # ----------------------------------------------------------------------------------------------------------- shown

    def to_json(self) -> dict[str, Any]:
        plain, saved = (self.memory(checkpointing=checkpointing) for checkpointing in (False, True))
        accelerator, days = self.cluster.accelerator, self.seconds / DAY
        return {
            "shape": self.name,
            "stage": self.stage,
            "parameters": self.config.parameters,
            "tokens": self.tokens,
            "devices": self.cluster.devices,
            "accelerator": {
                "name": accelerator.name, "peak_flops": accelerator.peak, "memory": accelerator.memory,
                "source": accelerator.source,
            },
            "rows": self.rows,
            "window": self.window,
            "accumulate": self.accumulate,
            "optimizer": self.optimizer,
            "tokens_per_step": self.tokens_per_step,
            "steps": self.steps,
            "flops_per_token": {
                "weights": self.weight_flops, "attention": self.attention_flops
            },
            "flops": self.flops,
            "mfu": self.mfu,
            "days": days,
            "tokens_per_second": self.tokens / self.seconds,
            "step_seconds": self.seconds / self.steps,
            "cost": self.cost,
            "memory": {"plain": plain.to_json(), "checkpointing": saved.to_json()},
            "fits": {"plain": self.fits(plain), "checkpointing": self.fits(saved)},
            "most_rows": {
                "plain": self.most_rows(checkpointing=False), "checkpointing": self.most_rows(checkpointing=True)
            },
            "remedies": self.remedies(),
            "traffic_per_step": self.traffic,
            "bytes": {
                "text": self.text_bytes, "shards": None if self.stage == "instruct" else self.shard_bytes,
                "checkpoint": self.state_bytes, "model": self.model_bytes,
            },
        }  # fmt: skip


def describe(plan: Plan) -> str:
    """The plan for a person, as text."""
    return "\n\n".join("\n".join(part) for part in (_run(plan), _memory(plan), _disk(plan))) + "\n"


def _run(plan: Plan) -> list[str]:
    config, accelerator = plan.config, plan.cluster.accelerator
    weights, attention = plan.weight_flops, plan.attention_flops
    step = f"{plan.cluster.devices} x {plan.rows} rows x {plan.window} tokens"
    if plan.accumulate > 1:
        step += f" x {plan.accumulate} times"
    flops = f"{short(weights)} in weights (6 each), {short(attention)} in attention over {plan.window}"
    peak = f"{short(accelerator.peak, 'FLOP/s')} bf16, {short(accelerator.memory, 'B')}"
    speed = f"{short(plan.tokens / plan.seconds)} tokens/s, {_time(plan.seconds / plan.steps)} a step"
    rows = [
        ("parameters", f"{config.parameters:,}"),
        ("FLOPs a token", f"{short(weights + attention, 'FLOP')}: {flops}"),
        ("FLOPs in all", f"{plan.flops:.3g}, for {short(plan.tokens)} tokens"),
        ("a step", f"{plan.tokens_per_step:,} tokens ({step}); {plan.steps:,} steps"),
        ("peak of a device", f"{peak} ({accelerator.source})"),
        ("time", f"{_time(plan.seconds)} at {100 * plan.mfu:.0f} % of the peak; {speed}"),
    ]
    if plan.cost is not None:
        rows.append(("cost", f"{plan.cost:,.0f} at {plan.price_per_hour:g} an hour and device"))
    width = max(len(name) for name, _ in rows)
    title = f"{plan.name}, stage {plan.stage}, {short(plan.tokens)} tokens on {plan.cluster}, {plan.optimizer}"
    return [title, *(f"{name:{width}}  {value}" for name, value in rows)]


def _memory(plan: Plan) -> list[str]:
    plain, saved = (plan.memory(checkpointing=checkpointing) for checkpointing in (False, True))
    devices = plan.cluster.devices
    rows: list[tuple[str, ...]] = [(f"memory of a device, {plan.rows} rows", "plain", "checkpointing")]
    rows += [
        (label, _gb(getattr(plain, part)), _gb(getattr(saved, part)))
        for part, label in LABELS.items()
        if getattr(saved, part)
    ]
    rows.append(("at most at once", _gb(plain.peak), _gb(saved.peak)))
    rows.append(("fits", *("yes" if plan.fits(one) else "NO" for one in (plain, saved))))
    rows.append(("most rows that fit", *(str(plan.most_rows(checkpointing=one)) for one in (False, True))))
    lines = aligned(rows)
    if devices > 1:
        rate = short(plan.traffic / (plan.seconds / plan.steps), "B/s")
        lines.append(
            f"sharded: FSDP2, full shard; a device keeps 1/{devices} of weights, masters, moments and gradients, and "
            f"receives {short(plan.traffic, 'B')} a step ({rate} hide it)"
        )
    else:
        lines.append("sharded: not at all, one device")
    remedies = plan.remedies()
    if remedies:
        lines.append(f"as planned it does not fit in {short(plan.cluster.accelerator.memory, 'B')}; what would:")
        lines += [f"  {remedy}" for remedy in remedies]
    return lines


def _disk(plan: Plan) -> list[str]:
    epochs = "" if plan.epochs == 1 else f", read {plan.epochs:g} times"
    rows = [("on disk", ""), ("text", f"{short(plan.text_bytes, 'B')} ({BYTES_PER_TOKEN} bytes a token{epochs})")]
    if plan.stage != "instruct":
        rows.append(("token shards", short(plan.shard_bytes, "B")))
    rows.append(
        ("a checkpoint", f"{short(plan.state_bytes, 'B')} (masters and moments); twice that while one is written")
    )
    rows.append(("the model", f"{short(plan.model_bytes, 'B')}, bf16"))
    if plan.stage != "multi":
        rows.append(("to start from", f"{short(plan.model_bytes, 'B')}: the model of the stage before"))
    width = max(len(name) for name, _ in rows)
    return [f"{name:{width}}  {value}".rstrip() for name, value in rows]


def _gb(number: int) -> str:
    return f"{number / 1e9:.3f} GB" if number < 1e10 else f"{number / 1e9:.1f} GB"


def _time(seconds: float) -> str:
    for size, unit in ((DAY, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2f} s"
