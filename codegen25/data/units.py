"""From a lock to pieces of work: every part of every source, at hand and known to be what the lock names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from codegen25.data import index
from codegen25.data.readers import check, open_source
from codegen25.data.source import Source
from codegen25.errors import CodegenError

# Downloads wait for the network, not for a core.
DOWNLOADS = 4


@dataclass(frozen=True)
class Unit:
    """A part of a source, as it is handed to a worker. `number` is its place in the build, `key` its files' name."""

    number: int
    key: str
    source: Source
    part: str

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Unit:
        fields: dict[str, Any] = json.loads(text)
        return cls(**fields | {"source": Source(**fields["source"])})


def fetch_all(sources: Sequence[Source], cache: Path, done: Callable[[int], None]) -> list[Source]:
    """The sources with archives of an index replaced by files in `cache`; `done` is told how many are there.

    Raises CodegenError when one cannot be had, or is not what its hash says.
    """

    def local(source: Source) -> Source:
        return replace(source, location=str(index.fetch(source, cache))) if index.is_remote(source) else source

    found = []
    with ThreadPoolExecutor(DOWNLOADS) as pool:
        for number, source in enumerate(pool.map(local, sources), start=1):
            found.append(source)
            done(number)
    return found


def units(sources: Sequence[Source], root: Path, hashed: Collection[tuple[str, str]] = ()) -> list[Unit]:
    """Every part of every source, in order. A source that cannot be opened is one unit, which counts it as unreadable.

    `hashed` are the locations and hashes of which no more is to be checked. Raises CodegenError when another source is
    not what the lock names.
    """
    found: list[Unit] = []
    for source in sources:
        if (source.location, source.hash) not in hashed:
            check(source, root)
        for part in _parts(source, root):
            number = len(found)
            # Where a source lies says nothing about what is in it.
            said = json.dumps([asdict(replace(source, location="")), part], sort_keys=True)
            key = f"{number:06d}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"
            found.append(Unit(number, key, source, part))
    return found


def _parts(source: Source, root: Path) -> list[str]:
    try:
        return open_source(source, root).parts()
    except CodegenError:
        if source.kind == "hub":
            raise  # a network that fails is nothing of the source's
        return [""]


def size_of(source: Source, root: Path) -> int:
    """About how much there is to read, in bytes, for an order of work; 0 where that is not known."""
    try:
        return (root / source.location).stat().st_size
    except (OSError, ValueError):
        return 0
