"""`python main.py ENGINE.py`: one JSON object a line goes to the engine's method `do`, what it returns comes back."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from typing import Any, TextIO


def load(path: str) -> Any:
    """The `Engine` of a file, whatever the file is called."""
    spec = importlib.util.spec_from_file_location("engine", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Engine()


def private_stdout() -> TextIO:
    """Standard output for our answers alone: what libraries print goes to standard error."""
    private = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return private


def main() -> None:
    private = private_stdout()
    engine = None
    for line in sys.stdin:
        ask = json.loads(line)
        try:
            engine = engine or load(sys.argv[1])
            answer = getattr(engine, ask.pop("do"))(**ask)
        except Exception as error:  # the benchmark says it and goes on without this engine
            answer = {"error": f"{type(error).__name__}: {error}"}
        private.write(json.dumps(answer) + "\n")
        private.flush()


if __name__ == "__main__":
    main()
