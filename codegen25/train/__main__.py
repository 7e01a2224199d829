"""`python -m codegen25.train`: what the recipe of the embedded model needs beside `codegen25 train` (see `make nano`).

start      SmolLM2-135M from its GGUF file, with the control tokens added: the model that training starts from
documents  the texts of a corpus that a course reads: above all short functions
blend      average the trained weights with those they began from
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from codegen25.data.document import write_text
from codegen25.errors import CodegenError
from codegen25.train.courses import Course, course


def _documents(args: argparse.Namespace) -> None:
    from codegen25.data.corpus import Corpus

    texts = course(Corpus(args.corpus).documents("train"), args.course, args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.out, (json.dumps({"content": text}) + "\n" for text in texts))
    print(f"{args.out}: {len(texts)} documents, {sum(map(len, texts)):,} characters")


def _start(args: argparse.Namespace) -> None:
    from codegen25.train.nano import start

    first = start(args.gguf, args.out, args.seed)
    print(f"{args.out}: written; rows from {first} on are new (--new-rows {first})")


def _blend(args: argparse.Namespace) -> None:
    from codegen25.train.nano import blend

    if not 0 <= args.weight <= 1:
        raise CodegenError(f"--weight {args.weight}: must be between 0 (the start) and 1 (the trained model)")
    blend(args.start, args.trained, args.out, weight=args.weight, new_rows=args.new_rows)
    print(f"{args.out}: written")


_EXAMPLES = {
    "start": "start --gguf SmolLM2-135M-Instruct.Q4_1.gguf --out nano/start",
    "documents": "documents --corpus starter --course mono --out nano/mono.jsonl",
    "blend": "blend --start nano/start --trained nano/mono/model --new-rows 49152 --out nano/blended",
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
    documents = verb("documents", "the texts of a corpus that a course reads", _documents)
    documents.add_argument("--corpus", type=Path, required=True, help="folder of a corpus")
    documents.add_argument("--course", choices=get_args(Course), required=True)
    blend = verb("blend", "average the trained weights with those they began from", _blend)
    blend.add_argument("--start", type=Path, required=True)
    blend.add_argument("--trained", type=Path, required=True)
    blend.add_argument("--weight", type=float, default=0.5, help="of the trained weights")
    blend.add_argument("--new-rows", type=int, required=True, help="rows from here on are the trained ones alone")
    return parser


def main() -> None:
    args = _parser().parse_args()
    try:
        args.run_command(args)
    except CodegenError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
