"""What was taken from the corpus is found, with its source, lines, licence and copyright; what was not, is not."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from attributed import COMMON, WORDS, documents, function, tracer
from small_corpus import document

from codegen25.attribute import normalized
from codegen25.attribute.origins import UNKNOWN
from codegen25.attribute.trace import MOST_BYTES, Match, Tracer
from codegen25.data.document import Document
from codegen25.errors import CodegenError, UsageError
from codegen25.model.folder import resolve
from codegen25.tokenizer import from_folder


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Tracer:
    return tracer(tmp_path_factory.mktemp("traced"), normalized=True)


def verbatim(tracer: Tracer, text: str) -> list[Match]:
    return [match for match in tracer.trace(text) if match.kind == "verbatim"]


def the_one(matches: list[Match], source: str) -> Match:
    found = [match for match in matches if source in match.sources]
    assert len(found) == 1, matches
    return found[0]


@pytest.mark.parametrize("one", documents(), ids=lambda one: one.path)
def test_a_planted_excerpt_is_found_wherever_it_is_cut(traced: Tracer, one: Document) -> None:
    draw = random.Random(one.path)
    own = one.content[: one.content.index(COMMON)]
    for _ in range(6):
        start = draw.randrange(len(own) // 2)
        excerpt = own[start : start + draw.randrange(400, 800)]
        text = f"def fresh(x):\n    return x  # π\n{excerpt}{draw.choice(['', '!', '2', ')', ' '])}\nprint(fresh(3))\n"
        match = the_one(verbatim(traced, text), one.source)
        found = text[match.start : match.end]
        assert found in one.content
        # But for words that the cut broke, all of it.
        whole = re.sub(r"^\w*\W*|\W*\w*\W*$", "", excerpt)
        assert whole in found or (found in excerpt and len(found) >= len(whole) - 4)
        lines = one.content.split("\n")
        origin = match.origins[0]
        assert "\n".join(lines[origin.first_line - 1 : origin.last_line]).find(found) >= 0
        assert (origin.path, origin.version, origin.split) == (one.path, one.version, "train")
        assert origin.copyright == (f"Copyright (c) 2020 The {one.source} authors",)
        assert not match.common


def test_a_licence_without_evidence_is_unknown(traced: Tracer) -> None:
    match = the_one(verbatim(traced, function(("nobody", 0, 1))), "nobody")
    assert match.origins[0].license == UNKNOWN
    assert the_one(verbatim(traced, function(("gpl-tools", 0, 1))), "gpl-tools").origins[0].license == "GPL-3.0-only"


def test_what_everybody_has_is_common(traced: Tracer) -> None:
    matches = traced.trace(COMMON)
    assert matches
    assert all(match.common for match in matches)
    assert len(matches[0].sources) == 8
    assert matches[0].count == 16


def test_fresh_text_is_attributed_to_nobody(traced: Tracer) -> None:
    for seed in range(40):
        assert traced.trace(function(("fresh", seed))) == []


@pytest.mark.parametrize("text", ["0, " * 5000, "# " + "-" * 20000, "\n" * 3000, "x = [\n" + "    0,\n" * 3000 + "]\n"])
def test_what_repeats_itself_is_no_match(tmp_path: Path, text: str) -> None:
    assert tracer(tmp_path, [document(text, source="numbers"), document("x\n")], normalized=True).trace(text) == []


def test_a_match_does_not_run_into_the_next_document(tmp_path: Path) -> None:
    one, other = function(1), function(2)
    made = tracer(tmp_path, [document(one, source="one"), document(other, source="other")])
    matches = made.trace(one + other)
    assert [match.sources for match in matches] == [("one",), ("other",)]
    assert matches[0].end <= len(one) <= matches[1].start + 1


def test_the_oldest_document_of_a_source_is_named_first(tmp_path: Path) -> None:
    text = function("shared")
    made = [
        document(text + f"# {n}\n", source=source, version=date, date=date, path=f"{n}.py")
        for n, (source, date) in enumerate([("late", "2023-01-01"), ("early", "2019-01-01"), ("late", "2021-01-01")])
    ]
    match = tracer(tmp_path, made).trace(text)[0]
    assert match.sources == ("early", "late")
    assert [origin.version for origin in match.origins] == ["2019-01-01", "2021-01-01"]
    assert match.count == 3


def renamed(text: str) -> str:
    return re.sub(r"(?<![.\w])(" + "|".join(WORDS) + r")\b", lambda found: f"my_{found[0][::-1]}", text)


def reformatted(text: str) -> str:
    """Wider indentation, blank lines, and spaces where there were none."""
    lines = [re.sub(r"^( +)", lambda found: found[0] * 2, line) for line in text.split("\n")]
    return "\n\n".join(lines).replace("(", "( ").replace(", ", ",\n            ")


@pytest.mark.parametrize("change", [reformatted, renamed, lambda text: renamed(reformatted(text))])
def test_a_normalised_index_finds_what_was_reformatted_and_renamed(traced: Tracer, change) -> None:  # type: ignore[no-untyped-def]
    for source in ("alpha", "gpl-tools", "zeta"):
        text = change(function((source, 1, 2)))
        assert verbatim(traced, text) == []
        match = the_one(traced.trace(text), source)
        assert match.kind == "normalized"
        origin = match.origins[0]
        content = next(d.content for d in documents() if d.path == f"{source}/m1.py").split("\n")
        assert content[origin.first_line - 1].startswith("def ") or "def" in content[origin.first_line - 2]
        assert "return" in content[origin.last_line - 1]


def test_names_that_stand_for_two_are_no_renaming() -> None:
    one, other = normalized.stream("a = b + a * c"), normalized.stream("x = y + z * w")
    assert normalized.same_run(one, 0, other, 0, len(one)) == 4
    assert normalized.same_run(other, 0, one, 0, len(one)) == 4
    assert normalized.same_run(one, 0, normalized.stream("x = y + x * w"), 0, len(one)) == len(one)


def test_an_empty_text_is_one_line(traced: Tracer) -> None:
    with pytest.raises(UsageError, match="nothing to trace"):
        traced.trace("")


def test_a_megabyte_of_text(traced: Tracer) -> None:
    one = documents()[0]
    text = one.content * (1_000_000 // len(one.content))
    matches = traced.trace(text)
    assert any("alpha" in match.sources for match in matches)
    with pytest.raises(CodegenError, match=f"over {MOST_BYTES:,}"):
        traced.trace("x" * (MOST_BYTES + 1))


def test_an_index_of_another_vocabulary_is_one_line(traced: Tracer) -> None:
    with pytest.raises(CodegenError, match=r"has vocabulary \w{12}, not \w{12}; name a model of its own"):
        Tracer(traced.index, from_folder(resolve("nano")))


@pytest.mark.parametrize("text", ["é", "\0\0\0", "<|endoftext|>" * 30, "<mask_1>" * 50, "\r\n\r\n", "𝄞" * 99])
def test_hostile_texts(traced: Tracer, text: str) -> None:
    assert traced.trace(text) == []


def test_a_lone_surrogate_is_one_line(traced: Tracer) -> None:
    with pytest.raises(CodegenError, match="lone surrogate"):
        traced.trace("x = '\ud800'")
