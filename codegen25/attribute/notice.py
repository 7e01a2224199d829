"""What has to go along with code that came from somewhere: a NOTICE in words, and an SPDX 2.3 document.

Sources whose licence has no evidence are named as unknown (`NOASSERTION` in SPDX), never as permissive.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from codegen25 import __version__
from codegen25.attribute.files import TracedFile
from codegen25.attribute.origins import UNKNOWN, Origin
from codegen25.attribute.trace import Match

_NONE = "NOASSERTION"
_OWN = re.compile(r"(?:DocumentRef-[A-Za-z0-9.-]+:)?LicenseRef-[A-Za-z0-9.-]+")


@dataclass
class _Package:
    """A source in one version, and what was taken from it: file, match, origin."""

    name: str
    version: str
    license: str
    uses: list[tuple[TracedFile, Match, Origin]] = field(default_factory=list)

    @property
    def copyright(self) -> list[str]:
        return list(dict.fromkeys(line for _, _, origin in self.uses for line in origin.copyright))


def _packages(files: Sequence[TracedFile]) -> list[_Package]:
    """The sources that attributed matches come from, the first origin of each match, by name."""
    found: dict[tuple[str, str, str], _Package] = {}
    for file in files:
        for match in file.attributed:
            origin = match.origins[0]
            key = (origin.source, origin.version, origin.license)
            found.setdefault(key, _Package(*key)).uses.append((file, match, origin))
    return [found[key] for key in sorted(found)]


def notice(files: Sequence[TracedFile]) -> str:
    """The NOTICE: for every source its licence and evidence, copyright lines, and which lines came from where."""
    packages = _packages(files)
    if not packages:
        return "Nothing in these files was found in the corpus but what is common to many sources.\n"
    lines = ["Parts of these files stand word for word, or nearly so, in the sources below.", ""]
    for package in packages:
        lines.append(f"{package.name} {package.version}".rstrip())
        lines.append(f"  Licence: {_licence(package)}")
        lines += [f"  {line}" for line in package.copyright]
        for file, match, origin in package.uses:
            first, last = file.lines(match)
            where = f"{origin.path}, lines {origin.first_line} to {origin.last_line}"
            others = f"; in {len(match.sources)} sources" if len(match.sources) > 1 else ""
            lines.append(f"  {file.path}, lines {first} to {last}: {match.kind} in {where}{others}")
        lines.append("")
    return "\n".join(lines)


def _licence(package: _Package) -> str:
    if package.license == UNKNOWN:
        return "unknown, no evidence was found; do not take it for permissive"
    origin = package.uses[0][2]
    return (
        f"{package.license} (by {origin.evidence_kind} {origin.evidence_file}, {origin.evidence_confidence:.0%} sure)"
    )


def spdx(files: Sequence[TracedFile], name: str) -> dict[str, Any]:
    """An SPDX 2.3 document in JSON: packages, files, and a snippet for each match (spdx.github.io/spdx-spec/v2.3).

    The date is that of SOURCE_DATE_EPOCH, where it is set.
    """
    packages = _packages(files)
    numbers = {file.path: f"SPDXRef-File-{number}" for number, file in enumerate(files, 1)}
    snippets = [
        _snippet(f"SPDXRef-Snippet-{number}", numbers[file.path], file, match, origin)
        for number, (file, match, origin) in enumerate((use for one in packages for use in one.uses), 1)
    ]
    relations = [("SPDXRef-DOCUMENT", "DESCRIBES", id) for id in numbers.values()]
    for number, package in enumerate(packages, 1):
        taken = dict.fromkeys(numbers[file.path] for file, _, _ in package.uses)
        relations += [(id, "GENERATED_FROM", f"SPDXRef-Package-{number}") for id in taken]
    digest = hashlib.sha256("\0".join(hashlib.sha256(file.source.data).hexdigest() for file in files).encode())
    own = sorted({id for package in packages for id in _OWN.findall(package.license)})
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"https://spdx.org/spdxdocs/codegen25-{digest.hexdigest()[:32]}",
        "creationInfo": {"created": _created(), "creators": [f"Tool: codegen25-{__version__}"]},
        "packages": [_package(f"SPDXRef-Package-{n}", package) for n, package in enumerate(packages, 1)],
        "files": [_file(numbers[file.path], file) for file in files],
        "snippets": snippets,
        "relationships": [
            {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
            for one, kind, other in relations
        ],
        "hasExtractedLicensingInfos": [
            {"licenseId": id, "extractedText": f"Named {id} in the corpus; see the source for its text."} for id in own
        ],
    }


def _created() -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    at = datetime.fromtimestamp(int(epoch), UTC) if epoch.isdigit() else datetime.now(UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _expression(license: str) -> str:
    return _NONE if license == UNKNOWN else license


def _package(id: str, package: _Package) -> dict[str, Any]:
    made = {
        "SPDXID": id,
        "name": package.name,
        "downloadLocation": _NONE,
        "filesAnalyzed": False,
        "licenseConcluded": _expression(package.license),
        "licenseDeclared": _NONE,
        "copyrightText": "\n".join(package.copyright) or _NONE,
    }
    return made | ({"versionInfo": package.version} if package.version else {})


def _file(id: str, file: TracedFile) -> dict[str, Any]:
    sums = [(name, hashlib.new(name.lower(), file.source.data).hexdigest()) for name in ("SHA1", "SHA256")]
    return {
        "SPDXID": id,
        "fileName": f"./{file.path}",
        "checksums": [{"algorithm": name, "checksumValue": value} for name, value in sums],
        "licenseConcluded": _NONE,
        "licenseInfoInFiles": [_NONE],
        "copyrightText": _NONE,
    }


def _snippet(id: str, file_id: str, file: TracedFile, match: Match, origin: Origin) -> dict[str, Any]:
    text = file.source.raw
    mark = len(file.source.data) - len(text.encode())  # of a byte order mark
    first, last = file.lines(match)
    start = mark + len(text[: match.start].encode()) + 1
    end = start + len(text[match.start : match.end].encode()) - 1

    def pair(name: str, one: int, other: int) -> dict[str, Any]:
        start_pointer, end_pointer = ({"reference": file_id, name: number} for number in (one, other))
        return {"startPointer": start_pointer, "endPointer": end_pointer}

    where = f"{origin.source} {origin.version} {origin.path}, lines {origin.first_line} to {origin.last_line}"
    return {
        "SPDXID": id,
        "snippetFromFile": file_id,
        "ranges": [pair("offset", start, end), pair("lineNumber", first, last)],
        "licenseConcluded": _expression(origin.license),
        "licenseInfoInSnippets": [_NONE],
        "copyrightText": "\n".join(origin.copyright) or _NONE,
        "comment": f"{match.kind} in {where}",
    }
