"""`codegen25 data …`: a corpus from its sources, and what there is to see in it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codegen25.errors import CodegenError, UsageError, needs_extra, say
from codegen25.terminal import Bars, write, write_json

if TYPE_CHECKING:
    from codegen25.data.corpus import Corpus
    from codegen25.data.recipe import Recipe
    from codegen25.data.source import Source
    from codegen25.data.tokens import Vocabulary

FOLDER = click.Path(path_type=Path)
_json = click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
_sources = click.argument("sources", nargs=-1, metavar="[SOURCE]...")
SOURCES = """A SOURCE is a folder, a git repository (FOLDER@COMMIT picks one), a wheel, a source archive, an npm
    tarball, a Parquet or JSONL file or a folder of them; `pypi:NAME==VERSION` or `npm:NAME@VERSION`, fetched and never
    run; `site:NAME`, `site` or `stdlib`, what is installed here; or `hub:OWNER/DATASET`."""


@click.group()
def data() -> None:
    """Make a corpus of licensed code, and look at it.

    Every file that is kept shows its source, its licence and why it is believed; every other one has a counted reason.

    \b
    Examples:
      codegen25 data build src/ ../other-repository --out corpus
      codegen25 data build --lock recipes/starter.lock.json --out starter --workers 2
      codegen25 data stats corpus --plot tokens.svg
      codegen25 data show corpus 3f2a9c
    """


@data.command()
@_sources
@click.option("--out", type=FOLDER, required=True, help="Folder of the corpus; one that was stopped goes on.")
@click.option("--lock", "locks", type=FOLDER, multiple=True, help="Build what this file lists; repeatable.")
@click.option("--runner", type=click.Choice(["native", "ray"]), default="native", help="Here, or on a Ray cluster.")
@click.option("--workers", type=click.IntRange(min=1), show_default="all cores", help="Processes at work.")
@click.option("--policy", default="permissive", help="Which licences are allowed: a name, or a TOML file.")
@click.option("--license", "declared", metavar="SPDX", default="", help="Of SOURCEs that say none; you answer for it.")
@click.option("--opt-out", type=FOLDER, help="Names of sources that must not be read, one a line.")
@click.option("--heldout", type=click.FloatRange(0, 1), default=0.0, help="Share of sources kept apart from training.")
@click.option("--heldout-source", "apart", multiple=True, metavar="NAME", help="Keep this source apart; repeatable.")
@click.option("--benchmark", "benchmarks", type=FOLDER, multiple=True, help="Keep this file's problems out, too.")
@click.option("--no-humaneval", is_flag=True, help="Do not look for HumanEval's problems.")
@click.option("--languages", help="By commas; every known one when not given.")
@click.option("--no-tests", is_flag=True, help="Leave code that tests out.")
@click.option("--no-near", is_flag=True, help="Drop exact copies only.")
@click.option("--package-bytes", type=click.IntRange(min=1), help="Most text of one source.")
@click.option("--metadata-prefix", is_flag=True, help="Put <reponame>, <filename>, <gh_stars> before some documents.")
@click.option("--tokenizer", help="Of this model rather than the family's.")
@click.option("--cache", type=FOLDER, show_default="~/.cache/codegen25", help="Keeps what was fetched.")
@_json
@needs_extra("data")
def build(out: Path, sources: Sequence[str], locks: Sequence[Path], as_json: bool, **flags: Any) -> None:
    """Build a corpus: read, judge, compare, tokenize.

    {sources}

    The same sources and settings give the same bytes for any number of workers. Stopped at any moment, the same command
    goes on. OUT gets shards of tokens with their document tables, corpus.json, dropped.parquet, lock.json, and
    report.html to look at.
    """
    from codegen25.data.stats import stats, stats_text

    named = _named(sources, flags["declared"])
    found = stats(_run(out, _listed(named, locks, flags), named, flags))
    if as_json:
        write_json(found)
        return
    write(stats_text(found))
    say(f"{out}: done; report.html shows it")


build.help = (build.help or "").replace("{sources}", SOURCES)


def _named(arguments: Sequence[str], declared: str) -> list[Source]:
    """The sources that the command line names itself, hashed as they are now."""
    from dataclasses import replace

    from codegen25.data import spdx
    from codegen25.data.describe import describe

    if declared and spdx.normal(declared) is None:
        raise UsageError(f"--license {declared}: not an SPDX expression; write one such as MIT OR Apache-2.0")
    return [replace(s, license=declared or s.license) for argument in arguments for s in describe(argument)]


def _listed(named: Sequence[Source], locks: Sequence[Path], flags: dict[str, Any]) -> list[Source]:
    """All sources, those of locks too, in the order of a lock, once each."""
    from dataclasses import replace

    from codegen25.data.lock import ordered, read_lock

    found = [*named, *(source for lock in locks for source in read_lock(lock))]
    if not found:
        raise UsageError("nothing to build from; name a SOURCE or a --lock")
    missing = set(flags["apart"]) - {source.name for source in found}
    if missing:
        raise UsageError(f"--heldout-source {sorted(missing)[0]}: no such source; it is one of the names in the lock")
    return ordered(replace(s, heldout=s.heldout or s.name in flags["apart"]) for s in found)


def _run(out: Path, sources: list[Source], named: Sequence[Source], flags: dict[str, Any]) -> Corpus:
    from codegen25.data.engine import Engine
    from codegen25.data.pipeline import CACHE, Build
    from codegen25.engine.machine import usable_cores

    recipe, engine = _recipe(flags), Engine(flags["runner"], flags["workers"] or usable_cores())
    hashed = frozenset((source.location, source.hash) for source in named)
    try:
        with Bars() as bars:
            cache = flags["cache"] or CACHE
            return Build(sources, out, recipe, engine, cache=cache, progress=bars.show, hashed=hashed).run()
    except KeyboardInterrupt:
        say(f"interrupted; the same command goes on with {out}")
        # An interpreter that ends while Daft's threads are at work is aborted by them, with a core dump.
        os._exit(130)


def _recipe(flags: dict[str, Any]) -> Recipe:
    from codegen25.data import decontaminate, languages
    from codegen25.data.policy import read_policy
    from codegen25.data.recipe import Recipe

    wanted = None if flags["languages"] is None else frozenset(flags["languages"].lower().split(","))
    unknown = sorted(name for name in wanted or () if not languages.known(name))
    if unknown:
        raise UsageError(f"--languages {unknown[0]}: not known; {languages.nearest(unknown[0])}")
    problems = () if flags["no_humaneval"] else decontaminate.humaneval()
    for file in flags["benchmarks"]:
        problems += decontaminate.read_problems(file)
    return Recipe(
        _vocabulary(flags["tokenizer"]), read_policy(flags["policy"]), problems, flags["heldout"],
        _names(flags["opt_out"]), wanted, flags["package_bytes"], not flags["no_tests"], not flags["no_near"],
        flags["metadata_prefix"],
    )  # fmt: skip


def _vocabulary(model: str | None) -> Vocabulary:
    """The vocabulary of a model, or the family's."""
    from codegen25.model.vocabulary import vocabulary_of

    if model is None:
        return vocabulary_of()
    from codegen25.model.folder import resolve
    from codegen25.tokenizer import from_folder

    return vocabulary_of(from_folder(resolve(model)))


def _names(file: Path | None) -> frozenset[str]:
    """The lines of a file but comments; the empty set for None."""
    if file is None:
        return frozenset()
    try:
        lines = [line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise CodegenError(f"{file}: cannot be read ({error}); give a text file with a name on each line") from error
    return frozenset(filter(None, lines))


@data.command()
@_sources
@click.option("--out", type=FOLDER, required=True, help="The lock file to write.")
@click.option("--license", "declared", metavar="SPDX", default="", help="Of SOURCEs that say none; you answer for it.")
@click.option("--heldout-source", "apart", multiple=True, metavar="NAME", help="Keep this source apart; repeatable.")
@needs_extra("data")
def lock(sources: Sequence[str], out: Path, **flags: Any) -> None:
    """Write down what a corpus is to be built from: names, versions, hashes.

    {sources}
    """
    from codegen25.data.lock import write_lock

    found = _listed(_named(sources, flags["declared"]), (), flags)
    write_lock(out, found)
    say(f"{out}: {len(found)} sources")


lock.help = (lock.help or "").replace("{sources}", SOURCES)
_corpus = click.argument("folder", type=FOLDER, metavar="DIR")


@data.command("stats")
@_corpus
@click.option("--plot", type=FOLDER, help="Draw it into this file, .svg or .png.")
@_json
@needs_extra("data")
def stats_(folder: Path, plot: Path | None, as_json: bool) -> None:
    """Show what a corpus is made of, and what was left out and why."""
    from codegen25.data import stats
    from codegen25.data.corpus import Corpus

    found = stats.stats(Corpus(folder))
    if plot is not None:
        stats.plot(found, plot)
    if as_json:
        write_json(found)
    else:
        write(stats.stats_text(found))


@data.command("show")
@_corpus
@click.argument("document", metavar="DOC")
@needs_extra("data")
def show_(folder: Path, document: str) -> None:
    """Show one document with its evidence and what was redacted.

    DOC is the beginning of its id, or SOURCE:PATH.
    """
    from codegen25.data.corpus import Corpus
    from codegen25.data.show import show

    write(show(Corpus(folder), document))


@data.command()
@_corpus
@click.option("--split", type=click.Choice(["train", "heldout"]), default="train", help="Which part.")
@click.option("--out", type=FOLDER, required=True, help="The JSONL file to write.")
@needs_extra("data")
def export(folder: Path, split: str, out: Path) -> None:
    """Write documents as JSON lines, with all that is known of each."""
    from codegen25.data.corpus import Corpus
    from codegen25.data.document import write_documents

    write_documents(out, Corpus(folder).documents(split))


@data.command()
@_corpus
@click.option("--split", type=click.Choice(["train", "heldout"]), default="train", help="Which part.")
@click.option("--out", type=FOLDER, required=True, help="The JSONL file to write.")
@click.option("--seed", type=int, default=0, help="Another one chooses and asks otherwise.")
@click.option("--each", type=click.IntRange(min=1), default=1, help="Most records of a task that a file gives.")
@_json
@needs_extra("data")
def instruct(folder: Path, split: str, out: Path, seed: int, each: int, as_json: bool) -> None:
    """Make instructions from the Python files of a corpus, to train on.

    \b
    implement  a docstring becomes its function
    describe   a function becomes its docstring
    continue   a comment becomes the code below it
    repair     a function with a planted bug becomes what it was

    OUT gets {"prompt", "response"} on each line, with the document that it was made from and its licence. The same
    corpus and options give the same bytes.

    \b
    Example:
      codegen25 data instruct corpus --out instructions.jsonl
    """
    from codegen25.data.corpus import Corpus
    from codegen25.data.instructions import write_instructions

    with Bars() as bars:
        found = write_instructions(
            Corpus(folder), out, split=split, seed=seed, each=each,
            progress=lambda done, total: bars.show("instruct", done, total),
        )  # fmt: skip
    if as_json:
        write_json(vars(found))
        return
    write(found.text())
    say(f"{out}: {found.records} records")


@data.command()
@_corpus
@needs_extra("data")
def verify(folder: Path) -> None:
    """Check every byte of a corpus against its checksums."""
    from codegen25.data.corpus import Corpus

    Corpus(folder).verify()
    say(f"{folder}: whole")
