"""`codegen25 plan` and `codegen25 report`: what a run needs before it begins, and how runs went."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codegen25.config import SHAPES
from codegen25.errors import UsageError, needs_extra, say
from codegen25.terminal import count, write, write_json

if TYPE_CHECKING:
    from codegen25.train.accelerators import Cluster

FOLDER = click.Path(path_type=Path)
# Shares of the peak that runs reach: of a GPU as published, of a CPU as `codegen25 bench train` asks.
_GPU_MFU, _CPU_MFU = 0.4, 0.55
MEASURED = 2.0  # seconds


@click.command()
@click.option("--shape", type=click.Choice(list(SHAPES)), required=True, help="Of the model.")
@click.option("--tokens", type=count, required=True, help="To learn from, such as 20M or 1.4T.")
@click.option("--gpus", required=True, metavar="NxDEVICE", help="Such as 256xH100; 1xcpu is this machine, measured.")
@click.option("--stage", type=click.Choice(["multi", "mono", "instruct"]), default="multi", help="Of training.")
@click.option("--window", type=int, show_default="2048 or the shape's", help="Tokens of a row.")
@click.option("--rows", type=int, default=4, help="Rows of a device at a time.")
@click.option("--accumulate", type=int, default=1, help="Such passes a step.")
@click.option("--epochs", type=float, default=1.0, help="How often the data is read.")
@click.option("--optimizer", type=click.Choice(["adamw", "muon"]), default="adamw")
@click.option(
    "--mfu", type=float, show_default=f"{_GPU_MFU}; cpu {_CPU_MFU}", help="Share of the peak, recomputation apart."
)
@click.option("--price-per-hour", type=float, help="Of one device.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
@needs_extra("torch", "plan")
def plan(
    shape: str, tokens: int, gpus: str, stage: str, window: int | None, mfu: float | None, as_json: bool, **given: Any
) -> None:
    """What a run needs: parameters, FLOPs, memory of a device by part, time, bytes of data and checkpoints, cost.

    Memory is what our trainer allocates; measured runs are held against it. Time is the FLOPs by the peak and --mfu.

    \b
    Examples:
      codegen25 plan --shape 7b --tokens 1.4T --gpus 256xH100 --price-per-hour 2.5
      codegen25 plan --shape nano --tokens 3M --gpus 1xcpu --window 512 --json
    """
    from codegen25.train.plan import Plan, describe

    config = SHAPES[shape]
    made = Plan(
        shape, config, cluster := _cluster(gpus), tokens, stage=stage,  # type: ignore[arg-type]
        window=min(2048, config.max_positions) if window is None else window,
        mfu=(_CPU_MFU if cluster.accelerator.name == "cpu" else _GPU_MFU) if mfu is None else mfu, **given,
    )  # fmt: skip
    if as_json:
        write_json(made.to_json())
    else:
        write(describe(made))


def _cluster(gpus: str) -> Cluster:
    from codegen25.train.accelerators import ACCELERATORS, CPU, Accelerator, Cluster, parse_cluster

    devices, name = parse_cluster(gpus)
    if name != CPU:
        return Cluster(devices, ACCELERATORS[name])
    from codegen25.engine.machine import available_memory
    from codegen25.train.probe import gemm_peak

    peak = gemm_peak(seconds=MEASURED)
    return Cluster(devices, Accelerator(CPU, peak, available_memory(), "measured here"))


@click.command()
@click.argument("runs", nargs=-1, required=True, type=FOLDER, metavar="RUN…")
@click.option("--out", type=FOLDER, help="The page, an .html file.")
@click.option("--json", "as_json", is_flag=True, help="Write each run in numbers, with its forecast.")
@needs_extra("torch", "report")
def report(runs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """One HTML page of runs: curves in one figure each, what was measured, samples, settings and how they differ.

    What more tokens would bring is told by a power law through the losses. A run may be in progress, or have been cut
    off. The page needs nothing from elsewhere.

    \b
    Examples:
      codegen25 report runs/multi --out report.html
      codegen25 report runs/adamw runs/muon --out report.html
      codegen25 report runs/mono --json
    """
    from codegen25.train.report import summary, write_report
    from codegen25.train.runs import read_run

    if out is None and not as_json:
        raise UsageError("report: name the page as --out, or ask for --json")
    read = [read_run(run) for run in runs]
    if out is not None:
        write_report(read, out)
        say(f"{out}: written")
    if as_json:
        write_json({"runs": [summary(run) for run in read]})
