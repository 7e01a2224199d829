"""`codegen25 train` beside transformers' Trainer, the machine's peak, itself on two ranks, and AdamW beside Muon.

Ours is the command itself, in a process of its own, on real code; what a step took is read from the log that it
writes. A step is as many full rows for all, and each row one document. The first two steps of each, in which
memory is still asked for, are not counted.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from codegen25.bench.figures import Bar, Figure, Options
from codegen25.bench.peer import Peer, PeerError
from codegen25.config import SHAPES
from codegen25.errors import CodegenError

HF = "hf-trainer"
# What people run who change nothing, and the best that we found.
SETTINGS: Mapping[str, tuple[Mapping[str, Any], Bar]] = {
    "its defaults": ({}, Bar(">=", 2.0)),
    "bf16, fused AdamW": ({"bf16": True, "optim": "adamw_torch_fused", "logging_strategy": "no"}, Bar(">=", 1.3)),
}
PEAK, RANKS, TO_LOSS = Bar(">=", 0.55), Bar(">=", 1.7), Bar("<=", 0.6)
BARRED = "nano"  # the shape that the bar of the peak is for
WINDOW = 512
# A document is longer than a row.
CHARACTERS, DOCUMENTS = (6_000, 60_000), 400
# Steps that are not counted.
WARM = 2
# Of the comparison by loss: its shape, rows of a step, steps, rate, and losses that a mean is taken of.
SMALL, SMALL_ROWS, SMALL_STEPS, RATE, SMOOTHED = "pico", 4, 80, 2e-3, 8


@dataclass(frozen=True)
class Ours:
    """One run of the command: its steps, as it logged them."""

    steps: Sequence[Mapping[str, float]]

    @property
    def rates(self) -> list[float]:
        return [step["tokens_per_second"] for step in self.steps[WARM:]]

    @property
    def shares(self) -> list[float]:
        """Of the peak."""
        return [step["mfu"] for step in self.steps[WARM:]]

    def losses(self) -> list[tuple[float, float]]:
        """Seconds since the first step began, and the mean of the last losses."""
        found, seconds, tokens = [], 0.0, 0.0
        for number, step in enumerate(self.steps):
            seconds += (step["tokens"] - tokens) / step["tokens_per_second"]
            tokens = step["tokens"]
            last = self.steps[max(0, number + 1 - SMOOTHED) : number + 1]
            if len(last) == SMOOTHED:
                found.append((seconds, sum(one["loss"] for one in last) / SMOOTHED))
        return found


def run(options: Options, *, shape: str, rows: int, seed: int = 0) -> Iterator[Figure]:
    """All figures, as they are measured; `options.rounds` steps of each count."""
    with TemporaryDirectory(prefix="codegen25-bench-") as scratch:
        work = Path(scratch)
        documents = write_documents(work / "code.jsonl", seed)
        options.say(f"{shape}: ours")
        ours = train(work, documents, shape, rows, options.rounds + WARM, threads=options.threads)
        yield from _beside_hf(ours, options, shape, rows)
        note = "the best of many products of two bf16 matrices of 2,048 x 2,048, measured before each run"
        bar = PEAK if shape == BARRED else None
        yield Figure(f"share of the peak, {shape}", "", ours.shares, [1.0], "GEMM peak", bar, note)
        yield _ranks(work, documents, options, shape, rows)
        yield _to_loss(work, documents, options)


def write_documents(path: Path, seed: int) -> Path:
    """Long files of the standard library as a JSONL file. Raises `CodegenError` when there are none."""
    found = sorted(
        file for file in Path(sysconfig.get_path("stdlib")).rglob("*.py")
        if "site-packages" not in file.parts and CHARACTERS[0] <= file.stat().st_size <= CHARACTERS[1]
    )  # fmt: skip
    random.Random(seed).shuffle(found)
    if not found:
        raise CodegenError("this Python has no sources of its library to learn from; use one that has")
    texts = (file.read_text(encoding="utf-8", errors="replace") for file in found[:DOCUMENTS])
    path.write_text("".join(json.dumps({"content": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def train(
    work: Path, documents: Path, shape: str, rows: int, steps: int, *, threads: int, ranks: int = 1,
    more: Mapping[str, Any] | None = None,
) -> Ours:  # fmt: skip
    """Run the command for some steps on `threads` cores a rank. Raises `CodegenError` when it fails."""
    out = work / f"run-{len(list(work.iterdir()))}"
    flags = {
        "data": documents, "shape": shape, "out": out, "steps": steps, "documents-per-step": rows, "window": WINDOW,
        "pass-tokens": rows * WINDOW, "infill-rate": 0, "warmup": 1, "decay": 0, "checkpoint-every": 10**9,
        **(more or {}),
    }  # fmt: skip
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *launch, "-m", "codegen25", "train"]
    command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise CodegenError(f"bench train: `codegen25 train --shape {shape}` failed: {last}")
    lines = (out / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return Ours([line for line in map(json.loads, lines) if "loss" in line and "skipped" not in line])


def _beside_hf(ours: Ours, options: Options, shape: str, rows: int) -> Iterator[Figure]:
    config = SHAPES[shape].to_hf()
    if HF not in options.peers:
        for name, (_, bar) in SETTINGS.items():
            yield Figure(f"training {shape}, {name}", "tokens/s", ours.rates, [], HF, bar, "not asked for")
        return
    for name, (settings, bar) in SETTINGS.items():
        options.say(f"{shape}: transformers' Trainer, {name}")
        rates, note = [], f"{rows} rows of {WINDOW} tokens a step"
        try:
            with Peer.start(HF, options) as peer:
                note = f"{note}; transformers {peer.call('load', threads=options.threads)['version']}"
                arguments = {"rows": rows, "window": WINDOW, "steps": options.rounds + WARM, "settings": dict(settings)}
                seconds = peer.call("run", config=config, **arguments)["seconds"]
                rates = [rows * WINDOW / taken for taken in seconds[WARM:]]
        except PeerError as error:
            note = str(error)
        yield Figure(f"training {shape}, {name}", "tokens/s", ours.rates, rates, HF, bar, note)


def _ranks(work: Path, documents: Path, options: Options, shape: str, rows: int) -> Figure:
    """Twice the rows on two ranks, each as many as the one rank has."""
    options.say(f"{shape}: one rank and two, a core each")
    one = train(work, documents, shape, rows, options.rounds + WARM, threads=1)
    two = train(work, documents, shape, 2 * rows, options.rounds + WARM, threads=1, ranks=2)
    note = f"{rows} rows of a rank and step, weights sharded over both"
    return Figure(f"two ranks, {shape}", "tokens/s", two.rates, one.rates, "one rank, one core", RANKS, note)


def _to_loss(work: Path, documents: Path, options: Options) -> Figure:
    """How long Muon takes to the loss that AdamW ends with, and how long AdamW took to it."""
    curves = {}
    for kind in ("adamw", "muon"):
        options.say(f"{SMALL}: {SMALL_STEPS} steps of {kind}")
        more = {"optimizer": kind, "rate": RATE, "warmup": SMALL_STEPS // 10}
        curves[kind] = train(
            work, documents, SMALL, SMALL_ROWS, SMALL_STEPS, threads=options.threads, more=more
        ).losses()  # fmt: skip
    target = curves["adamw"][-1][1]
    times = {kind: first_below(curve, target) for kind, curve in curves.items()}
    muon, adamw = times["muon"], times["adamw"]
    note = f"to a loss of {target:.3f} nats, where AdamW is after {SMALL_STEPS} steps, both at a rate of {RATE:g}"
    if muon is None:
        note += "; Muon did not reach it"
    ours = [] if muon is None else [muon]
    return Figure(f"Muon to AdamW's loss, {SMALL}", "s", ours, [adamw or 0.0], "AdamW", TO_LOSS, note)


def first_below(curve: Sequence[tuple[float, float]], target: float) -> float | None:
    """The first time at which a loss is at most `target`; None when it never is."""
    return next((seconds for seconds, loss in curve if loss <= target), None)
