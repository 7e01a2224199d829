"""What all archives have in common: names that must stay inside, and bounds on what may come out.

Whatever an archive says of itself may be a lie, so every number is bounded: bytes of an entry, bytes of all, entries.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from codegen25.data.regular import shown
from codegen25.data.source import Refused

# Text is packed to a third or a tenth. What unpacks to more than this many times its size is made to fill memories.
MAX_RATIO = 100
# Below this there is no harm in any ratio.
HARMLESS_BYTES = 10_000_000
MAX_ENTRIES = 200_000

# Asked of an entry's path: whether its content is wanted.
Wanted = Callable[[str], bool]


@dataclass(frozen=True)
class Member:
    """A file of an archive. `data` is cut at MAX_BYTES + 1 and None where it was not wanted.

    `day` is when it was last written in ISO 8601, "" where the archive gives no real one.
    """

    path: str
    data: bytes | None
    day: str


class ArchiveBomb(Exception):
    """More comes out of an archive than may."""


class Damaged(Exception):
    """An archive contradicts itself from here on."""


def most_bytes(size: int) -> int:
    """How much an archive of this many bytes may unpack to."""
    return max(HARMLESS_BYTES, MAX_RATIO * size)


def place(name: str | bytes) -> str | Refused:
    """An entry's name as a path inside the archive, without "." and empty parts; refused when it leads outside."""
    try:
        path = name.decode() if isinstance(name, bytes) else name.encode().decode()
    except UnicodeError:
        return Refused(shown(name), "name is not UTF-8")
    if path.startswith("/") or "\\" in path or "\0" in path or re.match("[A-Za-z]:", path):
        return Refused(path, "path leads outside")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or not parts:
        return Refused(path, "path leads outside")
    return "/".join(parts)


def iso_day(year: int, month: int, day: int) -> str:
    """A day in ISO 8601; "" for the years before 1981, in which archives put what has no date."""
    return f"{year:04d}-{month:02d}-{day:02d}" if year > 1980 and 1 <= month <= 12 and 1 <= day <= 31 else ""
