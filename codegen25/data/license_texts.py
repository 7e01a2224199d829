"""Which licence a licence file holds: its own, told apart from those of software that it says is bundled.

Whole texts are recognised by `licenseclassifier` (Google's licensecheck and its templates), names by `license_names`.
The licences at the head of the file are its own, up to the words or the ruled line that begin a list of other
software. Several of its own all apply, unless the words beside them offer a choice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from licenseclassifier._engine import scan

from codegen25.data import spdx
from codegen25.data.license_names import mentions

MAX_WORDS = 200
# Longer files only list more of other software.
MAX_CHARACTERS = 300_000
# What a file, or a person, says before the name of a licence that applies.
GRANT = re.compile(
    r"licen[cs]ed?\b|\brelease[ds]?\b|distribut|\bavailable\b|\bpublished\b|\bgoverned\b|\bsubject to\b|\bunder\b|"
    r"@licen[cs]e|\bcovered\b|\bplaced\b",
    re.I,
)
# Comparisons, and names of files.
_NOT_MEANT = re.compile(
    r"\b(?:unlike|mean|compatible|rather than|instead of|not (?:under|covered|licensed))\b|(?:licen[cs]e|copying)[.-]$|"
    r"\bcommercial,? (?:and|or|and/or|as well as) $",
    re.I,
)
# "GPL version 2 or (at your option) any later version" offers no choice between licences.
_NO_CHOICE = re.compile(
    r"either version \d.{0,60}?later version|or,? \(?at your option\)?,? any later version|or later", re.I
)
_CHOICE = re.compile(
    r"(?<!documentation are )dual[- ]?licen[cs]|\*?\beither\b\*?(?: of| the| under| \w+ (?:or|licen))|alternatively|"
    r"(?:at your|your) (?:choice|option)|under the (?:terms|conditions) of \*?(?:either|any|one)\b",
    re.I,
)
# What a file says before licences that are not its own.
_OTHERS = re.compile(
    r"\bbundle[sd]?\b|third[- ]part(?:y|ies)|3rd[- ]party|\bincorporat\w+|\bportions of\b|\bbased on\b|\bvendored\b|"
    r"(?:copied|taken|derived|adapted|borrowed|ported|imported) from|\bredistributes?\b|\bsubmodules?\b|"
    r"(?:includes?|contains?|uses?) (?:\w+ ){0,6}(?:code|software|components?|sources?|parts|librar\w+|files|work)|"
    r"(?:other|following|additional) (?:\w+ ){0,3}(?:components?|librar\w+|software|files|dependencies|packages)|"
    r"(?:other|following|additional) (?:\w+ ){0,3}licen[cs]es|licen[cs]es? (?:for|of) \S|\bdepend(?:s|encies)\b|"
    r"\bprior to\b|source code in|\bfiles?:? \S+/\S+",
    re.I,
)
# A line of dashes that underlines nothing, and behind it a name rather than a licence's.
_RULE = re.compile(
    r"(?:^|\n)[ \t]*\n[ \t]*[-=*_~#]{3,}[ \t]*\n\s*(?!.*(?:licen[cs]e|copyright))\S.*|\n={3,} .* ={3,}[ \t]*\n", re.I
)
_COPYRIGHT = re.compile(r"^.*(?:copyright|\(c\)|©|all rights reserved).*$|^\W*$|^.{0,40}:\s*$", re.I | re.M)
_CONDITIONS = re.compile(
    r"licen[cs]|permission|permitted|\bmust\b|\bshall\b|may not|prohibit|restrict|commercial|proprietary|royalt|"
    r"\bfee\b|\bterms\b",
    re.I,
)
# It speaks of the GPL, which does not apply.
_LLVM = re.compile(
    r"As an exception, if, as a result of your compiling.{0,900}respect to the Combined\s+Software\.", re.S
)
_CHANGED = re.compile(
    r"may not|prohibit|non-?commercial|only for|similar to|modified (?:version of|MIT|BSD|Apache)|except", re.I
)
_SPDX = re.compile(r"^\W{0,12}(?:(?:rem|dnl|c)\s)?\s*SPDX-License-Identifier:[ \t]*(\S[^\n]*)", re.I | re.M)
_CLOSING = re.compile(r"\s*(?:\*+/|-->|--%>|%>|\*\)|-\}|\]\]|[\"'`;,#}]+)?\s*$")


@dataclass(frozen=True)
class Item:
    """A licence found in a text: by its whole text or notice, or (not `whole`) by its name; characters."""

    spdx: str
    start: int
    end: int
    whole: bool


@dataclass(frozen=True)
class Recognised:
    """`spdx` is None when no licence of the file's own was found; `choice` when it offers one between licences.

    `bundled` are licences of software that the file says comes along, `words` what was matched.
    """

    spdx: str | None
    confidence: float
    words: str
    bundled: tuple[str, ...] = ()
    choice: bool = False


def one_line(text: str) -> str:
    """Words for a person, on one line and short."""
    return " ".join(text.split())[:MAX_WORDS]


def spdx_lines(text: str) -> tuple[str | None, str] | None:
    """What lines `SPDX-License-Identifier:` say, together, and the lines; an expression of None was not understood."""
    found = [_CLOSING.sub("", match[1]).strip() for match in _SPDX.finditer(text)]
    if not found:
        return None
    known = [expression for expression in map(spdx.normal, found) if expression]
    words = one_line("; ".join(f"SPDX-License-Identifier: {line}" for line in dict.fromkeys(found)))
    return (spdx.all_of(known) if len(known) == len(found) else None), words


def offers_choice(text: str) -> bool:
    """Whether the words say that the reader chooses between licences."""
    return _choice(text) is not None


def _choice(text: str) -> str | None:
    """The words around an offered choice, on one line."""
    flat = _NO_CHOICE.sub(" ", " ".join(text.split()))
    found = _CHOICE.search(flat)
    return flat[max(0, found.start() - 150) : found.end() + 400] if found else None


def combined(names: list[str], words: str) -> str:
    """One expression of the licences that a text gives, by the words beside them.

    Those named where a choice is offered are alternatives, or all of few where that names none; the others all apply.
    """
    around = _choice(words)
    if around is None:
        return spdx.all_of(names)
    offered = {spdx.family(mention.spdx) for mention in mentions(around)}
    once = list(dict.fromkeys(names))
    options = [name for name in once if offered & spdx.families(name)]
    if len(options) < 2:
        options = once if len(offered) < 2 and len(once) < 4 else []
    return spdx.all_of([*([spdx.any_of(options)] if options else []), *(name for name in once if name not in options)])


def whole_texts(text: str) -> list[Item]:
    """The licence texts and standard notices in a text, in order; bare links to licences are left out."""
    found = [match for match in scan(text).match if not match.is_url]
    known = [(spdx.normal(match.id) or spdx.RESTRICTED, match) for match in found]
    return [Item(name, match.start, match.end, True) for name, match in known]


def granted(text: str) -> list[Item]:
    """The licences that a text names as its own: behind words that grant, or alone.

    Offsets are those of the text on one line.
    """
    flat = " ".join(text.split())
    named = mentions(flat)
    if not named:
        return []
    lines = {" ".join(line.split()).strip(" .:=-#*") for line in text.splitlines()}
    found = []
    for mention in named:
        before = flat[max(0, mention.start - 120) : mention.start].rsplit(". ", 1)[-1]
        name = flat[mention.start : mention.end].strip(" .:=-#*")
        alone = name in lines or f"The {name}" in lines or f"{name} ({mention.spdx})" in lines
        # A restriction needs no grant to count.
        meant = alone or mention.spdx == spdx.RESTRICTED or GRANT.search(before)
        if meant and not _NOT_MEANT.search(before):
            found.append(Item(mention.spdx, mention.start, mention.end, False))
    return found


@lru_cache(maxsize=1024)
def recognise(text: str) -> Recognised:
    """The licence of a licence file; about a millisecond for 4 KB, remembered."""
    text = text[:MAX_CHARACTERS]
    items = whole_texts(text)
    text, excepted = _LLVM.subn(lambda match: " " * len(match[0]), text)
    own, others, end = _split(text, items)
    bundled = tuple(dict.fromkeys(item.spdx for item in others))
    rest = _rest(text[:end], own)
    choice = offers_choice(rest)
    if stated := spdx_lines(rest):
        return Recognised(stated[0], 1.0, stated[1], bundled, choice)
    if not own:
        return Recognised(None, 0.0, one_line(text), bundled, choice)
    names = [item.spdx + (" WITH LLVM-exception" if excepted and item.spdx == "Apache-2.0" else "") for item in own]
    return Recognised(combined(names, rest), _confidence(text[:end], rest, own), _words(text, own), bundled, choice)


def _split(text: str, items: list[Item]) -> tuple[list[Item], list[Item], int]:
    """The file's own licences, those of other software, and where the own part ends."""
    preamble = text[: items[0].start] if items else text
    if rule := _RULE.search(preamble):
        preamble = preamble[: rule.start()]
    announced = granted(preamble)
    texts = {spdx.family(item.spdx) for item in items}
    # A name is often vaguer than the text that it announces.
    own = [name for name in announced if spdx.family(name.spdx) not in texts]
    announced_families = {spdx.family(name.spdx) for name in announced}
    if rule and announced:
        later = [item for item in items if spdx.family(item.spdx) in announced_families]
        if not later:
            return own, items, rule.start()
    others: list[Item] = []
    at, end = 0, len(text)
    for item in items:
        gap = text[at : item.start]
        divided = any(one.whole for one in own) and (_RULE.search(gap) or _OTHERS.search(gap))
        if divided and not others:
            end = at + divided.start()
        if (others or divided) and spdx.family(item.spdx) not in announced_families:
            others.append(item)
        else:
            own.append(item)
        at = item.end
    if not others:
        divided = any(one.whole for one in own) and (_RULE.search(text, at) or _OTHERS.search(text, at))
        end = divided.start() if divided else end
        own += [name for name in granted(text[at:end]) if items and spdx.family(name.spdx) not in texts]
    return own, others, end


def _rest(text: str, own: list[Item]) -> str:
    """What a text says beside the licences' own texts."""
    pieces, at = [], 0
    for item in own:
        if item.whole:
            pieces.append(text[at : item.start])
            at = item.end
    return "\n".join([*pieces, text[at:]])


def _confidence(text: str, rest: str, own: list[Item]) -> float:
    """The share of the words that are a licence's, copyright lines apart; more where the rest sets no conditions."""
    other = _COPYRIGHT.sub("", rest)
    matched = sum(len(text[item.start : item.end].split()) for item in own if item.whole)
    if not matched:
        words = len(text.split())
        return 0.5 if words > 400 or _CHANGED.search(rest) else 0.8 if words > 60 else 0.9
    share = matched / (matched + len(other.split()))
    return round(share if _CONDITIONS.search(other) else max(share, 0.8), 2)


def _words(text: str, own: list[Item]) -> str:
    first = next((item for item in own if item.whole), None)
    return one_line(text[first.start : first.end] if first else text)
