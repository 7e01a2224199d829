"""`codegen25 train`: a model from a corpus, on one core or under torchrun."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from codegen25.config import SHAPES
from codegen25.errors import CodegenError, UsageError, needs_extra, say
from codegen25.terminal import count, write, write_json

FOLDER = click.Path(path_type=Path)
# Read by PyTorch when it is loaded: huge pages help the products with the vocabulary.
ENVIRONMENT = {"THP_MEM_ALLOC_ENABLE": "1"}

# Options that --adapt has alone, and those that it shares.
ADAPTING = frozenset(["minutes", "lora_rank", "merge"])
OF_BOTH = frozenset(["init", "out", "steps", "rate", "documents_per_step", "window", "seed", "dtype"])


def _mixture(text: str) -> dict[str, float]:
    from codegen25.train.objective import parse_mixture

    return parse_mixture(text)


@click.command()
@click.option("--data", type=FOLDER, help="A corpus's folder, or a JSONL file.")
@click.option("--adapt", type=FOLDER, help="A repository of yours to adapt --init to, by LoRA.")
@click.option("--init", metavar="MODEL", help="Begin with this model: a folder, a hub id, or a built-in name.")
@click.option("--shape", type=click.Choice(list(SHAPES)), help="Begin from nothing, in this shape.")
@click.option(
    "--stage", type=click.Choice(["multi", "mono", "instruct"]), default="multi",
    help="multi: all languages. mono: Python. instruct: responses to prompts, from a JSONL file.",
)  # fmt: skip
@click.option("--out", type=FOLDER, required=True, help="Folder of the run; one that was stopped goes on.")
@click.option("--steps", type=click.IntRange(min=1), help="How long.")
@click.option("--tokens", type=count, help="How long, about: such as 3M.")
@click.option("--rate", type=float, default=3e-4, help="Of learning, at its highest.")
@click.option("--warmup", type=click.IntRange(min=0), default=30, help="Steps over which the rate rises.")
@click.option("--decay", type=click.IntRange(min=0), show_default="a fifth", help="Last steps, over which it falls.")
@click.option("--optimizer", type=click.Choice(["adamw", "muon"]), default="adamw", help="muon: for inner matrices.")
@click.option("--weight-decay", type=float, default=0.01)
@click.option("--clip", type=float, default=1.0, help="Largest norm of a gradient.")
@click.option("--documents-per-step", type=click.IntRange(min=1), default=16, help="Of all ranks together.")
@click.option("--window", type=int, default=512, help="Tokens of a row.")
@click.option("--pass-tokens", type=click.IntRange(min=1), default=4096, help="Most tokens at once: bounds memory.")
@click.option("--seed", type=int, default=0)
@click.option("--languages", help="Of a corpus, by commas; every one when not given, for mono python.")
@click.option("--infill-rate", type=float, help="Share of documents with holes.  [default: 0.5]")
@click.option(
    "--mixture", type=_mixture, metavar="KIND=WEIGHT,…", help="What is cut out, such as line=0.6,anchored=0.4."
)
@click.option("--context-loss/--no-context-loss", default=None, help="Learn the text around holes.  [default: yes]")
@click.option("--prefix-loss/--no-prefix-loss", default=None, help="Learn what is handed back.  [default: no]")
@click.option("--new-rows", type=int, help="Rows of the embedding from here on are new to the model.")
@click.option("--new-rows-factor", type=float, default=1.0, help="How much farther they move.")
@click.option("--checkpoint-every", type=click.IntRange(min=1), default=50, help="Steps.")
@click.option("--heldout", type=FOLDER, show_default="the corpus's", help="JSONL to measure with.")
@click.option("--evaluate-every", type=click.IntRange(min=0), default=0, help="Steps between measurements; 0: none.")
@click.option("--dtype", type=click.Choice(["auto", "bfloat16", "float32"]), default="auto", help="Of the weights.")
@click.option("--model-dtype", type=click.Choice(["bfloat16", "float32"]), default="bfloat16", help="Of RUN/model.")
@click.option("--bits", type=click.IntRange(4, 4), help="Train for, and write RUN/model in, four bits.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu")
@click.option("--recompute", is_flag=True, help="Keep fewer activations: less memory, a third more work.")
@click.option("--compile", is_flag=True, help="Compile blocks; on a CPU it needs a C++ compiler.")
@click.option("--workers", type=click.IntRange(min=0), default=0, help="Processes that make batches ahead.")
@click.option("--tensorboard", is_flag=True, help="Write its events to RUN/events, too.")
@click.option("--minutes", type=float, default=10.0, help="With --adapt: how long, about, measuring included.")
@click.option("--lora-rank", type=click.IntRange(min=1), default=16, help="With --adapt: of the sums.")
@click.option("--merge/--no-merge", default=True, help="With --adapt: write RUN/model beside RUN/adapter.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object at the end.")
@needs_extra("torch")
def train(as_json: bool, tensorboard: bool, adapt: Path | None, **flags: Any) -> None:
    """Train a model, or go on with a run.

    RUN gets run.json (settings and starts), log.jsonl (a line a step), checkpoint (the newest state, exact) and, when
    the command ends or is stopped, model: a folder that every other command and transformers load. Stopped or killed at
    any moment, the same command goes on, to the bit. Under torchrun weights are sharded over its processes.

    With --adapt a model (nano, when no --init is given) learns the files of a repository by low-rank sums, and some
    that are held out tell what it brought. Secrets, generated and minified files stay out, licences do not matter for
    code of one's own. RUN/adapter is what PEFT reads, RUN/model the two merged.

    \b
    Examples:
      codegen25 train --data corpus --shape 350m --out runs/multi --tokens 20M
      codegen25 train --data corpus --init runs/multi/model --stage mono --out runs/mono --steps 500
      codegen25 train --data pairs.jsonl --init runs/mono/model --stage instruct --out runs/instruct --steps 200
      torchrun --nproc-per-node 2 -m codegen25 train --data corpus --init nano --out runs/two --steps 100
      codegen25 train --adapt ~/my-project --init nano --out runs/mine --minutes 10
    """
    if tensorboard:
        _check_tensorboard()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    given = _given()
    from codegen25.train.allocator import keep_freed_memory

    keep_freed_memory()
    if adapt is not None:
        _adapt(adapt, given, as_json)
        return
    if odd := sorted(ADAPTING & given.keys()):
        raise UsageError(f"{_option(odd[0])}: is for --adapt; leave it out")
    if flags["data"] is None:
        raise UsageError("give --data, what is to be learned, or --adapt with a repository")
    flags = {name: value for name, value in flags.items() if name not in ADAPTING}
    from codegen25.train.job import Job, run
    from codegen25.train.live import print_live

    made = run(Job(tensorboard=tensorboard, **_fields(flags)), print_live)
    if int(os.environ.get("RANK", "0")):
        return
    if as_json:
        write_json(made)
        return
    say(f"{made['run']}: at step {made['step']} of {made['steps']}, {made['tokens']:,} tokens; {made['model']} written")


def _given() -> dict[str, Any]:
    """The options that stand on the command line, by their names."""
    context = click.get_current_context()
    on_it = click.core.ParameterSource.COMMANDLINE
    return {name: value for name, value in context.params.items() if context.get_parameter_source(name) is on_it}


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _adapt(repository: Path, given: dict[str, Any], as_json: bool) -> None:
    """Adapt a model to a repository, and say what that brought."""
    fields = {name: value for name, value in given.items() if name not in ("adapt", "as_json")}
    if odd := sorted(fields.keys() - ADAPTING - OF_BOTH):
        raise UsageError(f"{_option(odd[0])}: has no meaning with --adapt; leave it out")
    with needs_extra("data", "train --adapt"):
        from codegen25.train.adapt import Adaptation, describe, run
    from codegen25.train.live import print_live
    from codegen25.train.lora import Lora

    if (rank := fields.pop("lora_rank", None)) is not None:
        fields["lora"] = Lora(rank, 2.0 * rank)
    made = run(Adaptation(repository, **fields), say, print_live)
    if as_json:
        write_json(made)
    else:
        write(describe(made))


def _fields(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags as fields of a `Job`; those of the objective that are not given keep its defaults."""
    from codegen25.train.objective import Objective

    of_objective = ("infill_rate", "mixture", "context_loss", "prefix_loss")
    given = {name: value for name in of_objective if (value := flags.pop(name)) is not None}
    languages = (flags.pop("languages") or "").lower()
    flags["languages"] = languages.split(",") if languages else ()
    return {**flags, "objective": Objective(**given)}


def _check_tensorboard() -> None:
    from importlib.util import find_spec

    if find_spec("tensorboard") is None:
        raise CodegenError("--tensorboard: it is not installed; pip install tensorboard, or leave the option out")
