"""Where the sources of the page at `/` lie, and npm in them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

WEB = Path(__file__).parent.parent / "editors" / "web"

needs_node = pytest.mark.skipif(
    shutil.which("npm") is None or not (WEB / "node_modules").exists(), reason="run `make web` first"
)


def npm(*command: str, **environment: str) -> None:
    """`npm COMMAND` in the sources; fails with all that it said."""
    done = subprocess.run(
        ["npm", *command], cwd=WEB, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
