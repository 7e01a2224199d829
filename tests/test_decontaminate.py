"""Decontamination: every planted form of HumanEval's problems is found, ordinary code is not, and files are read."""

import argparse
import ast
import inspect
import json
import re
import subprocess
import sys
import textwrap
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen25.data.decontaminate import REASONS, Benchmarks, Hit, Problem, humaneval, read_problems
from codegen25.evaluate.infilling import SETS, infilling_set

PROBLEMS = humaneval()
BENCHMARKS = Benchmarks(PROBLEMS)
TEXT, GRAM, CODE = REASONS
FILE = inspect.getsource(argparse)
Variant = Callable[[str], str]
Variants = Callable[[Problem], str]


def lost(plant: Variants, language: str = "Python") -> list[str]:
    """The problems that are not found where they were planted."""
    return [problem.name for problem in PROBLEMS if BENCHMARKS.found(plant(problem), language) is None]


def program(problem: Problem) -> str:
    return problem.prompt + problem.solution


def prompt(problem: Problem) -> str:
    return problem.prompt


def solution(problem: Problem) -> str:
    return problem.solution


def test(problem: Problem) -> str:
    return problem.test


test.__test__ = False  # type: ignore[attr-defined]  # its name makes pytest take it for a test


def assertions(problem: Problem) -> str:
    nodes = [node for node in ast.walk(ast.parse(problem.test)) if isinstance(node, ast.Assert)]
    return "\n".join(ast.get_source_segment(problem.test, node) or "" for node in nodes)


def docstring(problem: Problem) -> str:
    """The last text in triple quotes of the prompt."""
    found = list(re.finditer(r"(\"\"\"|\'\'\')(.*?)\1", problem.prompt, re.DOTALL))
    return str(found[-1][2])


def signature(problem: Problem) -> str:
    return str(re.findall(r"^def .*$", problem.prompt, re.MULTILINE)[-1])


def unhinted(problem: Problem) -> str:
    node = ast.parse(f"{signature(problem)} ...").body[0]
    assert isinstance(node, ast.FunctionDef)
    return f"def {node.name}({', '.join(argument.arg for argument in node.args.args)}):"


def renamed(problem: Problem) -> str:
    """The solution with every variable, argument and function of the program called otherwise."""
    nodes = list(ast.walk(ast.parse(program(problem))))
    old = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    old |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    old |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    new = {name: f"v{number}_{name[::-1]}" for number, name in enumerate(sorted(old))}
    lines = f"if 1:\n{problem.solution}".splitlines(keepends=True)
    tokens = list(tokenize.generate_tokens(iter([*lines, ""]).__next__))
    for before, token in reversed([*pairwise(tokens)]):
        if token.type == tokenize.NAME and token.string in new and before.string != ".":
            (row, start), (_, end) = token.start, token.end
            lines[row - 1] = lines[row - 1][:start] + new[token.string] + lines[row - 1][end:]
    return "".join(lines[1:])


# What is left of a text in other formatting. Each takes code of any indent, and most take prose.


def reindented(unit: str) -> Variant:
    """Every four spaces of indent as the unit."""
    return lambda text: re.sub(r"^(?: {4})+", lambda found: unit * (len(found[0]) // 4), text, flags=re.MULTILINE)


def commented(text: str) -> str:
    """A comment before every line and one behind it."""
    return "\n".join(f"# a note\n{line}  # step {number}" for number, line in enumerate(text.splitlines()))


def as_notebook(text: str) -> str:
    cell = {"cell_type": "code", "source": text.splitlines(keepends=True)}
    return json.dumps({"cells": [cell]}, indent=1)


FORMATS: dict[str, Variant] = {
    "as it is": str,
    "two spaces": reindented("  "),
    "tabs": reindented("\t"),
    "eight spaces": reindented(" " * 8),
    "deeper": lambda text: textwrap.indent(text, " " * 12),
    "carriage returns": lambda text: text.replace("\n", "\r\n"),
    "no blank lines": lambda text: re.sub(r"\n\s*\n", "\n", text),
    "trailing white space": lambda text: text.replace("\n", "  \t\n"),
    "in a class": lambda text: "class Solution:\n" + textwrap.indent(text, "    "),
    "long file": lambda text: f"{FILE}\n{text}\n",
    "string": lambda text: f"PROMPT = {text!r}\n",
    "JSON": lambda text: json.dumps({"text": f"Ä {text}"}),
    "JSON, unescaped": lambda text: json.dumps({"text": f"Ä {text}"}, ensure_ascii=False),
    "JSON of JSON": lambda text: json.dumps([json.dumps({"text": text})]),
    "notebook": as_notebook,
    "markdown": lambda text: f"# Answers\n\nIt's Bob's:\n\n```python\n{text}\n```\n",
    "HTML": lambda text: f"<pre>{text.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')}</pre>",
    "commented out": lambda text: textwrap.indent(text, "# ", lambda line: True),
}
# Solutions of fewer than seven words and signs: `return x + y` is anybody's.
SHORT = {f"HumanEval/{number}" for number in (2, 16, 23, 27, 28, 34, 38, 41, 53, 60)}
# And those of fewer than fourteen, when all their names are others.
SHORT_RENAMED = SHORT | {f"HumanEval/{number}" for number in (7, 13, 22, 29, 30, 42, 45, 54, 79, 97, 100, 138)}


@pytest.mark.parametrize("name", FORMATS)
def test_formatting_hides_no_problem(name: str) -> None:
    for piece in (program, prompt, docstring, test):
        assert lost(lambda problem, piece=piece: FORMATS[name](piece(problem))) == []  # type: ignore[misc]


@pytest.mark.parametrize("name", FORMATS)
def test_formatting_hides_no_solution(name: str) -> None:
    """154 of 164 alone, 142 of them whatever its names are; all but `add` behind the signature."""
    assert set(lost(lambda problem: FORMATS[name](solution(problem)))) == SHORT
    assert set(lost(lambda problem: FORMATS[name](renamed(problem)))) == SHORT_RENAMED
    for head in (signature, unhinted):
        signed: Variants = lambda problem, head=head: FORMATS[name](f"{head(problem)}\n{solution(problem)}")  # type: ignore[misc]  # noqa: E731
        assert lost(signed) == ["HumanEval/53"]


def test_assertions_alone() -> None:
    """As they are, or with the function's own name. Of few words, or about `f`, they tell nothing."""
    assert lost(assertions) == [f"HumanEval/{number}" for number in (1, 23, 32, 38, 50)]
    named: Variants = lambda problem: assertions(problem).replace("candidate", problem.entry_point)  # noqa: E731
    assert lost(named) == [f"HumanEval/{number}" for number in (1, 23, 32, 38, 50, 106)]
    assert lost(lambda problem: problem.test.replace("candidate", problem.entry_point)) == []


def test_comments_hide_no_solution() -> None:
    assert set(lost(lambda problem: commented(solution(problem)))) == SHORT
    assert set(lost(lambda problem: commented(renamed(problem)))) == SHORT_RENAMED
    slashed = lambda problem: re.sub("# .*", "// a note", commented(renamed(problem)))  # noqa: E731
    # Behind `//` in Python stands a divisor. Where that is a comment, it goes from the solution, too.
    assert set(lost(slashed, "JavaScript")) == SHORT_RENAMED


def test_methods_call_themselves_by_self() -> None:
    def method(problem: Problem) -> str:
        text = re.sub(rf"\b{problem.entry_point}\(", f"self.{problem.entry_point}(", solution(problem))
        return f"class Solution:\n    def answer(self, n):\n{textwrap.indent(text, '    ')}"

    assert set(lost(method)) == SHORT
    assert "self.fib(" in method(PROBLEMS[55])


def test_a_formatter_hides_no_solution(tmp_path: Path) -> None:
    for number, problem in enumerate(PROBLEMS):
        (tmp_path / f"p{number}.py").write_text(f"{signature(problem)}\n{solution(problem)}", encoding="utf-8")
    options = ["--isolated", "--no-cache", "--line-length=40", "--config=format.quote-style='single'"]
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", *options, str(tmp_path)], check=True)

    def formatted(problem: Problem) -> str:
        text = (tmp_path / f"p{PROBLEMS.index(problem)}.py").read_text(encoding="utf-8")
        node = ast.parse(text).body[0]
        assert isinstance(node, ast.FunctionDef)
        return "\n".join(text.split("\n")[node.body[0].lineno - 1 :])

    assert set(lost(formatted)) == SHORT
    changed = [problem for problem in PROBLEMS if formatted(problem).strip() != solution(problem).strip()]
    assert len(changed) > 100


@pytest.mark.parametrize("sign", ["// ", " * ", "-- ", "> ", "  ", "+"])
def test_docstrings_come_along_in_other_languages(sign: str) -> None:
    """Without what stands first on the line of a doctest, and with everything on a line of its own."""
    other: Variants = lambda problem: f"/*\n{textwrap.indent(docstring(problem), sign)}\n*/\nfunction f() {{}}\n"  # noqa: E731
    assert lost(other, "JavaScript") == []


@st.composite
def plantings(draw: st.DrawFn) -> tuple[Problem, str]:
    """A problem or its solution, changed, in two or three formats."""
    problem = draw(st.sampled_from(PROBLEMS))
    names = draw(st.lists(st.sampled_from([*FORMATS.keys() - {"long file"}]), min_size=2, max_size=3, unique=True))
    pieces = [program, prompt, docstring, test]
    if problem.name not in SHORT_RENAMED:
        pieces += [solution, renamed]
        # Of commented code that is commented out, no telling what was a comment.
        pieces += [] if "commented out" in names else [lambda problem: commented(renamed(problem))]
    text = draw(st.sampled_from(pieces))(problem)
    for name in names:
        text = FORMATS[name](text)
    return problem, f"x = 1\n{text}\ny = 2\n"


@settings(max_examples=400)
@given(plantings())
def test_formats_of_formats(planted: tuple[Problem, str]) -> None:
    hit = BENCHMARKS.found(planted[1], "Python")
    assert hit is not None and hit.benchmark == "HumanEval" and hit.how in REASONS


# Infilling


def infilling() -> Iterator[dict[str, str]]:
    """HumanEval-Infilling's three sets, derived: single lines, all runs of lines, and random spans."""
    for name in SETS:
        for task in infilling_set(name).tasks:
            yield asdict(task)


def test_infilling_sets(tmp_path: Path) -> None:
    tasks = list(infilling())
    assert len(tasks) > 8000
    for task in tasks:
        assert BENCHMARKS.found(json.dumps(task), "Python") is not None, task["task_id"]
    path = tmp_path / "Infilling.jsonl"
    path.write_text("".join(json.dumps(task) + "\n" for task in tasks), encoding="utf-8")
    read = read_problems(path)
    assert len(read) == len(tasks)
    # Whatever was cut out of it, the program is the same.
    benchmarks = Benchmarks(read)
    for problem in PROBLEMS:
        hit = benchmarks.found(program(problem), "Python")
        assert hit is not None and hit.benchmark == "Infilling"
        assert (benchmarks.found(solution(problem), "Python") is None) == (problem.name in SHORT)


# Ordinary code


def test_ordinary_code_is_not_dropped() -> None:
    folder = Path(argparse.__file__).parent
    paths = [path for path in sorted(folder.rglob("*.py"))[::3] if "site-packages" not in path.parts]
    hits = [path for path in paths if BENCHMARKS.found(path.read_text("utf-8", errors="replace"), "Python")]
    assert len(paths) > 200
    assert hits == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "#",
        "\\",
        "\0" * 20,
        "x" * 100_000,
        ")" * 10_000,
        "return x + y\n" * 1000,
        "a = 1  # " * 10_000,
        "0, " * 5000,
        "\ud800 alone",
        "for i in range(len(l)):\n    for j in range(i + 1, len(l)):\n        pass\n",
        "ONE = {'one': 1, 'two': 2, 'three': 3, 'four': 4, 'five': 5, 'six': 6, 'seven': 7, 'eight': 8}\n",
    ],
)
def test_nothing_is_found_in_nothing(text: str) -> None:
    assert BENCHMARKS.found(text, "Python") is None
    assert Benchmarks(()).found(text, "Python") is None


def test_a_hit_says_which_problem_and_where() -> None:
    text = f"x = 1\n\n{program(PROBLEMS[0])}"
    assert BENCHMARKS.found(text, "Python") == Hit("HumanEval", "benchmark text", "HumanEval/0, line 7")
    words = "closer to each other than given threshold has_close_elements 1 0 2 0"
    assert BENCHMARKS.found(words, "Markdown") == Hit("HumanEval", "benchmark n-gram", "HumanEval/0, line 1")
    assert BENCHMARKS.found(renamed(PROBLEMS[0]), "Python") == Hit("HumanEval", "benchmark code", "HumanEval/0, line 1")
