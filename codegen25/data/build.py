"""Build a corpus: `python -m codegen25.data.build --packages RECIPE --wheels DIR --site DIR --out DIR`.

Writes train.jsonl and heldout.jsonl, which share neither a package nor a text, and report.json, which counts every
file: kept by licence, or dropped by reason. Same input, same bytes, whatever the order of the input. Near copies are
not looked for yet, nor secrets and personal data.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from codegen25.data.decontaminate import contaminated, humaneval_problems, needles
from codegen25.data.document import Document, content_id, write_documents, write_text
from codegen25.data.filters import decode, reject_content, reject_path
from codegen25.data.licenses import decide
from codegen25.data.sources import STDLIB, Package, Pin, find_packages, read_pins, stdlib
from codegen25.errors import CodegenError

PACKAGE_BYTES = 1_000_000


@dataclass
class Tally:
    """What was dropped and why: files by reason, whole packages by name with reason and evidence."""

    files: Counter[str] = field(default_factory=Counter)
    packages: dict[str, str] = field(default_factory=dict)


def package_documents(package: Package, wanted: list[str], limit: int | None, tally: Tally) -> list[Document]:
    """The documents of one package that pass every filter, in `id` order, at most `limit` UTF-8 bytes (None: all)."""
    decision = decide(package.metadata)
    if decision.spdx is None:
        tally.packages[f"{package.name}=={package.version}"] = f"{decision.reason} ({decision.evidence})"
        tally.files[decision.reason or ""] += sum(1 for _ in package.files())
        return []
    kept: dict[str, Document] = {}
    for path, data in package.files():
        reason = reject_path(path)
        content = None
        if reason is None:
            content, reason = decode(data)
        if content is not None:
            reason = reject_content(content) or contaminated(content, wanted)
        if content is None or reason is not None:
            tally.files[reason or ""] += 1
            continue
        document = Document(
            content_id(content), content, package.name, package.version, path, decision.spdx, decision.evidence
        )
        tally.files["exact duplicate"] += document.id in kept
        kept.setdefault(document.id, document)  # files come in path order, so the first path stands
    return _within(sorted(kept.values(), key=lambda document: document.id), limit, tally)


def _within(documents: list[Document], limit: int | None, tally: Tally) -> list[Document]:
    """As many as fit, so that no large package outweighs the others; `id` order makes the choice a fair draw."""
    chosen, size = [], 0
    for document in documents:
        length = len(document.content.encode())
        if limit is not None and size + length > limit:
            tally.files["over the package's share"] += 1
            continue
        size += length
        chosen.append(document)
    return chosen


def _unique(documents: Iterable[Document], seen: set[str], tally: Tally) -> list[Document]:
    """The first of each content by (source, version, path), in `id` order; `seen` is added to."""
    unique = []
    for document in sorted(documents, key=lambda d: (d.id, d.source, d.version, d.path)):
        if document.id in seen:
            tally.files["exact duplicate"] += 1
            continue
        seen.add(document.id)
        unique.append(document)
    return unique


def build(
    packages: Iterable[Package], heldout: set[str], wanted: list[str], limit: int = PACKAGE_BYTES
) -> tuple[list[Document], list[Document], dict[str, object]]:
    """(training documents, held-out documents, report); `heldout` names packages, `wanted` is from `needles`.

    `limit` is a package's share in bytes; the standard library, many modules by many hands, is taken whole.
    A text that both sides hold stays with the held-out side alone.
    """
    tally = Tally()
    sides: dict[bool, list[Document]] = {False: [], True: []}
    for package in packages:
        print(f"{package.name} {package.version}", file=sys.stderr)
        share = None if package.name == STDLIB else limit
        sides[package.name in heldout].extend(package_documents(package, wanted, share, tally))
    seen: set[str] = set()
    held = _unique(sides[True], seen, tally)
    train = _unique(sides[False], seen, tally)
    return train, held, report(train, held, tally, decontaminated=bool(wanted))


def report(train: list[Document], held: list[Document], tally: Tally, *, decontaminated: bool) -> dict[str, object]:
    """The counts as one JSON object; `bytes` are of UTF-8 content."""

    def side(documents: list[Document]) -> dict[str, object]:
        return {
            "documents": len(documents),
            "bytes": sum(len(document.content.encode()) for document in documents),
            "licenses": dict(sorted(Counter(document.license for document in documents).items())),
            "packages": dict(sorted(Counter(f"{d.source}=={d.version}" for d in documents).items())),
        }

    return {
        "train": side(train),
        "heldout": side(held),
        "dropped_files": dict(sorted((+tally.files).items())),
        "dropped_packages": dict(sorted(tally.packages.items())),
        "decontaminated": decontaminated,
    }


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m codegen25.data.build", description="Build a corpus of Python.")
    parser.add_argument("--packages", type=Path, required=True, help="lines name==version, #heldout behind some")
    parser.add_argument("--wheels", type=Path, action="append", default=[], help="folder of wheels and source archives")
    parser.add_argument("--site", type=Path, action="append", default=[], help="folder that packages are installed in")
    parser.add_argument("--out", type=Path, required=True, help="folder for train.jsonl, heldout.jsonl, report.json")
    parser.add_argument(
        "--package-bytes", type=int, default=PACKAGE_BYTES, help="most text of one package (%(default)s)"
    )
    parser.add_argument("--no-stdlib", action="store_true", help="leave out the running Python's standard library")
    parser.add_argument("--no-decontaminate", action="store_true", help="do not look for HumanEval's problems")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The command; 0 done, 1 with one line on stderr."""
    arguments = _arguments(argv)
    try:
        pins: list[Pin] = read_pins(arguments.packages)
        wanted = [] if arguments.no_decontaminate else needles(humaneval_problems())
        packages = find_packages(pins, arguments.wheels, arguments.site)
        packages += [] if arguments.no_stdlib else [stdlib()]
        train, held, summary = build(packages, {p.name for p in pins if p.heldout}, wanted, arguments.package_bytes)
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_documents(arguments.out / "train.jsonl", train)
        write_documents(arguments.out / "heldout.jsonl", held)
        write_text(arguments.out / "report.json", [json.dumps(summary, indent=2) + "\n"])
    except (CodegenError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
