"""`codegen25 attribute …`: the index of a corpus, and where a text comes from."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codegen25.errors import CodegenError, UsageError, needs_extra, say
from codegen25.terminal import Bars, write, write_json

if TYPE_CHECKING:
    from codegen25.attribute.files import TracedFile
    from codegen25.attribute.trace import Match, Tracer
    from codegen25.tokenizer import Tokenizer

FOLDER = click.Path(path_type=Path)
_json = click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
_index = click.option("--index", "folder", type=FOLDER, required=True, help="An index, or the corpus it lies in.")
_tokenizer = click.option("--tokenizer", help="Of this model rather than the family's.")
# Sources that are named in a table; --json has all.
_SHOWN = 3


@click.group()
def attribute() -> None:
    """Say where code comes from, and under which licence.

    \b
    Examples:
      codegen25 attribute index starter
      codegen25 attribute trace src/app.py --index starter
      codegen25 attribute trace src --index starter --notice legal
      codegen25 attribute overlap ../my-project --index starter
      codegen25 attribute contamination --index starter
    """


@attribute.command("index")
@click.argument("directory", type=FOLDER, metavar="DIR")
@click.option("--out", type=FOLDER, show_default="DIR/attribution", help="Folder of the index.")
@click.option("--split", "splits", multiple=True, show_default="all", help="Only this split; repeatable.")
@click.option("--normalized", is_flag=True, help="Find reformatted and renamed code too; takes as much room again.")
@click.option("--workers", type=click.IntRange(min=1), show_default="all cores", help="Shards at once.")
@click.option("--runner", type=click.Choice(["native", "ray"]), default="native", help="Here, or on a Ray cluster.")
@_tokenizer
@_json
@needs_extra("attribute", "attribute index")
def index(directory: Path, out: Path | None, as_json: bool, **flags: Any) -> None:
    """Make the index of the corpus in DIR, or bring it up to date.

    Shards that are indexed already are checked and kept; so a build that was stopped goes on, and new shards are added.
    Each worker needs 26 bytes of memory for each token of the largest shard.

    \b
    Examples:
      codegen25 attribute index starter
      codegen25 attribute index starter --split train --normalized --out starter-index
    """
    from codegen25.attribute.build import build_index
    from codegen25.attribute.index import FOLDER as NAME
    from codegen25.data.corpus import Corpus
    from codegen25.data.engine import Engine
    from codegen25.engine.machine import usable_cores

    corpus, out = Corpus(directory), out or directory / NAME
    engine = Engine(flags["runner"], flags["workers"] or usable_cores())
    try:
        with Bars() as bars:
            built = build_index(
                corpus, out, _tokenizer_of(flags["tokenizer"]), engine, splits=flags["splits"],
                normalized=flags["normalized"], progress=lambda done, total: bars.show("indexing", done, total),
            )  # fmt: skip
    except KeyboardInterrupt:
        say(f"interrupted; the same command goes on with {out}")
        os._exit(130)  # as in data_cli: Daft's threads would abort an interpreter that ends
    if as_json:
        write_json({"index": str(out)} | built.to_json())
        return
    per = built.to_json()["bytes_per_token"]
    write(
        f"{built.shards} shards, {built.tokens:,} tokens, {built.index_bytes:,} bytes of suffixes; "
        f"{per} bytes per token with the shards'; {built.made} files made\n"
    )


def _tokenizer_of(model: str | None) -> Tokenizer:
    from codegen25.tokenizer import family, from_folder

    if model is None:
        return family()
    from codegen25.model.folder import resolve

    return from_folder(resolve(model))


def _tracer(folder: Path, tokenizer: str | None) -> Tracer:
    from codegen25.attribute.index import Index
    from codegen25.attribute.trace import Tracer

    return Tracer(Index.open(folder), _tokenizer_of(tokenizer))


@attribute.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True), default="-", metavar="[FILE|-]")
@_index
@click.option("--common", is_flag=True, help="Show what is common to many sources, too.")
@click.option("--notice", type=FOLDER, metavar="FOLDER", help="Write NOTICE and NOTICE.spdx.json there.")
@_tokenizer
@_json
@needs_extra("attribute", "attribute trace")
def trace(
    file: Path, folder: Path, common: bool, notice: Path | None, tokenizer: str | None, as_json: bool
) -> None:  # fmt: skip
    """Find what in FILE, a folder, or standard input (-) stands in the corpus.

    A match is a run of 40 words and signs or more (60 when it was reformatted or renamed, which an index made with
    --normalized finds); one that stands in many sources is common, and attributed to nobody. --json has everything that
    is known of each source. A licence without evidence is `unknown`, which is not permissive.

    \b
    Examples:
      codegen25 attribute trace src/app.py --index starter
      codegen25 complete --file app.py | codegen25 attribute trace - --index starter --json
      codegen25 attribute trace src --index starter --notice legal
    """
    from codegen25.attribute.files import trace_folder, trace_source
    from codegen25.files import read_source, read_stream

    tracer = _tracer(folder, tokenizer)
    if file.is_dir():
        traced: Sequence[TracedFile] = list(trace_folder(tracer, file))
    elif str(file) == "-":
        traced = [trace_source(tracer, "standard-input", read_stream(sys.stdin.buffer, "standard input"))]
    else:
        traced = [trace_source(tracer, file.name, read_source(file))]
    if notice is not None:
        _write_notice(notice, traced, file.resolve().name if str(file) != "-" else "standard-input")
    if as_json:
        write_json({"index": str(folder), "files": [one.to_json() for one in traced]})
        return
    for one in traced:
        write("".join(f"{line}\n" for line in _table(one, common)))


def _write_notice(folder: Path, traced: Sequence[TracedFile], name: str) -> None:
    import json

    from codegen25.attribute.notice import notice, spdx
    from codegen25.data.document import write_text

    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "NOTICE", [notice(traced)])
    document = json.dumps(spdx(traced, name), indent=1, ensure_ascii=False)
    write_text(folder / "NOTICE.spdx.json", [document + "\n"])
    say(f"{folder}: NOTICE and NOTICE.spdx.json written")


def _table(traced: TracedFile, common: bool) -> Iterable[str]:
    """A line for each match, one for each of its sources, and how much there is in all."""
    from codegen25.data.plain import plain, share

    shown = [match for match in traced.matches if common or not match.common]
    hidden = len(traced.matches) - len(shown)
    for match in shown:
        first, last = traced.lines(match)
        many = f"{match.count} times, in {len(match.sources)} source{'s' * (len(match.sources) != 1)}"
        yield f"{plain(traced.path)}:{first}-{last}  {match.kind}, {match.lexemes} lexemes, {many}"
        yield from (f"    {line}" for line in _origins(match))
    total = share(traced.overlap, len(traced.source.raw))
    more = f"; {hidden} common (--common shows them)" if hidden else ""
    yield f"{plain(traced.path)}: {len(traced.attributed)} matches, {total or '0 %'} of the text{more}"


def _origins(match: Match) -> Iterable[str]:
    from codegen25.data.plain import plain

    for origin in match.origins[:_SHOWN]:
        where = f"{origin.source} {origin.version}".rstrip()
        evidence = f" ({origin.evidence_kind} {origin.evidence_file})" if origin.evidence_kind else ""
        yield plain(f"{origin.license}{evidence}  {where}  {origin.path}:{origin.first_line}-{origin.last_line}")
        yield from (plain(f"    {line}") for line in origin.copyright[:2])


@attribute.command()
@click.argument("code", type=FOLDER, metavar="FOLDER")
@_index
@_tokenizer
@_json
@needs_extra("attribute", "attribute overlap")
def overlap(code: Path, folder: Path, tokenizer: str | None, as_json: bool) -> None:
    """Is my code in the corpus? Every file of FOLDER with what of it stands there.

    The documents that hold it are listed: those to be removed, where the owner opts out.

    \b
    Example:
      codegen25 attribute overlap ../my-project --index starter --json
    """
    from codegen25.attribute.files import trace_folder
    from codegen25.attribute.overlap import summary

    if not code.is_dir():
        raise UsageError(f"{code}: no such folder; name the folder of your code")
    found = summary(trace_folder(_tracer(folder, tokenizer), code))
    if as_json:
        write_json(found)
        return
    _write_overlap(found)


def _write_overlap(found: dict[str, Any]) -> None:
    from codegen25.data.plain import aligned, plain, share

    rows = [(f["file"], share(f["overlap"], f["characters"]) or "0 %", str(f["matches"])) for f in found["files"]]
    write("".join(f"{line}\n" for line in aligned([("file", "overlap", "matches"), *rows])))
    for one in found["documents"]:
        write(plain(f"{one['id'][:12]}  {one['license']}  {one['source']} {one['version']}  {one['path']}") + "\n")
    total = share(found["overlap"], found["characters"]) or "0 %"
    write(f"{len(found['files'])} files, {total} of their text in {len(found['documents'])} documents\n")


@attribute.command()
@click.argument("files", type=FOLDER, nargs=-1, metavar="[PROBLEMS]...")
@_index
@_tokenizer
@_json
@needs_extra("attribute", "attribute contamination")
def contamination(files: tuple[Path, ...], folder: Path, tokenizer: str | None, as_json: bool) -> None:
    """Which documents of the corpus hold a benchmark's problems.

    PROBLEMS are files as `data build --benchmark` takes them; without any, HumanEval's. What counts is the same, but
    only documents that the index points at are read, so it takes seconds; code whose names were changed needs an index
    made with --normalized. `data build --benchmark` leaves these documents out.

    \b
    Examples:
      codegen25 attribute contamination --index starter
      codegen25 attribute contamination mbpp.jsonl --index starter --json
    """
    from codegen25.attribute.contamination import contaminated
    from codegen25.data.plain import plain
    from codegen25.data.problems import humaneval, read_problems

    problems = [one for file in files for one in read_problems(file)] if files else humaneval()
    found = contaminated(_tracer(folder, tokenizer), problems)
    if as_json:
        write_json({"problems": len(problems), "documents": found})
        return
    for one in found:
        where = f"{one['id'][:12]}  {one['source']} {one['version']}  {one['path']}"
        write(plain(f"{where}  {one['how']}: {one['benchmark']} {one['problem']}") + "\n")
    write(f"{len(found)} documents hold one of {len(problems)} problems\n")


@attribute.command()
@click.argument("names", type=FOLDER, metavar="LIST")
@_index
@click.option("--copies", is_flag=True, help="Look for the same code in documents of other sources, too.")
@_tokenizer
@_json
@needs_extra("attribute", "attribute removals")
def removals(names: Path, folder: Path, copies: bool, tokenizer: str | None, as_json: bool) -> None:
    """Which documents an opt-out LIST takes out of the corpus.

    LIST has the name of a source on each line, as `data build --opt-out` reads it.

    \b
    Example:
      codegen25 attribute removals opt-out.txt --index starter --copies
    """
    from codegen25.attribute.overlap import removed
    from codegen25.data.plain import plain

    try:
        lines = [line.partition("#")[0].strip() for line in names.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise CodegenError(f"{names}: cannot be read ({error}); give a text file with a name on each line") from error
    found = removed(_tracer(folder, tokenizer), frozenset(filter(None, lines)), copies=copies)
    if as_json:
        write_json({"documents": found})
        return
    for one in found:
        write(plain(f"{one['id'][:12]}  {one['source']} {one['version']}  {one['path']}  {one['why']}") + "\n")
    write(f"{len(found)} documents\n")
