"""Which brackets are open where an answer begins, and which of them the text behind the cursor closes.

A lexer for many languages at once: brackets, strings in single, double, triple quotes and backticks, and comments
behind `#` and `//`. What it does not understand (a quote without an end on its line) it says it does not know.
"""

from __future__ import annotations

from collections.abc import Iterator

OPENS = {"(": ")", "[": "]", "{": "}"}
CLOSES = {closing: opening for opening, closing in OPENS.items()}
# Lines before the cursor that are read.
MOST_LINES = 120


class Unclear(Exception):
    """The text is no code that this lexer understands, or it stands inside a string or a comment."""


def tokens(text: str, *, goes_on: bool = False) -> Iterator[tuple[int, str]]:
    """(where, the bracket) of all brackets in code. Raises `Unclear` for a string without an end.

    `goes_on`: other text follows, so that one must not end in a comment either.
    """
    at = 0
    while at < len(text):
        char = text[at]
        if char in OPENS or char in CLOSES:
            yield at, char
        elif char in "\"'`":
            at = _string_end(text, at)
            continue
        elif char == "#" or text.startswith("//", at):
            end = text.find("\n", at)
            if end < 0 and goes_on:
                raise Unclear
            at = len(text) if end < 0 else end
            continue
        at += 1


def _string_end(text: str, start: int) -> int:
    """Behind the string that begins at `start`."""
    quote = text[start]
    if text.startswith(quote * 3, start):
        end = text.find(quote * 3, start + 3)
        if end < 0:
            raise Unclear
        return end + 3
    at = start + 1
    while at < len(text) and text[at] != quote:
        if text[at] == "\n" and quote != "`":
            raise Unclear
        at += 1 + (text[at] == "\\")
    if at >= len(text):
        raise Unclear
    return at + 1


def open_in(text: str) -> list[str]:
    """The opening brackets that are not closed at the end of `text`, the outermost first. May raise `Unclear`.

    It is read from its last line on that stands at the margin and has text, where nothing can be open in well laid out
    code, or from the first of MOST_LINES. A closing bracket without an opening one is passed over.
    """
    lines = text.split("\n")[-MOST_LINES:]
    start = next((n for n in range(len(lines) - 1, 0, -1) if _begins(lines[n])), 0)
    stack: list[str] = []
    for _, bracket in tokens("\n".join(lines[start:]), goes_on=True):
        if bracket in OPENS:
            stack.append(bracket)
        elif stack and stack[-1] == CLOSES[bracket]:
            stack.pop()
    return stack


def _begins(line: str) -> bool:
    return bool(line) and (line[0].isalpha() or line[0] in "_@#")


def closed_by(text: str) -> list[str]:
    """The closing brackets without an opening one at the beginning of `text`: those of its first line, and of the lines
    below that begin with one."""
    lines = text.split("\n")
    found: list[str] = []
    for number, line in enumerate(lines[:8]):
        if number and line.strip() and line.strip()[0] not in CLOSES:
            break
        depth = 0
        try:
            for _, bracket in tokens(line):
                depth += 1 if bracket in OPENS else -1
                if depth < 0:
                    found.append(bracket)
                    depth = 0
        except Unclear:
            break
        if depth > 0:
            break
    return found


def reserved(stack: list[str], closing: list[str]) -> int:
    """How many of the open brackets, from the outermost, are closed by what stands behind: an answer leaves them open.

    As few as can be, since the text behind may lack a bracket that the answer has to give.
    """
    opening = [CLOSES[bracket] for bracket in reversed(closing)]
    for depth in range(len(opening), len(stack) + 1):
        if stack[depth - len(opening) : depth] == opening:
            return depth
    return 0
