"""Wheels, source archives and npm tarballs, read where they lie: nothing is unpacked to disk, and nothing is run."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from codegen25.data.manifests import identity
from codegen25.data.members import MAX_ENTRIES, ArchiveBomb, Damaged, Member, Wanted
from codegen25.data.regular import open_regular
from codegen25.data.source import MAX_LICENSE_BYTES, Entry, File, Metadata, Refused, is_license_file
from codegen25.data.tars import tar_members
from codegen25.data.zips import zip_members
from codegen25.errors import CodegenError

ArchiveKind = Literal["wheel", "sdist", "npm"]
_MANIFEST = {"wheel": "METADATA", "sdist": "PKG-INFO", "npm": "package.json"}
# What some builders write into every wheel, so that two builds are the same: it says nothing of the release.
_CONSTANT_DAYS = frozenset(["2020-02-02"])


class _Said(NamedTuple):
    metadata: Metadata
    licenses: dict[str, str]
    date: str
    fault: str  # what ended the archive early, "" for nothing


class Archive:
    """One archive as a source. Paths are those inside the folder that a source archive or a tarball consists of."""

    def __init__(self, path: Path, kind: ArchiveKind) -> None:
        """Raises CodegenError when there is no such file."""
        self.path, self.kind = path, kind
        try:
            with open_regular(path, follow=True) as file:
                self._zipped = file.read(2) == b"PK"
        except OSError as error:
            raise self._unreadable(error.strerror or str(error)) from None

    def parts(self) -> list[str]:
        return [""]

    def entries(self, part: str) -> Iterator[Entry]:
        """Every file of the archive in its order; of a wheel, not what the installer needs (*.dist-info)."""
        for one in self._members(lambda path: not self._is_about(path)):
            if isinstance(one, Refused):
                yield one
            elif one.data is not None:
                yield File(one.path, one.data)

    def metadata(self) -> Metadata:
        return self._said.metadata

    def license_files(self) -> dict[str, str]:
        return self._said.licenses

    @property
    def date(self) -> str:
        """The day that its newest file was written, "" for npm, which gives all files one in 1985.

        Archives tell nothing closer to when they were released.
        """
        return "" if self.kind == "npm" else self._said.date

    def identity(self) -> tuple[str, str]:
        """Name and version as the metadata gives them, not the file's name. Raises CodegenError without such."""
        found = identity(self.metadata())
        if found is None and self._said.fault:
            raise self._unreadable(self._said.fault)
        if found is None:
            wanted = _MANIFEST[self.kind]
            raise CodegenError(f"{self.path}: has no {wanted} with a name and a version; it is no such package")
        return found

    @cached_property
    def _said(self) -> _Said:
        """In one pass: what the archive says of itself, its licence files, its newest day."""
        metadata, licenses, newest, fault = Metadata(""), dict[str, str](), "", ""
        for one in self._members(lambda path: self._is_manifest(path) or is_license_file(path)):
            if isinstance(one, Refused):
                fault = one.detail if not one.path else fault
                continue
            newest = max(newest, "" if one.day in _CONSTANT_DAYS else one.day)
            if one.data is None:
                continue
            text = one.data[:MAX_LICENSE_BYTES].decode("utf-8", "replace")
            if is_license_file(one.path):
                licenses[one.path] = text
            elif not metadata.kind:
                metadata = Metadata("npm" if self.kind == "npm" else "python", one.path, text)
        return _Said(metadata, licenses, newest, fault)

    def _is_manifest(self, path: str) -> bool:
        if self.kind == "wheel":
            return self._is_about(path) and path.partition("/")[2] == "METADATA"
        return path == _MANIFEST[self.kind]

    def _is_about(self, path: str) -> bool:
        folder, slash, _ = path.partition("/")
        return self.kind == "wheel" and bool(slash) and folder.endswith(".dist-info")

    def _inside(self, path: str) -> str:
        """A path without the folder that the whole archive lies in; wheels have none."""
        return path if self.kind == "wheel" else path.partition("/")[2] or path

    def _members(self, wanted: Wanted) -> Iterator[Member | Refused]:
        """Each name once. What is wrong with the archive itself ends it and is counted.

        Raises CodegenError when nothing can be read of it.
        """
        seen: set[str] = set()
        count = 0
        try:
            members = zip_members if self._zipped else tar_members
            for count, one in enumerate(members(self.path, lambda path: wanted(self._inside(path))), start=1):
                if count > MAX_ENTRIES:
                    yield Refused("", "too many entries", f"more than {MAX_ENTRIES}")
                    return
                yield self._once(one, seen)
        except ArchiveBomb:
            yield Refused("", "archive bomb", "unpacks to many times its size")
        except (EOFError, Damaged, OSError) as error:
            if not count:
                raise self._unreadable(str(error)) from None
            yield Refused("", "truncated archive" if isinstance(error, EOFError) else "damaged archive", str(error))

    def _once(self, one: Member | Refused, seen: set[str]) -> Member | Refused:
        if isinstance(one, Refused):
            return one
        path = self._inside(one.path)
        if path in seen:
            return Refused(path, "name appears twice")
        seen.add(path)
        return Member(path, one.data, one.day)

    def _unreadable(self, why: str) -> CodegenError:
        return CodegenError(f"{self.path}: cannot be read as an archive ({' '.join(why.split())}); fetch it again")
