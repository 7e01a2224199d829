"""Where the work of a build runs: on Daft, in processes of this machine or on a Ray cluster, by the same calls.

Two kinds of work are all a build needs: the same function over many items, and finding rows that share a value. On
Ray, workers must see the folders of the build under the same paths, as on a shared file system.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from codegen25.errors import CodegenError

# Read when they are imported: neither tells its makers what is done here, and progress is shown by the commands.
os.environ.update(DAFT_ANALYTICS_ENABLED="0", DO_NOT_TRACK="true", RAY_USAGE_STATS_ENABLED="0")
os.environ.setdefault("DAFT_PROGRESS_BAR", "0")

import daft
from daft import col

Runner = Literal["native", "ray"]
Task = Callable[[str], str]
# Grouping keeps about 0.7 KB a row of these in memory, counted from below by its lists of one.
ROWS_AT_ONCE = 500_000


class _Worker:
    """Runs in a process of its own. What a person can cause comes back as a value: exceptions would be wrapped."""

    def __init__(self, make: Callable[..., Task], arguments: tuple[Any, ...]) -> None:
        self._make, self._arguments = make, arguments
        self._task: Task | None = None

    def __call__(self, item: str) -> str:
        try:
            if self._task is None:
                self._task = self._make(*self._arguments)
            return json.dumps({"result": self._task(item)})
        except CodegenError as error:
            return json.dumps({"error": str(error)})
        except OSError as error:
            where = error.filename or "the folder of the build"  # a write that fails names no file
            return json.dumps({"error": f"{where}: {error.strerror or error}; free space or mend it, then run again"})


@dataclass(frozen=True)
class Engine:
    """`workers` processes in which tasks run, on this machine or on Ray."""

    runner: Runner = "native"
    workers: int = 1

    def start(self) -> None:
        """Choose Daft's runner. Raises CodegenError where that is not possible."""
        daft.set_execution_config(maintain_order=False)
        if self.runner == "native":
            return
        try:
            import ray  # noqa: F401
        except ModuleNotFoundError as error:
            raise CodegenError("--runner ray needs Ray; pip install 'codegen25[ray]'") from error
        try:
            daft.set_runner_ray(noop_if_initialized=True)
        except (RuntimeError, ConnectionError, ValueError) as error:
            raise CodegenError(f"Ray could not be reached ({error}); start it or set RAY_ADDRESS") from error

    def run(self, make: Callable[..., Task], arguments: tuple[Any, ...], items: Sequence[str]) -> Iterator[str]:
        """`make(*arguments)` once in each worker, then that on every item; results as they come, in any order.

        Raises CodegenError with what a task raised as one, or as OSError.
        """
        if not items:
            return
        worker = daft.cls(_Worker, use_process=True, max_concurrency=self.workers)(make, arguments)
        frame = daft.from_pydict({"item": list(items)})
        # On Ray a partition is what goes to a machine; in process, a batch what goes to a worker.
        frame = frame.into_partitions(len(items)) if self.runner == "ray" else frame.into_batches(1)
        for row in frame.select(worker(col("item")).alias("out")).iter_rows():
            out = json.loads(row["out"])
            if "error" in out:
                raise CodegenError(out["error"])
            yield out["result"]

    def groups(
        self, paths: Sequence[Path], column: str, count: int, width: int = 1, more: Sequence[str] = ()
    ) -> Iterator[dict[str, list[Any]]]:
        """Rows that share a value of `column`, two or more: lists of their `part`, `row` and `more`, in any order.

        `width` is the length of the lists in `column` (1: no lists); two rows share when one place of theirs does.
        `count` is about how many rows there are, and bounds how many places are looked at in one go.
        """
        frame = daft.read_parquet([str(path) for path in paths])
        step = max(1, min(width, ROWS_AT_ONCE // max(count, 1)))
        for first in range(0, width, step):
            value = col(column)
            if width > 1:
                chosen = frame.select("part", "row", *more, daft.functions.slice(value, first, first + step).alias("v"))
                chosen = chosen.explode("v")
            else:
                chosen = frame.select("part", "row", *more, value.alias("v"))
            lists = [col(name).list_agg().alias(name) for name in ("part", "row", *more)]
            yield from chosen.groupby("v").agg(*lists).where("list_count(part) > 1").iter_rows()
