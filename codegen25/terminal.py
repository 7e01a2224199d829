"""What a command says: results to stdout, at once, and everything else to stderr, a line each."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from codegen25.errors import CodegenError, UsageError, say

if TYPE_CHECKING:
    from codegen25.complete import Completion
    from codegen25.tokenizer import Tokenizer

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}


def lines(anchor: str) -> int | None:
    """How many lines begin a span, as --anchor says it; None for all."""
    if anchor == "all":
        return None
    if not (anchor.isascii() and anchor.isdigit() and len(anchor) < 10):
        raise UsageError(f"--anchor {anchor}: give a number of lines, 0 or more, or `all`")
    return int(anchor)


def count(text: str) -> int:
    """A whole number such as 1400000, 20M or 1.4T. Raises `UsageError` for anything else."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMGBT]?)", text.strip().upper())
    number = round(float(found[1]) * _UNITS[found[2]]) if found else 0
    if not 0 < number < 10**18:
        raise UsageError(f"--tokens {text}: no count; give a positive number such as 1400000, 20M or 1.4T")
    return number


def write(text: str) -> None:
    """To stdout, at once. A full disk behind it is an error of its own; a closed pipe is left to `click`."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CodegenError(f"standard output: cannot be written ({error.strerror}); free some space") from error


def write_json(value: dict[str, Any]) -> None:
    write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


class Bars:
    """A progress bar per stage on stderr, with the time that is left, where that is a terminal."""

    def __init__(self) -> None:
        self._stage = ""
        self._bar: Any = None  # click keeps the type of its bar to itself

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
        self._bar = None

    def show(self, stage: str, done: int, total: int) -> None:
        if not sys.stderr.isatty():
            return
        if stage != self._stage:
            self._close()
            self._stage = stage
            self._bar = click.progressbar(length=total, label=stage, file=sys.stderr, show_pos=True)
            self._bar.__enter__()
        if self._bar is not None:
            self._bar.update(done - self._bar.pos)


class Answers:
    """Writes texts as they come, or when all are there; where there are several, each under its name."""

    def __init__(self, names: Sequence[str], tokenizer: Tokenizer, logprobs: bool) -> None:
        self.names, self._tokenizer, self._logprobs = names, tokenizer, logprobs
        self._opened = 0
        self._streamed: set[int] = set()
        self._at_line_start = True

    def _open(self, answer: int) -> None:
        while self._opened <= answer:
            if len(self.names) > 1:
                self._put(("" if self._at_line_start else "\n") + self.names[self._opened] + "\n")
            self._opened += 1

    def _put(self, text: str) -> None:
        write(text)
        self._at_line_start = text.endswith("\n") if text else self._at_line_start

    def stream(self, answer: int, text: str) -> None:
        """New text of an answer; those before it are complete."""
        self._open(answer)
        self._streamed.add(answer)
        self._put(text)

    def finish(self, completions: Sequence[Completion]) -> None:
        """What was not streamed. A single text that is not for a terminal gets no newline of ours at its end."""
        for answer, completion in enumerate(completions):
            self._open(answer)
            if self._logprobs:
                write_table(self._tokenizer, completion.tokens, completion.logprobs)
            elif answer not in self._streamed:
                self._put(completion.text)
        if not self._at_line_start and (len(completions) > 1 or sys.stdout.isatty()):
            self._put("\n")


def note_unfinished(names: Sequence[str], completions: Sequence[Completion], max_tokens: int) -> None:
    """Said to a person only: a program reads `finish_reason`."""
    for name, completion in zip(names, completions, strict=True):
        if sys.stderr.isatty() and completion.finish_reason == "length":
            say(f"{name} has no end within --max-tokens {max_tokens}")


def to_json(completion: Completion, logprobs: bool) -> dict[str, Any]:
    fields = {"text": completion.text, "finish_reason": completion.finish_reason, "tokens": list(completion.tokens)}
    return fields | ({"logprobs": list(completion.logprobs)} if logprobs else {})


def write_table(tokenizer: Tokenizer, tokens: Sequence[int], logprobs: Sequence[float]) -> None:
    for id, logprob in zip(tokens, logprobs, strict=True):
        write(f"{logprob:9.3f}  {_shown(tokenizer.token_bytes(id))}\n")


def _shown(token: bytes) -> str:
    """A token as a Python literal: bytes where it is no whole UTF-8."""
    try:
        return repr(token.decode())
    except UnicodeDecodeError:
        return repr(token)
