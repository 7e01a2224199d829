"""One process at a time in a folder that is written to."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from codegen25.errors import CodegenError

LOCK = ".lock"


@contextmanager
def alone(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder, which is made where it is missing. However the process ends, the system lets go of it.

    `what` is at work there. Raises CodegenError when another process holds it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("w")
    except OSError as error:
        raise CodegenError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CodegenError(
                f"{folder}: another {what} is at work here; wait for it or choose another folder"
            ) from error
        yield
