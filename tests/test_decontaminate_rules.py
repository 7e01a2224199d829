"""Decontamination, rule by rule: what is found is what a slow reference finds, and where each rule ends."""

import json
import keyword
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from slow_lexemes import code, low, stands, stands_renamed, words

from codegen25.data.decontaminate import REASONS, Benchmarks, Hit, Problem, read_problems

TEXT, GRAM, CODE = REASONS

PROMPT = '''def running_total(values: list, floor: int) -> int:
    """Sum of the values that lie over the given floor, each at most once."""
'''
ANSWER = """    seen = set()
    total = 0
    for value in values:
        if value > floor and value not in seen:  # once
            seen.add(value)
            total += value
        elif value == 2.5:
            return -1.0
    return total if seen else "no sum"
"""
CHECK = "def check(candidate):\n    assert candidate([1, 2, 2], 1) == 2\n    assert candidate([], 3) == 0\n"
ALONE = Problem("Alone", "A/1", PROMPT, ANSWER, "", CHECK, "running_total")
BARE = "def running_total(values, floor):\n"
FIXED = {"no", "sum"}


def reference(text: str, *, slashes: bool) -> str | None:
    """How ALONE stands in the text, if it does: the rules as `decontaminate` states them, one place at a time."""
    named = CHECK.replace("candidate", "running_total")
    told, views = words(text), code(text, slashes=slashes)
    if any(stands(words(whole), told) for whole in (re.findall('"""(.*)"""', PROMPT)[0], CHECK, named)):
        return "benchmark text"
    answers = [view for marks in (False, True) for view in code(ANSWER, slashes=marks)]
    exact = [low(answer) for answer in answers]
    if any(stands(one, low(view)) for one in exact for view in views):
        return "benchmark text"
    for whole in map(words, (PROMPT + ANSWER, CHECK, named)):
        for at in range(len(whole) - 11):
            gram = whole[at : at + 12]
            if len({one for one in gram if len(one) > 2 and not one[0].isdigit()} - COMMON) >= 2 and stands(gram, told):
                return "benchmark n-gram"
    for answer in answers:
        for at in range(len(answer) - 39):
            run = answer[at : at + 40]
            if any(stands_renamed(run, FIXED, view) for view in views):
                return "benchmark code"
    return None


COMMON = {word.lower() for word in keyword.kwlist if word != "assert"} | {
    "abs", "all", "any", "bool", "dict", "enumerate", "float", "int", "isinstance", "len", "list", "map", "max", "min",
    "object", "ord", "chr", "print", "range", "reversed", "round", "self", "set", "sorted", "str", "sum", "tuple",
    "type", "zip", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
}  # fmt: skip


def noted(text: str) -> str:
    return re.sub("$", "  # a note", text, flags=re.MULTILINE)


@st.composite
def patchworks(draw: st.DrawFn) -> str:
    """Lines of the problem, most in their order, some renamed, left out, changed or with others between."""
    changes: list[Callable[[str], str]] = [str, lambda text: re.sub(r"\b(value|seen|total)\b", r"\1_2", text), noted]
    changed = draw(st.sampled_from(changes))
    lines = changed(draw(st.sampled_from([PROMPT + ANSWER, ANSWER, BARE + ANSWER, CHECK]))).splitlines(keepends=True)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(lines) - 1))
        noise = ["\n", "# a note\n", "x = 1\n", "self.", "// note\n", "value", "0", "once "]
        lines[at] = draw(st.sampled_from(["", lines[at][: draw(st.integers(0, 40))], *(n + lines[at] for n in noise)]))
    packed: list[Callable[[str], str]] = [str, json.dumps, textwrap.dedent]
    return draw(st.sampled_from(packed))("".join(lines))


@settings(max_examples=300)
@given(patchworks(), st.booleans())
@example(ANSWER.replace("value", "seen_"), False)
@example(ANSWER.replace("value", "seen"), False)
@example(ANSWER.replace("no sum", "no count"), False)
@example(ANSWER.replace("floor", "None"), False)
def test_found_is_what_the_reference_finds(text: str, slashes: bool) -> None:
    hit = Benchmarks([ALONE]).found(text, "C" if slashes else "Python")
    assert (hit.how if hit else None) == reference(text, slashes=slashes)


def test_one_word_or_lexeme_fewer_is_not_enough() -> None:
    benchmarks = Benchmarks([ALONE])

    def how(text: str) -> str | None:
        hit = benchmarks.found(text, "Python")
        return hit.how if hit else None

    told = words("the values that lie over the given floor, each at most once. seen = set()")
    assert how(" ".join(told[:12])) == "benchmark n-gram"
    assert how(" ".join(told[:11])) is None
    lexemes = re.findall(r"\w+|[^\w\s()'\"]", re.sub(r"#.*|\b0\b(?=\.)|(?<=\.)0", "", ANSWER))
    other = [f"{one}_" if one in {"seen", "set", "total", "value", "values", "floor"} else one for one in lexemes]
    assert len(other) > 42
    assert how(" ".join(other[1:41])) == how(" ".join(other[-40:])) == "benchmark code"
    assert how(" ".join(other[1:40])) is how(" ".join(other[-39:])) is None


def test_a_row_that_tells_one_thing_is_common() -> None:
    answer = "for i in range(len(l)):\n    for j in range(i + 1, len(l)):\n        print(i, j, count{})\n"
    for more, found in (("", False), (", limit", True)):
        problem = Problem("Set", "S/1", "from x import y\n", answer.format(more) + "pass\n")
        assert (Benchmarks([problem]).found(" ".join(words(answer.format(more))), "Markdown") is not None) == found


@pytest.mark.parametrize("name", ["add", "adds"])
def test_a_short_solution_is_known_by_a_name_that_tells(name: str) -> None:
    answer = f"def {name}(x, y):\n    return x + y\n"
    hit = Benchmarks([Problem("Set", "S/1", f"def {name}(x: int, y):\n", "    return x + y\n")]).found(answer, "Python")
    assert (hit is not None) == (name == "adds")


# Other files than HumanEval's


def test_prose_and_code_apart() -> None:
    """As in MBPP, whose prompt is no program."""
    prose = "Write a function to tell which of the given words are the longest of all."
    code = "def longest(words):\r\n    m = max(map(len, words))\r\n    return [one for one in words if len(one) == m]"
    benchmarks = Benchmarks([Problem("mbpp", "7", prose, code, test="assert longest(['a', 'bc']) == ['bc']")])
    other = "m = max(map(len, l))\nreturn [w for w in l if len(w) == m]"
    for text, how in ((prose, TEXT), (code, TEXT), (f"# {prose[:60]}", GRAM), (other, CODE)):
        assert benchmarks.found(text, "Python") == Hit("mbpp", how, "7, line 1"), text


def test_a_file_in_another_language_is_kept_out_whole(tmp_path: Path) -> None:
    path = tmp_path / "answer.js"
    path.write_text(
        "function median(list) {\n  const sorted = list.slice().sort((a, b) => a - b); // ascending\n"
        "  const half = Math.floor(sorted.length / 2);\n"
        "  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;\n}\n",
        encoding="utf-8",
    )
    benchmarks = Benchmarks(read_problems(path))
    text = path.read_text(encoding="utf-8")
    other = re.sub(r"\b(sorted|half|list|a|b|median)\b", r"\1_2", text).replace("ascending", "of two")
    for planted, how in ((text, TEXT), (other, CODE)):
        assert benchmarks.found(planted, "JavaScript") == Hit("answer.js", how, "answer.js, line 1")
