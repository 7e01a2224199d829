"""Tasks: the derived sets against the official ones by hash, files of other benchmarks, and files that are none."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen25.errors import CodegenError, UsageError
from codegen25.evaluate.infilling import infilling_set, multi_line, random_span, single_line
from codegen25.evaluate.judge import judge
from codegen25.evaluate.samples import Sample
from codegen25.evaluate.tasks import FUNCTION_STOPS, MBPP_STOPS, Task, TaskSet, humaneval, read_tasks, write_tasks

# Of the official file of the single-line set, unpacked. The other two are of what is derived here: the multi-line set
# has the official one's ids and number of tasks, the random spans are our own.
SHA256 = {
    "single-line": (1033, "6fffc71ec2f1674372fcc177511f92312f1a27a9eacd8e43255c9f5ee9eca8c8"),
    "multi-line": (5815, "5b49f312f0a781420a4ae54f5e73176009b9cfc52731e3a0b9be726b451032d1"),
    "random-span": (1640, "400c5a468aee5e211ce8ebaaf70a616bc6100cf966e13dc7d10c2632e2b44e6e"),
}
PROBLEM = Task(
    "HumanEval/7", "f", "def f():\n", "", "    x = 1\n\n    return x\n", "def check(f):\n    assert f() == 1\n"
)


@pytest.mark.parametrize("name", SHA256)
def test_the_sets_are_the_official_ones_to_the_byte(name: str, tmp_path: Path) -> None:
    tasks, path = infilling_set(name), tmp_path / "tasks.jsonl"
    write_tasks(path, tasks.tasks)
    assert (len(tasks.tasks), hashlib.sha256(path.read_bytes()).hexdigest()) == SHA256[name]
    write_tasks(tmp_path / "tasks.jsonl.gz", tasks.tasks)
    with gzip.open(tmp_path / "tasks.jsonl.gz") as file:
        assert file.read() == path.read_bytes()
    assert read_tasks(tmp_path / "tasks.jsonl.gz").tasks == tasks.tasks
    problems = humaneval().by_id
    for task in tasks.tasks:
        whole = problems["/".join(task.task_id.split("/")[1:3])]
        text = task.prompt + task.canonical_solution + task.suffix
        # The quirk of the official files: a hole at the first line has one line feed more before it.
        assert text.replace("\n\n", "\n") == (whole.prompt + whole.canonical_solution).replace("\n\n", "\n") or (
            text.split() == (whole.prompt + whole.canonical_solution).split()
        )


def test_holes_by_hand() -> None:
    first, last = single_line(PROBLEM)
    test = PROBLEM.test
    assert first == Task(
        "SingleLineInfilling/HumanEval/7/L0", "f", "def f():\n\n", "\n    return x\n", "    x = 1\n", test
    )
    assert last == Task(
        "SingleLineInfilling/HumanEval/7/L2", "f", "def f():\n    x = 1\n\n", "", "    return x\n", test
    )
    runs = list(multi_line(PROBLEM))
    assert [task.task_id.rpartition("/")[2] for task in runs] == ["L0_L0", "L0_L2", "L2_L2"]
    assert runs[1].canonical_solution == "    x = 1\n\n    return x\n" and runs[1].suffix == ""


def test_random_spans_are_distinct_and_make_the_program() -> None:
    spans = list(random_span(PROBLEM))
    assert spans == list(random_span(PROBLEM)) and len({task.prompt + "|" + task.suffix for task in spans}) == 10
    for task in spans:
        assert task.canonical_solution.strip()
        assert task.prompt + task.canonical_solution + task.suffix == PROBLEM.prompt + PROBLEM.canonical_solution


def test_canonical_solutions_pass() -> None:
    tasks = [task for name in SHA256 for task in infilling_set(name).tasks[::400]]
    programs = [Sample(task.task_id, task.canonical_solution).program(task) for task in tasks]
    assert {verdict.status for verdict in judge(programs, route="unsafe")} == {"passed"}


def test_subsets_of_a_seed_are_nested() -> None:
    tasks = infilling_set("single-line")
    small, large = tasks.subset(20, 0).tasks, tasks.subset(50, 0).tasks
    assert set(small) < set(large) and len(small) == 20
    assert list(large) == sorted(large, key=tasks.tasks.index)
    assert small != tasks.subset(20, 1).tasks and tasks.subset(None, 0) == tasks
    for count in (0, 2000):
        with pytest.raises(UsageError, match=f"--tasks is {count}"):
            tasks.subset(count, 0)


# ------------------------------------------------------------------------------------------------------- from the disk

MBPP = {
    "task_id": 11, "text": "Write a function that adds.", "code": "def add(a, b):\n    return a + b",
    "test_list": ["assert add(1, 2) == 3", "assert math.floor(add(1.5, 0)) == 1"], "test_setup_code": "import math",
}  # fmt: skip
CHECK = "def check(candidate):\n    assert candidate(1, 2) == 3\n\n"
MULTIPLE = {
    "name": "HumanEval_0_add", "language": "py", "prompt": 'def add(a, b):\n    """Adds."""\n',
    "tests": CHECK + "def test_check():\n    check(add)\n\ntest_check()\n",
    "stop_tokens": ["\ndef", "\n#"],
}  # fmt: skip


def _file(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def _verdicts(tasks: TaskSet, *texts: str) -> list[str]:
    (task,) = tasks.tasks
    return [v.status for v in judge([Sample(task.task_id, text).program(task) for text in texts], route="unsafe")]


def test_mbpp(tmp_path: Path) -> None:
    tasks = read_tasks(_file(tmp_path / "mbpp.jsonl", MBPP))
    (task,) = tasks.tasks
    assert (task.task_id, task.entry_point, tasks.stops, tasks.name) == ("Mbpp/11", "add", MBPP_STOPS, "mbpp")
    asked = "Write a function that adds.\nassert add(1, 2) == 3\nassert math.floor(add(1.5, 0)) == 1\n"
    assert task.prompt == f'"""\n{asked}"""\n'
    assert _verdicts(tasks, task.canonical_solution, "def add(a, b):\n    return a - b\n") == ["passed", "wrong"]


def test_sanitized_mbpp(tmp_path: Path) -> None:
    """The other form: `prompt` for `text`, a list of imports, and names that the tests call deep inside."""
    row = {k: v for k, v in MBPP.items() if k not in ("text", "test_setup_code", "code")}
    row |= {"prompt": "Adds.", "test_imports": ["import math"], "test_list": ["assert not set(add(1, 2)) == 3"]}
    (task,) = read_tasks(_file(tmp_path / "mbpp.jsonl", row)).tasks
    assert task.entry_point == "add" and task.test.startswith("import math\nassert")


def test_multiple(tmp_path: Path) -> None:
    tasks = read_tasks(_file(tmp_path / "multiple.jsonl", MULTIPLE))
    assert tasks.stops == ("\ndef", "\n#") and tasks.tasks[0].entry_point == "add"
    assert _verdicts(tasks, "    return a + b\n", "    return a\n") == ["passed", "wrong"]


def test_humaneval_like(tmp_path: Path) -> None:
    rows = [vars(PROBLEM) | {"task_id": f"HumanEval/{n}", "plus_input": [[1]]} for n in range(2)]
    tasks = read_tasks(_file(tmp_path / "HumanEvalPlus.jsonl", *rows, ""))
    assert [task.task_id for task in tasks.tasks] == ["HumanEval/0", "HumanEval/1"] and tasks.stops == FUNCTION_STOPS


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no problem"),
        (["{"], r":1: not JSON"),
        (["[" * 100_000], r":1: not JSON"),
        (["[]"], r":1: not a problem"),
        ([MBPP, {"a": 1}], r":2: not a problem"),
        ([MBPP, MBPP], r":2: Mbpp/11 is there twice"),
        ([MBPP | {"task_id": None}], "task_id is missing"),
        ([MBPP | {"test_list": "assert"}], "test_list is no list of texts"),
        ([MBPP | {"test_list": ["assert True"]}], "call no function"),
        ([MBPP | {"code": 3}], "code is int, not text"),
        ([MULTIPLE | {"language": "rs"}], "written in rs; only Python"),
        ([MULTIPLE | {"tests": "assert add(1, 2)"}], "do not call `check`"),
        ([vars(PROBLEM) | {"entry_point": None}], "entry_point is missing"),
    ],
)
def test_no_problems(rows: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match=message):
        read_tasks(_file(tmp_path / "problems.jsonl", *rows))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "no.jsonl.gz").write_text("not gzip")
    (tmp_path / "latin.jsonl").write_bytes(b"\xe9\n")
    for name in ("none.jsonl", "no.jsonl.gz", "latin.jsonl"):
        with pytest.raises(CodegenError, match=f"{name}: cannot be read"):
            read_tasks(tmp_path / name)


@given(st.text("ab \n", max_size=40), st.integers(0, 2**32))
def test_every_run_of_lines_is_there_once(solution: str, seed: int) -> None:
    problem = Task("HumanEval/7", "f", "def f():\n", "", solution, "")
    full = [i for i, line in enumerate(solution.split("\n")) if line.strip()]
    runs = list(multi_line(problem))
    assert len(runs) == len({task.task_id for task in runs}) == len(full) * (len(full) + 1) // 2
    singles = [task for task in runs if len(set(task.task_id.rpartition("/")[2].split("_"))) == 1]
    assert [(t.prompt, t.canonical_solution, t.suffix) for t in singles] == [
        (t.prompt, t.canonical_solution, t.suffix) for t in single_line(problem)
    ]
