"""A lock: the list of what a corpus is built from, in a file that people can read and compare."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
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
    for one, other in zip(found, found[1:], strict=False):
        if (one.name, one.version, one.kind, one.location) == (other.name, other.version, other.kind, other.location):
            raise CodegenError(f"{one.name} {one.version}: listed twice and differently; list it once")
    return found


def write_lock(path: Path, sources: Sequence[Source]) -> None:
    """Write the sources in order, one a line, without fields that say nothing."""
    lines = []
    for source in ordered(sources):
        said = {name: value for name, value in asdict(source).items() if value != _DEFAULTS.get(name, value)}
        kept = {name: value for name, value in asdict(source).items() if name in said or name not in _DEFAULTS}
        lines.append("  " + json.dumps(kept, ensure_ascii=False))
    write_text(path, [f'{{"lock": {FORMAT}, "sources": [\n', ",\n".join(lines), "\n]}\n"])


def read_lock(path: Path) -> list[Source]:
    """The sources of a lock file, in order. Raises CodegenError, naming the entry, when it is none."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        listed, version = said["sources"], said["lock"]
    except OSError as error:
        raise CodegenError(f"{path}: cannot be read ({error.strerror}); make one with `codegen25 data lock`") from None
    except (ValueError, TypeError, KeyError) as error:
        raise CodegenError(f"{path}: not a lock ({error!r}); make one with `codegen25 data lock`") from None
    if version != FORMAT or not isinstance(listed, list):
        raise CodegenError(f"{path}: a lock of another version ({version}); lock the sources again")
    return ordered(_source(path, number, one) for number, one in enumerate(listed, start=1))


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
        return f"unknown field {min(set(said) - known)}"
    if missing := known - set(_DEFAULTS) - set(said):
        return f"no {min(missing)}"
    texts = known - {"heldout"}
    if bad := [name for name in texts & set(said) if not isinstance(said[name], str)]:
        return f"{min(bad)} is no text"
    if not isinstance(said.get("heldout", False), bool):
        return "heldout is neither true nor false"
    if said["kind"] not in get_args(SourceKind):
        return f"kind {said['kind']} is not known"
    return None if HASH.fullmatch(said["hash"]) else "its hash is not sha256:… or git:…"
