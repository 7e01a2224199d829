"""What a person is told. Every error is one line: the input that is wrong, and what to do about it.

Anything else that is raised is a bug of ours and surfaces as a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class CodegenError(Exception):
    """The input, a file or the machine stands in the way. The command line prints it and exits with 1."""


class UsageError(CodegenError):
    """The arguments contradict each other or make no sense. The command line prints it and exits with 2."""


def say(line: str) -> None:
    """Say on stderr, in one line, what was done otherwise than asked, or takes a while."""
    print(f"codegen25: {line}", file=sys.stderr)


@contextmanager
def needs_extra(extra: str, what: str = "this") -> Iterator[None]:
    """Around what imports the packages of an extra: one that is not installed is one line that says how to get it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("codegen25"):
            raise
        raise CodegenError(f"{what} needs {error.name}; pip install 'codegen25[{extra}]'") from error
