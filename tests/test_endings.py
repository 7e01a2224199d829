"""Where answers end: by example, and what holds for every text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen25.evaluate.endings import Rule, before_stops, before_suffix, cut, first_line
from codegen25.evaluate.tasks import FUNCTION_STOPS, Task


def _task(prompt: str, suffix: str) -> Task:
    return Task("T/0", "f", prompt, suffix, "", "")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("    x = 1\n    y", "    x = 1\n"),
        ("\n\n    x\ny", "\n\n    x\n"),
        ("x", "x\n"),
        ("", "\n"),
        ("\n", "\n"),
        ("x\n\n", "x\n"),
    ],
)
def test_first_line(text: str, line: str) -> None:
    assert first_line(text) == line


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("    return 1\n\ndef g():\n", "    return 1\n"),
        ("    return 1\nprint(f())\nclass A: pass", "    return 1"),
        ("    if x:\n        print(x)\n", "    if x:\n        print(x)\n"),
        ("\n```\nThis", ""),
    ],
)
def test_functions_end(text: str, kept: str) -> None:
    assert before_stops(text, FUNCTION_STOPS) == kept


@pytest.mark.parametrize(
    ("prompt", "suffix", "text", "kept"),
    [
        ("def f():\n", "\n    return x\n", "    x = 1\n    return x\n    y\n", "    x = 1\n"),
        ("def f():\n", "    return x\n", "    x = 1\n    return x + 1\n", "    x = 1\n    return x + 1\n"),
        ("def f():\n", "    return x\n", "    x = 1\n        return x\n", "    x = 1\n        return x\n"),
        ("def f():\n    x =", " + 1\n    return x\n", " 2 + 1\n    return x\n", " 2"),
        ("def f():\n", "", "    return 1\n", "    return 1\n"),
        ("def f():\n", " \n\n", "    return 1\n", "    return 1\n"),
        ("def f():\n", "    return x\n", "    return x\n", ""),
    ],
)
def test_the_suffix_ends_an_answer(prompt: str, suffix: str, text: str, kept: str) -> None:
    assert before_suffix(text, _task(prompt, suffix)) == kept


RULES: tuple[Rule, ...] = ("end", "line", "suffix")
TEXTS = st.text("ab \n#", max_size=30)


@given(TEXTS, TEXTS, TEXTS)
def test_what_was_cut_stays_as_it_is(prompt: str, suffix: str, text: str) -> None:
    task = _task(prompt, suffix)
    for rule in RULES:
        once = cut(rule, task, text)
        assert cut(rule, task, once) == once
        assert rule == "line" or text.startswith(once)
    assert cut("end", task, text) == text
