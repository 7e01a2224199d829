"""The infilling benchmark: where it cuts holes, and that drafts change speed alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import tiny

from codegen25.bench import infill, weights
from codegen25.cli import main
from codegen25.config import ModelConfig
from codegen25.errors import CodegenError


def silent(line: str) -> None:
    pass


def test_holes(tmp_path: Path) -> None:
    lines = [f"    value_{n} = {n}\n" if n % 5 else "\n" for n in range(600)]
    files = [tmp_path / f"{name}.py" for name in "abc"]
    for number, file in enumerate(files):
        file.write_text("".join(lines[number:]))
    for kind in infill.KINDS:
        found = list(infill.holes(files, kind, seed=3))
        assert len(found) == 3
        for hole, file in zip(found, files, strict=True):
            text = file.read_text()
            assert text.startswith(hole.prefix) and text.endswith(hole.suffix) and hole.suffix.startswith("\n")
            cut = text[len(hole.prefix) : len(text) - len(hole.suffix)]
            assert cut.strip() and hole.prefix.endswith("    ")
            assert cut.count("\n") == 0 if kind == "single-line" else cut.count("\n") >= infill.LINES[0] - 1
            assert set(hole.neighbours) == {other.read_text() for other in files if other != file}
        assert found == list(infill.holes(files, kind, seed=3))
        assert found != list(infill.holes(files, kind, seed=4))


def test_files_that_are_too_small_for_a_hole(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    assert list(infill.holes([tmp_path / "a.py"], "multi-line", seed=0)) == []


@pytest.mark.parametrize("kind", infill.KINDS)
def test_drafts_change_no_text(kind: str, tmp_path: Path) -> None:
    """A random model repeats itself soon, so drafts are accepted."""
    pytest.importorskip("codegen25._native")
    from codegen25.complete import load

    shape = ModelConfig(tiny.tokenizer().n_vocab, 64, 96, 2, 4, 2, 16, 2048)
    path = tmp_path / "x.gguf"
    weights.write(path, "tiny", shape, tiny.tokenizer(), weights.random_tensors(shape, 8))
    pair = infill.Pair(load(str(path), threads=1, notice=silent))
    hole = infill.Hole("x", "def f(a):\n    return a\n" * 9, "\n\nprint(f(1))\n", ("def g():\n    pass\n",))
    drafted, plain = pair.answers(hole, kind, drafts_first=True)
    assert drafted.text == plain.text and drafted.tokens == plain.tokens > 0
    assert plain.counts.drafted == 0 and min(drafted.seconds, plain.seconds) > 0


@pytest.mark.slow
def test_infill_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("codegen25._native")
    (tmp_path / "files").mkdir()
    for name in ("shelve", "sched"):
        source = Path(os.__file__).with_name(f"{name}.py").read_text()
        (tmp_path / "files" / f"{name}.py").write_text(source)
    command = ["bench", "infill", "--files", str(tmp_path / "files"), "--rounds", "1", "--json"]
    assert main([*command, "--cache", str(tmp_path / "cache")]) == 0
    single, several = json.loads(capsys.readouterr().out)["figures"]
    for figure in (single, several):
        assert figure["bar"] == ">= 2" and figure["ratio"] > 0
        assert 0 <= figure["accepted"] <= figure["drafted"] and figure["answers"] == 2


def test_a_folder_without_python(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CodegenError, match="no Python file"):
        infill.files_of(tmp_path / "empty", 0)
