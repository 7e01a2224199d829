"""Which licences may be used: a short file that a person writes, and the question whether it allows an expression."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from codegen25.data import spdx
from codegen25.errors import CodegenError

POLICIES = Path(__file__).parent / "policies"
_KEYS = {
    "name": str, "allow": list, "exceptions": list, "minimum_confidence": (int, float), "dataset": bool,
    "declared": dict,
}  # fmt: skip


@dataclass(frozen=True, repr=False)
class Policy:
    """SPDX licences that are allowed, and `exceptions` that leave an allowed licence allowed.

    A licence file, header or field that is less sure than `minimum_confidence` (0 to 1) is not recognised. `dataset`
    says whether what a dataset states of its rows counts. `declared` holds a person's decisions, by source.
    """

    name: str
    allow: frozenset[str]
    exceptions: frozenset[str] = frozenset()
    minimum_confidence: float = 0.75
    dataset: bool = True
    declared: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """The same for equal policies, in every process: it is hashed."""
        shown = {one.name: getattr(self, one.name) for one in fields(self)}
        shown |= {"allow": sorted(self.allow), "exceptions": sorted(self.exceptions)}
        shown |= {"declared": sorted(self.declared.items())}
        return f"Policy({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def allows(self, expression: str) -> bool:
        """Whether an SPDX expression can be met: OR by any part, AND by each, WITH by an allowed exception."""

        def allowed(license: str, exception: str | None) -> bool:
            known = license in self.allow or license.removesuffix("+") in self.allow
            return known and (exception is None or exception in self.exceptions)

        return spdx.holds(expression, allowed)

    def declaration(self, source: str) -> str:
        """The licence that a person decided for a source, "" for none; names are compared as package indexes do."""
        return self.declared.get(_compared(source), "")


def _compared(source: str) -> str:
    return re.sub(r"[-_.]+", "-", source).lower()


def read_policy(name: str | Path) -> Policy:
    """A policy that comes with this package, by its name, or a TOML file.

    Raises CodegenError when there is none, when it is no policy, or for licences that SPDX does not know.
    """
    known = sorted(path.stem for path in POLICIES.glob("*.toml"))
    path = POLICIES / f"{name}.toml" if str(name) in known else Path(name)
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CodegenError(f"{path}: no policy ({error}); name a TOML file, or one of: {', '.join(known)}") from error
    _check(path, found)
    declared = {_compared(source): _known(path, license) for source, license in found.get("declared", {}).items()}
    allow = frozenset(_identifier(path, one) for one in found["allow"])
    exceptions = frozenset(_identifier(path, one, exception=True) for one in found.get("exceptions", []))
    return Policy(**found | {"allow": allow, "exceptions": exceptions, "declared": declared})


def _check(path: Path, found: dict[str, Any]) -> None:
    """Only what is understood, each of its own type: a misspelt key would otherwise decide nothing."""
    for key, value in found.items():
        wanted: Any = _KEYS.get(key)
        if wanted is None:
            raise CodegenError(f"{path}: {key!r} is no key of a policy; it has {', '.join(_KEYS)}")
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise CodegenError(f"{path}: {key} cannot be {value!r}; see the policy that comes with this package")
    for key in ("name", "allow"):
        if not found.get(key):
            raise CodegenError(f"{path}: {key} is missing; a policy needs name and allow")
    if not 0 <= found.get("minimum_confidence", 0) <= 1:
        raise CodegenError(f"{path}: minimum_confidence is {found['minimum_confidence']}; give 0 to 1")


def _identifier(path: Path, name: Any, *, exception: bool = False) -> str:
    found = spdx.identifier(name, exception=exception) if isinstance(name, str) else None
    if found is None:
        what = "an exception" if exception else "a licence"
        raise CodegenError(f"{path}: {name!r} is not {what} of the SPDX list; write its identifier")
    return found


def _known(path: Path, expression: Any) -> str:
    found = spdx.normal(expression) if isinstance(expression, str) else None
    if found is None:
        raise CodegenError(f"{path}: {expression!r} is no SPDX expression; write one, such as MIT OR Apache-2.0")
    return found
