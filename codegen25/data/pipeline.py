"""A build from a lock to a corpus: read, compare, decide, pack; each stage leaves files, and goes on from them.

Scratch files lie in OUT/work under a name made of everything that decides, so that a build that was stopped goes on
and one with other settings begins anew. The manifest is written last: a folder without one is no corpus.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from codegen25.data.alone import alone
from codegen25.data.copies import Gone, Place, Progress, find_copies
from codegen25.data.corpus import DROPPED, LOCK, MANIFEST, Corpus, write_manifest
from codegen25.data.curate import UNREADABLE, curator
from codegen25.data.engine import Engine
from codegen25.data.lock import write_lock
from codegen25.data.pack import SPLITS, over_share, packer, plan
from codegen25.data.parts import Drop, DropTable, PartFiles, rows
from codegen25.data.recipe import Recipe
from codegen25.data.report import write_report
from codegen25.data.source import Source
from codegen25.data.units import fetch_all, size_of, units
from codegen25.errors import CodegenError

# Of the two files of a shard.
ENDINGS = ("tokens", "parquet")
REPORT = "report.html"
CACHE = Path("~/.cache/codegen25/archives")
# The shards of each split, as the manifest lists them.
Shards = dict[str, list[dict[str, Any]]]


def quiet(stage: str, done: int, total: int) -> None:
    """The progress of those who do not look."""


@dataclass(frozen=True)
class Build:
    """What is built where. `root` is the folder that relative locations start from, `cache` keeps downloads.

    `hashed` are locations with the hashes that were taken there a moment ago, and are not taken again.
    """

    sources: Sequence[Source]
    out: Path
    recipe: Recipe
    engine: Engine
    root: Path = Path()
    cache: Path = CACHE
    progress: Progress = quiet
    hashed: frozenset[tuple[str, str]] = frozenset()

    def fingerprint(self) -> str:
        """The SHA-256 of everything that decides the bytes of the corpus."""
        sources = [asdict(replace(source, location="")) for source in self.sources]
        said = json.dumps([self.recipe.fingerprint(), sources], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()

    def run(self) -> Corpus:
        """Build the corpus, or go on with it.

        Raises CodegenError when the folder holds another corpus, another build is at work there, a source is not what
        the lock names, or nothing is left to keep.
        """
        with alone(self.out, "another build is at work here; wait for it or choose another folder"):
            if (self.out / MANIFEST).exists():
                return self._finished()
            work = self.out / "work" / self.fingerprint()[:16]
            for other in (self.out / "work").glob("*"):
                if other != work:
                    shutil.rmtree(other)
            work.mkdir(parents=True, exist_ok=True)
            self.engine.start()
            parts = self._curate(work)
            gone = self._copies(parts, work)
            shards = self._pack(parts, gone, work)
            self._finish(parts, gone, shards, work)
        return Corpus(self.out)

    def _finished(self) -> Corpus:
        corpus = Corpus(self.out)
        if corpus.fingerprint != self.fingerprint():
            raise CodegenError(f"{self.out}: holds another corpus; choose another folder, or remove it first")
        if not (self.out / REPORT).exists():
            write_report(corpus, self.out / REPORT)
        shutil.rmtree(self.out / "work", ignore_errors=True)
        return corpus

    def _curate(self, work: Path) -> list[PartFiles]:
        """Every file judged, with one set of files per part."""
        total = len(self.sources)
        at_hand = fetch_all(self.sources, self.cache.expanduser(), lambda n: self.progress("fetching", n, total))
        found = units(at_hand, self.root, self.hashed)
        parts = [PartFiles(work, unit.key) for unit in found]
        left = [unit for unit, files in zip(found, parts, strict=True) if files.summary() is None]
        # The largest first: the last to finish is then a small one.
        left.sort(key=lambda unit: (-size_of(unit.source, self.root), unit.number))
        done = len(found) - len(left)
        self.progress("reading", done, len(found))
        items = [unit.to_json() for unit in left]
        for _ in self.engine.run(curator, (self.recipe, str(self.root.absolute()), str(work.absolute())), items):
            done += 1
            self.progress("reading", done, len(found))
        return parts

    def _copies(self, parts: list[PartFiles], work: Path) -> dict[Place, Gone]:
        """The documents that other documents or their own number push out."""
        gone = find_copies(parts, self.engine, work, near=self.recipe.near, progress=self.progress)
        if self.recipe.package_bytes is not None:
            over = over_share(parts, gone, self.recipe.package_bytes)
            gone |= dict.fromkeys(over, Gone("share", "over the source's share", ""))
        return gone

    def _pack(self, parts: list[PartFiles], gone: dict[Place, Gone], work: Path) -> Shards:
        """The shards' entries in the manifest, by split; the files themselves still lie in `work`."""
        plans = plan(parts, gone, self.recipe.shard_bytes)
        if not plans:
            raise CodegenError(f"nothing is left to keep; {_why(parts, gone)}")
        for one in plans:
            np.save(work / f"{one.name}.npy", np.array(one.places, dtype=np.uint32))
        written: dict[str, dict[str, Any]] = {}
        self.progress("writing", 0, len(plans))
        folder = str(work.absolute())
        arguments = (self.recipe, folder, [files.key for files in parts], folder)
        for summary in self.engine.run(packer, arguments, [one.name for one in plans]):
            entry = json.loads(summary)
            written[entry["name"]] = entry
            self.progress("writing", len(written), len(plans))
        return {split: [written[n] for n in sorted(written) if n.startswith(split)] for split in SPLITS}

    def _finish(self, parts: list[PartFiles], gone: dict[Place, Gone], shards: Shards, work: Path) -> None:
        """Everything into its place, the manifest last."""
        with DropTable(work / DROPPED) as dropped:
            for drop in all_drops(parts, gone):
                dropped.drop(drop)
            dropped.close()
        write_lock(work / LOCK, self.sources)
        names = {f"{entry['name']}.{ending}" for split in shards.values() for entry in split for ending in ENDINGS}
        for stale in {path.name for split in SPLITS for path in self.out.glob(f"{split}-*")} - names:
            (self.out / stale).unlink()  # of a build with other settings that was stopped here
        for name in [*sorted(names), DROPPED, LOCK]:
            if (work / name).exists():
                (work / name).replace(self.out / name)
        files = sum((files.summary() or {})["files"] for files in parts)
        write_manifest(self.out, self.recipe, self.fingerprint(), shards, files=files)
        write_report(Corpus(self.out), self.out / REPORT)
        shutil.rmtree(self.out / "work")


def all_drops(parts: Sequence[PartFiles], gone: dict[Place, Gone]) -> Iterator[Drop]:
    """Every file that is not in the corpus, part by part: those of the reading first, then what copies pushed out."""
    for files in parts:
        for row in rows(files.dropped):
            yield Drop(**row)
        for row in rows(files.kept, ("part", "row", "about")):
            if out := gone.get((row["part"], row["row"])):
                about = json.loads(row["about"])
                yield Drop(about["source"], about["version"], about["path"], out.stage, out.reason, out.detail)


def _why(parts: Sequence[PartFiles], gone: dict[Place, Gone]) -> str:
    """The commonest reasons, in a few words; of a source that cannot be read, what its reader said."""
    counts: dict[str, int] = {}
    for drop in all_drops(parts, gone):
        if drop.reason == UNREADABLE:
            return drop.detail
        counts[drop.reason] = counts.get(drop.reason, 0) + 1
    first = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:3]
    return ", ".join(f"{reason}: {count}" for reason, count in first) or "the sources hold no files"
