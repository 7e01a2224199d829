"""One line that says how a run goes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any


def live_line(line: Mapping[str, Any], steps: int, seconds_a_step: float) -> str:
    """`line` is one of `log.jsonl` that tells of a step."""
    if "skipped" in line:
        return f"step {line['step']}/{steps}  skipped: {line['skipped']}"
    mfu = f"  MFU {100 * line['mfu']:.0f} %" if "mfu" in line else ""
    return (
        f"step {line['step']}/{steps}  loss {line['loss']:.3f}  norm {line['norm']:.2f}  {line['tokens']:,} tokens  "
        f"{line['tokens_per_second']:.0f} tok/s{mfu}  {_left((steps - line['step']) * seconds_a_step)} left"
    )


def _left(seconds: float) -> str:
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def print_live(line: str) -> None:
    """On a terminal one line that is written over; in a file a line each."""
    with suppress(BrokenPipeError):
        sys.stderr.write(f"\r\x1b[K{line}" if sys.stderr.isatty() else line + "\n")
        sys.stderr.flush()
