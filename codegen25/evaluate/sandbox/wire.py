"""Messages between processes: a length of four bytes, then JSON. Whoever reads trusts nothing about the other end."""

from __future__ import annotations

import json
import os
from typing import Any

# Bytes of a message. What does not fit has no business in a test.
LIMIT = 1 << 26


class Closed(Exception):
    """The other end is gone, or the message breaks off."""


class Malformed(Exception):
    """What came is no message of ours."""


def pack(message: object) -> bytes:
    """Raises ValueError for what is larger than `LIMIT` or no JSON, RecursionError for what nests too deep."""
    data = json.dumps(message, separators=(",", ":")).encode("ascii")
    if len(data) > LIMIT:
        raise ValueError(f"a message of {len(data)} bytes")
    return len(data).to_bytes(4, "little") + data


def send(fd: int, message: object) -> None:
    """Raises `Closed`, and what `pack` raises."""
    send_packed(fd, pack(message))


def send_packed(fd: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except (BrokenPipeError, ConnectionResetError) as error:
        raise Closed from error


def receive(fd: int) -> Any:
    """Raises `Closed` and `Malformed`."""
    size = int.from_bytes(_exactly(fd, 4), "little")
    if size > LIMIT:
        raise Malformed(f"a message of {size} bytes")
    data = _exactly(fd, size)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"no JSON: {type(error).__name__}") from error


def _exactly(fd: int, size: int) -> bytes:
    parts = []
    while size:
        try:
            part = os.read(fd, min(size, 1 << 20))
        except ConnectionResetError as error:
            raise Closed from error
        if not part:
            raise Closed
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
