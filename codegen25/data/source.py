"""What a source is, whatever it lies in: entries with a path and bytes, and what it says of its own licence.

Readers (`folders`, `archives`, `tables`, `hub`) give each kind of source this one shape. They decide nothing: what
cannot be read at all is a `Refused` with its reason, and counted; everything else is somebody else's decision.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from codegen25.data.document import Kind

# A file of more bytes is no source text. Readers read one byte more of it and no further.
MAX_BYTES = 1_000_000
# Programs and data about licences, by their endings.
NOT_PROSE = frozenset(
    [
        "py", "pyi", "pyc", "pyx", "js", "jsx", "mjs", "cjs", "ts", "tsx", "c", "h", "cc", "cpp", "hpp", "go", "rs",
        "rb", "java", "kt", "cs", "php", "pl", "sh", "json", "yaml", "yml", "toml", "xml", "html", "css", "csv", "map",
        "svg", "png", "jpg", "gif", "sql", "bin", "so", "gz", "zip",
    ]
)  # fmt: skip
LICENSE_FILE = re.compile(r"(licen[cs]e|copying|unlicense)", re.IGNORECASE)
MAX_LICENSE_BYTES = 1_000_000

SourceKind = Literal["folder", "git", "wheel", "sdist", "installed", "npm", "parquet", "jsonl", "hub"]


@dataclass(frozen=True)
class Source:
    """One line of a lock: what is read, and which bytes it must be.

    `location` is a path, a URL, or "pypi" or "npm" for an index. `hash` is "sha256:…" of an archive or a table's
    file, of a folder's listing, or a commit ("git:…"). `date` is the release's or the commit's in ISO 8601, ""
    where unknown. `license` is what the user declares for it, "" for nothing. `heldout` sources are never trained on.
    """

    kind: SourceKind
    name: str
    version: str
    location: str
    hash: str
    date: str = ""
    license: str = ""
    heldout: bool = False


@dataclass(frozen=True)
class File:
    """An entry of a source: `path` is POSIX and inside it; `data` has at most MAX_BYTES + 1 bytes, and is cut there.

    Rows of a table carry what they know of themselves: their own repository, its commit, date and stars, and what
    the table states of their licence; "" and None where it says nothing.
    """

    path: str
    data: bytes
    kind: Kind = "code"
    source: str = ""
    version: str = ""
    date: str = ""
    stars: int | None = None
    license: str = ""


@dataclass(frozen=True)
class Refused:
    """An entry that was not read, and why; `detail` is for a person."""

    path: str
    reason: str
    detail: str = ""


Entry = File | Refused


@dataclass(frozen=True)
class Metadata:
    """What a source says of itself, whole: a wheel's METADATA, an sdist's PKG-INFO, an npm package.json.

    `kind` is "python", "npm", "dataset" (text: the dataset's statement) or "" (nothing is said).
    """

    kind: Literal["python", "npm", "dataset", ""]
    file: str = ""
    text: str = ""


class Reader(Protocol):
    """A source that can be read; making one is cheap. The same bytes give the same entries in the same order."""

    def metadata(self) -> Metadata:
        """What the source says of itself."""
        ...

    def license_files(self) -> dict[str, str]:
        """The text of every file whose name says that it is a licence, by path; undecodable bytes replaced."""
        ...

    def parts(self) -> list[str]:
        """Names of pieces that can be read apart from each other, in order; most sources are one."""
        ...

    def entries(self, part: str) -> Iterator[Entry]:
        """The entries of a part, one at a time."""
        ...


def is_license_file(path: str) -> bool:
    """Whether the file's name says that it holds a licence (LICENSE, COPYING.LESSER, LICENCE-MIT, licenses/MIT.txt)."""
    parts = path.lower().split("/")
    stem, _, ending = parts[-1].partition(".")
    inside = len(parts) > 1 and parts[-2] in {"licenses", "licences"}
    return ending.rpartition(".")[2] not in NOT_PROSE and bool(LICENSE_FILE.match(stem) or inside)
