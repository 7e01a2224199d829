"""What a person is told. Every error is one line: the input that is wrong, and what to do about it.

Anything else that is raised is a bug of ours and surfaces as a traceback.
"""

from __future__ import annotations

import sys


class CodegenError(Exception):
    """The input, a file or the machine stands in the way. The command line prints it and exits with 1."""


class UsageError(CodegenError):
    """The arguments contradict each other or make no sense. The command line prints it and exits with 2."""


def say(line: str) -> None:
    """Say on stderr, in one line, what was done otherwise than asked, or takes a while."""
    print(f"codegen25: {line}", file=sys.stderr)
