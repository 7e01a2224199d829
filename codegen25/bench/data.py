"""The corpus beside datatrove's: how fast near copies are found, how rightly, and whether a build keeps its promises.

One run, the same files for both: files that are installed here and pass the filters, and edited copies of some, so
that there are near copies of every similarity. What is right is known from comparing all pairs.
"""

from __future__ import annotations

import random
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from codegen25.bench import brute, near
from codegen25.bench.figures import Bar, Figure, Options
from codegen25.bench.peer import Peer, PeerError
from codegen25.bench.plants import edited, planted
from codegen25.data.decontaminate import Problem, humaneval
from codegen25.data.dedup import NGRAM, THRESHOLD
from codegen25.data.engine import Engine
from codegen25.data.filters import decode
from codegen25.data.shards import file_sha256
from codegen25.data.shingles import ngrams
from codegen25.data.source import MAX_BYTES
from codegen25.errors import CodegenError

SPEED, RECALL, PRECISION, WHOLE = Bar(">=", 2.0), Bar(">=", 0.95), Bar(">=", 0.99), Bar(">=", 1.0)
DATATROVE = "datatrove"
# Buckets and hashes in each: as many as find what ours do, and its defaults, which find less and are faster.
BUCKETS = {"equal recall": (42, 6), "its defaults": (14, 8)}
EDITED = 5  # one file in so many is an edited copy
MOST_EDITED = 0.3  # of its lines
TASKS = 4  # for each worker, so that none waits for long
SOURCES = 8  # of the whole build
SHARD_BYTES = 1 << 24

Files = list[tuple[str, str]]  # path and text


def run(options: Options, *, folder: Path | None = None, documents: int = 5000, seed: int = 0) -> Iterator[Figure]:
    """All figures, as they are measured; `options.threads` is the number of workers."""
    options.say("choosing files that pass the filters")
    files = choose(folder, documents, seed)
    Engine(workers=options.threads).start()
    with TemporaryDirectory(prefix="codegen25-bench-") as scratch:
        yield from near_figures(files, options, Path(scratch))
        yield from build_figures(files, humaneval(), options, Path(scratch), seed)


def choose(folder: Path | None, count: int, seed: int) -> Files:
    """`count` Python files, or as many as there are: of `folder` and below, or of the packages installed here.

    No two texts are the same. Raises CodegenError when there are none.
    """
    if folder is not None and not folder.is_dir():
        raise CodegenError(f"{folder}: no such folder; name one that holds Python files")
    root = folder or Path(sysconfig.get_path("purelib"))
    rng = random.Random(seed)
    paths = sorted(path for path in root.rglob("*.py") if path.is_file() and path.stat().st_size <= MAX_BYTES)
    rng.shuffle(paths)
    chosen: dict[str, str] = {}  # by text
    for path in paths:
        if len(chosen) >= count:
            break
        name = path.relative_to(root).as_posix()
        text, _ = decode(path.read_bytes())
        if text is None or text in chosen or not near.wanted(name, text):
            continue
        chosen[text] = name
        copy, copied = edited(text, rng.random() * MOST_EDITED, rng), f"{name.removesuffix('.py')}_copy.py"
        if len(chosen) % EDITED == EDITED - 1 and copy not in chosen and near.wanted(copied, copy):
            chosen[copy] = copied
    if not chosen:
        raise CodegenError(f"{root}: no Python file passes the filters; name another folder with --files")
    return [(name, text) for text, name in list(chosen.items())[:count]]


# ---------------------------------------------------------------------------------------------------------- near copies


@dataclass
class Turns:
    """What one way of finding near copies took and left: seconds by stage of every round, and the paths kept."""

    seconds: list[dict[str, float]] = field(default_factory=list)
    start: float = 0.0
    kept: set[str] = field(default_factory=set)
    missing: str = ""

    def rates(self, count: int) -> list[float]:
        return [count / sum(stages.values()) for stages in self.seconds]


# Deduplicates a folder of documents into another; seconds by stage.
Finder = Callable[[Path, Path], dict[str, float]]


def near_figures(files: Files, options: Options, scratch: Path) -> Iterator[Figure]:
    """Speed, recall and precision of the search for near copies."""
    few = [(f"few/{number}.py", f"name_{number} = {number}\n" * 3) for number in range(TASKS * options.threads)]
    for name, documents in (("few", few), ("all", files)):
        (scratch / name).mkdir()
        for number in range(TASKS * options.threads):
            part = documents[number :: TASKS * options.threads]
            near.write_documents(scratch / name / f"{number:05d}.jsonl", part)
    turns = {"": Turns()} | {name: Turns() for name in BUCKETS if DATATROVE in options.peers}
    with ExitStack() as stack:
        finders = _finders(turns, options, stack)
        for number in range(options.rounds + 1):
            options.say(f"near copies: round {number} of {options.rounds}" if number else "near copies: starting")
            for name, find in finders.items():
                _turn(turns[name], find, scratch, f"{number}-{name}", warm=not number)
    options.say("comparing all pairs")
    pairs = brute.true_pairs([ngrams(text, NGRAM) for _, text in files], THRESHOLD)
    yield from _speeds(turns, len(files))
    yield from _rightness(turns, [name for name, _ in files], pairs)


def _finders(turns: dict[str, Turns], options: Options, stack: ExitStack) -> dict[str, Finder]:
    finders: dict[str, Finder] = {"": lambda folder, out: near.run(folder, out, options.threads)}
    if DATATROVE not in options.peers:
        return finders
    try:
        peer = stack.enter_context(Peer.start(DATATROVE, options))
        peer.call("load")
    except PeerError as error:
        for name in BUCKETS:
            turns[name].missing = str(error)
        return finders

    def finder(buckets: int, hashes: int) -> Finder:
        settings = {"workers": options.threads, "buckets": buckets, "hashes": hashes}
        return lambda folder, out: peer.call("run", folder=str(folder), out=str(out), **settings)["seconds"]

    return finders | {name: finder(*settings) for name, settings in BUCKETS.items()}


def _turn(turns: Turns, find: Finder, scratch: Path, name: str, *, warm: bool) -> None:
    """One round; the first is on a few small documents, and measures what starting costs."""
    if turns.missing:
        return
    out = scratch / name
    try:
        seconds = find(scratch / ("few" if warm else "all"), out)
    except PeerError as error:
        turns.missing = str(error)
        return
    if warm:
        turns.start = sum(seconds.values())
        return
    turns.seconds.append(seconds)
    turns.kept = {id for file in sorted((out / "kept").glob("*.jsonl")) for id, _ in near.read_documents(file)}


def _speeds(turns: dict[str, Turns], count: int) -> Iterator[Figure]:
    ours = turns[""]
    for name, settings in BUCKETS.items():
        peer = turns.get(name, Turns())
        rates = peer.rates(count) if not peer.missing else []
        more: dict[str, Any] = {"documents": count, "ours_seconds": ours.seconds, "peer_seconds": peer.seconds}
        starts = {"ours_start_seconds": round(ours.start, 2), "peer_start_seconds": round(peer.start, 2)}
        note = f"{count} files; of that starting took {ours.start:.1f} s of ours"
        note += f", {peer.start:.1f} s of its; its buckets are {settings[0]} of {settings[1]}" if rates else ""
        bar = SPEED if name == "equal recall" else None
        label = f"filters and near copies, {name}"
        yield Figure(label, "docs/s", ours.rates(count), rates, DATATROVE, bar, peer.missing or note, more | starts)


def _rightness(turns: dict[str, Turns], names: Sequence[str], pairs: brute.Pairs) -> Iterator[Figure]:
    """Recall and precision, ours against all pairs' and datatrove's."""
    measured: dict[str, tuple[float, float]] = {}
    for name, one in turns.items():
        if one.kept and not one.missing:
            kept = [number for number, path in enumerate(names) if path in one.kept]
            dropped = [number for number, path in enumerate(names) if path not in one.kept]
            measured[name] = brute.recall(pairs, kept), brute.precision(pairs, kept, dropped)
    recall, precision = measured[""]
    dropped_count = len(names) - len(turns[""].kept)
    note = f"{len(pairs)} pairs of {len(names)} files have a Jaccard similarity of {THRESHOLD} or more"
    yield Figure("recall of near copies", "", [recall], [1.0], "all pairs compared", RECALL, note)
    note = f"{dropped_count} files dropped; right is one that has a near copy among the kept"
    yield Figure("precision of near copies", "", [precision], [1.0], "all pairs compared", PRECISION, note)
    for name, (its_recall, its_precision) in measured.items():
        if name:
            yield Figure(f"recall, {name}", "", [recall], [its_recall], DATATROVE, WHOLE)
            yield Figure(f"precision, {name}", "", [precision], [its_precision], DATATROVE)


# -------------------------------------------------------------------------------------------------------- a whole build


def build_figures(
    files: Files, problems: Sequence[Problem], options: Options, scratch: Path, seed: int
) -> Iterator[Figure]:
    """What a build of these files and of planted problems keeps, and whether one worker and more make the same."""
    from codegen25.data.corpus import Corpus

    hosts = [text for _, text in files if len(text) < 20_000] or [files[0][1]]
    plants = planted(problems, hosts, seed)
    root = scratch / "sources"
    for number, (name, text) in enumerate([*files, *plants.items()]):
        path = root / (f"source-{number % SOURCES}" if number < len(files) else "planted") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    several = max(2, options.threads)
    seconds = {}
    for workers in (several, 1):
        options.say(f"building with {workers} worker{'s' * (workers > 1)}")
        start = time.perf_counter()
        _build(root, scratch / f"corpus-{workers}", problems, workers)
        seconds[workers] = time.perf_counter() - start
    corpus = Corpus(scratch / f"corpus-{several}")
    documents = len(files) + len(plants)
    note = f"all of a build, {several} workers: licences, redaction, decontamination and tokens too"
    more = {"workers": several, "seconds": {str(workers): round(taken, 1) for workers, taken in seconds.items()}}
    yield Figure(
        "whole build",
        "docs/s",
        [documents / seconds[several]],
        [documents / seconds[1]],
        "with 1 worker",
        None,
        note,
        more,
    )
    yield _contamination(corpus, list(plants))
    yield _identity(scratch / f"corpus-{several}", scratch / "corpus-1")


def _build(root: Path, out: Path, problems: Sequence[Problem], workers: int) -> None:
    from codegen25.data.describe import describe
    from codegen25.data.pipeline import Build
    from codegen25.data.policy import read_policy
    from codegen25.data.recipe import Recipe
    from codegen25.model.vocabulary import vocabulary_of

    sources = [replace(source, license="MIT") for folder in sorted(root.iterdir()) for source in describe(str(folder))]
    recipe = Recipe(vocabulary_of(), read_policy("permissive"), tuple(problems), shard_bytes=SHARD_BYTES)
    Build(sources, out, recipe, Engine(workers=workers)).run()


def _contamination(corpus: Any, plants: Sequence[str]) -> Figure:
    from codegen25.data.parts import rows

    survivors = [d.path for split in corpus.splits for d in corpus.documents(split) if d.path in set(plants)]
    fell = Counter(row["stage"] for row in rows(corpus.folder / "dropped.parquet") if row["path"] in set(plants))
    share = 1 - len(survivors) / len(plants)
    note = f"{len(plants)} planted, {len(survivors)} in the corpus; fell by stage: {dict(sorted(fell.items()))}"
    more = {"planted": len(plants), "survivors": survivors}
    return Figure("planted problems kept out", "", [share], [1.0], "all of them", WHOLE, note, more)


def _identity(one: Path, other: Path) -> Figure:
    hashes = [file_hashes(folder) for folder in (one, other)]
    names = sorted({*hashes[0], *hashes[1]})
    equal = sum(hashes[0].get(name) == hashes[1].get(name) for name in names)
    note = f"{equal} of {len(names)} files are the same to the byte"
    return Figure("the same corpus", "", [equal / len(names)], [1.0], "with 1 worker", WHOLE, note)


def file_hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file of a corpus, by its path in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
