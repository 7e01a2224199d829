"""Which licence a package states in its core metadata, and whether it is permissive.

Only what the package itself declares counts: `License-Expression` (PEP 639) alone if present, else the `License` field
and the trove classifiers together. In doubt the package is dropped: every licence that is named must be permissive,
unless the expression offers a choice with OR. A field that names "BSD" without its clauses becomes `LicenseRef-BSD`
rather than a guess. Licence files are not read yet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.message import Message

PERMISSIVE = frozenset(
    [
        "MIT",
        "MIT-0",
        "MIT-CMU",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "0BSD",
        "Apache-2.0",
        "ISC",
        "PSF-2.0",
        "Python-2.0",
        "HPND",
        "Unlicense",
        "CC0-1.0",
        "Zlib",
        "BSL-1.0",
        "LicenseRef-BSD",
        "LicenseRef-Public-Domain",
    ]
)
PERMISSIVE_EXCEPTIONS = frozenset({"LLVM-exception"})

# What people write in the License field and in classifiers, lower-cased, without "the" and "license" -> SPDX.
_NAMES = {
    "mit": "MIT",
    "expat": "MIT",
    "mit-cmu": "MIT-CMU",
    "isc": "ISC",
    "isc (iscl)": "ISC",
    "bsd": "LicenseRef-BSD",
    "new bsd": "BSD-3-Clause",
    "modified bsd": "BSD-3-Clause",
    "3-clause bsd": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "simplified bsd": "BSD-2-Clause",
    "2-clause bsd": "BSD-2-Clause",
    "bsd 2-clause": "BSD-2-Clause",
    "bsd-2-clause": "BSD-2-Clause",
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache-2": "Apache-2.0",
    "apache-2.0": "Apache-2.0",
    "apache software": "Apache-2.0",
    "apache software 2.0": "Apache-2.0",
    "apache version 2.0": "Apache-2.0",
    "apache, version 2.0": "Apache-2.0",
    "psf": "PSF-2.0",
    "psf-2.0": "PSF-2.0",
    "python software foundation": "PSF-2.0",
    "hpnd": "HPND",
    "historical permission notice and disclaimer (hpnd)": "HPND",
    "unlicense": "Unlicense",
    "unlicense (unlicense)": "Unlicense",
    "zlib": "Zlib",
    "zlib/libpng": "Zlib",
    "cc0-1.0": "CC0-1.0",
    "public domain": "LicenseRef-Public-Domain",
}
_COPYLEFT = re.compile(
    r"\b(A|L)?GPL|GNU |Mozilla|\bMPL|\bEPL|\bEUPL|\bCDDL|Proprietary|Non-?Commercial|CC[ -]BY", re.IGNORECASE
)
_TEXTS = (
    (re.compile(r"Permission is hereby granted, free of charge, to any person obtaining"), "MIT"),
    (re.compile(r"Redistribution and use in source and binary forms"), "LicenseRef-BSD"),
    (re.compile(r"Apache License\s+Version 2\.0"), "Apache-2.0"),
)


@dataclass(frozen=True)
class Decision:
    """`spdx` is set when the package may be used; otherwise `reason` says why not. `evidence` quotes the metadata."""

    spdx: str | None
    evidence: str
    reason: str | None = None


def permissive_expression(expression: str) -> bool:
    """Whether an SPDX expression can be met with permissive licences alone (AND: each, OR: any). Malformed: False."""
    tokens = re.findall(r"[()]|[^\s()]+", expression)

    def either(at: int) -> tuple[bool, int]:
        holds, at = both(at)
        while at < len(tokens) and tokens[at].upper() == "OR":
            right, at = both(at + 1)
            holds = holds or right
        return holds, at

    def both(at: int) -> tuple[bool, int]:
        holds, at = one(at)
        while at < len(tokens) and tokens[at].upper() == "AND":
            right, at = one(at + 1)
            holds = holds and right
        return holds, at

    def one(at: int) -> tuple[bool, int]:
        if tokens[at] == "(":
            holds, at = either(at + 1)
            if tokens[at] != ")":
                raise IndexError
            return holds, at + 1
        holds, at = tokens[at] in PERMISSIVE, at + 1
        if at < len(tokens) and tokens[at].upper() == "WITH":
            return holds and tokens[at + 1] in PERMISSIVE_EXCEPTIONS, at + 2
        return holds, at

    try:
        holds, end = either(0)
    except IndexError:
        return False
    return holds and end == len(tokens)


def _named(text: str) -> str | None:
    """The SPDX identifier of a licence's everyday name, or None."""
    words = re.sub(r"\b(the|licen[sc]e[sd]?)\b", " ", text.lower()).replace(", version", " version")
    return _NAMES.get(" ".join(words.split()).strip(" .,"))


def _field(text: str) -> str | None:
    """What a `License` field says: a name, an SPDX expression, or a whole licence text."""
    if (spdx := _named(text)) or ("\n" not in text.strip() and permissive_expression(text)):
        return spdx or " ".join(text.split())
    first = text.strip().split("\n")[0]
    return _named(first) or next((spdx for pattern, spdx in _TEXTS if pattern.search(text)), None)


def decide(metadata: Message) -> Decision:
    """The licence that core metadata states, with the words it was decided from."""
    expression = metadata.get("License-Expression")
    if expression:
        evidence = f"License-Expression: {expression}"
        if permissive_expression(expression):
            return Decision(" ".join(expression.split()), evidence)
        return Decision(None, evidence, "licence not permissive")
    field = metadata.get("License") or ""
    prefix = "License :: "
    classifiers = [c for c in metadata.get_all("Classifier") or [] if c.startswith(prefix)]
    quoted = [f"License: {' '.join(field.split())[:120]}"] if field else []
    evidence = "; ".join(quoted + [f"Classifier: {c}" for c in classifiers])
    if _COPYLEFT.search(field) or any(_COPYLEFT.search(c) for c in classifiers):
        return Decision(None, evidence, "licence not permissive")
    # The bare "OSI Approved" names no licence, so it neither helps nor hurts.
    names = [c.split(" :: ")[-1] for c in classifiers if c != "License :: OSI Approved"]
    found = [_named(name) for name in names]
    if None in found:
        return Decision(None, evidence, "licence unknown")
    stated = _field(field) if field and field.upper() != "UNKNOWN" else None
    # A field with an expression says how the licences relate; the classifiers can only list them.
    known = [stated] if stated and " " in stated else sorted({spdx for spdx in [stated, *found] if spdx})
    if "LicenseRef-BSD" in known and any(spdx.startswith("BSD-") for spdx in known):
        known.remove("LicenseRef-BSD")  # the classifier is only the vaguer name of the same licence
    if not known:
        return Decision(None, evidence or "no licence metadata", "licence unknown")
    return Decision(" AND ".join(known), evidence)
