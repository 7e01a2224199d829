"""SPDX licence expressions: their canonical form, the licences they name, and whether they can be met.

Identifiers are those of the SPDX list that `license-expression` carries, in its spelling; `LicenseRef-…` is anybody's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from typing import Any

from license_expression import ExpressionError, LicenseWithExceptionSymbol, Licensing, get_license_index

# Longer or deeper ones are nobody's licence, and the parser recurses.
MAX_CHARACTERS, MAX_DEPTH = 2000, 20
BSD, PUBLIC_DOMAIN, RESTRICTED = "LicenseRef-BSD", "LicenseRef-Public-Domain", "LicenseRef-Restricted"
# What the makers of a dataset say of files whose own licences they do not name.
PERMISSIVE = "LicenseRef-Permissive"
_OWN = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")
_LICENSING = Licensing()
# Texts and names of one licence that say which of its releases or variants is meant in different words.
_FAMILIES = {
    "Python-2.0.1": "PSF-2.0", "Python-2.0": "PSF-2.0", "CNRI-Python": "PSF-2.0", "MIT-CMU": "HPND",
    "zlib-acknowledgement": "Zlib",
    "X11": "MIT", "MIT-Modern-Variant": "MIT",
}  # fmt: skip


@cache
def _identifiers() -> dict[str, tuple[str, bool]]:
    """Lower-case identifier -> its present spelling, and whether it is an exception."""
    found: dict[str, tuple[str, bool]] = {}
    for entry in get_license_index():
        present = entry.get("spdx_license_key")
        for name in [present, *entry.get("other_spdx_license_keys", [])]:
            if name and not name.startswith("LicenseRef-"):
                found.setdefault(name.lower(), (present, entry["is_exception"]))
    return found


def identifier(name: str, *, exception: bool = False) -> str | None:
    """The present spelling of a licence's or an exception's identifier: GPL-2.0-or-later of gpl-2.0+. None: unknown."""
    found = _identifiers().get(name.lower())
    if found is not None:
        return found[0] if found[1] == exception and not found[0].startswith("LicenseRef-") else None
    if exception:
        return None
    if _OWN.fullmatch(name):
        return name
    later = identifier(name[:-1]) if name.endswith("+") else None
    return later + "+" if later else None


def _parse(expression: str) -> Any:
    """The library's tree, or None when it is no expression."""
    depth = deepest = 0
    for character in expression:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    if len(expression) > MAX_CHARACTERS or deepest > MAX_DEPTH:
        return None
    try:
        return _LICENSING.parse(expression, simple=True)
    except (ExpressionError, IndexError, AssertionError):  # the last two over parentheses that hold no expression
        return None


@lru_cache(maxsize=4096)
def normal(expression: str) -> str | None:
    """The expression with every identifier in its present spelling. None when malformed, or when one is unknown."""
    tree = _parse(expression)
    found = None if tree is None else _render(tree)
    # Parts that turn out equal leave fewer, which may belong to what stands around them.
    return found if found in (None, expression) else normal(found)


def _render(tree: Any) -> str | None:
    if isinstance(tree, LicenseWithExceptionSymbol):
        name = identifier(tree.license_symbol.key)
        exception = identifier(tree.exception_symbol.key, exception=True)
        return f"{name} WITH {exception}" if name and exception else None
    if not tree.args:
        return identifier(tree.key)
    inner = [_render(argument) for argument in _flat(tree)]
    known = [one for one in inner if one is not None]
    if len(known) < len(inner):
        return None
    return _joined(known, "AND" if isinstance(tree, _LICENSING.AND) else "OR")


def _flat(tree: Any) -> list[Any]:
    """The parts of an AND or OR, of ANDs in an AND (ORs in an OR) theirs."""
    kind = _LICENSING.AND if isinstance(tree, _LICENSING.AND) else _LICENSING.OR
    return [part for one in tree.args for part in (_flat(one) if isinstance(one, kind) else [one])]


def _joined(expressions: Iterable[str], operator: str) -> str:
    """Each once, in the order given; parentheses where the two operators meet."""
    once = list(dict.fromkeys(expressions))
    other = " OR " if operator == "AND" else " AND "
    return f" {operator} ".join(f"({one})" if len(once) > 1 and other in one else one for one in once)


def all_of(expressions: Iterable[str]) -> str:
    """Every one of these licences applies."""
    joined = _joined(expressions, "AND")
    return normal(joined) or joined


def any_of(expressions: Iterable[str]) -> str:
    """Whoever uses it chooses one of these licences."""
    joined = _joined(expressions, "OR")
    return normal(joined) or joined


def holds(expression: str, allowed: Callable[[str, str | None], bool]) -> bool:
    """Whether the expression can be met: OR with any part, AND with each. `allowed` gets a licence and its exception.

    What is malformed or names an unknown licence cannot be met.
    """
    canonical = normal(expression)
    return canonical is not None and _holds(_parse(canonical), allowed)


def _holds(tree: Any, allowed: Callable[[str, str | None], bool]) -> bool:
    if isinstance(tree, LicenseWithExceptionSymbol):
        return allowed(tree.license_symbol.key, tree.exception_symbol.key)
    if not tree.args:
        return allowed(tree.key, None)
    parts = (_holds(argument, allowed) for argument in tree.args)
    return all(parts) if isinstance(tree, _LICENSING.AND) else any(parts)


@lru_cache(maxsize=4096)
def licenses(expression: str) -> tuple[str, ...]:
    """The licences that an expression names, in order, exceptions left out. Empty when it is malformed."""
    canonical = normal(expression)
    if canonical is None:
        return ()
    words = re.sub(r"[()]|\bWITH \S+", " ", canonical).split()
    return tuple(dict.fromkeys(word for word in words if word not in {"AND", "OR"}))


def family(license: str) -> str:
    """What licences have in common that differ in clauses, "or later", or the release of one text."""
    if license == BSD or license.startswith("BSD-"):
        return BSD
    return _FAMILIES.get(license) or re.sub(r"(-only|-or-later|\+)$", "", license)


def families(expression: str) -> frozenset[str]:
    """The families of all licences that an expression names."""
    return frozenset(family(license) for license in licenses(expression))
