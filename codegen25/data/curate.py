"""From the files of one part of a source to documents: every file is kept with its evidence or dropped with a reason.

The order of the checks is that of their cost. Nothing here knows of other parts, so parts are worked on side by side;
what it leaves depends on the part and the recipe alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codegen25.data import filters, languages
from codegen25.data.decontaminate import Benchmarks
from codegen25.data.dedup import SIGN_BATCH, ShingleWriter, signed
from codegen25.data.document import EVIDENCE, Document, content_id
from codegen25.data.engine import Task
from codegen25.data.licenses import Licenses
from codegen25.data.parts import KEPT, Drop, DropTable, PartFiles, Table, about
from codegen25.data.readers import open_source
from codegen25.data.recipe import Recipe
from codegen25.data.redact import redact
from codegen25.data.source import File, Refused, Source
from codegen25.data.units import Unit
from codegen25.errors import CodegenError

# Texts that come with a structure of their own are no programming language.
# Why nothing at all was read of a source; the detail is the error, which names it.
UNREADABLE = "unreadable source"
LANGUAGES_OF_KIND = {"issue": "github-issues", "commit": "git-commits", "jupyter": "jupyter-notebooks"}


class Curator:
    """Applies a recipe to units. `root` is the folder that relative locations start from."""

    def __init__(self, recipe: Recipe, root: Path) -> None:
        self.recipe, self.root = recipe, root
        self.benchmarks = Benchmarks(recipe.problems) if recipe.problems else None

    def run(self, unit: Unit, folder: Path) -> None:
        """Write the files of a unit. Raises OSError; what is wrong with the source itself is counted as a drop."""
        files = PartFiles(folder, unit.key)
        with (
            Table(files.kept, KEPT) as kept,
            DropTable(files.dropped) as dropped,
            ShingleWriter(files.shingles) as shingles,
        ):
            waiting: list[Document] = []
            for one in self._outcomes(unit):
                if isinstance(one, Drop):
                    dropped.drop(one)
                    continue
                waiting.append(one)
                if len(waiting) == SIGN_BATCH:
                    self._keep(unit, waiting, kept, shingles)
                    waiting = []
            self._keep(unit, waiting, kept, shingles)
            kept.close()
            dropped.close()
            shingles.close()
            files.finish({"files": kept.count + dropped.count, "kept": kept.count})

    def _outcomes(self, unit: Unit) -> Iterator[Document | Drop]:
        """Each file of the unit as what became of it."""
        source = unit.source
        if self._opted_out(source.name):
            yield Drop(source.name, source.version, "", "opt-out", "source opted out")
            return
        try:
            reader = open_source(source, self.root)
            licenses = Licenses(reader.metadata(), reader.license_files(), self.recipe.policy, self._declared(source))
            entries = reader.entries(unit.part)
            for entry in entries:
                yield self.judge(entry, source, licenses)
        except CodegenError as error:
            yield Drop(source.name, source.version, "", "read", UNREADABLE, str(error))

    def _opted_out(self, name: str) -> bool:
        """By the whole name, or by what it begins with before a slash: an owner, a host."""
        pieces = name.split("/")
        return any("/".join(pieces[:count]) in self.recipe.opt_out for count in range(1, len(pieces) + 1))

    def _declared(self, source: Source) -> str:
        return source.license or self.recipe.policy.declaration(source.name)

    def judge(self, entry: File | Refused, source: Source, licenses: Licenses) -> Document | Drop:
        """What becomes of one file."""
        if isinstance(entry, Refused):
            return Drop(source.name, source.version, entry.path, "read", entry.reason, entry.detail)
        name, version = entry.source or source.name, entry.version or ("" if entry.source else source.version)

        def drop(stage: str, reason: str, detail: str = "") -> Drop:
            return Drop(name, version, entry.path, stage, reason, detail)

        if entry.source and self._opted_out(entry.source):
            return drop("opt-out", "source opted out")
        code = entry.kind == "code"
        if code and (reason := filters.reject_path(entry.path, tests=self.recipe.tests)):
            return drop("filter", reason)
        text, reason = filters.decode(entry.data)
        if text is None:
            return drop("read", reason or "")
        language = languages.detect(entry.path, text) if code else LANGUAGES_OF_KIND[entry.kind]
        if language is None:
            return drop("language", "no programming language")
        if self.recipe.languages is not None and language not in self.recipe.languages:
            return drop("language", "language not wanted", language)
        if code and (reason := filters.reject_content(text, language, entry.path)):
            return drop("filter", reason)
        decision = licenses.decide(entry.path, text, entry.license)
        if decision.spdx is None:
            evidence = decision.evidence
            return drop("licence", decision.reason or "", f"{evidence.kind} {evidence.file}: {evidence.text}")
        if self.benchmarks and (hit := self.benchmarks.found(text, language)):
            return drop("benchmark", hit.how, f"{hit.benchmark}: {hit.detail}")
        clean, redactions = redact(text)
        return Document(
            content_id(clean), clean, name, version, entry.path, decision.spdx, decision.evidence, language, entry.kind,
            entry.date or source.date, entry.stars, redactions,
        )  # fmt: skip

    def _keep(self, unit: Unit, documents: list[Document], kept: Table, shingles: ShingleWriter) -> None:
        """Write documents as rows."""
        signs = signed([document.content for document in documents], shingles)
        for document, sign in zip(documents, signs, strict=True):
            size = len(document.content.encode())
            heldout = unit.source.heldout or self.recipe.is_heldout(document.source)
            where = {"part": unit.number, "row": kept.count, "heldout": heldout, "bytes": size}
            kept.add(where | sign | _row(document), 2 * size)


def _row(document: Document) -> dict[str, Any]:
    """What a row says of the document itself."""
    return {
        "id": document.id, "source": document.source, "rank": rank(document), "about": about(document),
        "content": document.content,
    }  # fmt: skip


def rank(document: Document) -> str:
    """Of copies, the one whose rank comes first is kept: best licence evidence, then oldest, then the first by name."""
    known = len(EVIDENCE) - EVIDENCE.index(document.evidence.kind)
    doubt = round(100 * (1 - document.evidence.confidence))
    return "\0".join([f"{known}{doubt:03d}", document.date or "9999", document.source, document.version, document.path])


def curator(recipe: Recipe, root: str, folder: str) -> Task:
    """A task that curates the unit it is given as JSON into `folder`, and gives its key back."""
    one = Curator(recipe, Path(root))

    def task(item: str) -> str:
        unit = Unit.from_json(item)
        one.run(unit, Path(folder))
        return unit.key

    return task
