"""Which documents of a build are copies of another: exact ones by their id, near ones by MinHash and true Jaccard.

A place is (part, row): where a document stands in the build. Of copies, the one whose rank comes first is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from codegen25.data.dedup import BANDS, ShingleReader, clusters, near_copies
from codegen25.data.document import write_text
from codegen25.data.engine import Engine, Task
from codegen25.data.parts import PartFiles, rows

Place = tuple[int, int]
# Told (stage, done, total) as the work goes on.
Progress = Callable[[str, int, int], None]
# Members of clusters that a worker compares at a time.
TASK_MEMBERS = 2000


class Gone(NamedTuple):
    """Why a document that could be used is not in the corpus. `detail` of a copy: its similarity, and whose copy."""

    stage: str
    reason: str
    detail: str


def find_copies(
    parts: Sequence[PartFiles], engine: Engine, work: Path, *, near: bool, progress: Progress
) -> dict[Place, Gone]:
    """The places of all copies that are not kept. Noted in `work` when done, and read from there."""
    note = work / "copies.json"
    if not note.exists():
        count = sum((files.summary() or {})["kept"] for files in parts)
        gone = _exact(parts, engine, count)
        if near:
            gone |= _near(parts, engine, count, gone, progress)
        write_text(note, [json.dumps([[*place, *why] for place, why in sorted(gone.items())])])
    found = json.loads(note.read_text(encoding="utf-8"))
    return {(part, row): Gone(*why) for part, row, *why in found}


def _exact(parts: Sequence[PartFiles], engine: Engine, count: int) -> dict[Place, Gone]:
    gone = {}
    for group in engine.groups([files.kept for files in parts], "id", count, more=("rank", "id")):
        first, *others = sorted(zip(group["rank"], group["part"], group["row"], group["id"], strict=True))
        for _, part, row, _ in others:
            gone[part, row] = Gone("exact copy", "exact copy", f"1.00 of {first[3]}")
    return gone


def _near(
    parts: Sequence[PartFiles],
    engine: Engine,
    count: int,
    gone: dict[Place, Gone],
    progress: Progress,
) -> dict[Place, Gone]:
    found = engine.groups([files.kept for files in parts], "bands", count, width=BANDS)
    alive = ([_number(p) for p in zip(g["part"], g["row"], strict=True) if p not in gone] for g in found)
    linked = clusters(alive)
    members = _members(parts, {member for cluster in linked for group in cluster for member in group})
    items = list(_tasks(linked, members))
    near: dict[Place, Gone] = {}
    progress("comparing", 0, len(items))
    for done, answer in enumerate(engine.run(comparer, ([str(files.shingles) for files in parts],), items), start=1):
        for dropped, kept, similarity in json.loads(answer):
            near[_place(dropped)] = Gone("near copy", "near copy", f"{similarity:.2f} of {members[kept].id}")
        progress("comparing", done, len(items))
    return near


def _number(place: Place) -> int:
    return place[0] << 32 | place[1]


def _place(number: int) -> Place:
    return number >> 32, number & 0xFFFFFFFF


class _Member(NamedTuple):
    rank: str
    id: str
    at: int
    size: int


def _members(parts: Sequence[PartFiles], wanted: set[int]) -> dict[int, _Member]:
    """What is needed of candidates, by number."""
    found = {}
    for files in parts:
        for row in rows(files.kept, ("part", "row", "rank", "id", "shingles_at", "shingles"), batch=4096):
            if (number := _number((row["part"], row["row"]))) in wanted:
                found[number] = _Member(row["rank"], row["id"], row["shingles_at"], row["shingles"])
    return found


def _tasks(linked: list[list[tuple[int, ...]]], members: dict[int, _Member]) -> Iterator[str]:
    """Clusters as work, several small ones in a task: their groups, and where their members lie, by rank."""
    groups: list[tuple[int, ...]] = []
    size = 0
    for cluster in linked:
        groups += cluster
        size += len({member for group in cluster for member in group})
        if size >= TASK_MEMBERS:
            yield _task(groups, members)
            groups, size = [], 0
    if groups:
        yield _task(groups, members)


def _task(groups: list[tuple[int, ...]], members: dict[int, _Member]) -> str:
    inside = sorted({member for group in groups for member in group}, key=lambda one: (members[one].rank, one))
    where: list[tuple[Any, ...]] = [(one, members[one].at, members[one].size) for one in inside]
    return json.dumps({"members": where, "groups": groups})


def comparer(shingles: Sequence[str]) -> Task:
    """A task that compares the members of clusters; `shingles` are the files that they lie in, by part."""
    reader = ShingleReader()
    paths = [Path(name) for name in shingles]

    def task(item: str) -> str:
        asked = json.loads(item)
        where = {number: (paths[_place(number)[0]], at, count) for number, at, count in asked["members"]}
        order = {number: rank for rank, number in enumerate(where)}
        found = near_copies(asked["groups"], order.__getitem__, lambda number: reader.load(*where[number]))
        return json.dumps([[dropped, copy.kept, copy.similarity] for dropped, copy in sorted(found.items())])

    return task
