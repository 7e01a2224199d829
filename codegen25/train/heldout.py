"""How a model that is being trained does on held-out documents: bits per byte by language, and spans filled exactly.

A few documents of each language, the same at every measurement: what one is compared with is the run itself. Models
are judged by `codegen25 eval`.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import torch

from codegen25.complete import Model
from codegen25.data.corpus import MANIFEST
from codegen25.engine.torch import TorchBackend
from codegen25.errors import CodegenError
from codegen25.model.llama import Llama
from codegen25.tokenizer import Tokenizer
from codegen25.train.batches import Batch, pack, permuted, to_batch
from codegen25.train.instruct import Instructions, read_instructions
from codegen25.train.loss import Learner
from codegen25.train.objective import Example
from codegen25.train.parallel import World
from codegen25.train.texts import CorpusTexts, Texts, read_texts

# Documents of a language, and lines that are cut out of documents, of all languages together.
DOCUMENTS, HOLES = 8, 16
# Lines around a hole that the model sees, and tokens that it may answer.
BEFORE, AFTER, ANSWER = 24, 12, 48
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Piece:
    """The beginning of a held-out document: `<|endoftext|>` and ids; or a conversation.

    Measured are the ids that `learned` marks, which are `bytes` of text.
    """

    language: str
    ids: list[int]
    learned: list[bool]
    bytes: int


@dataclass(frozen=True)
class Hole:
    """A line, and some lines around it."""

    before: str
    line: str
    after: str


@dataclass(frozen=True)
class HeldOut:
    """What is measured with."""

    pieces: Sequence[Piece]
    holes: Sequence[Hole]
    tokenizer: Tokenizer
    stop: Sequence[str] = ()
    """What ends an answer beside `<eom>`."""

    def measure(self, model: Llama, world: World) -> dict[str, Any]:
        """Bits per byte by language and of all; of lines infilled greedily the share that is exact, and how alike.

        How alike two lines are is the ratio of Ratcliff and Obershelp, 0 to 1. Ranks, each with the whole model, share
        the documents; every rank gets the result of all.
        """
        rank, size = world.rank, world.size
        learner = Learner(model)
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            nats = {i: _nats(learner, self.pieces[i], world) for i in range(rank, len(self.pieces), size)}
            alike = self._alike(model, self.holes[rank::size])
        languages = sorted({piece.language for piece in self.pieces})
        mine = [math.fsum(n for i, n in nats.items() if self.pieces[i].language == name) for name in languages]
        sums = world.sums([*mine, math.fsum(alike), float(alike.count(1.0))])
        sizes: Counter[str] = Counter()
        for piece in self.pieces:
            sizes[piece.language] += piece.bytes
        bits = {name: total / math.log(2) / sizes[name] for name, total in zip(languages, sums, strict=False)}
        bits["all"] = sum(sums[:-2]) / math.log(2) / sizes.total()
        found: dict[str, Any] = {"bits_per_byte": {name: round(value, 4) for name, value in bits.items()}}
        if self.holes:
            found["infill_alike"], found["infill_exact"] = (round(one / len(self.holes), 4) for one in sums[-2:])
        return found

    def _alike(self, model: Llama, holes: Sequence[Hole]) -> list[float]:
        if not holes:
            return []
        asked = Model(TorchBackend(model), self.tokenizer)
        asking = [(hole.before, hole.after) for hole in holes]
        answers = asked.infill_batch(asking, max_tokens=ANSWER, stop=self.stop)
        pairs = [(answer.text.strip(), hole.line.strip()) for answer, hole in zip(answers, holes, strict=True)]
        return [SequenceMatcher(None, given, wanted, autojunk=False).ratio() for given, wanted in pairs]


def _nats(learner: Learner, piece: Piece, world: World) -> float:
    batch: Batch = to_batch(pack([Example(piece.ids, piece.learned)], len(piece.ids))).to(world.device)
    return float(learner(batch))


def open_heldout(
    path: Path | None, data: Path, tokenizer: Tokenizer, *, window: int, languages: Collection[str] = ()
) -> HeldOut:
    """Of the file of JSON lines at `path`, or the held-out split of the corpus `data`. `languages` as in training.

    Raises `CodegenError` when there is neither, or nothing in it.
    """
    if path is not None:
        texts: Texts = read_texts(path)
    elif (data / MANIFEST).exists():
        texts = CorpusTexts(data, tokenizer, "heldout", languages)
    else:
        raise CodegenError(f"{data}: holds nothing to measure with; name a JSONL file as --heldout, or leave out "
                           "--evaluate-every")  # fmt: skip
    pieces, holes = drawn(texts, tokenizer, window)
    if not pieces:
        raise CodegenError(f"{path or data}: its held-out documents are empty; name a JSONL file as --heldout")
    return HeldOut(pieces, holes, tokenizer)


def open_conversations(path: Path | None, tokenizer: Tokenizer, *, window: int) -> HeldOut:
    """Some responses of each task in the JSONL file at `path`, by what was said before them.

    Raises `CodegenError` when there is no file, or it is none of those (`train/instruct.py`).
    """
    if path is None:
        raise CodegenError("--evaluate-every: instruct has nothing to measure with; name a JSONL file as --heldout")
    found = Instructions(read_instructions(path), tokenizer)
    seen: Counter[str] = Counter()
    pieces = []
    for place in range(len(found)):
        number = permuted(place, len(found), "heldout")
        task = found.instructions[number].task or "responses"
        if seen[task] == DOCUMENTS:
            continue
        seen[task] += 1
        one = found.example(number, random.Random(number), window)
        learned = zip(one.ids, one.learned, strict=True)
        told = tokenizer.decode_bytes([id for id, is_learned in learned if is_learned and id != tokenizer.eot])
        pieces.append(Piece(task, list(one.ids), list(one.learned), len(told)))
    return HeldOut(pieces, [], tokenizer)


def drawn(
    texts: Texts, tokenizer: Tokenizer, window: int, *, documents: int = DOCUMENTS, holes: int = HOLES, each: int = 1
) -> tuple[list[Piece], list[Hole]]:
    """Documents in an order by chance that is always the same, until there are enough of each language.

    Up to `holes` lines are cut out of them, up to `each` of a document.
    """
    count = len(texts.sizes)
    seen: Counter[str] = Counter()
    pieces, cut = list[Piece](), list[Hole]()
    for place in range(count):
        number = permuted(place, count, "heldout")
        language = texts.language(number) or UNKNOWN
        if seen[language] == documents:
            continue
        text = texts.entry(number).text
        if not text.strip():
            continue
        seen[language] += 1
        ids = tokenizer.encode(text)[: window - 1]
        pieces.append(Piece(language, [tokenizer.eot, *ids], [True] * (len(ids) + 1), len(tokenizer.decode_bytes(ids))))
        cut += _holes(text, min(each, holes - len(cut)), random.Random(number))
    return pieces, cut


def _holes(text: str, count: int, rng: random.Random) -> list[Hole]:
    """Lines that are neither blank nor the first, at most `count`."""
    lines = text.splitlines(keepends=True)
    wanted = [n for n in range(1, len(lines)) if lines[n].strip()]
    return [_hole(lines, n) for n in rng.sample(wanted, min(count, len(wanted)))]


def _hole(lines: Sequence[str], n: int) -> Hole:
    line, end = lines[n].rstrip("\r\n"), lines[n][len(lines[n].rstrip("\r\n")) :]
    return Hole("".join(lines[max(0, n - BEFORE) : n]), line, end + "".join(lines[n + 1 : n + 1 + AFTER]))
