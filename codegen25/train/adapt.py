"""A model adapted to a repository: low-rank sums, trained for minutes on its files, measured on some it keeps back.

A run folder holds, beside what a run's does, `adapter` (PEFT's format) and, when it is to be merged, `model`, a plain
folder that every command loads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from codegen25.data.alone import alone
from codegen25.data.document import write_text
from codegen25.errors import CodegenError, UsageError
from codegen25.model.llama import Llama
from codegen25.tokenizer import Tokenizer
from codegen25.train.batches import Batches
from codegen25.train.cards import write_card
from codegen25.train.examples import Corrupted
from codegen25.train.folders import open_start, replaced, write_model
from codegen25.train.heldout import HeldOut, drawn
from codegen25.train.lora import Lora, adapt, merged_weights, write_adapter
from codegen25.train.loss import Learner
from codegen25.train.objective import Objective
from codegen25.train.parallel import World
from codegen25.train.probe import native_dtype
from codegen25.train.record import BUSY
from codegen25.train.repository import MOST, Repository, SourceFile, read_repository
from codegen25.train.runs import read_run
from codegen25.train.texts import ListedTexts
from codegen25.train.trainer import Extras, Show, TrainConfig, Trainer

ADAPTER, MODEL, RESULT = "adapter", "model", "adapt.json"
# What an editor asks, most of it a line or the rest of one; the text around is learned as well.
OBJECTIVE = Objective(infill_rate=0.7, mixture={"anchored": 0.75, "line": 0.15, "cursor": 0.1}, max_holes=2)
# Measured with: tokens of each held-out file, and lines of them.
PIECE, LINES, LINES_OF_A_FILE = 512, 96, 8
# Steps whose time is taken before; the first is not counted.
TIMED = 3
Say = Callable[[str], None]


@dataclass(frozen=True)
class Adaptation:
    """What is asked for. `minutes` are about those of the whole, measuring included; `steps` given, they count."""

    repository: Path
    out: Path
    init: str = "nano"
    minutes: float = 10.0
    steps: int | None = None
    merge: bool = True
    lora: Lora = field(default_factory=Lora)
    rate: float = 2e-3
    documents_per_step: int = 4
    window: int = 512
    seed: int = 0
    dtype: str = "auto"

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise UsageError(f"--minutes {self.minutes}: must be positive")


def run(job: Adaptation, say: Say, show: Show | None = None) -> dict[str, Any]:
    """Measure, train, measure again, and write the adapter and the model; what was done.

    Ctrl-C and SIGTERM end the training behind the current step; what was learned by then is written. Raises
    `CodegenError` for everything a person can cause.
    """
    with alone(job.out, BUSY):
        return _run(job, say, show)


def _run(job: Adaptation, say: Say, show: Show | None) -> dict[str, Any]:
    began = time.perf_counter()
    repository = read_repository(job.repository)
    say(_found(job.repository, repository))
    device = torch.device("cpu")
    dtype = native_dtype(device) if job.dtype == "auto" else job.dtype
    model, tokenizer = open_start(job.init, None, dtype=dtype, device=device, seed=job.seed)
    pieces, holes = drawn(
        _texts(repository.heldout), tokenizer, PIECE, documents=MOST, holes=LINES, each=LINES_OF_A_FILE
    )
    heldout = HeldOut(pieces, holes, tokenizer, stop=("\n",))
    examples = Corrupted(_texts(repository.learned), tokenizer, OBJECTIVE, fill=job.window)
    batches = Batches(examples, job.seed, job.documents_per_step, job.window)
    earlier = _earlier(job.out)
    say(f"measuring {len(holes)} lines of the files held out" if earlier is None else "going on")
    measuring = time.perf_counter()
    before = heldout.measure(model, World()) if earlier is None else earlier["before"]
    measuring = time.perf_counter() - measuring
    adapt(model, job.lora, job.seed)
    left = 60 * job.minutes - (time.perf_counter() - began) - measuring
    steps = job.steps or (earlier["steps"] if earlier else _steps(model, batches, left))
    _remember(job.out, {"before": before, "steps": steps, "lines": len(holes)})
    trainer = Trainer(model, batches, _config(job, steps), job.out, extras=_extras(job))
    trainer.run(show)
    _write(job, model, tokenizer, dtype)
    stopped = trainer.step < steps
    after = None if stopped else heldout.measure(model, World())
    made = {
        "run": str(job.out), "adapter": str(job.out / ADAPTER), "model": str(job.out / MODEL) if job.merge else None,
        "learned_files": len(repository.learned), "heldout_files": [file.path for file in repository.heldout],
        "step": trainer.step, "steps": steps, "tokens": trainer.tokens, "lines": len(holes),
        "before": before, "after": after, "seconds": round(time.perf_counter() - began, 1),
    }  # fmt: skip
    if job.merge:
        write_card(job.out / MODEL, read_run(job.out), _compared(before, after) if after else ())
    _remember(job.out, made)
    return made


def _compared(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was measured on the files held out, before and after, as rows of a card."""
    bits = before["bits_per_byte"]
    rows = [(f"bits per byte of {name}", bits[name], after["bits_per_byte"][name]) for name in bits]
    exact = [key for key in ("infill_exact", "infill_alike") if key in before]
    rows += [(key.replace("_", " "), before[key], after[key]) for key in exact]
    return [(f"held-out files, {name}", f"{one:.4g} before, {other:.4g} after") for name, one, other in rows]


def _texts(files: Sequence[SourceFile]) -> ListedTexts:
    return ListedTexts([file.text for file in files], [file.language for file in files])


def _found(root: Path, repository: Repository) -> str:
    out = ", ".join(f"{count} {reason}" for reason, count in repository.left_out.most_common(4)) or "none"
    return (
        f"{root}: {len(repository.learned)} files to learn, {len(repository.heldout)} held out; left out: {out}; "
        f"{repository.redacted} secrets and addresses replaced; licences do not matter for one's own code"
    )


def _steps(model: Llama, batches: Batches, seconds: float) -> int:
    """How many steps take about `seconds`, by the time of the first ones."""
    learner, taken = Learner(model.train()), []
    for step in range(TIMED):
        began = time.perf_counter()
        for batch in batches.batch(step):
            learner(batch).backward()
        taken.append(time.perf_counter() - began)
    model.zero_grad(set_to_none=True)
    each = sum(taken[1:]) / (TIMED - 1)
    return max(1, int((seconds - sum(taken)) / each))


def _config(job: Adaptation, steps: int) -> TrainConfig:
    return TrainConfig(
        steps=steps, rate=job.rate, warmup=max(1, steps // 20), decay=max(1, steps // 2), weight_decay=0.0,
        checkpoint_every=25,
    )  # fmt: skip


def _extras(job: Adaptation) -> Extras:
    settings = {"stage": "adapt", "lora": asdict(job.lora), "objective": asdict(OBJECTIVE)}
    return Extras(settings | {"init": job.init}, {"data": str(job.repository)})


def _write(job: Adaptation, model: Llama, tokenizer: Tokenizer, dtype: str) -> None:
    """The adapter, and the merged model; each whole or not at all."""
    with replaced(job.out / ADAPTER) as aside:
        write_adapter(model, job.lora, aside, job.init)
    if job.merge:
        write_model(merged_weights(model), model.config, tokenizer, job.out / MODEL, dtype)


def _earlier(out: Path) -> dict[str, Any] | None:
    """What an earlier start of this run noted; None where there was none."""
    path = out / RESULT
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {"before": dict(found["before"]), "steps": int(found["steps"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CodegenError(f"{path}: cannot be read ({error}); name another --out") from error


def _remember(out: Path, made: Mapping[str, Any]) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / RESULT, [json.dumps(made, indent=2) + "\n"])
    except OSError as error:
        raise CodegenError(f"{out}: cannot be written ({error.strerror}); name another --out") from error


def describe(made: Mapping[str, Any]) -> str:
    """What `run` returned, for a person."""
    lines = [f"{made['step']} of {made['steps']} steps, {made['tokens']:,} tokens, {made['seconds'] / 60:.1f} minutes"]
    before, after = made["before"], made["after"]
    if after is None:
        lines.append("stopped before its end, so not measured; the same command goes on")
    else:
        lines.append(f"{'held-out files':28} {'before':>8} {'after':>8}")
        for language, bits in before["bits_per_byte"].items():
            name = "bits per byte" if language == "all" else f"  {language}"
            lines.append(f"{name:28} {bits:8.3f} {after['bits_per_byte'][language]:8.3f}")
        if "infill_exact" in before:
            for key, title in (
                ("infill_exact", f"single lines exact, of {made['lines']}"),
                ("infill_alike", "  alike"),
            ):
                shares = [100 * one[key] for one in (before, after)]
                lines.append(f"{title:28} {shares[0]:6.1f} % {shares[1]:6.1f} %")
    lines.append(f"adapter: {made['adapter']}")
    if made["model"]:
        lines.append(f"model: {made['model']} (codegen25 complete --model {made['model']} …)")
    return "\n".join(lines) + "\n"
