"""Datasets as sources: rows become files with what they know of themselves, in pieces, whatever is wrong with them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen25.data import hub, tables
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
    kind = "jsonl" if "jsonl" in path.name else "parquet"
    reader = (JsonlReader if kind == "jsonl" else ParquetReader)(Source(kind, name, "", str(path), ""), path)
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
    assert (first.license, first.version) == ("MIT AND Apache-2.0", "c" * 40)
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


def test_a_dataset_is_read_where_it_lies(tmp_path: Path) -> None:
    """The Hub's file system is another one behind the same interface; a folder has its layout here."""
    base = tmp_path / "starcoderdata"
    parquet(base / "python" / "train-00000.parquet", [STAR | {"id": str(n)} for n in range(3)])
    parquet(base / "github-issues-filtered-structured" / "train-00000.parquet", [{"id": "1", "content": "It fails."}])
    (source,) = hub.describe(f"hub:file://{base}")
    reader = hub.HubReader(source, tmp_path)
    found = [entry for part in reader.parts() for entry in reader.entries(part)]
    assert [(one.kind, one.path) for one in found if isinstance(one, File)] == [
        ("issue", "row-1"), *[("code", "src/hello.py")] * 3,
    ]  # fmt: skip


def test_a_hub_name_that_is_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match="not a dataset's name"):
        hub.describe("hub:starcoderdata")
    with pytest.raises(CodegenError, match="no Parquet files there"):
        hub.HubReader(hub.describe(f"hub:file://{tmp_path}")[0], tmp_path).parts()
