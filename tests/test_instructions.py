"""Instructions made from a corpus: every response is somebody's own words, and says whose and under which licence."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap as textwrap_module
from pathlib import Path
from typing import Any

import pytest
from small_corpus import document, write_corpus

from codegen25.cli import main
from codegen25.data.instructions import TASKS, Record, records, write_instructions
from codegen25.errors import CodegenError
from codegen25.train.instruct import read_instructions

MODULE = '''
def mean(values, start=0):
    """Return the arithmetic mean of all values.

    Nothing of it is weighted.
    """
    total = start
    # Add the values up, one by one
    for value in values:
        total += value
    count = len(values)

    return total / count


class Clock:
    def tick(self, seconds: int) -> None:
        if seconds < 0:
            raise ValueError(seconds)
        # the display is refreshed later on
        self.now += seconds
        self.ticks += 1
        # listeners too
        self.stale = True


def test_mean_of_nothing_is_an_error():
    """The mean of nothing at all is an error."""
    assert mean([1, 2, 3]) == 2 and mean([0] * 10) == 0 and mean([5]) == 5
'''


def found(task: str, text: str = MODULE, seeds: int = 40) -> dict[str, Record]:
    """The records of a task that any seed makes, by their responses."""
    made = (record for seed in range(seeds) for record in records(document(text), seed, 5))
    return {record.response: record for record in made if record.task == task}


def code_of(record: Record) -> str:
    return record.prompt.partition("```python\n")[2].removesuffix("\n```")


def test_a_docstring_becomes_its_function() -> None:
    (response,) = found("implement")
    assert response == MODULE[1 : MODULE.index("\n\n\nclass")] + "\n"
    prompts = {record.prompt for seed in range(60) for record in records(document(MODULE), seed)
               if record.task == "implement"}  # fmt: skip
    assert len(prompts) == 6, "three ways to ask with the head, three with words"
    for prompt in prompts:
        assert "Return the arithmetic mean of all values." in prompt and "total" not in prompt
    assert any("`mean(values, start=0)`" in prompt and "\n\nNothing of it is weighted." in prompt for prompt in prompts)


def test_a_function_becomes_its_docstring() -> None:
    ((response, record),) = found("describe").items()
    assert (
        ast.literal_eval(response.strip())
        == "Return the arithmetic mean of all values.\n\nNothing of it is weighted.\n"
    )
    head, body = MODULE[1 : MODULE.index("\n\n\nclass")].split("    total = start")
    assert code_of(record) == head.partition("\n")[0] + "\n    total = start" + body


def test_a_comment_becomes_the_code_below_it() -> None:
    made = found("continue")
    assert set(made) == {
        "    for value in values:\n        total += value\n    count = len(values)\n",
        "    self.now += seconds\n    self.ticks += 1\n",
    }
    for record in made.values():
        assert code_of(record).splitlines()[-1].strip().startswith("#"), "the prompt ends with the comment"
        ast.parse(f"def f():\n    if 1:\n{textwrap_module.indent(record.response, '    ')}")


def test_a_bug_is_planted_and_the_response_is_what_it_was() -> None:
    made = found("repair")
    assert {response.partition("(")[0] for response in made} == {"def mean", "def tick"}
    for response, record in made.items():
        assert record.bug
        assert ast.dump(ast.parse(code_of(record))) != ast.dump(ast.parse(response))


def test_every_record_says_where_it_is_from() -> None:
    one = document(MODULE, source="clocks", path="src/clock.py", license="MIT OR Apache-2.0")
    for record in records(one, 0):
        assert (record.document, record.source, record.path) == (one.id, "clocks", "src/clock.py")
        assert record.license == "MIT OR Apache-2.0"


def test_the_seed_decides() -> None:
    one = document(inspect.getsource(textwrap_module))
    assert records(one, 3) == records(one, 3) != records(one, 4)
    assert {record.task for record in records(one, 0)} == set(TASKS)
    assert len(records(one, 0)) == 4 < len(records(one, 0, 3)) <= 12


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x = 1\n",
        "def f(): return 1\n",
        'def f():\n    """This docstring is all that there is of this function: there is no more of it."""\n',
        'def f(a):\n    """This docstring promises what a subclass has to do, some day."""\n    raise TypeError(a)\n',
        "class A:\n" + "    x = 1  # a comment of several words\n" * 5,
    ],
)
def test_nothing_to_ask_about(text: str) -> None:
    assert records(document(text), 0, 5) == []


def test_form_feeds_and_separators_are_no_lines() -> None:
    text = MODULE.replace("total = start", "total = start\n\x0c    mark = '\u2028 \x85'")
    for response in found("continue", text):
        assert response in text or textwrap_module.indent(response, "    ") in text


def write(folder: Path, *texts: str, **fields: Any) -> Path:
    write_corpus(folder, {"train": [[document(text, **fields) for text in texts]], "heldout": [[document("x = 1\n")]]})
    return folder


def said(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["data", "instruct", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = MODULE.replace("self.now", "self.then")  # of which the first function was seen before
    corpus = write(tmp_path / "corpus", MODULE, again, "def f(:\n", "def f(x):\n  return x\x00\n")
    code, out, err = said(capsys, corpus, "--out", tmp_path / "a.jsonl", "--each", "2", "--json")
    counts = json.loads(out)
    lines = (tmp_path / "a.jsonl").read_text("utf-8").splitlines()
    assert code == 0 and err == ""
    assert counts["records"] == len(lines) == sum(counts["tasks"].values()) > 8
    assert counts["left_out"]["documents that do not parse"] == 2
    assert counts["left_out"]["records with a prompt seen before"] >= 0
    assert sum(counts["bugs"].values()) == counts["tasks"]["repair"] > 0
    prompts = [json.loads(line)["prompt"] for line in lines]
    assert len(set(prompts)) == len(prompts)
    assert len(read_instructions(tmp_path / "a.jsonl")) == len(lines), "training reads them"
    code, out, err = said(capsys, corpus, "--out", tmp_path / "b.jsonl", "--each", "2")
    assert code == 0 and "planted bugs" in out and "records" in err
    assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()
    assert said(capsys, corpus, "--out", tmp_path / "c.jsonl", "--each", "2", "--seed", "1")[0] == 0
    assert (tmp_path / "c.jsonl").read_bytes() != (tmp_path / "a.jsonl").read_bytes()


def test_a_prompt_comes_once(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    same = [document(MODULE + f"\nX = {number}\n") for number in range(12)]
    corpus = write_corpus(tmp_path / "corpus", {"train": [same]})
    counts = write_instructions(corpus, tmp_path / "a.jsonl")
    assert counts.tasks["describe"] <= 3, "there are three ways to ask"
    assert counts.left_out["records with a prompt seen before"] >= 9


def test_other_languages_are_counted(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", {"train": [[document(MODULE, language="c"), document("x", kind="issue")]]})
    counts = write_instructions(corpus, tmp_path / "a.jsonl")
    assert counts.records == 0 and counts.left_out == {"documents in other languages": 2}
    assert (tmp_path / "a.jsonl").read_text() == ""


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capsys, tmp_path, "--out", tmp_path / "a.jsonl")
    assert code == 1 and "not a finished corpus" in err and err.count("\n") == 1
    corpus = write_corpus(tmp_path / "c", {"train": [[document(MODULE)]]})
    code, _, err = said(capsys, tmp_path / "c", "--out", tmp_path / "none" / "a.jsonl")
    assert code == 1 and "a.jsonl" in err and err.count("\n") == 1
    with pytest.raises(CodegenError, match="no split heldout"):
        write_instructions(corpus, tmp_path / "a.jsonl", split="heldout")
    assert not (tmp_path / "a.jsonl").exists()
