"""One program of the suite, and the problem that all of them are given."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import dedent

ENTRY_POINT = "add"
TEST = """
def check(candidate):
    assert candidate(2, 3) == 5
    assert candidate(-1, 1) == 0
    assert abs(candidate(0.5, 0.25) - 0.75) < 1e-6
"""
RIGHT = "def add(a, b):\n    return a + b\n"
WRONG = "def add(a, b):\n    return a - b\n"


@dataclass(frozen=True)
class Escape:
    """`source` has names of the bait in it: @FILE@, @OUTSIDE@, @PORT@, @SOCKET@, @ABSTRACT@ and @ENV@.

    `rounds`: how often it is judged, one after the other. `prompt` stands before the source and belongs to the problem.
    """

    name: str
    attempts: str
    source: str
    test: str = TEST
    prompt: str = ""
    rounds: int = 1


def escape(name: str, attempts: str, source: str, *, test: str = TEST, prompt: str = "", rounds: int = 1) -> Escape:
    return Escape(name, attempts, dedent(source).lstrip("\n"), test, prompt, rounds)


def tries(name: str, attempts: str, attempt: str, imports: str = "os") -> Escape:
    """An escape that adds rightly when `attempt`, the body of a function, returns something true."""
    body = "\n".join("    " + line for line in dedent(attempt).strip().splitlines())
    source = f"import {imports}\n\n\ndef attempt():\n{body}\n\n\nWORKED = attempt()\n\n\n"
    return Escape(name, attempts, source + "def add(a, b):\n    return a + b if WORKED else None\n")
