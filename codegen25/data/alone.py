"""One process at a time in a folder that is written to."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from codegen25.errors import CodegenError

LOCK = ".lock"


@contextmanager
def alone(
    folder: Path, busy: str, *, root: Path | None = None, remedy: str = "choose another folder"
) -> Iterator[None]:
    """Hold a folder, which is made where it is missing. However the process ends, the system lets go of it.

    Raises CodegenError with `busy` when another process holds it, and with `remedy` when it cannot be written; then
    `root` is named, the folder that a person chose and that this one lies in.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("w")
    except OSError as error:
        raise CodegenError(f"{root or folder}: cannot be written ({error.strerror}); {remedy}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CodegenError(f"{folder}: {busy}") from error
        yield
