"""`codegen25 attribute …`: what it says, on one line where something is wrong, and the documents it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from attributed import COMMON, HERE, documents, function, tracer
from small_corpus import document
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from codegen25.cli import main


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    tracer(folder)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Code of which some was taken."""
    folder = tmp_path / "project"
    (folder / "pkg").mkdir(parents=True)
    (folder / "pkg" / "taken.py").write_text("\ufeffimport os\n\n\n" + function(("gpl-tools", 0, 1)) + "\nprint('é')\n")
    (folder / "pkg" / "unknown.py").write_text(function(("nobody", 1, 0)) + COMMON)
    (folder / "own.py").write_text(function("own"))
    (folder / "empty.py").write_text("")
    (folder / "image.bin").write_bytes(b"\0\1\2")
    (folder / ".hidden.py").write_text(function(("alpha", 0, 0)))
    return folder


def told(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    code = main([str(one) for one in argv])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def refused(capsys: pytest.CaptureFixture[str], code: int, *argv: object) -> str:
    assert main([str(one) for one in argv]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


def test_a_table_for_a_person(corpus: Path, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = told(capsys, "attribute", "trace", project / "pkg" / "taken.py", "--index", corpus / "index")
    assert "taken.py:4-" in said
    assert "GPL-3.0-only (file LICENSE)  gpl-tools 1.0  gpl-tools/m0.py:" in said
    assert "Copyright (c) 2020 The gpl-tools authors" in said
    assert said.splitlines()[-1].startswith("taken.py: 1 matches, ")
    said = told(capsys, "attribute", "trace", project / "pkg" / "unknown.py", "--index", corpus / "index")
    assert "    unknown  nobody 1.0" in said
    assert "1 common (--common shows them)" in said


def test_json_has_everything(corpus: Path, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = project / "pkg" / "taken.py"
    found = json.loads(told(capsys, "attribute", "trace", path, "--index", corpus / "index", "--json"))
    (file,) = found["files"]
    (match,) = file["attribution"]
    text = path.read_text(encoding="utf-8-sig")
    assert text[match["start"] : match["end"]] in text
    assert text[match["start"] :].startswith("def ")
    assert match["count"] == 1
    assert match["sources"] == ["gpl-tools"]
    (origin,) = match["origins"]
    assert origin["evidence_kind"] == "file"
    content = next(d.content for d in documents() if d.path == origin["path"])
    lines = content.split("\n")[origin["first_line"] - 1 : origin["last_line"]]
    assert "\n".join(lines).startswith(text[match["start"] : match["end"]].split("\n")[0])


def test_notice_and_spdx_for_a_folder(
    corpus: Path, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    out = tmp_path / "legal"
    told(capsys, "attribute", "trace", project, "--index", corpus / "index", "--notice", out)
    notice = (out / "NOTICE").read_text()
    assert "gpl-tools 1.0\n  Licence: GPL-3.0-only (by file LICENSE, 90% sure)\n" in notice
    assert "nobody 1.0\n  Licence: unknown, no evidence was found; do not take it for permissive\n" in notice
    assert "  pkg/taken.py, lines 4 to " in notice
    assert "  own.py" not in notice
    document = parse_file(str(out / "NOTICE.spdx.json"))
    assert [message.validation_message for message in validate_full_spdx_document(document)] == []
    packages = {package.name: package for package in document.packages}
    assert str(packages["gpl-tools"].license_concluded) == "GPL-3.0-only"
    assert str(packages["nobody"].license_concluded) == "NOASSERTION"
    data = (project / "pkg" / "taken.py").read_bytes()
    snippet = next(one for one in document.snippets if "gpl-tools" in (one.comment or ""))
    first, last = snippet.byte_range
    assert data[first - 1 : last].decode().startswith("def ")
    again = (out / "NOTICE.spdx.json").read_bytes()
    told(capsys, "attribute", "trace", project, "--index", corpus / "index", "--notice", out)
    assert (out / "NOTICE.spdx.json").read_bytes() == again


def test_overlap_of_a_folder(corpus: Path, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(told(capsys, "attribute", "overlap", project, "--index", corpus / "index", "--json"))
    overlap = {file["file"]: file["overlap"] for file in found["files"]}
    assert overlap.keys() == {"own.py", "pkg/taken.py", "pkg/unknown.py"}
    assert overlap["own.py"] == 0 < overlap["pkg/taken.py"]
    assert {one["path"] for one in found["documents"]} == {"gpl-tools/m0.py", "nobody/m1.py"}
    said = told(capsys, "attribute", "overlap", project, "--index", corpus / "index")
    assert said.splitlines()[-1].startswith("3 files, ")


def test_an_opt_out_leads_to_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine, others = function("mine"), function("others")
    made = [
        document(mine, source="owner/mine", path="a.py"),
        document("import os\n\n" + mine, source="copycat", path="b.py"),
        document(others, source="others", path="c.py"),
    ]
    tracer(tmp_path, made)
    names = tmp_path / "opt-out.txt"
    names.write_text("# asked for on Monday\nowner\n")
    found = json.loads(told(capsys, "attribute", "removals", names, "--index", tmp_path / "index", "--json"))
    assert [one["path"] for one in found["documents"]] == ["a.py"]
    said = told(capsys, "attribute", "removals", names, "--index", tmp_path / "index", "--copies")
    assert "b.py  lines 3 to " in said
    assert "c.py" not in said
    names.write_text("nobody-we-know\n")
    assert "has no source of that list" in refused(
        capsys, 1, "attribute", "removals", names, "--index", tmp_path / "index"
    )


def test_what_is_wrong_is_one_line(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = corpus / "index"
    empty = tmp_path / "empty.py"
    empty.write_text("")
    assert "the text is empty" in refused(capsys, 2, "attribute", "trace", empty, "--index", index)
    assert "not an index" in refused(capsys, 1, "attribute", "trace", empty, "--index", tmp_path)
    assert "not UTF-8" in refused(capsys, 1, "attribute", "trace", _written(tmp_path, b"\xff"), "--index", index)
    large = _written(tmp_path, b"x = 1\n" * 800_000)
    assert "trace its files one by one" in refused(capsys, 1, "attribute", "trace", large, "--index", index)
    assert "no such folder" in refused(capsys, 2, "attribute", "overlap", empty, "--index", index)
    (tmp_path / "none").mkdir()
    assert "holds no text files" in refused(capsys, 1, "attribute", "overlap", tmp_path / "none", "--index", index)
    assert "not a finished corpus" in refused(capsys, 1, "attribute", "index", tmp_path / "none")
    assert "another vocabulary" not in refused(
        capsys, 1, "attribute", "trace", _written(tmp_path, b"x = 1"), "--index", index, "--tokenizer", "nano"
    )
    assert "name it with --attribute" in refused(capsys, 2, "complete", "x", "--policy", "permissive")


def _written(folder: Path, data: bytes) -> Path:
    (folder / "text.py").write_bytes(data)
    return folder / "text.py"


def test_index_says_what_it_made(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codegen25.data.engine.Engine", lambda *_: HERE)
    out = tmp_path / "index"
    made = json.loads(told(capsys, "attribute", "index", corpus / "corpus", "--out", out, "--json"))
    assert made["made"] == made["shards"] == 2
    assert "; 0 files made" in told(capsys, "attribute", "index", corpus / "corpus", "--out", out)


def test_a_completion_says_where_it_stands(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(told(capsys, "complete", "x = ", "--max-tokens", "3", "--attribute", corpus / "index", "--json"))
    assert found["completions"][0]["attribution"] == []
    assert found["completions"][0]["refused"] == 0
