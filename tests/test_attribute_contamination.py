"""The index and a reading of every document find the same copies of a benchmark's problems."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from attributed import function, tracer
from small_corpus import document

from codegen25.attribute.contamination import contaminated
from codegen25.attribute.trace import Tracer
from codegen25.cli import main
from codegen25.data.decontaminate import Benchmarks
from codegen25.data.document import Document
from codegen25.data.problems import Problem, humaneval

PROBLEMS = humaneval()[:40]


def program(problem: Problem) -> str:
    return problem.prompt + problem.solution


def renamed(text: str) -> str:
    """With other names for its arguments and variables, and without its docstring."""
    bare = re.sub(r'(""".*?"""|\'\'\'.*?\'\'\')', "", text, flags=re.S)
    names = dict.fromkeys(re.findall(r"\b([a-z_]+)\b(?= =|,|:| in )", bare))
    for name in names.keys() - {"if", "else", "for", "in", "return", "lambda", "not", "and", "or", "is", "while"}:
        bare = re.sub(rf"(?<![.\w\"']){name}\b(?!\()", f"{name}_x", bare)
    return bare


def documents() -> list[Document]:
    """Half of the problems in some form, between code that nobody else has, and as much without any."""
    made = []
    for number, problem in enumerate(PROBLEMS[::2]):
        form = [
            program(problem), renamed(program(problem)), problem.test, problem.prompt,
            problem.solution, program(problem).replace("    ", "\t"),
        ][number % 6]  # fmt: skip
        text = "\n\n".join([function((number, "before"), 8), form, function((number, "behind"), 8)])
        made.append(document(text, source=f"source{number}", path=f"a{number}.py", language="python"))
        made.append(document(function((number, "clean"), 30), source=f"clean{number}", path=f"b{number}.py"))
    return made


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Tracer:
    return tracer(tmp_path_factory.mktemp("traced"), documents(), normalized=True)


def read_all(problems: tuple[Problem, ...], made: list[Document]) -> dict[str, Any]:
    judge = Benchmarks(problems)
    hits = {one.id: judge.found(one.content, one.language) for one in made}
    return {id: (hit.benchmark, hit.how, hit.detail) for id, hit in hits.items() if hit}


def test_the_same_as_reading_everything(traced: Tracer) -> None:
    for problems in (PROBLEMS, PROBLEMS[1::2]):
        found = contaminated(traced, problems)
        wanted = read_all(problems, documents())
        assert {one["id"]: (one["benchmark"], one["how"], one["problem"]) for one in found} == wanted
        assert not any(one["source"].startswith("clean") for one in found)
        if problems is PROBLEMS:
            assert len(wanted) > 12 and {how for _, how, _ in wanted.values()} >= {"benchmark text", "benchmark code"}


def test_the_command_names_documents(traced: Tracer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = str(traced.index.folder)
    assert main(["attribute", "contamination", "--index", index, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == 164 and found["documents"][0]["path"] == "a0.py"
    assert main(["attribute", "contamination", "--index", index]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(found["documents"]) + 1 and "HumanEval/0, line " in lines[0]
    problems = tmp_path / "own.txt"
    problems.write_text(function((3, "clean"), 30))
    assert main(["attribute", "contamination", str(problems), "--index", index, "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["documents"]
    assert one["source"] == "clean3" and one["benchmark"] == "own.txt"
    assert main(["attribute", "contamination", str(tmp_path / "none"), "--index", index]) == 1
    assert "cannot be read" in capsys.readouterr().err
