"""Datasets as sources: rows become files with what they know of themselves, in pieces, whatever is wrong with them."""

from __future__ import annotations

import datetime
import gzip
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen25.data import rows, tables
from codegen25.data.document import Document, Evidence, content_id, write_documents
from codegen25.data.source import MAX_BYTES, File, Refused, Source
from codegen25.data.tables import JsonlReader, ParquetReader
from codegen25.errors import CodegenError

STAR = {
    "id": "7", "content": "print('hello')\n", "max_stars_repo_path": "src/hello.py",
    "max_stars_repo_name": "owner/project", "max_stars_count": 12.0,
}  # fmt: skip


def parquet(path: Path, rows: list[dict[str, Any]], group: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    return path


def read(path: Path, name: str = "python/train.parquet") -> list[Any]:
    reader: JsonlReader | ParquetReader
    if "jsonl" in path.name:
        reader = JsonlReader(Source("jsonl", name, "", str(path), ""), path)
    else:
        reader = ParquetReader(Source("parquet", name, "", str(path), ""), path)
    return [entry for part in reader.parts() for entry in reader.entries(part)]


def test_starcoderdata_code(tmp_path: Path) -> None:
    path = parquet(tmp_path / "t.parquet", [STAR, STAR | {"id": "8", "max_stars_count": None}])
    first, second = read(path)
    assert first == File("src/hello.py", b"print('hello')\n", "code", "owner/project", "", "", 12)
    assert second.stars is None
    said = ParquetReader(Source("parquet", "python/t.parquet", "", "", ""), path).metadata()
    assert (said.kind, said.text) == ("dataset", tables.STATEMENT)


def test_its_own_prefix_is_taken_off_and_used(tmp_path: Path) -> None:
    content = "<reponame>owner/other<filename>a/b.py<gh_stars>10-100\nx = 1\n"
    (found,) = read(parquet(tmp_path / "t.parquet", [{"id": "1", "content": content}]))
    assert (found.source, found.path, found.data) == ("owner/other", "a/b.py", b"x = 1\n")


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("github-issues-filtered-structured/train.parquet", "<issue_start><issue_comment>It fails.", "issue"),
        ("git-commits-cleaned/train.parquet", "<commit_before>a<commit_msg>b<commit_after>c", "commit"),
        ("jupyter-structured-text-cleaned/train.parquet", "<jupyter_start><jupyter_text>A plot", "jupyter"),
        ("elsewhere/train.parquet", "<jupyter_start><jupyter_text>A plot", "jupyter"),
        ("python/train.parquet", "print(1)", "code"),
    ],
)
def test_issues_commits_and_notebooks_are_told_by_place_or_text(
    name: str, content: str, kind: str, tmp_path: Path
) -> None:
    (found,) = read(parquet(tmp_path / "t.parquet", [{"id": "1", "content": content}]), name)
    assert (found.kind, found.data) == (kind, content.encode())


def test_the_stack_and_codeparrot(tmp_path: Path) -> None:
    stack = STAR | {"max_stars_repo_licenses": ["MIT", "Apache-2.0"], "max_stars_repo_head_hexsha": "c" * 40}
    parrot = {"repo_name": "o/p", "path": "a.py", "content": "y = 2\n", "license": "mit", "copies": "3"}
    (first,) = read(parquet(tmp_path / "s.parquet", [stack]))
    (second,) = read(parquet(tmp_path / "p.parquet", [parrot]))
    assert (first.license, first.version) == ("MIT, Apache-2.0", "c" * 40)
    assert (second.license, second.source, second.path) == ("mit", "o/p", "a.py")


def test_a_row_without_a_path_gets_one_of_its_language(tmp_path: Path) -> None:
    (found,) = read(parquet(tmp_path / "t.parquet", [{"id": "1", "content": "x = 1\n"}]))
    assert found.path == "row-1.py"


def test_pieces_are_read_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [STAR | {"id": str(n), "content": f"x = {n}\n" * 50} for n in range(90)]
    path = parquet(tmp_path / "t.parquet", rows, group=10)
    whole = read(path)
    monkeypatch.setattr(tables, "PART_BYTES", 3000)
    reader = ParquetReader(Source("parquet", "t", "", "", ""), path)
    assert len(reader.parts()) > 2
    assert [e for part in reversed(reader.parts()) for e in reader.entries(part)] != whole
    assert [e for part in reader.parts() for e in reader.entries(part)] == whole


def test_other_columns_are_named(tmp_path: Path) -> None:
    path = parquet(tmp_path / "t.parquet", [{"colour": "red", "size": 3}])
    with pytest.raises(CodegenError, match="has the columns colour, size; one of content, code, text"):
        read(path)


def test_a_truncated_or_foreign_file_is_one_line(tmp_path: Path) -> None:
    path = parquet(tmp_path / "t.parquet", [STAR] * 50)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CodegenError, match=r"not a whole Parquet file[^\n]*$"):
        read(path)
    with pytest.raises(CodegenError, match="cannot be read"):
        read(tmp_path / "none.parquet")


def test_a_damaged_middle_is_counted(tmp_path: Path) -> None:
    path = parquet(tmp_path / "t.parquet", [STAR | {"content": f"value = {n}\n" * 9} for n in range(500)], group=50)
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 400] = b"\xff" * 400
    path.write_bytes(data)
    found = read(path)
    assert isinstance(found[-1], Refused) or any(isinstance(one, Refused) for one in found)


def test_rows_without_text_are_counted(tmp_path: Path) -> None:
    (found,) = read(parquet(tmp_path / "t.parquet", [STAR | {"content": None}]))
    assert (found.reason, found.path) == ("row without text", "src/hello.py")


def test_a_long_text_is_cut_where_it_is_too_long(tmp_path: Path) -> None:
    (found,) = read(parquet(tmp_path / "t.parquet", [STAR | {"content": "x" * (MAX_BYTES + 500)}]))
    assert len(found.data) == MAX_BYTES + 1


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
def test_jsonl(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"t{ending}"
    lines = [json.dumps(STAR), "", "{", "3", json.dumps({"content": 3}), json.dumps(STAR | {"id": "9"})]
    data = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(data) if ending.endswith("gz") else data)
    found = read(path)
    assert [one.reason if isinstance(one, Refused) else one.path for one in found] == [
        "src/hello.py", "not JSON", "not JSON", "row without text", "src/hello.py",
    ]  # fmt: skip


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=40), max_size=20), st.integers(1, 200))
def test_any_cut_of_a_file_gives_every_line_once(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], size: int
) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "t.jsonl"
    path.write_text("".join(json.dumps({"content": text}) + "\n" for text in texts))
    before = tables.PART_BYTES
    try:
        tables.PART_BYTES = size
        assert [one.data.decode() for one in read(path)] == texts
    finally:
        tables.PART_BYTES = before


def test_a_line_of_any_length_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"content": "' + b"x" * (tables.MAX_LINE + 10) + b'"}\n' + json.dumps(STAR).encode() + b"\n")
    first, second = read(path)
    assert (first.reason, second.path) == ("line too long", "src/hello.py")


def test_a_truncated_gzip_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.gz"
    data = gzip.compress(b"".join(json.dumps(STAR | {"id": str(n)}).encode() + b"\n" for n in range(2000)))
    path.write_bytes(data[: len(data) // 2])
    assert read(path)[-1].reason == "truncated archive"


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
COLUMNS = st.sampled_from([*rows.WANTED, "meta", "colour"])


@given(st.dictionaries(COLUMNS, ANY), st.none() | st.text(max_size=9))
def test_a_row_of_any_values_is_a_file_or_refused(
    tmp_path_factory: pytest.TempPathFactory, row: dict[str, Any], text: str | None
) -> None:
    """Whatever comes out can be written as UTF-8 and as the columns of a table."""
    path = tmp_path_factory.mktemp("any") / "t.jsonl"
    path.write_text(json.dumps(row if text is None else row | {"content": text}) + "\n")
    (one,) = read(path)
    for name, value in vars(one).items():
        if name == "stars":
            assert value is None or 0 <= value < 2**31
        elif name != "data":
            assert isinstance(value, str) and value.encode() is not None


def test_half_a_surrogate_pair_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"content": "x = \\ud800"}\n{"content": "x = 1", "path": "\\ud800.py", "repo": "\\udfff"}\n')
    first, second = read(path)
    assert first.reason == "not UTF-8"
    assert (second.path, second.source) == ("?.py", "?")


@pytest.mark.parametrize(
    "said, known",
    [(12, 12), (12.0, 12), ("7", 7), (0, 0), ("10-100", None), (-1, None), (float("nan"), None), (float("inf"), None),
     (1e300, None), (10**30, None), ([], None), (None, None)],
)  # fmt: skip
def test_numbers_of_stars(said: Any, known: int | None) -> None:
    one = rows.Rows("t").entry({"content": "x", "stars": said}, 1)
    assert isinstance(one, File) and one.stars == known


def test_a_prefix_says_what_the_columns_do_not(tmp_path: Path) -> None:
    content = "<reponame>owner/other<gh_stars>7\n<filename>is text here\n"
    (found,) = read(parquet(tmp_path / "t.parquet", [STAR | {"content": content, "max_stars_count": None}]))
    assert (found.source, found.stars, found.data) == ("owner/project", 7, b"<filename>is text here\n")


def test_dates_are_written_as_iso(tmp_path: Path) -> None:
    days = [datetime.datetime(2020, 1, 2, 3, 4), datetime.date(2021, 1, 2)]
    for day, said in zip(days, ("2020-01-02T03:04:00", "2021-01-02"), strict=True):
        (found,) = read(parquet(tmp_path / "t.parquet", [{"content": "x", "date": day}]))
        assert found.date == said


def test_our_own_documents_come_back(tmp_path: Path) -> None:
    text = "x = 1\n"
    evidence = Evidence("file", "LICENSE", "MIT", 1.0)
    one = Document(content_id(text), text, "o/p", "1.0", "a.py", "MIT", evidence, "python", "code", "2020-01-01", 3)
    issue = replace(one, kind="issue", content="It fails.", path="1")
    write_documents(tmp_path / "t.jsonl", [one, issue])
    assert read(tmp_path / "t.jsonl", "t.jsonl") == [
        File("a.py", b"x = 1\n", "code", "o/p", "1.0", "2020-01-01", 3, "MIT"),
        File("1", b"It fails.", "issue", "o/p", "1.0", "2020-01-01", 3, "MIT"),
    ]


@pytest.mark.parametrize(
    "place, columns, stated",
    [
        ("python/train.parquet", tables.CODE_COLUMNS, True),
        ("git-commits-cleaned/train.parquet", tables.OTHER_COLUMNS, True),
        ("jupyter-scripts-dedup-filtered/train.parquet", tables.CODE_COLUMNS, True),
        ("my-issues/train.parquet", tables.OTHER_COLUMNS, False),
        ("python/train.parquet", tables.OTHER_COLUMNS, False),
        ("python/train.parquet", tables.CODE_COLUMNS | {"license"}, False),
        ("python/train.parquet", tables.CODE_COLUMNS - {"id"}, False),
    ],
)
def test_only_starcoderdata_has_its_statement(place: str, columns: set[str], stated: bool) -> None:
    assert tables.statement(columns, place).kind == ("dataset" if stated else "")


def test_code_in_a_folder_named_like_issues_is_code(tmp_path: Path) -> None:
    (found,) = read(parquet(tmp_path / "t.parquet", [STAR]), "my-issues/commits.parquet")
    assert found.kind == "code"


def test_bytes_that_are_no_text_cost_one_row(tmp_path: Path) -> None:
    texts = pa.array([b"x = 1\n", b"\xff\xfe", b"x = 2\n"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"content": texts}), tmp_path / "t.parquet")
    found = read(tmp_path / "t.parquet")
    assert [one.reason if isinstance(one, Refused) else one.data for one in found] == [
        b"x = 1\n",
        "not UTF-8",
        b"x = 2\n",
    ]


@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_table_is_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("flips") / "t.parquet"
    parquet(path, [STAR | {"id": str(n), "content": f"value = {n}\n" * 3} for n in range(40)], group=20)
    data = bytearray(path.read_bytes())
    for at, value in flips:
        data[8 + at % (len(data) - 2000)] = value  # pages: what the footer says is pyarrow's to doubt
    path.write_bytes(data)
    with suppress(CodegenError):
        assert all(isinstance(one, File | Refused) for one in read(path))


def test_a_line_that_spans_parts_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_LINE", 100)
    monkeypatch.setattr(tables, "PART_BYTES", 64)
    looked: list[int] = []
    skip = tables._skip

    def noted(file: IO[bytes], most: int) -> int:
        looked.append(most)
        return skip(file, most)

    monkeypatch.setattr(tables, "_skip", noted)
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"content": "a"}\n' + b"x" * 6400 + b'\n{"content": "b"}\n')
    found = read(path)
    assert [one.reason if isinstance(one, Refused) else one.data for one in found] == [b"a", "line too long", b"b"]
    assert sum(looked) < 2 * path.stat().st_size


@pytest.mark.parametrize("line", [b"\n", b"x", b'{"content": "a"}\n'])
def test_a_gzip_that_unpacks_without_end_is_left(line: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "most_bytes", lambda size: 100_000)
    monkeypatch.setattr(tables, "MAX_LINE", 1000)
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress(line * 200_000))
    found = read(path)
    assert found[-1].reason == "archive bomb"
    assert len(found) < 100_000 // len(line) + 10
