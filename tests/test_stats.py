"""The counts of a corpus are those that counting one by one gives, and the report shows them and nothing else."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_corpus import document, many, write_corpus

from codegen25.data import stats as module
from codegen25.data.charts import escape
from codegen25.data.corpus import Corpus
from codegen25.data.document import Document, Evidence
from codegen25.data.plain import aligned, binary, plain, share, short
from codegen25.data.report import write_report
from codegen25.data.stats import STAGES, plot, stats, stats_text
from codegen25.errors import CodegenError

HOSTILE = '<script>alert("x")</script>&\'\x1b[31m\u202e$\\frac{'
VOID = {"meta", "rect", "br"}


def drops(count: int) -> list[tuple[str, ...]]:
    draw = random.Random(4)
    reasons = [("filter", "generated code"), ("filter", "minified"), ("licence", "no licence"), ("read", "not UTF-8")]
    rows: list[tuple[str, ...]] = []
    for n in range(count):
        stage, reason = draw.choice(reasons)
        rows.append((f"source{n % 3}", "1.0", f"a/{n}.py", stage, reason, f"detail {n}"))
    rows += [("s", "", f"n{n}.py", "near copy", "near copy", f"{0.7 + n % 30 / 100:.2f} of abc") for n in range(40)]
    return rows


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    documents = many(90)
    return write_corpus(
        tmp_path / "c", {"train": [documents[:30], documents[30:70]], "heldout": [documents[70:]]}, drops(200)
    )


def slow_groups(corpus: Corpus, key: Any) -> dict[str, dict[str, int]]:
    groups: dict[str, dict[str, int]] = {}
    for split, shard in corpus.all_shards():
        for number, one in enumerate(shard):
            into = groups.setdefault(key(split, one), {"documents": 0, "tokens": 0, "bytes": 0})
            into["documents"] += 1
            into["tokens"] += len(shard.document_ids(number))
            into["bytes"] += len(one.content.encode())
    return groups


def test_counts_are_those_of_counting_one_by_one(corpus: Corpus) -> None:
    found = stats(corpus)
    keys: dict[str, Any] = {
        "splits": lambda split, one: split, "languages": lambda split, one: one.language,
        "licenses": lambda split, one: one.license, "sources": lambda split, one: one.source,
        "kinds": lambda split, one: one.kind, "evidence": lambda split, one: one.evidence.kind,
    }  # fmt: skip
    for name, key in keys.items():
        assert found[name] == slow_groups(corpus, key)
        tokens = [sums["tokens"] for sums in found[name].values()]
        assert name == "splits" or tokens == sorted(tokens, reverse=True)
    assert found["totals"] == slow_groups(corpus, lambda split, one: "all")["all"]
    documents = many(90)
    assert found["redactions"] == Counter(one.kind for d in documents for one in d.redactions)
    assert found["redacted_documents"] == sum(bool(d.redactions) for d in documents)
    lengths = [len(s.document_ids(n)) for _, s in corpus.all_shards() for n in range(len(s))]
    assert {int(k): v for k, v in found["lengths"].items() if v} == Counter(1 << (n.bit_length() - 1) for n in lengths)
    assert json.loads(json.dumps(found)) == found


def test_every_dropped_file_is_in_the_funnel_and_has_a_reason(corpus: Corpus) -> None:
    rows, found = drops(200), stats(corpus)
    assert found["files"] == 90 + len(rows)
    assert [row["stage"] for row in found["funnel"]] == list(STAGES)
    left = found["files"]
    for row in found["funnel"]:
        assert row["dropped"] == sum(one[3] == row["stage"] for one in rows)
        left -= row["dropped"]
        assert row["left"] == left
    assert left == 90
    assert {(r["stage"], r["reason"]): r["count"] for r in found["reasons"]} == Counter(one[3:5] for one in rows)
    for reason in found["reasons"]:
        same = [one for one in rows if one[3:5] == (reason["stage"], reason["reason"])]
        assert [(s["source"], s["version"], s["path"], s["detail"]) for s in reason["samples"]] == [
            (*one[:3], one[5]) for one in same[:3]
        ]
    assert found["similarity"] == Counter(one[5][:4] for one in rows if one[3] == "near copy")


def test_samples_come_from_as_many_batches_as_needed(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = stats(corpus)
    batches = module._batches
    small = lambda corpus: (batch.slice(n, 1) for batch in batches(corpus) for n in range(len(batch)))  # noqa: E731
    monkeypatch.setattr(module, "_batches", small)
    assert stats(corpus) == whole


def test_sources_are_counted_beyond_those_that_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SOURCES", 5)
    documents = [document(f"{'x ' * n}", source=f"s{n}") for n in range(40)]
    found = stats(write_corpus(tmp_path / "c", {"train": [documents], "heldout": []}))
    assert list(found["sources"]) == ["s39", "s38", "s37", "s36", "s35"] and found["source_count"] == 40
    assert "… and 35 more" in stats_text(found)
    assert found["splits"]["heldout"] == {"documents": 0, "tokens": 0, "bytes": 0}


def test_of_nothing(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", {"train": [], "heldout": []})
    found = stats(corpus)
    assert found["totals"] == {"documents": 0, "tokens": 0, "bytes": 0} and found["lengths"] == {}
    assert "from files to documents" in stats_text(found)
    write_report(corpus, tmp_path / "report.html")
    plot(found, tmp_path / "p.svg")


def test_damaged_lists_of_what_was_dropped(corpus: Corpus) -> None:
    (corpus.folder / "dropped.parquet").write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(CodegenError, match=r"dropped\.parquet: cannot be read"):
        stats(corpus)


def test_the_text_lines_up_and_says_the_figures(corpus: Corpus) -> None:
    text = stats_text(stats(corpus))
    for said in ("language", "python", "licence", "MIT", "BSD-3-Clause", "near copy", "generated code", "source0:a/"):
        assert said in text
    funnel = text.split("\n\n")[[p.startswith("from files") for p in text.split("\n\n")].index(True)].splitlines()
    assert len({len(line) for line in funnel if "%" in line}) == 1
    assert all(line == line.rstrip() for line in text.splitlines())


def hostile(tmp_path: Path) -> Corpus:
    documents: list[Document] = [
        document(f"{n}", source=HOSTILE, version=HOSTILE, path=HOSTILE, license=HOSTILE, language=HOSTILE,
                 evidence=Evidence(HOSTILE, HOSTILE, HOSTILE, 1.0))
        for n in range(3)
    ]  # fmt: skip
    row = (HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    return write_corpus(tmp_path / "hostile", {"train": [documents], HOSTILE.replace("/", ""): []}, [row] * 4)


def test_nothing_that_is_shown_moves_the_cursor(tmp_path: Path) -> None:
    text = stats_text(stats(hostile(tmp_path)))
    assert plain(HOSTILE) in text
    assert all(line.isprintable() for line in text.splitlines())


class Page(HTMLParser):
    """Every element closed in its turn, and what is in them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert page.open == []
    return page


def test_the_report_is_a_whole_page_that_needs_nothing(corpus: Corpus, tmp_path: Path) -> None:
    write_report(corpus, tmp_path / "report.html")
    page = parsed(tmp_path / "report.html")
    text = " ".join(" ".join(page.text).split())
    for said in (
        "From files to documents", "Tokens by language", "python", "BSD-3-Clause", "Why files were left out",
        "generated code", "licence file", "How alike near copies are", "train-00001", "permissive",
    ):  # fmt: skip
        assert said in text
    assert page.tags["script"] == 0 and page.tags["svg"] == 2 and page.tags["details"] == 5
    assert not {"src", "href", "onclick", "onload", "srcset", "data"} & {name for name, _ in page.attributes}
    assert not re.search(r"https?:|url\(|@import", (tmp_path / "report.html").read_text())


def test_the_report_escapes_what_others_wrote(tmp_path: Path) -> None:
    write_report(hostile(tmp_path), tmp_path / "report.html")
    page = parsed(tmp_path / "report.html")
    assert page.tags["script"] == 0
    assert plain(HOSTILE) in page.text
    assert ("title", plain(HOSTILE)) in page.attributes
    assert "\x1b" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_reports_and_plots_depend_on_the_corpus_alone(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        corpus = write_corpus(tmp_path / name, {"train": [many(30)], "heldout": []}, drops(20))
        write_report(corpus, tmp_path / name / "report.html")
        plot(stats(corpus), tmp_path / name / "p.svg")
        plot(stats(corpus), tmp_path / name / "p.PNG")
        made.append([(tmp_path / name / file).read_bytes() for file in ("report.html", "p.svg", "p.PNG")])
    assert made[0] == made[1]
    assert made[0][2].startswith(b"\x89PNG") and ElementTree.fromstring(made[0][1]).tag.endswith("svg")


def test_plots_of_hostile_names_and_endings(corpus: Corpus, tmp_path: Path) -> None:
    plot(stats(hostile(tmp_path)), tmp_path / "p.svg")
    for name in ("p.pdf", "p"):
        with pytest.raises(CodegenError, match=r"name a file that ends in \.svg or \.png"):
            plot(stats(corpus), tmp_path / name)
    with pytest.raises(CodegenError, match="cannot be written"):
        plot(stats(corpus), tmp_path / "none" / "p.svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "hostile", "p.svg"]


@given(st.text())
def test_plain_and_escaped_text_is_one_harmless_line(text: str) -> None:
    assert plain(text).isprintable() and (plain(text) == text) == text.isprintable()
    assert not set(escape(text)) & set("<>\"'")


def test_numbers_as_people_read_them() -> None:
    assert [short(n) for n in (0, 7, 999, 1000, 1234, 99_949, 99_999, 999_499, 999_500, 1_234_567, 2.5e12)] == [
        "0", "7", "999", "1.00 k", "1.23 k", "99.9 k", "100 k", "999 k", "1.00 M", "1.23 M", "2.50 T",
    ]  # fmt: skip
    assert short(1536, "B") == "1.54 kB" and short(12, "B") == "12 B"
    assert [binary(n) for n in (1, 512, 1024, 65536)] == ["1", "512", "1k", "64k"]
    assert [share(1, 3), share(1, 0)] == ["33.3 %", ""]
    assert aligned([("a", "10"), ("long", "9")]) == ["a     10", "long   9"]
