"""`codegen25 data …` as a person types it: results, one line for what is wrong, and nothing lost when interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_sources import program, project

from codegen25.cli import main
from codegen25.data.document import read_documents


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project(tmp_path_factory.mktemp("projects") / "plain", {f"plain/m{n}.py": program(n) for n in range(6)})


@pytest.fixture(scope="module")
def corpus(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "corpus"
    assert main(["data", "build", str(folder), "--out", str(out), "--workers", "1"]) == 0
    return out


def said(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["data", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_stats_show_verify_and_export(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "stats", corpus, "--plot", tmp_path / "plot.svg")
    assert code == 0
    assert "MIT" in out and "python" in out
    assert (tmp_path / "plot.svg").read_text().startswith("<?xml")
    code, out, _ = said(capsys, "stats", corpus, "--json")
    assert code == 0
    assert json.loads(out)["totals"]["documents"] == 6
    assert said(capsys, "verify", corpus)[0] == 0
    assert said(capsys, "export", corpus, "--out", tmp_path / "train.jsonl")[0] == 0
    documents = list(read_documents(tmp_path / "train.jsonl"))
    assert len(documents) == 6
    code, out, _ = said(capsys, "show", corpus, documents[0].id[:10])
    assert code == 0
    assert documents[0].path in out and "LICENSE" in out
    assert said(capsys, "show", corpus, f"plain:{documents[1].path}")[0] == 0


def test_a_lock_rebuilds_the_same_bytes(
    folder: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "lock", folder, "--out", tmp_path / "lock.json")[0] == 0
    code, out, _ = said(capsys, "build", "--lock", tmp_path / "lock.json", "--out", tmp_path / "again", "--json")
    assert code == 0
    assert json.loads(out)["totals"]["documents"] == 6
    for name in ("train-00000.tokens", "train-00000.parquet", "dropped.parquet"):
        assert (tmp_path / "again" / name).read_bytes() == (corpus / name).read_bytes()


def test_a_source_that_changed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = project(tmp_path / "p", {"a.py": program(1)})
    assert said(capsys, "lock", folder, "--out", tmp_path / "lock.json")[0] == 0
    (folder / "a.py").write_text(program(2))
    code, _, err = said(capsys, "build", "--lock", tmp_path / "lock.json", "--out", tmp_path / "c")
    assert code == 1
    assert "lock it again" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["build", "--out", "{t}/c"], 2, "nothing to build from"),
        (["build", "{t}/none", "--out", "{t}/c"], 1, "none: no such"),
        (["build", "{f}", "--out", "{t}/c", "--languages", "pythn"], 2, "--languages pythn: not known"),
        (["build", "{f}", "--out", "{t}/c", "--license", "free for all"], 2, "not an SPDX expression"),
        (["build", "{f}", "--out", "{t}/c", "--policy", "{t}/none.toml"], 1, "none.toml"),
        (["build", "{f}", "--out", "{t}/c", "--opt-out", "{t}/none"], 1, "none: cannot be read"),
        (["build", "{f}", "--out", "{t}/c", "--benchmark", "{t}/none"], 1, "none"),
        (["build", "{f}", "--out", "{t}/c", "--heldout-source", "other"], 2, "--heldout-source other"),
        (["build", "--lock", "{t}/none", "--out", "{t}/c"], 1, "none: cannot be read"),
        (["stats", "{t}"], 1, "not a finished corpus"),
        (["show", "{c}", "zzzz"], 1, "no document"),
        (["build", "hub:nothing", "--out", "{t}/c"], 1, "not a dataset's name"),
        (["build", "{f}", "--out", "{t}/c", "--tokenizer", "{t}/none"], 1, "none"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], code: int, line: str, folder: Path, corpus: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given = [word.format(t=tmp_path, f=folder, c=corpus) for word in words]
    found, _, err = said(capsys, *given)
    assert (found, err.count("\n")) == (code, 1), err
    assert line in err
    assert not (tmp_path / "c" / "corpus.json").exists()


def test_ctrl_c_leaves_things_whole(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", {f"m{n}.py": program(n, functions=40) for n in range(300)})
    command = [sys.executable, "-m", "codegen25", "data", "build", str(folder), "--out", str(tmp_path / "c")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while process.poll() is None and not any((tmp_path / "c").glob("work/*/*")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == f"codegen25: interrupted; the same command goes on with {tmp_path / 'c'}\n"
    assert not (tmp_path / "c" / "corpus.json").exists()
    assert subprocess.run(command, capture_output=True, check=False, timeout=200).returncode == 0


def test_two_builds_do_not_meet_in_one_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import fcntl

    (tmp_path / "c").mkdir()
    with (tmp_path / "c" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, _, err = said(capsys, "build", folder, "--out", tmp_path / "c")
    assert code == 1
    assert "another build is at work here" in err
