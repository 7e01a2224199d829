"""Infilling of holes in real files, with drafts and without: what speculation gains where code is written.

A hole is one line, or several, cut from a file; the rest of that file and some of its folder are open in the editor.
Timed is the answer behind a prompt that is in the cache, as it is while somebody types. How near an answer is to what
was cut out makes no difference: it is the model's own text, and the same with drafts and without.
"""

from __future__ import annotations

import random
import sysconfig
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from codegen25.attribute.draft import CorpusDraft
from codegen25.attribute.index import Index
from codegen25.bench import weights
from codegen25.bench.figures import Bar, Figure, Options
from codegen25.bench.session import LARGEST, SMALLEST
from codegen25.complete import Model
from codegen25.complete import load as load_model
from codegen25.editing import Editing
from codegen25.engine.answer import Counts, Request
from codegen25.engine.scheduler import LONGEST_DRAFT, Scheduler
from codegen25.errors import CodegenError
from codegen25.files import read_source

BAR = Bar(">=", 2.0)
FILES = 8  # of a round; each gives a hole of every kind
NEIGHBOURS = 4  # files of the same folder that are open too
OTHERS = {
    "site-packages",
    "test",
    "tests",
    "idle_test",
    "encodings",
}  # folders of the standard library that are something else
LINES = (3, 9)  # of a hole of several lines
NEAR = 3  # lines of text that must stand on either side of a hole
# Kinds of holes: new tokens at most, and where an answer ends beside `<eom>`.
KINDS: dict[str, tuple[int, tuple[str, ...]]] = {"single-line": (48, ("\n",)), "multi-line": (160, ())}


@dataclass(frozen=True)
class Hole:
    """A place in a file, and the texts of the files that are open beside it."""

    name: str
    prefix: str
    suffix: str
    neighbours: tuple[str, ...]


@dataclass(frozen=True)
class Answered:
    """An answer, the seconds that it took behind its prompt, and what drafts did."""

    text: str
    tokens: int
    seconds: float
    counts: Counts


def files_of(folder: Path | None, seed: int) -> list[Path]:
    """Python files of a size that people work in: of `folder` and below, or of the standard library's packages.

    Raises `CodegenError` when there are none.
    """
    if folder is not None and not folder.is_dir():
        raise CodegenError(f"{folder}: no such folder; name one that holds Python files")
    root = folder or Path(sysconfig.get_path("stdlib"))
    files = [file for file in sorted(root.rglob("*.py")) if _is_fitting(file)]
    if folder is None:
        files = [file for file in files if (file.parent / "__init__.py").exists() and not OTHERS & set(file.parts)]
    if not files:
        raise CodegenError(f"{root}: no Python file of {SMALLEST // 1000} to {LARGEST // 1000} kB; name another folder")
    return random.Random(seed).sample(files, min(FILES, len(files)))


def _is_fitting(file: Path) -> bool:
    return SMALLEST <= file.stat().st_size <= LARGEST


def holes(files: Sequence[Path], kind: str, seed: int) -> Iterator[Hole]:
    """A hole in each of the files that has room for it. Raises `CodegenError` for a file that is no text."""
    rng = random.Random(seed)
    for file in files:
        lines = read_source(file).text.splitlines(keepends=True)
        count = 1 if kind == "single-line" else rng.randint(*LINES)
        places = [at for at in range(NEAR, len(lines) - count - NEAR) if lines[at].strip()]
        if not places:
            continue
        at = rng.choice(places)
        indent = len(lines[at]) - len(lines[at].lstrip())
        prefix = "".join(lines[:at]) + lines[at][:indent]
        suffix = "\n" + "".join(lines[at + count :])
        beside = [other for other in sorted(file.parent.glob("*.py")) if other != file and _is_fitting(other)]
        opened = rng.sample(beside, min(NEIGHBOURS, len(beside)))
        yield Hole(f"{file}:{at + 1}", prefix, suffix, tuple(read_source(other).text for other in opened))


def ask(scheduler: Scheduler, request: Request) -> Answered:
    """Run a request that is alone. `tokens` are all that the model wrote, those that spell a word's beginning too."""
    start = time.perf_counter()
    ticket = scheduler.submit(request)
    text, tokens = "", 0
    while True:
        for piece in scheduler.step():
            if piece.request != ticket:
                continue
            if piece.error:
                raise piece.error
            text += piece.text
            tokens += piece.token is not None
            if piece.finish:
                return Answered(text, tokens, time.perf_counter() - start, piece.counts or Counts())


def behind_prompt(scheduler: Scheduler, request: Request) -> Answered:
    """The answer when the prompt, and nothing else, was computed before."""
    scheduler.forget()
    ask(scheduler, replace(request, required=b"", max_tokens=1))
    return ask(scheduler, request)


class Pair:
    """One model behind two schedulers, with drafts and without; with an index, both draft, one from the corpus too."""

    def __init__(self, model: Model, index: Index | None = None) -> None:
        self.model, self.is_of_corpus = model, index is not None
        corpus = [CorpusDraft(index, model.tokenizer)] if index else []
        self.with_drafts = Scheduler(model.backend, model.tokenizer, drafts=corpus)
        longest = LONGEST_DRAFT if index else 0
        self.without = Scheduler(model.backend, model.tokenizer, longest_draft=longest)

    def answers(self, hole: Hole, kind: str, drafts_first: bool) -> tuple[Answered, Answered]:
        """(with drafts, without), taken in either order. The texts are the same, or it is a bug."""
        max_tokens, stop = KINDS[kind]
        open_texts = (hole.prefix, hole.suffix, *hole.neighbours)
        editing = Editing(self.model, max_tokens=max_tokens, stop=stop, related=open_texts)
        request = editing.request(hole.prefix, hole.suffix)
        order = (self.with_drafts, self.without) if drafts_first else (self.without, self.with_drafts)
        first, second = (behind_prompt(scheduler, request) for scheduler in order)
        drafted, plain = (first, second) if drafts_first else (second, first)
        assert drafted.text == plain.text, f"{hole.name}: drafts changed the text, {drafted.text!r} is {plain.text!r}"
        return drafted, plain


def run(options: Options, *, folder: Path | None = None, seed: int = 0, index: Path | None = None) -> list[Figure]:
    """Tokens per second of both kinds of holes; every round has other files and places.

    `index`: one of nano's vocabulary, whose corpus is drafted from beside the text around, against that text alone.
    """
    files_of(folder, seed)  # before anything is written
    opened = Index.open(index) if index else None
    path = weights.model("nano", 4, options)
    pair = Pair(load_model(str(path), threads=options.threads, notice=options.say), opened)
    for kind in KINDS:  # so that what a step costs is known to the schedulers
        for hole in holes(files_of(folder, seed), kind, seed):
            pair.answers(hole, kind, drafts_first=True)
            break
    return [_kind(pair, kind, options, folder, seed) for kind in KINDS]


def _kind(pair: Pair, kind: str, options: Options, folder: Path | None, seed: int) -> Figure:
    ours: list[float] = []
    plain: list[float] = []
    counts, answers, written = Counts(), 0, 0
    for number in range(options.rounds):
        options.say(f"{kind}: round {number + 1} of {options.rounds}")
        found = [
            pair.answers(hole, kind, drafts_first=bool(turn % 2))
            for turn, hole in enumerate(holes(files_of(folder, seed + number), kind, seed + number))
        ]
        if not found:
            raise CodegenError(
                f"{folder or 'the standard library'}: no file has a place for a hole; name another folder"
            )
        for taken, side in ((ours, 0), (plain, 1)):
            tokens, seconds = sum(p[side].tokens for p in found), sum(p[side].seconds for p in found)
            taken.append(tokens / seconds)
        for drafted, _ in found:
            counts.add(drafted.counts)
            written += drafted.tokens
        answers += len(found)
    more: dict[str, Any] = {
        "answers": answers,
        "tokens": written,
        "drafted": counts.drafted,
        "accepted": counts.accepted,
    }
    share = counts.accepted / counts.drafted if counts.drafted else 0.0
    note = f"{answers} answers of {written / answers:.0f} tokens, the same with drafts and without; "
    note += f"{share:.0%} of what was drafted was right"
    name = f"infill {kind}, nano int4"
    if pair.is_of_corpus:
        return Figure(f"{name}, corpus", "tok/s", ours, plain, "drafts of open files alone", None, note, more)
    return Figure(name, "tok/s", ours, plain, "ours without drafts", BAR, note, more)
