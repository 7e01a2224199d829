"""Texts to measure likelihood on: the held-out part of a corpus, JSON Lines, or files as they lie."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codegen25.errors import CodegenError

HELDOUT = "heldout"
MANIFEST = "corpus.json"


@dataclass(frozen=True)
class Text:
    """A text, and its language, which for files as they lie is their ending. `whole`: not cut at its end."""

    content: str
    language: str
    whole: bool = True


def read_texts(paths: Sequence[Path], *, files: int | None, characters: int | None, seed: int) -> list[Text]:
    """The texts of all paths but blank ones; of more than `files` so many, drawn by `seed`. Each loses what is beyond
    so many `characters`.

    A path is a corpus (its held-out part), a JSONL file of `content` or `text` and, perhaps, `language`, a text file,
    or a folder of such files. Raises CodegenError for what cannot be read, and where there is no text.
    """
    found = [text for path in paths for text in _texts(path) if text.content.strip()]
    if not found:
        raise CodegenError(f"{', '.join(map(str, paths))}: no text is in there; name a corpus, JSONL or source files")
    if files is not None and files < len(found):
        order = list(range(len(found)))
        random.Random(seed).shuffle(order)
        found = [found[i] for i in order[:files]]
    cut = characters if characters is not None else max(len(text.content) for text in found)
    return [Text(text.content[:cut], text.language, len(text.content) <= cut) for text in found]


def _texts(path: Path) -> Iterator[Text]:
    if path.is_dir() and (path / MANIFEST).exists():
        from codegen25.data.corpus import Corpus

        for document in Corpus(path).documents(HELDOUT):
            yield Text(document.content, document.language)
    elif path.is_dir():
        names = [file.relative_to(path) for file in path.rglob("*") if file.is_file()]
        for name in sorted(name for name in names if not any(part.startswith(".") for part in name.parts)):
            try:
                yield Text((path / name).read_text(encoding="utf-8"), _ending(name))
            except UnicodeDecodeError:
                continue  # a folder holds images and the like, too
    elif path.suffix == ".jsonl":
        yield from _rows(path)
    else:
        yield Text(_read(path), _ending(path))


def _ending(path: Path) -> str:
    return path.suffix.lower().removeprefix(".") or "none"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CodegenError(f"{path}: cannot be read ({error}); name a text in UTF-8") from error


def _rows(path: Path) -> Iterator[Text]:
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CodegenError(f"{path}:{number}: not JSON ({error}); every line is one text") from error
        content = row.get("content", row.get("text")) if isinstance(row, dict) else None
        if not isinstance(content, str):
            raise CodegenError(f"{path}:{number}: has no text; the field is `content` or `text`")
        try:
            content.encode()
        except UnicodeEncodeError as error:
            raise CodegenError(f"{path}:{number}: holds half a surrogate pair, no text; leave it out") from error
        yield Text(content, str(row.get("language") or "none"))
