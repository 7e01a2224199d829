"""Which licence a file itself names: an SPDX line, or a notice, text or name in the comment at its head."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from codegen25.data import license_names, spdx
from codegen25.data.license_texts import Item, combined, granted, one_line, spdx_lines, whole_texts

MAX_CHARACTERS, MAX_LINES = 4096, 50
# Most files say none of these words in their head, and cost no more than looking for them. Not "mpl", as in "example".
_WORDS = (
    "licens", "licenc", "gpl", "spdx", "mozilla", "public domain", "proprietary", "confidential", "permission",
    "redistribut", "trade secret", "creative commons", "eula", "unauthor",
)  # fmt: skip
# Words of texts and standard notices, which are looked for at greater cost.
_TEXTS = re.compile(
    r"permission (?:is hereby granted|to use)|redistribution and use|version \d(?:\.\d)?\b|without warrant|"
    r"provided \W{0,2}as[- ]is|general public|source code form|hereby grant|subject to the terms|merchantability",
    re.I,
)  # fmt: skip
# The end of a licence text, which has none of these words, is no longer than so many lines.
_AFTER = 14
# Where one of these opens, the comment goes on to its end.
_BLOCKS = (
    ("/*", "*/"), ('"""', '"""'), ("'''", "'''"), ("<!--", "-->"), ("{-", "-}"), ("(*", "*)"), ("--[[", "]]"),
    ("=begin", "=end"), ("=pod", "=cut"), ("<%--", "--%>"), ("{#", "#}"), ("#|", "|#"),
)  # fmt: skip
_LINE = re.compile(
    r"\s*(?:#|//|--|;|%|'|!|\"|\*|@|REM\b|dnl\b|\.\\\"|\.\.|C\s|<\?|<!|package\b|[ruRU]?\"\"\"|\"use strict\")|\s*$"
)
_MARKS = re.compile(r"^[\s#/*;%!\"'\-<>{}()\[\]|=~+.]*(?:(?:REM|dnl)\s)?|[\s*/#\"'\-}>]*$")
_LICENSE_VARIABLE = re.compile(r"^__licen[cs]e__\s*(?::\s*\w+\s*)?=\s*\(?\s*[ru]?[\"']{1,3}([^\"'\n]{2,200})", re.M)


@dataclass(frozen=True)
class Header:
    """A licence that a file names for itself; `spdx` is None when what it names was not understood."""

    spdx: str | None
    words: str
    confidence: float

    @property
    def vague(self) -> bool:
        """Whether it leaves open which licence of a kind is meant, as in "BSD-style license, see LICENSE"."""
        return self.spdx == spdx.BSD


def read_header(text: str) -> Header | None:
    """The licence in the head of a file, None when it names none: most files, after one search."""
    head = text[:MAX_CHARACTERS]
    return _read(head) if _speaks_of_licenses(head) else None


def _speaks_of_licenses(text: str) -> bool:
    lower = text.lower()
    return "MPL" in text or any(word in lower for word in _WORDS)


def _read(head: str) -> Header | None:
    lines = "\n".join(head.splitlines()[:MAX_LINES])
    if stated := spdx_lines(lines):
        return Header(stated[0], stated[1], 1.0)
    comment = leading_comment(head)
    found = _in_comment(_about_licenses(comment)) if _speaks_of_licenses(comment) else None
    variable = _LICENSE_VARIABLE.search(head)
    if found is None and variable and (name := license_names.named(variable[1])):
        return Header(name, one_line(variable[0]), 0.9)
    return found


def leading_comment(text: str) -> str:
    """The comments, and the docstring, that a file begins with, without their marks, line by line."""
    found, closing = [], ""
    for line in text.splitlines():
        bare = line.strip()
        if not closing:
            opened = next(((mark, end) for mark, end in _BLOCKS if bare.lstrip("ruRU").startswith(mark)), None)
            if opened is None and not _LINE.match(line):
                break
            if opened and opened[1] not in bare[bare.index(opened[0]) + len(opened[0]) :]:
                closing = opened[1]
        elif closing in bare:
            closing = ""
        found.append(_MARKS.sub("", line))
    return "\n".join(found)


def _about_licenses(comment: str) -> str:
    """The comment from its first to its last line that speaks of licences, so that what files share is equal text."""
    lines = comment.splitlines()
    said = [number for number, line in enumerate(lines) if _speaks_of_licenses(line) or _TEXTS.search(line)]
    return "\n".join(lines[max(0, said[0] - 1) : said[-1] + _AFTER])


@lru_cache(maxsize=4096)
def _in_comment(comment: str) -> Header | None:
    """The licences in a comment; remembered, as the files of a package often share it."""
    texts = whole_texts(comment) if _TEXTS.search(comment) else []
    items: list[Item] = [*texts]
    known = {spdx.family(item.spdx) for item in texts}
    rest = comment
    for item in reversed(texts):
        rest = rest[: item.start] + "\n" + rest[item.end :]
    names = [name for name in granted(rest) if spdx.family(name.spdx) not in known]
    items += names
    if not items:
        return None
    expressions = list(dict.fromkeys(item.spdx for item in items))
    # "BSD" beside the text of one of them, or beside its exact name.
    if len(expressions) > 1 and any(one.startswith("BSD-") for one in expressions):
        expressions = [one for one in expressions if one != spdx.BSD]
    expression = spdx.any_of(expressions) if not texts and _joined_by_or(names, rest) else combined(expressions, rest)
    words = comment[texts[0].start : texts[0].end] if texts else _around(rest, names[0])
    return Header(expression, one_line(words), 0.95 if texts else 0.9)


def _joined_by_or(names: list[Item], text: str) -> bool:
    """Whether "or" or a stroke stands between each two names: "MIT or GPL", "MIT/BSD"."""
    flat = " ".join(text.split())
    gaps = [flat[one.end : two.start] for one, two in pairwise(names)]
    return bool(gaps) and all(
        re.fullmatch(r"\W*(?:(?:and/)?or|/|\|)(?: under)?(?: the)?\W*|\W*/\W*", gap, re.I) for gap in gaps
    )


def _around(text: str, name: Item) -> str:
    flat = " ".join(text.split())
    return flat[max(0, name.start - 60) : name.end + 60]
