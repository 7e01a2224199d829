"""A small corpus with an index: functions of several sources and licences, and boilerplate that all of them have."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from small_corpus import document, write_corpus

from codegen25.attribute.build import build_index
from codegen25.attribute.index import Index
from codegen25.attribute.trace import Rule, Tracer
from codegen25.data.document import Document, Evidence
from codegen25.data.engine import Engine, Task
from codegen25.tokenizer import family

COMMON = (
    "def main(argv=None):\n    parser = argparse.ArgumentParser(description=__doc__)\n"
    "    parser.add_argument('--verbose', action='store_true', help='say more')\n"
    "    parser.add_argument('paths', nargs='*', default=['.'])\n    args = parser.parse_args(argv)\n"
    "    logging.basicConfig(level=logging.DEBUG if args.verbose else logging.INFO)\n    return run(args.paths)\n"
)
SOURCES = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "gpl-tools", "nobody")
LICENSES = {"gpl-tools": "GPL-3.0-only", "nobody": ""}
_NAMES = (
    "count total index value item result buffer offset node parent child left right weight height width depth limit "
    "cache entry token stream reader writer path folder name label score rank queue stack graph edge"
)
WORDS = _NAMES.split()


class InProcess(Engine):
    """The tasks of an engine, one after the other, in this process."""

    def start(self) -> None:
        pass

    def run(self, make: Any, arguments: tuple[Any, ...], items: Sequence[str]) -> Iterator[str]:
        task: Task = make(*arguments)
        return map(task, items)


HERE = InProcess()


def function(seed: object, lines: int = 14) -> str:
    """A function that nobody else has."""
    draw = random.Random(str(seed))
    names = draw.sample(WORDS, 9)
    body = [f"def {names[0]}_{names[1]}({names[2]}, {names[3]}={draw.randrange(100)}):"]
    for _ in range(lines):
        a, b, c = draw.choices(names, k=3)
        body.append(
            draw.choice(
                [
                    f"    {a} = {b}.{draw.choice(WORDS)}({c}, {draw.randrange(1000)})",
                    f"    if {a} > {b} + {draw.randrange(1000)}:\n        {c} -= {a} * {b}",
                    f"    for {a} in {b}[{draw.randrange(9)}:]:\n        {c}.{draw.choice(WORDS)}[{a}] = {a}",
                    f"    # the {draw.choice(WORDS)} of the {draw.choice(WORDS)} is é\n    {a}, {b} = {b}, {a} % {c}",
                ]
            )
        )
    return "\n".join([*body, f"    return {names[4]}", ""])


def documents() -> list[Document]:
    """Two files of every source. Those of `nobody` have no licence."""
    made = []
    for source in SOURCES:
        for number in range(2):
            license = LICENSES.get(source, "MIT")
            evidence = Evidence("file", "LICENSE", license, 0.9) if license else Evidence("", "", "", 0.0)
            head = f"# Copyright (c) 2020 The {source} authors\n\n"
            text = head + "\n\n".join([function((source, number, n)) for n in range(3)]) + "\n\n" + COMMON
            made.append(
                document(text, source=source, path=f"{source}/m{number}.py", license=license, evidence=evidence)
            )
    return made


def tracer(
    folder: Path, made: Iterable[Document] | None = None, *, normalized: bool = False, rule: Rule | None = None
) -> Tracer:
    """A corpus in two shards, its index, and what traces in it."""
    everything = list(documents() if made is None else made)
    half = len(everything) // 2 or 1
    corpus = write_corpus(folder / "corpus", {"train": [everything[:half], everything[half:]]})
    build_index(corpus, folder / "index", family(), HERE, normalized=normalized)
    return Tracer(Index.open(folder / "index"), family(), rule)
