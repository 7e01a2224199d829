"""Cuts an answer, as it comes, where it would repeat what stands behind the cursor, or goes on for too long.

It ends in front of

- a line that is the next line of the text behind; also when the line of the cursor becomes that line;
- what is already there on the right of the cursor in its line;
- a closing bracket whose opening one is closed behind the cursor already, or was never there (see `brackets`);
- by `lines`: the end of the line (one), or a line that is indented less than the one of the cursor (block);
- a line that is indented less than `least_indent`.

A line is decided when it is whole, so a part of it is given out early only where nothing on the right of the cursor and
no line behind may match.
"""

from __future__ import annotations

from codegen25.serve import brackets
from codegen25.serve.ask import Ask, Lines
from codegen25.serve.brackets import CLOSES, OPENS, Unclear


def of(ask: Ask) -> Tidy | None:
    """What cuts the answers to a request with one hole; None for those that are left as the model gave them."""
    if ask.holes != 1 or not (ask.tidy or ask.lines != "any" or ask.least_indent):
        return None
    prefix, suffix = ask.parts
    return Tidy(prefix, suffix, lines=ask.lines, least_indent=ask.least_indent, repeats=not ask.tidy)


def chosen(lines: Lines, prefix: str, suffix: str) -> Lines:
    """What `auto` means at a cursor."""
    if lines != "auto":
        return lines
    return "one" if (_last_line(prefix) + suffix.partition("\n")[0]).strip() else "block"


class Tidy:
    """For one answer. `done`: it is cut, no more of it is wanted. `repeats`: it may repeat the text behind."""

    def __init__(
        self, prefix: str, suffix: str, *, lines: Lines = "any", least_indent: int = 0, repeats: bool = False
    ) -> None:
        self.done = False
        self._before = _last_line(prefix)
        self._lines = chosen(lines, prefix, suffix)
        self._repeats = repeats
        self._least = max(least_indent, _indent(self._before) if self._lines == "block" else 0)
        rest, _, below = suffix.partition("\n")
        self._has_right = bool(rest.strip())
        self._rest = "" if repeats else rest.rstrip()
        self._next = None if repeats else next((line.rstrip() for line in below.split("\n") if line.strip()), None)
        self._line = ""  # the current line of the answer as far as it has come, of which `_given` characters are out
        self._given = 0
        self._number = 0
        self._stack: list[str] | None = None  # open brackets; None when they are not known
        self._floor = 0
        if not repeats:
            self._read_brackets(prefix, suffix)

    def _read_brackets(self, prefix: str, suffix: str) -> None:
        try:
            self._stack = brackets.open_in(prefix)
        except Unclear:
            return
        self._floor = brackets.reserved(self._stack, brackets.closed_by(suffix))

    def push(self, text: str) -> str:
        """What of the answer can be given out, now that `text` has come."""
        out = ""
        while text and not self.done:
            part, newline, text = text.partition("\n")
            self._line += part
            out += self._whole_line(newline) if newline else self._early()
        return out

    def finish(self) -> str:
        """The rest of an answer that has ended."""
        return "" if self.done else self._whole_line("")

    def _early(self) -> str:
        """The part of an unfinished line that no rule can cut any more."""
        if self._number and self._line.strip() and _indent(self._line) < self._least:
            self.done = True
        if self.done or self._rest or not self._decided():
            return ""
        kept = self._balanced(self._line, keep_state=False)
        out = kept[self._given :]
        self._given = max(self._given, len(kept))
        if len(kept) < len(self._line):
            self.done = True
        return out

    def _decided(self) -> bool:
        """Whether the line's indentation is known to be enough, and it is no beginning of the next line behind."""
        whole = self._before + self._line if self._number == 0 else self._line
        if self._next is not None and self._next.startswith(whole.rstrip()):
            return False
        return self._number == 0 or bool(self._line.strip())

    def _whole_line(self, newline: str) -> str:
        """What is to be given out of a line that is complete."""
        line, is_first = self._line, self._number == 0
        if self._is_cut(line, is_first):
            self.done = True
            return ""
        kept = self._without_rest(line) if is_first else line
        kept = self._balanced(kept, keep_state=True)
        out = kept[self._given :]
        # Where the cursor's line is complete, the one line of an answer is the next.
        is_only_a_newline = is_first and not line.strip() and not self._has_right
        ends = len(kept) < len(line) or (self._lines == "one" and not is_only_a_newline)
        self._line, self._given, self._number = "", 0, self._number + 1
        if ends:
            self.done = True
            return out
        return out + newline

    def _is_cut(self, line: str, is_first: bool) -> bool:
        whole = self._before + line if is_first else line
        if self._next is not None and line.strip() and whole.rstrip() == self._next and not self._given:
            return True
        return not is_first and bool(line.strip()) and _indent(line) < self._least

    def _without_rest(self, line: str) -> str:
        """Without what stands on the right of the cursor already."""
        rest = self._rest
        if rest and rest.strip() and line.rstrip().endswith(rest) and any(c not in CLOSES for c in rest.strip()):
            return line.rstrip()[: -len(rest)]
        return line

    def _balanced(self, line: str, *, keep_state: bool) -> str:
        """The line up to a closing bracket that is one too many."""
        if self._stack is None:
            return line
        stack = list(self._stack)
        try:
            for at, bracket in brackets.tokens(line):
                if bracket in OPENS:
                    stack.append(bracket)
                elif len(stack) <= self._floor or stack[-1] != CLOSES[bracket]:
                    return line[:at]
                else:
                    stack.pop()
        except Unclear:
            if keep_state:
                self._stack = None
            return line
        if keep_state:
            self._stack = stack
        return line


def _last_line(prefix: str) -> str:
    return prefix[prefix.rfind("\n") + 1 :]


def _indent(line: str) -> int:
    """Columns of blanks; a tab counts as one, as llama.vim counts."""
    return len(line) - len(line.lstrip(" \t"))
