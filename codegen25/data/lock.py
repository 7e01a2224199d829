"""A lock: the list of what a corpus is built from, in a file that people can read and compare."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

from codegen25.data.document import write_text
from codegen25.data.source import Source, SourceKind
from codegen25.errors import CodegenError

FORMAT = 1
HASH = re.compile(r"(sha256:[0-9a-f]{64}|git:[0-9a-f]{40}|git:[0-9a-f]{64})?")
_DEFAULTS = {"date": "", "license": "", "heldout": False}


def ordered(sources: Iterable[Source]) -> list[Source]:
    """Each source once, by name, version, kind and location. Raises CodegenError when two claim the same place."""
    found = sorted(set(sources), key=lambda s: (s.name, s.version, s.kind, s.location, s.hash, s.heldout))
    for one, other in pairwise(found):
        if (one.name, one.version, one.kind, one.location) == (other.name, other.version, other.kind, other.location):
            raise CodegenError(f"{one.name} {one.version}: listed twice and differently; list it once")
    return found


def write_lock(path: Path, sources: Sequence[Source]) -> None:
    """Write the sources in order, one a line, without fields that say nothing.

    Raises CodegenError for what `read_lock` would not read: two that claim the same place, names that are not UTF-8.
    """
    lines = []
    for source in ordered(sources):
        said = asdict(source)
        if wrong := _wrong(said):
            raise CodegenError(f"{source.name!a}: {wrong}; leave it out, or give it another name")
        kept = {name: value for name, value in said.items() if name not in _DEFAULTS or value != _DEFAULTS[name]}
        lines.append("  " + json.dumps(kept, ensure_ascii=False))
    write_text(path, [f'{{"lock": {FORMAT}, "sources": [\n', ",\n".join(lines), "\n]}\n"])


def read_lock(path: Path) -> list[Source]:
    """The sources of a lock file, in order. Raises CodegenError, naming the file and the entry, when it is none."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CodegenError(f"{path}: cannot be read ({error.strerror}); make one with `codegen25 data lock`") from None
    except (ValueError, RecursionError) as error:
        raise CodegenError(f"{path}: not a lock ({error}); make one with `codegen25 data lock`") from None
    if not isinstance(said, dict) or set(said) != {"lock", "sources"} or not isinstance(said["sources"], list):
        raise CodegenError(f'{path}: not a lock, which is "lock" and "sources"; make one with `codegen25 data lock`')
    if said["lock"] is True or said["lock"] != FORMAT:
        raise CodegenError(
            f"{path}: a lock of version {json.dumps(said['lock'])}, not {FORMAT}; lock the sources again"
        )
    sources = [_source(path, number, one) for number, one in enumerate(said["sources"], start=1)]
    try:
        return ordered(sources)
    except CodegenError as error:
        raise CodegenError(f"{path}: {error}") from None


def _source(path: Path, number: int, said: Any) -> Source:
    wrong = _wrong(said)
    if wrong:
        raise CodegenError(f"{path}: source {number}: {wrong}; mend it or lock the sources again")
    return Source(**said)


def _wrong(said: Any) -> str | None:
    """What is wrong with an entry."""
    known = {field.name for field in fields(Source)}
    if not isinstance(said, dict):
        return "not an object"
    if set(said) - known:
        return f"unknown field {min(set(said) - known)!r}"
    if missing := known - set(_DEFAULTS) - set(said):
        return f"no {min(missing)}"
    texts = known - {"heldout"}
    if bad := [name for name in texts & set(said) if not _is_text(said[name])]:
        return f"{min(bad)} is no text"
    if not isinstance(said.get("heldout", False), bool):
        return "heldout is neither true nor false"
    if said["kind"] not in get_args(SourceKind):
        return f"kind {said['kind']!r} is not known"
    return None if HASH.fullmatch(said["hash"]) else "its hash is not sha256:… or git:…"


def _is_text(value: Any) -> bool:
    """Whether it can be written as UTF-8: JSON can say half a surrogate pair, and a folder's name holds any bytes."""
    return isinstance(value, str) and value == value.encode(errors="replace").decode()
