"""Documents go to a file and come back as they were; what is no document is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from codegen25.data.document import Document, Evidence, Redaction, content_id, read_documents, write_documents
from codegen25.errors import CodegenError

FILE = Evidence("file", "LICENSE", "MIT License", 0.99)


def test_documents_come_back(tmp_path: Path) -> None:
    text = "x = '\u2028 \\ \"é'\n"
    document = Document(
        content_id(text), text, "p", "1", "p/x.py", "MIT", FILE, "python", redactions=(Redaction("email", 1),)
    )
    write_documents(tmp_path / "d.jsonl", [document, document])
    assert list(read_documents(tmp_path / "d.jsonl")) == [document, document]
    assert [path.name for path in tmp_path.iterdir()] == ["d.jsonl"]


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "a"}', "3"])
def test_a_line_that_is_no_document(tmp_path: Path, line: str) -> None:
    (tmp_path / "d.jsonl").write_text(line + "\n")
    with pytest.raises(CodegenError, match=r"d\.jsonl:1"):
        list(read_documents(tmp_path / "d.jsonl"))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text("old")

    def broken() -> Iterator[Document]:
        yield Document("a", "b", "c", "d", "e", "f", FILE, "python")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_documents(tmp_path / "d.jsonl", broken())
    assert [path.name for path in tmp_path.iterdir()] == ["d.jsonl"]
    assert (tmp_path / "d.jsonl").read_text() == "old"
