"""What people call licences, and what it is in SPDX: "the 3-clause BSD licence", "GPLv2 or later", "expat"."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from codegen25.data import spdx

# The version behind a name: "2", "v2.0", ", Version 2", "(version 2)", "-2.0".
_V = r"(?:[, (-]*(?:version|ver|v)?[. ]?(\d(?:\.\d)?)(?![\d.]*\d)\)?)"
_LICENSE = "licen[cs]e"
# More characters are a text, not a name.
MAX_NAME = 300
_BSD = r"(?:the )?(?:\w+ )?BSD"


@dataclass(frozen=True)
class Mention:
    """A licence that is named in a text: its SPDX identifier and where its name stands, in characters."""

    spdx: str
    start: int
    end: int


def _fixed(name: str) -> Callable[[re.Match[str]], str]:
    return lambda _: name


def _gnu(kind: str, first: str) -> Callable[[re.Match[str]], str]:
    """A GNU licence with its version and "or later"; without a version it is any of them."""

    def name(match: re.Match[str]) -> str:
        version = next((group for group in match.groups() if group), None)
        if version is None:
            return f"{kind}-{first}-or-later"
        version = version if "." in version else f"{version}.0"
        after = match.string[match.end() : match.end() + 120]
        later = re.match(
            r"\+|[ ,.(\w]{0,60}\bany later version|[ ,(]*or (\(at your option\) )?(any )?(later|above|newer)",
            after,
            re.I,
        )
        return spdx.identifier(f"{kind}-{version}" + ("-or-later" if later else "-only")) or f"{kind}-{first}-or-later"

    return name


def _versioned(kind: str, default: str) -> Callable[[re.Match[str]], str]:
    """A licence with its version; one that SPDX does not list is taken for the usual one."""

    def name(match: re.Match[str]) -> str:
        version = next((group for group in match.groups() if group), None) or default
        return spdx.identifier(f"{kind}-{version if '.' in version else version + '.0'}") or f"{kind}-{default}"

    return name


def _creative_commons(match: re.Match[str]) -> str:
    words = match[0].lower()
    clauses = (("non|nc", "NC"), ("no-?deriv|nd\\b", "ND"), ("share|sa\\b", "SA"))
    parts = ["BY", *(short for word, short in clauses if re.search(word, words))]
    version = re.search(r"\d\.\d", match.string[match.start() : match.end() + 15])
    return spdx.identifier(f"CC-{'-'.join(parts)}-{version[0] if version else '4.0'}") or spdx.RESTRICTED


_RESTRICTIONS = (
    rf"commons clause|business source {_LICENSE}|\bBUSL\b|server side public {_LICENSE}|\bSSPL\b|elastic {_LICENSE}",
    rf"non-?commercial (?:use|purpose)s?|(?:for|strictly) non-?commercial|commercial {_LICENSE}",
    r"commercial use is prohibited|evaluation (?:use|purposes?) only|(?:academic|research)(?: use| purposes?)? only",
    rf"other/proprietary|proprietary (?:and|rights|{_LICENSE}|software|information)|\bproprietary$|trade secrets? of",
    r"(?:company )?confidential(?: and|\.|$)|unauthori[sz]ed (?:copying|use|reproduction|distribution)|\bUNLICENSED\b",
    rf"end[- ]user {_LICENSE} agreement|\bEULA\b",
)
_BSD3 = (
    rf"(?:{_BSD})?[- ]?(?:\(?(?:3|three)[- ]clauses?\)?)[- ](?:{_BSD})(?: {_LICENSE})?",
    rf"BSD[- (]+(?:3|three)[- ]clauses?\)?(?: {_LICENSE})?|(?:new|modified|revised)[- ]BSD(?: {_LICENSE})?",
)
_BSD2 = (
    rf"\(?(?:2|two)[- ]clauses?\)?[- ]{_BSD}(?: {_LICENSE})?|BSD[- (]+(?:2|two)[- ]clauses?\)?(?: {_LICENSE})?",
    rf"(?:simplified|freebsd)[- ](?:BSD )?{_LICENSE}|simplified[- ]BSD",
)
_APACHE = (
    rf"Apache(?: Software)?(?: {_LICENSE}s?)?,? ?(?:{_LICENSE}s?)?{_V}(?: {_LICENSE})?",
    rf"Apache(?: Software)? {_LICENSE}|\bASL ?2(?:\.0)?",
)
_MIT = (
    rf"(?:the )?\bMIT(?:/X11|/Expat|[- ]style)?(?:[- ]{_LICENSE}[ds]?)?(?: \(MIT\))?",
    rf"\bExpat {_LICENSE}|\bX11 {_LICENSE}",
)
_LESSER = r"(?:Lesser|Library)"
_CC = rf"Creative Commons (?:Attribution|BY)[- \w]*?(?:\d\.\d|{_LICENSE}|$)|\bCC[- ]BY[-A-Z]*(?:[- ]\d\.\d)?"


def _short(letters: str) -> str:
    """The abbreviation of a licence, with its version right behind it or not."""
    return rf"(?:GNU )?\b{letters}(?=v?\d|\b)(?![ -]*compatible|- ){_V}?"


# In order: where two begin at the same place, the first one counts.
_NAMES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    ("|".join(_RESTRICTIONS), _fixed(spdx.RESTRICTED)),
    (rf"(?:GNU )?Affero (?:General )?(?:Public )?{_LICENSE}{_V}?|{_short('AGPL')}", _gnu("AGPL", "3.0")),
    (rf"(?:GNU )?{_LESSER}(?: or {_LESSER})?(?: General)?(?: Public)? {_LICENSE}{_V}?", _gnu("LGPL", "2.0")),
    (_short("LGPL"), _gnu("LGPL", "2.0")),
    (rf"(?:GNU )?General Public {_LICENSE}(?: \(GPL\))?{_V}?|\bGNU Public {_LICENSE}{_V}?", _gnu("GPL", "1.0")),
    (_short("GPL"), _gnu("GPL", "1.0")),
    (rf"Mozilla Public {_LICENSE}(?: \(MPL\))?{_V}?|{_short('MPL')}", _versioned("MPL", "2.0")),
    (rf"Eclipse Public {_LICENSE}{_V}?|{_short('EPL')}", _versioned("EPL", "1.0")),
    (rf"European Union Public {_LICENSE}{_V}?|{_short('EUPL')}", _versioned("EUPL", "1.2")),
    (rf"Common Development and Distribution {_LICENSE}{_V}?|{_short('CDDL')}", _versioned("CDDL", "1.0")),
    (rf"(?:SIL )?Open Font {_LICENSE}{_V}?|{_short('OFL')}", _versioned("OFL", "1.1")),
    (rf"Artistic {_LICENSE}{_V}?", _versioned("Artistic", "1.0")),
    (rf"Microsoft Public {_LICENSE}|\bMS-PL\b", _fixed("MS-PL")),
    (r"CC0(?:[- ]1\.0)?(?: universal)?", _fixed("CC0-1.0")),
    (_CC, _creative_commons),
    (rf"Apache(?: Software)? {_LICENSE}(?:[, ]+v(?:ersion)?[. ]?1\.1|[- ]1\.1)", _fixed("Apache-1.1")),
    ("|".join(_APACHE), _fixed("Apache-2.0")),
    ("|".join(_BSD3), _fixed("BSD-3-Clause")),
    ("|".join(_BSD2), _fixed("BSD-2-Clause")),
    (rf"\b0BSD\b|(?:zero|0)[- ]clause[- ]BSD(?: {_LICENSE})?", _fixed("0BSD")),
    (rf"\bBSD(?:[- ](?:style|like|type))?(?: {_LICENSE}s?)?\b", _fixed(spdx.BSD)),
    (r"\bMIT[- ]0\b|MIT no attribution", _fixed("MIT-0")),
    (r"\bMIT-CMU\b", _fixed("MIT-CMU")),
    ("|".join(_MIT), _fixed("MIT")),
    (rf"\bISC {_LICENSE}(?: \(ISCL?\))?|\bISC\b", _fixed("ISC")),
    (rf"zlib(?:/libpng)? {_LICENSE}", _fixed("Zlib")),
    (rf"Boost Software {_LICENSE}{_V}?|\bBSL-1\.0\b", _fixed("BSL-1.0")),
    (rf"(?:Python Software Foundation|PSF) {_LICENSE}(?: agreement)?{_V}?", _fixed("PSF-2.0")),
    (r"Historical Permission Notice and Disclaimer(?: \(HPND\))?|\bHPND\b", _fixed("HPND")),
    (rf"Zope Public {_LICENSE}{_V}?|{_short('ZPL')}", _versioned("ZPL", "2.1")),
    (rf"University of Illinois/NCSA Open Source {_LICENSE}|\bNCSA\b", _fixed("NCSA")),
    (rf"Universal Permissive {_LICENSE}(?: \(UPL\))?", _fixed("UPL-1.0")),
    (rf"Blue Oak Model {_LICENSE}", _fixed("BlueOak-1.0.0")),
    (r"\bThe Unlicense\b|\bUnlicense\b(?! ?d)", _fixed("Unlicense")),
    (r"\bWTFPL\b|do what the f\w+ you want", _fixed("WTFPL")),
    (r"(?:in|into|to|is|as|are) (?:the )?public domain|\bpublic domain\W*$", _fixed(spdx.PUBLIC_DOMAIN)),
)
_ANY = re.compile("|".join(f"(?P<n{number}>{pattern})" for number, (pattern, _) in enumerate(_NAMES)), re.I)
_PARTS = [re.compile(pattern, re.I) for pattern, _ in _NAMES]
# What may stand beside a name without changing it.
_FILLER = re.compile(
    rf"\b(the|an?|{_LICENSE}[ds]?|version|see|file|open source|osi|approved|software|public|terms|under|of|for details|"
    r"txt|md|rst|https?://\S+|\(?c\)?|\w+ \(\w+\))|[^\w]+",
    re.I,
)
_ALIASES = {
    "apache": "Apache-2.0", "apache 2": "Apache-2.0", "apache-2": "Apache-2.0", "apache2": "Apache-2.0",
    "asl": "Apache-2.0", "apache software": "Apache-2.0", "expat": "MIT", "mit/x11": "MIT", "x11": "X11",
    "mit no attribution (mit-0)": "MIT-0", "mit-cmu": "MIT-CMU", "bsd": spdx.BSD, "bsd-like": spdx.BSD,
    "bsd3": "BSD-3-Clause", "bsd-3": "BSD-3-Clause", "bsd 3": "BSD-3-Clause", "bsd-2": "BSD-2-Clause",
    "psf": "PSF-2.0", "psfl": "PSF-2.0", "python": "PSF-2.0", "isc (iscl)": "ISC", "iscl": "ISC",
    "zlib": "Zlib", "zlib/libpng": "Zlib", "boost": "BSL-1.0", "boost 1.0": "BSL-1.0", "cc0": "CC0-1.0",
    "unlicense (unlicense)": "Unlicense", "public domain": spdx.PUBLIC_DOMAIN,
    "cc0 1.0 universal (cc0 1.0) public domain dedication": "CC0-1.0",
    "proprietary": spdx.RESTRICTED, "commercial": spdx.RESTRICTED, "other/proprietary": spdx.RESTRICTED,
    "nvidia proprietary": spdx.RESTRICTED, "unlicensed": spdx.RESTRICTED,
}  # fmt: skip


def mentions(text: str) -> list[Mention]:
    """The licences that a text on one line names, in order, without overlap. A name does not say that it applies."""
    found = []
    for match in _ANY.finditer(text):
        number = int((match.lastgroup or "n0")[1:])
        # Again with its own groups, which hold the version.
        own = _PARTS[number].match(text, match.start())
        if own is not None:
            found.append(Mention(_NAMES[number][1](own), match.start(), match.end()))
    return found


@lru_cache(maxsize=4096)
def named(words: str) -> str | None:
    """The SPDX expression of what a field says: an expression, a name, or names joined by "or", "and" and commas.

    None when anything else is said, too.
    """
    words = " ".join(words.split()).strip(" .,;'\"")
    bare = " ".join(re.sub(rf"(?i)\b(the|{_LICENSE}[ds]?)\b", " ", words).split()).strip(" .,").lower()
    if known := spdx.normal(words) or _ALIASES.get(bare):
        return known
    found = mentions(words) if len(words) <= MAX_NAME else []
    if not found:
        return None
    gaps = [words[one.end : two.start] for one, two in pairwise(found)]
    outside = [words[: found[0].start], *gaps, words[found[-1].end :]]
    choice = any(re.search(r"(?i)\bor\b(?! later| newer|.{0,20}later)", gap) for gap in gaps)
    # With both words, what belongs together is anybody's guess: then all of them.
    choice = (choice or bool(re.search(r"(?i)\bdual\b", words))) and not any(
        re.search(r"(?i)\band\b", gap) for gap in gaps
    )
    rest = re.sub(r"(?i)\b(and|or|dual|any|later|newer|\+|only|at your option)\b|copyright.*", " ", " ".join(outside))
    if _FILLER.sub("", rest):
        return None
    together = spdx.any_of if choice and len(found) > 1 else spdx.all_of
    return together(mention.spdx for mention in found)
