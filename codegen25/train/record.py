"""What a run writes down: `run.json`, its settings and every start of it, and `log.jsonl`, what each step was.

`run.json` is `{"settings": …, "starts": [{"time", "step", "git", "environment", …}, …]}`. A line of `log.jsonl` is a
step (`loss`, `rate`, …; with `skipped`, why it was not taken) or what was measured behind one (`evaluation`).
"""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from codegen25 import __version__
from codegen25.data.document import write_text
from codegen25.errors import CodegenError

RUN, LOG = "run.json", "log.jsonl"
BUSY = "another run is at work here; wait for it or choose another folder"
# What may differ when a run goes on: its length, how its rate ends, a lower rate after losses that are no numbers, and
# what changes sums by no more than rounding.
MAY_CHANGE = ("train.steps", "train.decay", "train.rate", "train.checkpoint_every", "train.evaluate_every",
              "data.pass_tokens")  # fmt: skip


def check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Raise `CodegenError` naming what differs when the run recorded at `path` had other settings than these."""
    recorded = dict(_flat(_read(path)["settings"]))
    different = [
        f"{key} was {recorded.get(key)!r}, is now {value!r}"
        for key, value in _flat(settings)
        if key not in MAY_CHANGE and recorded.get(key) != value
    ]
    if different:
        raise CodegenError(
            f"{path}: the run was started with other settings: {'; '.join(different)}; "
            "set them back, or name another --out"
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record["settings"], dict) or not isinstance(record["starts"], list):
            raise TypeError("it has no settings")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CodegenError(
            f"{path}: cannot be read ({error}); without it a checkpoint cannot go on, name another --out"
        ) from error
    return dict(record)


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield above + key, value


def write_record(out: Path, settings: Mapping[str, Any], start: Mapping[str, Any], *, resumed: bool) -> None:
    """Write `run.json` with one more start."""
    earlier = _read(out / RUN)["starts"] if resumed else []
    record = {"settings": settings, "starts": [*earlier, start]}
    write_text(out / RUN, [json.dumps(record, indent=2) + "\n"])


def environment() -> dict[str, Any]:
    """What this process runs on."""
    cpu = torch.cpu.get_capabilities().get("cpu_name", platform.processor())
    return {
        "codegen25": __version__, "torch": torch.__version__, "python": platform.python_version(),
        "system": platform.platform(), "cpu": cpu, "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }  # fmt: skip


def git_state() -> dict[str, Any] | None:
    """The commit of this package's sources, and whether they differ from it; None where they lie in no repository."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=30)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "--", ".."))}
    except (OSError, subprocess.SubprocessError):
        return None


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Log:
    """`log.jsonl`, and TensorBoard's events when a folder for them is given."""

    def __init__(self, out: Path, events: Path | None = None) -> None:
        self._file = (out / LOG).open("a", encoding="utf-8")
        self._events: Any = None
        if events is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(events))

    def __enter__(self) -> Log:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()

    def write(self, line: Mapping[str, Any]) -> None:
        """One line, at once."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._events is not None:
            for key, value in _flat(line):
                if key != "step" and isinstance(value, int | float):
                    self._events.add_scalar(key.replace(".", "/"), value, line["step"])


def drop_log_behind(out: Path, step: int) -> None:
    """Steps after the checkpoint will be taken again, so their lines go, also one that was only half written."""
    log = out / LOG
    if log.exists():
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        write_text(log, [line for n, line in enumerate(whole, 1) if _logged_step(log, n, line) <= step])


def _logged_step(log: Path, number: int, line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError) as error:
        raise CodegenError(f"{log}:{number}: not a line of a training log; remove the line") from error
