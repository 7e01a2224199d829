"""`python -m codegen25.train`: the recipe of the embedded model, one step a command (`make nano` runs them in order).

start      SmolLM2-135M from its GGUF file, with the control tokens added: the model that training starts from
documents  the corpus as training documents: functions, and one part in ten files
run        train, or go on where the newest checkpoint stands
model      write the newest checkpoint as a Hugging Face folder
blend      average the trained weights with those they began from

A run that was stopped, or ended in any other way, goes on with the same command.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from codegen25.data.document import read_documents, write_text
from codegen25.data.functions import functions
from codegen25.errors import CodegenError


def _documents(args: argparse.Namespace) -> None:
    """Functions of `--characters`, those with a docstring and those without in equal number, and files."""
    low, high = args.characters
    with_doc: list[str] = []
    without: list[str] = []
    files: list[str] = []
    for document in read_documents(args.corpus):
        files.append(document.content)
        for function in functions(document.content):
            if low <= len(function) <= high:
                (with_doc if '"""' in function or "'''" in function else without).append(function)
    rng = random.Random(args.seed)
    for group in (with_doc, without, files):
        rng.shuffle(group)
    half = min(len(with_doc), len(without))
    texts = with_doc[:half] + without[:half]
    texts += files[: len(texts) // 10]
    rng.shuffle(texts)
    if not texts:
        raise CodegenError(
            f"{args.corpus}: has no two functions of {low} to {high} characters, one with a docstring and one without; "
            "name a larger corpus or other --characters"
        )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.out, (json.dumps({"content": text}) + "\n" for text in texts))
    print(f"{args.out}: {len(texts)} documents, {sum(map(len, texts)):,} characters")


def _start(args: argparse.Namespace) -> None:
    from codegen25.train.nano import start

    first = start(args.gguf, args.out, args.seed)
    print(f"{args.out}: written; rows from {first} on are new (--new-rows {first})")


def _trainer(args: argparse.Namespace) -> None:
    from codegen25.model.checkpoint import load_llama
    from codegen25.tokenizer import from_folder
    from codegen25.train.batches import Batches, read_texts
    from codegen25.train.objective import Objective
    from codegen25.train.trainer import TrainConfig, Trainer, print_live

    mixture = {kind: weight * (1 - args.anchored_rate) for kind, weight in Objective().mixture.items()}
    mixture["anchored"] = args.anchored_rate
    objective = Objective(infill_rate=args.infill_rate, mixture=mixture, context_loss=args.context_loss)
    batches = Batches(
        read_texts(args.data), from_folder(args.init), objective, args.seed, args.documents_per_step, args.window
    )
    config = TrainConfig(
        steps=args.steps, rate=args.rate, warmup=args.warmup, decay=args.decay, new_rows=args.new_rows,
        new_rows_factor=args.new_rows_factor, checkpoint_every=args.checkpoint_every,
    )  # fmt: skip
    model = load_llama(args.init, dtype=args.dtype)
    trainer = Trainer(model, batches, config, args.out)
    trainer.run(print_live)
    print(f"{args.out}: at step {trainer.step} of {config.steps}, {trainer.tokens:,} tokens", file=sys.stderr)


def _model(args: argparse.Namespace) -> None:
    """Needs no trainer: the masters of the checkpoint are the weights."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from codegen25.model.checkpoint import load_llama, save_llama

    model = load_llama(args.init, dtype="float32")
    folder = args.run / "checkpoint"
    try:
        progress = json.loads((folder / "progress.json").read_text())
        state = load_file(folder / "state.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise CodegenError(f"{folder}: cannot be read ({error}); name the --out of a run that has one") from error
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            master = state.get(f"master.{name}")
            if master is None or master.shape != parameter.shape:
                raise CodegenError(
                    f"{folder}: {name} does not fit {args.init}; name the --init that the run began with"
                )
            parameter.copy_(master)
    save_llama(model, args.out, dtype=args.dtype)
    shutil.copy(args.init / "tokenizer.json", args.out / "tokenizer.json")
    print(f"{args.out}: step {progress['step']}, {progress['tokens']:,} tokens")


def _blend(args: argparse.Namespace) -> None:
    from codegen25.train.nano import blend

    if not 0 <= args.weight <= 1:
        raise CodegenError(f"--weight {args.weight}: must be between 0 (the start) and 1 (the trained model)")
    blend(args.start, args.trained, args.out, weight=args.weight, new_rows=args.new_rows)
    print(f"{args.out}: written")


_EXAMPLES = {
    "start": "start --gguf SmolLM2-135M-Instruct.Q4_1.gguf --out nano/start",
    "documents": "documents --corpus nano/corpus/train.jsonl --out nano/documents.jsonl",
    "run": "run --data nano/documents.jsonl --init nano/start --out nano/run --steps 600 --new-rows 49152",
    "model": "model --run nano/run --init nano/start --out nano/trained",
    "blend": "blend --start nano/start --trained nano/trained --new-rows 49152 --out nano/blended",
}


def _examples(*names: str) -> str:
    return "\n  ".join(["examples:", *(f"python -m codegen25.train {_EXAMPLES[name]}" for name in names)])


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m codegen25.train", description=__doc__, epilog=_examples(*_EXAMPLES), formatter_class=raw
    )
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    def verb(name: str, help: str, run_command: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=help, epilog=_examples(name), formatter_class=raw)
        made.set_defaults(run_command=run_command)
        made.add_argument("--out", type=Path, required=True)
        made.add_argument("--seed", type=int, default=0)
        return made

    start = verb("start", "the model that training starts from", _start)
    start.add_argument("--gguf", type=Path, required=True)
    documents = verb("documents", "the corpus as training documents", _documents)
    documents.add_argument("--corpus", type=Path, required=True, help="JSONL of `codegen25 data export`")
    documents.add_argument("--characters", type=int, nargs=2, default=(150, 1200), metavar=("LOW", "HIGH"))
    _add_run_options(verb("run", "train, or go on", _trainer))
    model = verb("model", "the newest checkpoint as a Hugging Face folder", _model)
    model.add_argument("--run", type=Path, required=True)
    model.add_argument("--init", type=Path, required=True)
    model.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    blend = verb("blend", "average the trained weights with those they began from", _blend)
    blend.add_argument("--start", type=Path, required=True)
    blend.add_argument("--trained", type=Path, required=True)
    blend.add_argument("--weight", type=float, default=0.5, help="of the trained weights")
    blend.add_argument("--new-rows", type=int, required=True, help="rows from here on are the trained ones alone")
    return parser


def _add_run_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("--data", type=Path, required=True, help="JSONL with `content`")
    run.add_argument("--init", type=Path, required=True, help="the model folder to start from")
    run.add_argument("--steps", type=int, required=True)
    run.add_argument("--rate", type=float, default=2.5e-4)
    run.add_argument("--warmup", type=int, default=30, help="steps")
    run.add_argument("--decay", type=int, default=100, help="the last steps, over which the rate falls to zero")
    run.add_argument("--documents-per-step", type=int, default=10)
    run.add_argument("--window", type=int, default=512, help="tokens of a row")
    run.add_argument("--infill-rate", type=float, default=0.7)
    run.add_argument("--anchored-rate", type=float, default=0.0, help="of the corrupted: one short gap at a cursor")
    run.add_argument("--context-loss", action=argparse.BooleanOptionalAction, default=False)
    run.add_argument("--new-rows", type=int, help="rows of the embedding from here on are new to the model")
    run.add_argument("--new-rows-factor", type=float, default=5.0)
    run.add_argument("--checkpoint-every", type=int, default=50, help="steps")
    run.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="masters are fp32 always")


def main() -> None:
    args = _parser().parse_args()
    try:
        args.run_command(args)
    except CodegenError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
