"""Which licence a package's metadata states: Python's core metadata, npm's package.json, a dataset's own words."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from typing import Any

from codegen25.data import spdx
from codegen25.data.license_names import mentions, named
from codegen25.data.license_texts import one_line, recognise
from codegen25.data.source import Metadata

_POINTER = re.compile(r"(?i)^\s*(?:see|unknown|none|n/?a)\b|^\s*(?:licen[cs]e|copying)(?:\.\w+)?\s*$|^file:")
_PERMISSIVE = re.compile(r"(?i)\bpermissive licen[cs]es only\b")
_DUAL = re.compile(r"(?i)^\W*dual\b")


@dataclass(frozen=True)
class Stated:
    """A statement: `spdx` is None where the words were not understood; `words` "" where nothing is said.

    `named` are all licences whose names were seen among words that were not understood, together, or "".
    """

    spdx: str | None
    words: str
    confidence: float
    named: str = ""


NOTHING = Stated(None, "", 0.0)


def stated_license(metadata: Metadata) -> Stated:
    """What the metadata says of the licence. Metadata that cannot be read says nothing."""
    if metadata.kind == "python":
        return _python(Parser().parsestr(metadata.text, headersonly=True))
    if metadata.kind == "npm":
        return _npm(metadata.text)
    if metadata.kind == "dataset":
        return _dataset(metadata.text)
    return NOTHING


def _dataset(words: str) -> Stated:
    """What its makers state of all of a dataset: a licence, or that theirs are permissive, whichever they are."""
    if _PERMISSIVE.search(words):
        return Stated(spdx.PERMISSIVE, one_line(words), 0.8)
    return row_license(words)


def row_license(words: str) -> Stated:
    """What a row of a table says: an expression or a name; of several by commas every one applies."""
    parts = [part for part in re.split(r"[,;\n]", words) if part.strip(" []'\"")]
    if not parts:
        return NOTHING
    names = [named(part.strip(" []'\"")) for part in parts]
    known = [name for name in names if name]
    return Stated(spdx.all_of(known) if len(known) == len(names) else None, one_line(words), 0.9)


def _python(metadata: Message) -> Stated:
    """License-Expression (PEP 639) alone if it is there; else the License field and the classifiers together."""
    if expression := _field(metadata, "License-Expression"):
        return Stated(spdx.normal(expression), one_line(f"License-Expression: {expression}"), 1.0)
    field = _field(metadata, "License")
    classifiers = [str(one) for one in metadata.get_all("Classifier") or [] if str(one).startswith("License :: ")]
    if not field and not classifiers:
        return NOTHING
    quoted = ([f"License: {one_line(field)}"] if field else []) + [f"Classifier: {one}" for one in classifiers]
    words = one_line("; ".join(quoted))
    # The bare "OSI Approved" names no licence, so it neither helps nor hurts.
    listed = [named(name) for name in (one.split(" :: ")[-1] for one in classifiers) if name != "OSI Approved"]
    known = [one for one in listed if one]
    free = _free_text(field)
    understood = free is not None or not field or bool(_POINTER.match(field) or (known and _DUAL.search(field)))
    if not understood or len(known) < len(listed) or not (free or known):
        seen = [mention.spdx for mention in mentions(one_line(field))] if free is None else [free]
        return Stated(None, words, 0.9, spdx.all_of([*seen, *known]))
    return Stated(_together(free, list(dict.fromkeys(known)), field), words, 0.9)


def _field(metadata: Message, name: str) -> str:
    value = str(metadata.get(name) or "").strip()
    return "" if value.upper() in {"UNKNOWN", "NONE"} else value


def _free_text(field: str) -> str | None:
    """What a License field says: a name, an expression, or a whole licence text."""
    if not field or _POINTER.match(field):
        return None
    name = named(field) or named(field.splitlines()[0])
    if name:
        return name
    found = recognise(field)
    if found.spdx and found.confidence >= 0.75:
        return found.spdx
    return None


def _together(field: str | None, classifiers: list[str], words: str) -> str | None:
    """One expression of the field and the classifiers: what either adds counts, the vaguer name of one licence not."""
    if not classifiers:
        return field
    if _DUAL.search(words) and field is None:
        return spdx.any_of(classifiers)
    if field is None:
        return spdx.all_of(classifiers)
    if spdx.families(spdx.all_of(classifiers)) <= spdx.families(field):
        return field
    if spdx.families(field) <= spdx.families(spdx.all_of(classifiers)):
        return spdx.all_of(field if one == spdx.BSD and spdx.family(field) == one else one for one in classifiers)
    return spdx.all_of([field, *classifiers])


def _npm(text: str) -> Stated:
    """The field `license`, or the older `licenses`, of which npm says that a list offers a choice."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return NOTHING
    if not isinstance(fields, dict):
        return NOTHING
    value: Any = fields.get("license", fields.get("licenses", fields.get("licence")))
    listed = value if isinstance(value, list) else [value]
    names = [one.get("type", one.get("name")) if isinstance(one, dict) else one for one in listed]
    said = [
        name for name in names if isinstance(name, str) and name.strip() and not name.upper().startswith("SEE LICEN")
    ]
    if not said:
        return NOTHING
    found = [_npm_name(name) for name in said]
    known = [name for name in found if name]
    expression = spdx.any_of(known) if len(known) == len(names) else None
    return Stated(expression, one_line(f"license: {', '.join(said)}"), 1.0 if all(map(spdx.normal, said)) else 0.9)


def _npm_name(name: str) -> str | None:
    return spdx.RESTRICTED if name.strip().upper() == "UNLICENSED" else named(name)
