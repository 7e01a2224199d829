"""Rows of datasets as files: with the columns of StarCoderData, The Stack, CodeParrot, or our own documents."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from typing import Any

from codegen25.data.document import Kind
from codegen25.data.source import MAX_BYTES, Entry, File, Refused

CONTENT = ("content", "code", "text")
PATH = ("max_stars_repo_path", "path", "file_path", "filename")
REPOSITORY = ("max_stars_repo_name", "repo_name", "repository", "repo", "source")
VERSION = ("max_stars_repo_head_hexsha", "commit", "revision", "version")
STARS = ("max_stars_count", "stars")
LICENSE = ("max_stars_repo_licenses", "licenses", "license")
DATE = ("date",)
WANTED = (*CONTENT, *PATH, *REPOSITORY, *VERSION, *STARS, *LICENSE, *DATE, "id", "kind")
# The folders of StarCoderData that are not code, and how texts of their kind begin wherever they lie.
FOLDERS: dict[str, Kind] = {
    "git-commits-cleaned": "commit", "github-issues-filtered-structured": "issue",
    "jupyter-scripts-dedup-filtered": "jupyter", "jupyter-structured-text-cleaned": "jupyter",
}  # fmt: skip
OPENINGS: dict[str, Kind] = {"<issue_start>": "issue", "<commit_before>": "commit", "<jupyter_start>": "jupyter"}
KINDS: tuple[Kind, ...] = ("code", "issue", "commit", "jupyter")
# What StarCoderData wrote before some of its texts, each piece of it before some.
FIELDS = ("<reponame>", "<filename>", "<gh_stars>")
PREFIX = re.compile(
    r"(?:<reponame>(?P<repository>[^<\n]*))?(?:<filename>(?P<path>[^<\n]*))?(?:<gh_stars>(?P<stars>[^<\n]*))?\n?"
)
# Endings for rows without a path, by the folder's language.
ENDINGS = {
    "python": "py", "javascript": "js", "typescript": "ts", "java": "java", "c": "c", "cpp": "cpp", "c-sharp": "cs",
    "go": "go", "rust": "rs", "ruby": "rb", "php": "php", "scala": "scala", "kotlin": "kt", "shell": "sh", "sql": "sql",
    "lua": "lua", "perl": "pl", "r": "r", "julia": "jl", "haskell": "hs", "html": "html", "css": "css",
    "markdown": "md",
}  # fmt: skip
# No repository has more stars: what says so is another number.
MOST_STARS = 1 << 31


def folder_kind(place: str) -> Kind | None:
    """What the rows of a table are, when it lies in one of FOLDERS or is named like one."""
    parts = place.lower().split("/")
    return next((kind for name, kind in FOLDERS.items() if any(part.startswith(name) for part in parts)), None)


class Rows:
    """Makes entries of rows. `place` is the table's path as far as the dataset named it: python/train.parquet."""

    def __init__(self, place: str) -> None:
        self.place = place
        folders = place.lower().split("/")[:-1]
        self._kind = folder_kind(place)
        self._ending = next((f".{ENDINGS[name]}" for name in reversed(folders) if name in ENDINGS), "")

    def entry(self, row: dict[str, Any], number: int) -> Entry:
        """One row, `number` of the table from 1."""
        content = _first(row, CONTENT)
        path = _text(_first(row, PATH)) or f"row-{_text(row.get('id')) or number}{self._ending}"
        if not isinstance(content, str):
            return Refused(path, "row without text", f"{self.place}:{number}")
        repository, stars = _text(_first(row, REPOSITORY)), _stars(_first(row, STARS))
        kind = self._kind_of(row, content)
        if kind == "code" and content.startswith(FIELDS):
            match = PREFIX.match(content)
            assert match is not None, "every part of it may be missing"
            repository, path = repository or match["repository"] or "", match["path"] or path
            stars = _stars(match["stars"]) if stars is None else stars
            content = content[match.end() :]
        try:
            data = content.encode()[: MAX_BYTES + 1]
        except UnicodeEncodeError:
            return Refused(path, "not UTF-8", f"{self.place}:{number}")
        version, day = _text(_first(row, VERSION)), _text(_first(row, DATE))
        return File(path, data, kind, repository, version, day, stars, _license(_first(row, LICENSE)))

    def _kind_of(self, row: dict[str, Any], content: str) -> Kind:
        """What the row says that it is, else what its table holds, else what its text begins like."""
        said = row.get("kind")
        told = [kind for kind in KINDS if kind == said] + ([self._kind] if self._kind else [])
        return [*told, *(kind for opening, kind in OPENINGS.items() if content.startswith(opening)), "code"][0]


def _first(row: dict[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _text(value: Any) -> str:
    """A value that names something; "" for none. JSON can say half a surrogate pair, which no file can hold."""
    if isinstance(value, date):
        return value.isoformat()
    return str(value).encode(errors="replace").decode() if isinstance(value, str | int) else ""


def _stars(value: Any) -> int | None:
    """A number of stars; a range such as 10-100 says none."""
    if isinstance(value, str):
        value = int(value) if re.fullmatch("[0-9]{1,9}", value) else None
    return int(value) if isinstance(value, int | float) and 0 <= value < MOST_STARS else None


def _license(value: Any) -> str:
    """Of several licences found in a repository every one counts: which files they are for is not known."""
    return ", ".join(filter(None, map(_text, value))) if isinstance(value, list) else _text(value)
