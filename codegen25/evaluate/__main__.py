"""`python -m codegen25.evaluate gate`: single-line infilling by three protocols, and likelihood on held-out files.

Writes FILE.json (the report), FILE.samples.jsonl (every answer; a run that was interrupted goes on from there) and
prints the row of a Markdown table. `--run-generated-code` runs programs that the model wrote, with your rights and
WITHOUT A SANDBOX; without it, only exact matches and how answers end are reported.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codegen25.complete import ANCHOR_LINES, Model, load
from codegen25.data.document import write_text
from codegen25.errors import CodegenError, UsageError
from codegen25.evaluate import gate, likelihood
from codegen25.evaluate.judge import Limits
from codegen25.evaluate.singleline import single_line_tasks


def _notice(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _likelihood(model: Model, args: argparse.Namespace) -> dict[str, Any]:
    texts = likelihood.heldout_texts(
        args.heldout, files=args.heldout_files, characters=args.heldout_characters, seed=args.seed
    )
    rng = random.Random(args.seed)
    window = min(args.window, model.config.max_positions)
    drawn = [likelihood.draw_span(model.tokenizer, text, whole, rng, window) for text, whole in texts]
    spans = [span for span in drawn if span is not None]
    _notice(f"likelihood: {len(texts)} files, {len(spans)} spans")
    nats = likelihood.span_nats(model.backend, model.tokenizer, spans, anchor_lines=args.anchor_lines)
    bits = likelihood.bits_per_byte(model, [text for text, _ in texts], window=window)
    return {"files": len(texts), "window": window, "bits_per_byte": bits, "span_nats": asdict(nats)}


def _gate(args: argparse.Namespace) -> None:
    from codegen25.model.folder import resolve

    if args.out.suffix != ".json":
        raise UsageError(f"--out {args.out}: must end in .json; the samples go beside it")
    tasks = gate.subset(single_line_tasks(), args.tasks, args.seed)
    settings = {"anchor_lines": args.anchor_lines, "max_tokens": args.max_tokens}
    run, weights = gate.run_id(resolve(args.model), settings)
    model = load(args.model)
    protocols = gate.generators(model, **settings)
    samples = gate.generate_all(
        tasks, protocols, args.out.with_suffix(".samples.jsonl"), run=run, batch=args.batch, notice=_notice
    )
    if args.run_generated_code:
        _notice("judging: RUNNING GENERATED PROGRAMS WITHOUT A SANDBOX, as --run-generated-code asks")
    limits = Limits(seconds=args.timeout)
    report = {
        "model": args.model, "weights": weights, "run": run, "tasks": len(tasks), "seed": args.seed, **settings,
        "protocols": gate.scores(tasks, samples, run_code=args.run_generated_code, limits=limits),
        "likelihood": _likelihood(model, args) if args.heldout else None,
    }  # fmt: skip
    write_text(args.out, [json.dumps(report, indent=2) + "\n"])
    print(gate.HEADER, gate.table_row(report), sep="\n")


def _lines(text: str) -> int | None:
    return None if text == "all" else int(text)


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m codegen25.evaluate", description=__doc__, formatter_class=raw)
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    verb = verbs.add_parser("gate", help="single-line infilling by three protocols", description=__doc__)
    verb.add_argument("--model", required=True, help="a folder, a hub id or a built-in name")
    verb.add_argument("--out", type=Path, required=True, help="the report, FILE.json")
    verb.add_argument("--tasks", type=int, default=200, help="how many of the 1,033")
    verb.add_argument("--seed", type=int, default=0, help="of the choice of tasks, files and spans")
    verb.add_argument("--anchor-lines", type=_lines, default=ANCHOR_LINES, help="lines of an anchored hole, or all")
    verb.add_argument("--max-tokens", type=int, default=64, help="new tokens of an answer")
    verb.add_argument("--batch", type=int, default=8, help="tasks that are generated side by side")
    verb.add_argument("--heldout", type=Path, help="documents (JSONL) to measure likelihood on")
    verb.add_argument("--heldout-files", type=int, default=40)
    verb.add_argument("--heldout-characters", type=int, default=3000, help="of the beginning of each file")
    verb.add_argument("--window", type=int, default=1024, help="tokens of context when scoring")
    verb.add_argument("--run-generated-code", action="store_true", help="judge by running programs, UNPROTECTED")
    verb.add_argument("--timeout", type=float, default=10.0, help="seconds of one program")
    verb.set_defaults(run_command=_gate)
    return parser


def main(argv: list[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    try:
        args.run_command(args)
    except CodegenError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)


if __name__ == "__main__":
    main()
