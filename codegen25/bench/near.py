"""Filters and the search for near copies, with the code of a build and on its engine, but nothing else of a build.

Input and output are as datatrove has them: JSON Lines of `id` and `text`, a file for each task.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from codegen25.data import languages
from codegen25.data.copies import Place, find_copies
from codegen25.data.dedup import SIGN_BATCH, ShingleWriter, signed
from codegen25.data.document import content_id, write_text
from codegen25.data.engine import Engine
from codegen25.data.filters import reject_content
from codegen25.data.parts import KEPT, PartFiles, Table, rows
from codegen25.data.paths import reject_path


def wanted(path: str, text: str) -> bool:
    """Whether a file passes the filters of a build."""
    if reject_path(path) is not None:
        return False
    language = languages.detect(path, text)
    return language is not None and reject_content(text, language, path) is None


def write_documents(path: Path, documents: Sequence[tuple[str, str]]) -> None:
    """Write (id, text) pairs as JSON Lines."""
    write_text(path, (json.dumps({"id": id, "text": text}, ensure_ascii=False) + "\n" for id, text in documents))


def read_documents(path: Path) -> Iterator[tuple[str, str]]:
    """The (id, text) pairs of a file that `write_documents` wrote."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            document = json.loads(line)
            yield document["id"], document["text"]


def run(folder: Path, out: Path, workers: int) -> dict[str, float]:
    """Deduplicate the .jsonl files of `folder` into `out`/kept; seconds by stage."""
    inputs = sorted(folder.glob("*.jsonl"))
    for made in (out / "work", out / "kept"):
        made.mkdir(parents=True)
    engine = Engine(workers=workers)
    parts = [PartFiles(out / "work", path.stem) for path in inputs]
    start = time.perf_counter()
    items = [json.dumps([number, str(path)]) for number, path in enumerate(inputs)]
    list(engine.run(signer, (str(out / "work"),), items))
    signed = time.perf_counter()
    gone = find_copies(parts, engine, out / "work", near=True, progress=lambda *_: None)
    compared = time.perf_counter()
    list(engine.run(dropper, (str(out / "work"), str(out / "kept"), sorted(gone)), [path.stem for path in inputs]))
    return {"filter and sign": signed - start, "compare": compared - signed, "drop": time.perf_counter() - compared}


def signer(folder: str) -> Callable[[str], str]:
    """A task that filters one file of documents and notes what near copies are found by."""

    def task(item: str) -> str:
        number, path = json.loads(item)
        files = PartFiles(Path(folder), Path(path).stem)
        with Table(files.kept, KEPT) as kept, ShingleWriter(files.shingles) as shingles:
            passing = ((id, text) for id, text in read_documents(Path(path)) if wanted(id, text))
            while documents := list(islice(passing, SIGN_BATCH)):
                signs = signed([text for _, text in documents], shingles)
                for (id, text), sign in zip(documents, signs, strict=True):
                    row = {"part": number, "row": kept.count, "id": content_id(text), "rank": id, "content": text}
                    kept.add(row | sign, 2 * len(text))
            kept.close()
            shingles.close()
            files.finish({"kept": kept.count})
        return files.key

    return task


def dropper(folder: str, out: str, gone: Sequence[Place]) -> Callable[[str], str]:
    """A task that writes what is left of one file."""
    places = set(gone)

    def task(key: str) -> str:
        kept = rows(PartFiles(Path(folder), key).kept, ("part", "row", "rank", "content"))
        left = [(row["rank"], row["content"]) for row in kept if (row["part"], row["row"]) not in places]
        write_documents(Path(out) / f"{key}.jsonl", left)
        return key

    return task
