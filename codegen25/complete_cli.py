"""`codegen25 complete`, `infill` and `score`: from the command line to a model, and its answers to the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codegen25.errors import UsageError, needs_extra, say
from codegen25.options import ANCHOR, flags, json_option, loading, model_option
from codegen25.terminal import Answers, lines, note_unfinished, to_json, write, write_json, write_table

if TYPE_CHECKING:
    from codegen25.attribute.inline import Inline
    from codegen25.complete import Completion, Model, Options
    from codegen25.files import Source

FOLDER = click.Path(path_type=Path)
PYTHON = (".py", ".pyi")  # files in which --choose asks Python's rules


# --------------------------------------------------------------------------------------------------------- shared flags


_text = flags(
    click.argument("text", required=False),
    click.option("--file", type=FOLDER, help="Read the text from this file (UTF-8)."),
)
# The names are those of the fields of `Sampling`.
_sampling = flags(
    click.option("--temperature", type=float, default=0.0, help="0 is greedy: always the likeliest."),
    click.option("--top-k", type=int, default=0, help="Keep the K likeliest tokens; 0 keeps all."),
    click.option("--top-p", type=float, default=1.0, help="Keep the likeliest with this much in sum."),
    click.option("--min-p", type=float, default=0.0, help="Keep those this likely, beside the best."),
    click.option("--repetition-penalty", type=float, default=1.0, help="Above 1: repeat less."),
    click.option("--seed", type=int, default=0, help="Same seed, same text."),
)
_generation = flags(
    click.option(
        "--max-tokens", type=click.IntRange(min=0), default=128,
        help="New tokens at most, for each hole; 0 gives an empty text that says `length`.",
    ),
    click.option("--stop", multiple=True, help="End in front of this string; may be given several times."),
    _sampling,
    click.option("--logprobs", is_flag=True, help="Add log-probabilities; without --json, a table of tokens."),
)  # fmt: skip
_attribution = flags(
    click.option("--attribute", "index", type=FOLDER, metavar="INDEX", help="Say where text stands in this corpus."),
    click.option("--policy", help="With --attribute: licences that may be repeated; `permissive`, or a TOML file."),
)

# ------------------------------------------------------------------------------------------------------------- complete


@click.command()
@_text
@model_option
@_generation
@click.option("--n", type=click.IntRange(min=1), default=1, help="How many completions.")
@_attribution
@json_option
@loading
def complete(
    text: str | None, file: Path | None, model: str, n: int, max_tokens: int, stop: tuple[str, ...], logprobs: bool,
    index: Path | None, policy: str | None, as_json: bool, device: str, threads: int | None, bits: int | None,
    **sampling: Any,
) -> None:  # fmt: skip
    """Continue TEXT, a file, or standard input (-).

    Writes the new text only, as it comes. Several completions (--n) stand each under a line `completion 1`.
    Line endings of the prompt are read as \\n. A prompt over the window loses its beginning, up to a line start.

    \b
    Examples:
      codegen25 complete 'def is_prime(n):'
      codegen25 complete --file src/app.py --max-tokens 64 --stop $'\\n\\n'
      git diff | codegen25 complete - --n 3 --temperature 0.8 --json
    """
    from codegen25.complete import load
    from codegen25.engine.sampling import Sampling

    prompt = _source(text, file).text
    if not prompt:
        raise UsageError("nothing to complete, the text is empty; give it as TEXT, in a --file, or as - on stdin")
    chosen = Sampling(**sampling)
    _check_stop(stop)
    if n > 1 and chosen.temperature == 0:
        say(f"--temperature 0 is greedy, all {n} completions will be the same")
    loaded = load(model, device=device, threads=threads, bits=bits)
    inline = _inline(index, policy, loaded)
    loaded = inline.drafting() if inline else loaded
    answers = Answers([f"completion {number}" for number in range(1, n + 1)], loaded.tokenizer, logprobs)
    on_text = answers.stream if n == 1 and not (as_json or logprobs) else None
    completions = loaded.samples(
        prompt,
        n,
        max_tokens=max_tokens,
        sampling=chosen,
        stop=stop,
        on_text=on_text,
        guard=inline.guard if inline else None,
    )
    if completions[0].trimmed:
        say(f"the text is over the model's window; only its last {completions[0].prompt_tokens} tokens were used")
    if as_json:
        found = [to_json(completion, logprobs) | _attributed(inline, completion) for completion in completions]
        write_json({"model": model, "prompt_tokens": completions[0].prompt_tokens, "completions": found})
        return
    answers.finish(completions)
    note_unfinished(answers.names, completions, max_tokens)
    _note_attribution(answers.names, inline, completions)


def _inline(index: Path | None, policy: str | None, model: Model) -> Inline | None:
    """What --attribute and --policy ask for."""
    if index is None:
        if policy is not None:
            raise UsageError("--policy: an index is needed to know licences by; name it with --attribute")
        return None
    with needs_extra("attribute", "--attribute"):
        from codegen25.attribute.inline import Inline

        return Inline(index, policy, model)


def _attributed(inline: Inline | None, completion: Completion) -> dict[str, Any]:
    """What --json adds to a completion."""
    if inline is None:
        return {}
    from codegen25.attribute.inline import to_json as match_to_json

    return {"attribution": [match_to_json(one) for one in inline.of(completion.text)], "refused": completion.refused}


def _note_attribution(names: Sequence[str], inline: Inline | None, completions: Sequence[Completion]) -> None:
    """Where texts come from, and what the policy did, a line each."""
    if inline is None:
        return
    from codegen25.attribute.inline import told

    for name, completion in zip(names, completions, strict=True):
        for match in inline.of(completion.text):
            say(told(name, match))
        if completion.refused:
            ended = ", and ended there" if completion.finish_reason == "content_filter" else ", and went on differently"
            say(f"{name}: the policy refused {completion.refused} tokens{ended}")


def _source(text: str | None, file: Path | None) -> Source:
    """The text of TEXT, - or --file, exactly one of which must be there."""
    from codegen25.files import Source, read_source, read_stream

    if file is not None and text is None:
        return read_source(file)
    if text is None or file is not None:
        raise UsageError("give one of TEXT, - for standard input, and --file FILE")
    if text == "-":
        if sys.stdin is None:
            raise UsageError("standard input is closed; give TEXT or --file FILE")
        return read_stream(sys.stdin.buffer, "standard input")
    try:
        return Source("TEXT", text.encode())
    except UnicodeEncodeError:
        raise UsageError("TEXT is not valid UTF-8; check the terminal's encoding, or use --file") from None


def _check_stop(stop: tuple[str, ...]) -> None:
    if "" in stop:
        raise UsageError("--stop '': an empty string stands everywhere; name the text to stop at")


# --------------------------------------------------------------------------------------------------------------- infill


@click.command()
@click.argument("file", type=FOLDER)
@click.option("--at", multiple=True, required=True, metavar="LINE[:COL]", help="Where text is missing; repeatable.")
@click.option("--anchor", show_default=ANCHOR, metavar="LINES|all", help="Lines that begin the span; 0: plain.")
@click.option("--plain", is_flag=True, help="The model card's form: the same as --anchor 0.")
@click.option("--apply", is_flag=True, help="Put the text into FILE.")
@click.option("--choose", type=click.IntRange(min=2), help="Choose from so many answers, by what stands behind them.")
@model_option
@_generation
@_attribution
@json_option
@loading
def infill(
    file: Path, at: tuple[str, ...], anchor: str | None, plain: bool, apply: bool, choose: int | None, model: str,
    max_tokens: int, stop: tuple[str, ...], logprobs: bool, index: Path | None, policy: str | None, as_json: bool,
    device: str, threads: int | None, bits: int | None, **sampling: Any,
) -> None:  # fmt: skip
    """Write what is missing in FILE at a cursor, or at several.

    LINE and COL count from 1, COL in characters (a tab is one): 12:5 is before the fifth character of line 12; LINE
    alone is the end of the line. One hole: its text only, as it comes. Several: each under a line `hole 1, 12:5`, in
    the order of the file.

    --apply inserts the text and writes FILE in one step: it keeps encoding (UTF-8), line endings and permissions, and
    is untouched if anything goes wrong.

    --choose takes longer and is right more often: answers are drawn, and the one is taken, and ended there, where what
    follows the cursor follows best. In Python, answers bind the names that FILE lacks, and one that leaves FILE with
    fewer syntax errors and unbound names comes first. For one cursor.

    \b
    Examples:
      codegen25 infill src/app.py --at 12:5
      codegen25 infill src/app.py --at 12 --choose 16
      codegen25 infill src/app.py --at 12 --at 40:9 --apply
      codegen25 infill src/app.py --at 12:5 --stop $'\\n' --json
    """
    from codegen25.complete import load
    from codegen25.engine.sampling import Sampling
    from codegen25.files import check_replaceable, read_source

    anchored = _anchor_lines(anchor, plain)
    chosen = Sampling(**sampling)
    _check_stop(stop)
    source = read_source(file)
    offsets = _offsets(source, at)
    if choose and len(offsets) > 1:
        raise UsageError("--choose is for one cursor; leave it out, or all --at but one")
    if choose and logprobs:
        raise UsageError("--choose judges whole answers; leave --logprobs out")
    if apply:
        check_replaceable(file)
    loaded = load(model, device=device, threads=threads, bits=bits)
    cursors = [source.cursor(offset) for offset in offsets]
    inline = _inline(index, policy, loaded)
    loaded = inline.drafting() if inline else loaded
    answers = Answers([f"hole {i}, {cursor}" for i, cursor in enumerate(cursors, 1)], loaded.tokenizer, logprobs)
    parts = source.parts(offsets)
    options: Options = {
        "max_tokens": max_tokens, "sampling": chosen, "stop": stop, "guard": inline.guard if inline else None,
        "on_text": None if as_json or logprobs else answers.stream,
    }  # fmt: skip
    if choose is None:
        completions = loaded.infill_holes(parts, anchor=anchored, **options)
    else:
        from codegen25.choose import infill_chosen

        before, behind = parts
        python = file.suffix in PYTHON
        completions = [infill_chosen(loaded, before, behind, choose, anchor=anchored, python=python, **options)]
    if completions[0].trimmed:
        say(f"{file}: over the model's window; only {completions[0].prompt_tokens} tokens around the holes were used")
    if not as_json:
        answers.finish(completions)
    applied = False
    try:
        if apply:
            _apply(file, source, offsets, completions)
            applied = True
    finally:
        # Also when the file cannot be written: what the model said is not lost.
        if as_json:
            places = [{"line": cursor.line, "column": cursor.column} for cursor in cursors]
            told = [to_json(c, logprobs) | _attributed(inline, c) for c in completions]
            found = [place | one for place, one in zip(places, told, strict=True)]
            write_json({"file": str(file), "holes": found, "applied": applied})
    if not apply:
        note_unfinished(answers.names, completions, max_tokens)
    if not as_json:
        _note_attribution(answers.names, inline, completions)


def _anchor_lines(anchor: str | None, plain: bool) -> int | None:
    """How many lines begin the span; None for all."""
    if plain and anchor not in (None, "0"):
        raise UsageError(f"--plain is --anchor 0, and --anchor is {anchor}; leave one out")
    return lines("0" if plain else anchor or ANCHOR)


def _offsets(source: Source, at: Sequence[str]) -> list[int]:
    """Where the cursors stand in the text, ascending."""
    from codegen25.files import Cursor

    cursors = [Cursor.parse(place) for place in at]
    offsets = [source.offset(cursor) for cursor in cursors]
    for number, offset in enumerate(offsets):
        if offset in offsets[:number]:
            raise UsageError(f"--at {cursors[number]} is given twice; name every place once")
    return sorted(offsets)


def _apply(file: Path, source: Source, offsets: Sequence[int], completions: Sequence[Completion]) -> None:
    """Insert the spans into the file, and say so."""
    from codegen25.files import replace_file

    spans = [(offset, completion.text) for offset, completion in zip(offsets, completions, strict=True)]
    if (new := source.insert(spans)) != source.data:
        replace_file(file, source.data, new)
    for offset, completion in zip(offsets, completions, strict=True):
        open_end = ", which has no end yet (length)" if completion.finish_reason == "length" else ""
        say(f"{file}:{source.cursor(offset)}: {len(completion.text)} characters inserted{open_end}")


# ---------------------------------------------------------------------------------------------------------------- score


@click.command()
@_text
@model_option
@json_option
@loading
def score(
    text: str | None, file: Path | None, model: str, as_json: bool, device: str, threads: int | None, bits: int | None
) -> None:
    """How likely the model finds TEXT, a file, or standard input (-).

    The natural log-probability of every token, their total in nats, and bits per byte of UTF-8. The text is taken as it
    is, line endings included; only a byte order mark is left out.

    \b
    Examples:
      codegen25 score 'for i in range(10):'
      codegen25 score --file src/app.py --json
    """
    from codegen25.complete import load

    exact = _source(text, file).raw
    if not exact:
        raise UsageError("nothing to score, the text is empty; give it as TEXT, in a --file, or as - on stdin")
    loaded = load(model, device=device, threads=threads, bits=bits)
    result = loaded.score(exact)
    if as_json:
        tokens = {"tokens": list(result.tokens), "logprobs": list(result.logprobs)}
        sums = {"total": result.total, "bytes": result.n_bytes, "bits_per_byte": result.bits_per_byte}
        write_json({"model": model} | tokens | sums)
        return
    write_table(loaded.tokenizer, result.tokens, result.logprobs)
    write(
        f"{result.total:9.3f}  nats, {len(result.tokens)} tokens, {result.n_bytes} bytes\n"
        f"{result.bits_per_byte:9.3f}  bits per byte\n"
    )
