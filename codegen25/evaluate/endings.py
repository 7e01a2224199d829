"""Where an answer ends. None of the rules knows the true solution or its length.

end      where the model ended it: at `<eom>` in a hole, at the end of the text or of the function left to right
line     behind its first line that is not blank
suffix   where the text behind the hole begins to be written again, or the function ends
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from codegen25.evaluate.tasks import FUNCTION_STOPS, Task

Rule = Literal["end", "line", "suffix"]


def cut(rule: Rule, task: Task, text: str) -> str:
    """The answer `text` of a task, ended by a rule."""
    if rule == "line":
        return first_line(text)
    if rule == "suffix":
        return before_suffix(before_stops(text, FUNCTION_STOPS), task)
    return text


def first_line(text: str) -> str:
    """The text up to its first line that is not blank, closed by a line feed."""
    blank = len(text) - len(text.lstrip())
    end = text.find("\n", blank)
    return (text if end < 0 else text[:end]).removesuffix("\n") + "\n"


def before_stops(text: str, stops: Sequence[str]) -> str:
    """The text in front of whichever of `stops` comes first."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def before_suffix(text: str, task: Task) -> str:
    """The text in front of the first line that is not blank of the task's suffix, where it occurs.

    Where the hole begins and ends at lines, it must be a whole line of the text; inside a line, any place will do.
    """
    behind = next((line for line in task.suffix.split("\n") if line.strip()), "").rstrip()
    if not behind:
        return text
    if not task.prompt.endswith("\n"):
        at = text.find(behind)
        return text if at < 0 else text[:at]
    kept = []
    for line in text.splitlines(keepends=True):
        if line.rstrip() == behind:
            break
        kept.append(line)
    return "".join(kept)
