"""Whether a file may be used: its own header decides, else the nearest licence file up the tree, else the metadata.

Metadata and the licence file of the top folder must agree, or both be allowed. Unknown is not permissive. What the
user declares for a source fills in where the source says nothing that is understood, and never outweighs its words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from codegen25.data import spdx
from codegen25.data.document import Evidence
from codegen25.data.license_headers import read_header
from codegen25.data.license_metadata import NOTHING, Stated, row_license, stated_license
from codegen25.data.license_texts import Recognised, one_line, recognise
from codegen25.data.policy import Policy
from codegen25.data.source import LICENSE_FILE, Metadata
from codegen25.errors import CodegenError

NOT_ALLOWED = "licence not allowed by the policy"
DISAGREE = "licences disagree"
NOT_FOUND = "no licence found"
NOT_RECOGNISED = "licence not recognised"
REASONS = (NOT_ALLOWED, DISAGREE, NOT_FOUND, NOT_RECOGNISED)
_UNKNOWN = (NOT_FOUND, NOT_RECOGNISED)

# Folders of metadata, whose `licenses` holds the licence files of the source at their paths there (PEP 639).
_INFO = re.compile(r"^(?:[^/]+\.(?:dist-info|egg-info)|EGG-INFO)/(?:licen[cs]es/|license_files/)?(?:src/)?", re.I)
# A folder of licence texts speaks for the folder it stands in, but only if that has no licence file of its own.
_COLLECTION = re.compile(r"(?:^|/)licen[cs]es?$", re.I)
_OTHERS = re.compile(r"third.?part|3rd.?part|external|bundled|vendor|depend|^licen[cs]es(?![a-z])", re.I)
_OTHERS_TEXT = re.compile(
    r"\bbundles? the following|third[- ]party (?:notices|licen[cs]es|software)|licen[cs]es? of bundled", re.I
)
_HEAD = 400


@dataclass(frozen=True)
class Decision:
    """`spdx` is set when the file may be used; otherwise `reason` is one of REASONS. `evidence` shows why."""

    spdx: str | None
    evidence: Evidence
    reason: str | None = None


def governed(path: str) -> str:
    """The folder that a licence file speaks for, "" for the whole source."""
    folder = _INFO.sub("", path).rpartition("/")[0]
    while _COLLECTION.search(folder):
        folder = _COLLECTION.sub("", folder)
    return folder


class Licenses:
    """Decides on the files of one source.

    `license_files` are texts by path, `declared` an SPDX expression that the user answers for, or "". Raises
    CodegenError when that is no expression.
    """

    def __init__(self, metadata: Metadata, license_files: dict[str, str], policy: Policy, declared: str) -> None:
        expression = spdx.normal(declared) if declared else None
        if declared and expression is None:
            raise CodegenError(f"{declared!r} is no SPDX expression; declare one, such as MIT OR Apache-2.0")
        self.policy, self._declared = policy, expression
        self._metadata = metadata
        self._files: dict[str, dict[str, str]] = {}
        for path in sorted(license_files):
            self._files.setdefault(governed(path), {})[path] = license_files[path]
        self._folders: dict[str, Decision] = {}

    def decide(self, path: str, text: str, stated: str) -> Decision:
        """The decision on one file; `stated` is what a table says of it, "" for nothing. The whole source: all "".

        Some microseconds where the head of the text has no word of licences.
        """
        header = read_header(text)
        around = None
        if header is None or header.vague:
            around = self._around(path, stated)
            if header is None or around.spdx:
                return around
        evidence = Evidence("header", path, header.words, header.confidence)
        return self._judged(header.spdx, evidence)

    def _around(self, path: str, stated: str) -> Decision:
        """What all but the file itself says."""
        found = self._row(stated) if stated else self._folder(path.rpartition("/")[0])
        if self._declared and found.reason in _UNKNOWN and self._is_open(path):
            return self._judged(self._declared, Evidence("declared", "", one_line(f"declared: {self._declared}"), 1.0))
        return found

    def _is_open(self, path: str) -> bool:
        """Whether no licence file deeper than the top speaks for it: that one is somebody else's, known or not."""
        return self._governing(path.rpartition("/")[0]) in ("", None)

    def _row(self, stated: str) -> Decision:
        found = row_license(stated)
        return self._stated(found, Evidence("dataset", "", found.words, found.confidence))

    def _judged(self, expression: str | None, evidence: Evidence) -> Decision:
        """By the policy: known well enough, and allowed."""
        if expression is None or evidence.confidence < self.policy.minimum_confidence:
            return Decision(None, evidence, NOT_RECOGNISED)
        if not self.policy.allows(expression):
            return Decision(None, evidence, NOT_ALLOWED)
        return Decision(expression, evidence)

    def _governing(self, folder: str) -> str | None:
        """The nearest folder up the tree with a licence file, None when there is none."""
        while folder and folder not in self._files:
            folder = folder.rpartition("/")[0]
        return folder if folder in self._files else None

    def _folder(self, folder: str) -> Decision:
        """What licence files and metadata say of the files of a folder."""
        found = self._folders.get(folder)
        if found is None:
            governing = self._governing(folder)
            found = self._of_source() if not governing else self._of_files(governing)[0]
            self._folders[folder] = found
        return found

    def _of_files(self, folder: str) -> tuple[Decision, Recognised]:
        """What the licence files that speak for a folder say together."""
        file, found = together(self._files[folder])
        return self._judged(found.spdx, Evidence("file", file, found.words, found.confidence)), found

    def _of_source(self) -> Decision:
        """The whole source: the licence files of its top folder and its metadata."""
        stated = stated_license(self._metadata)
        kind = "dataset" if self._metadata.kind == "dataset" else "metadata"
        said = self._stated(stated, Evidence(kind, self._metadata.file, stated.words, stated.confidence))
        if "" not in self._files:
            return said
        decision, found = self._of_files("")
        if stated == NOTHING:
            return decision
        return self._agreed(decision, found, said, stated)

    def _stated(self, stated: Stated, evidence: Evidence) -> Decision:
        if stated == NOTHING:
            return Decision(None, evidence, NOT_FOUND)
        if evidence.kind == "dataset" and not self.policy.dataset:
            return Decision(None, evidence, NOT_FOUND)
        if stated.named and not self.policy.allows(stated.named):
            return Decision(None, evidence, NOT_ALLOWED)
        return self._judged(stated.spdx, evidence)

    def _agreed(self, file: Decision, found: Recognised, said: Decision, stated: Stated) -> Decision:
        """One decision of the top folder's licence files and the metadata."""
        both = replace(file.evidence, text=one_line(f"{stated.words}; {file.evidence.file}: {file.evidence.text}"))
        if file.reason == NOT_RECOGNISED:
            # Words that were not understood but name what is not allowed speak against the metadata.
            against = found.spdx is not None and not self.policy.allows(found.spdx)
            return Decision(None, both, DISAGREE) if against and said.spdx else said
        if said.reason in _UNKNOWN or found.spdx is None:
            return file
        files, metadata = spdx.families(found.spdx), spdx.families(stated.spdx or "")
        if files <= metadata or (found.choice and metadata <= files):
            return self._judged(precise(stated.spdx or "", found.spdx), both)
        if file.spdx and said.spdx:
            return Decision(found.spdx if metadata <= files else spdx.all_of([said.spdx, found.spdx]), both)
        return Decision(None, both, DISAGREE if file.spdx or said.spdx else NOT_ALLOWED)


def precise(stated: str, found: str) -> str:
    """What metadata states, with the clauses of "BSD" filled in where the licence file has exactly one of them."""
    exact = [license for license in spdx.licenses(found) if license.startswith("BSD-")]
    if stated == spdx.BSD:
        return found
    return re.sub(rf"{spdx.BSD}(?![\w.-])", exact[0], stated) if len(exact) == 1 else stated


def together(files: dict[str, str]) -> tuple[str, Recognised]:
    """What the licence files of one folder say: each applies, unless one of them says that the reader chooses.

    Lists of other software's licences, and folders of texts, count only where there is nothing else.
    """
    named = {path: text for path, text in files.items() if LICENSE_FILE.match(path.rpartition("/")[2])}
    own = {path: text for path, text in named.items() if not _is_about_others(path, text)}
    direct = {path: text for path, text in own.items() if _is_direct(path)}
    chosen = direct or own or named or files
    found = {path: recognise(text) for path, text in chosen.items()}
    known = {path: one for path, one in found.items() if one.spdx}
    pointing = [one for one in found.values() if one.spdx is None and one.choice]
    unknown = [path for path, one in found.items() if one.spdx is None and not one.choice]
    if not known or unknown:
        path = (unknown or list(found))[0]
        return path, replace(found[path], spdx=None)
    expressions = [one.spdx for one in known.values() if one.spdx]
    expression = (spdx.any_of if pointing else spdx.all_of)(expressions)
    path = next(iter(known))
    words = "; ".join([*(one.words for one in pointing), known[path].words])
    confidence = min(one.confidence for one in known.values())
    return path, replace(
        known[path], spdx=expression, words=one_line(words), confidence=confidence, choice=bool(pointing)
    )


def _is_about_others(path: str, text: str) -> bool:
    """Whether a file lists licences of other software, by its name or its first words."""
    return bool(_OTHERS.search(path.rpartition("/")[2]) or _OTHERS_TEXT.search(text[:_HEAD]))


def _is_direct(path: str) -> bool:
    """Whether a licence file stands in the folder that it speaks for, not in a folder of licence texts there."""
    return not _COLLECTION.search(_INFO.sub("", path).rpartition("/")[0])
