"""Infilling of holes in real files, with drafts and without: what speculation gains where code is written.

A hole is one line, or several, cut from a file; the rest of that file and its neighbours are what an editor has open.
Timed is the answer behind a prompt that is in the cache, as it is while somebody types. How near an answer is to what
was cut out makes no difference: it is the model's own text, and the same with drafts and without.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from codegen25.bench import weights
from codegen25.bench.figures import Bar, Figure, Options
from codegen25.bench.session import LARGEST, SMALLEST, library_files
from codegen25.complete import Model
from codegen25.complete import load as load_model
from codegen25.editing import Editing
from codegen25.engine.answer import Counts, Request
from codegen25.engine.scheduler import Scheduler
from codegen25.errors import CodegenError
from codegen25.files import read_source

BAR = Bar(">=", 2.0)
FILES = 8  # of a round; each gives a hole of every kind
NEIGHBOURS = 4  # other files that are open
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
    """Python files of a size that people work in: of `folder` and below, or of the standard library."""
    if folder is None:
        return library_files(FILES, seed)
    if not folder.is_dir():
        raise CodegenError(f"{folder}: no such folder; name one that holds Python files")
    files = [file for file in sorted(folder.rglob("*.py")) if SMALLEST <= file.stat().st_size <= LARGEST]
    if not files:
        raise CodegenError(
            f"{folder}: no Python file of {SMALLEST // 1000} to {LARGEST // 1000} kB; name another folder"
        )
    return random.Random(seed).sample(files, min(FILES, len(files)))


def holes(files: Sequence[Path], kind: str, seed: int) -> Iterator[Hole]:
    """A hole in each of the files, the others are its neighbours. Raises `CodegenError` for one that is no text."""
    rng = random.Random(seed)
    texts = [read_source(file).text for file in files]
    for number, (file, text) in enumerate(zip(files, texts, strict=True)):
        lines = text.splitlines(keepends=True)
        count = 1 if kind == "single-line" else rng.randint(*LINES)
        places = [at for at in range(NEAR, len(lines) - count - NEAR) if lines[at].strip()]
        if not places:
            continue
        at = rng.choice(places)
        indent = len(lines[at]) - len(lines[at].lstrip())
        prefix = "".join(lines[:at]) + lines[at][:indent]
        suffix = "\n" + "".join(lines[at + count :])
        around = [*texts[number + 1 :], *texts[:number]][:NEIGHBOURS]
        yield Hole(f"{file}:{at + 1}", prefix, suffix, tuple(around))


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
    """One model behind two schedulers, with drafts and without."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.with_drafts = Scheduler(model.backend, model.tokenizer)
        self.without = Scheduler(model.backend, model.tokenizer, longest_draft=0)

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


def run(options: Options, *, folder: Path | None = None, seed: int = 0) -> list[Figure]:
    """Tokens per second of both kinds of holes; every round has other files and places."""
    files_of(folder, seed)  # before anything is written
    path = weights.model("nano", 4, options)
    pair = Pair(load_model(str(path), threads=options.threads, notice=options.say))
    for kind in KINDS:  # so that what a step costs is known to the schedulers
        for hole in holes(files_of(folder, seed), kind, seed):
            pair.answers(hole, kind, drafts_first=True)
            break
    return [_kind(pair, kind, options, folder, seed) for kind in KINDS]


def _kind(pair: Pair, kind: str, options: Options, folder: Path | None, seed: int) -> Figure:
    ours: list[float] = []
    plain: list[float] = []
    counts, answers = Counts(), 0
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
        answers += len(found)
    more: dict[str, Any] = {"answers": answers, "drafted": counts.drafted, "accepted": counts.accepted}
    share = counts.accepted / counts.drafted if counts.drafted else 0.0
    note = f"{answers} answers, the same text with drafts and without; {share:.0%} of drafted tokens were accepted"
    return Figure(f"infill {kind}, nano int4", "tok/s", ours, plain, "ours without drafts", BAR, note, more)
