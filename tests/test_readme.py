"""The README is run: its targets exist, its commands and its Python work, its scores are those of docs/results.md."""

from __future__ import annotations

import re
import shlex
import shutil
from functools import cache
from pathlib import Path

import pytest

from codegen25 import complete
from codegen25.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[list[str]]:
    """The command lines of the README's shell blocks that call `program`, without its name."""
    lines = [shlex.split(line, comments=True) for block in blocks("sh") for line in block.splitlines()]
    assert all(words[0] in ("make", "codegen25") for words in lines if words), "a command that no test runs"
    return [words[1:] for words in lines if words and words[0] == program]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):(?!=)", MAKEFILE, re.MULTILINE))


def scores(text: str) -> str:
    found = re.search(r"<!-- scores.*?-->\n(.*?)<!-- /scores -->", text, re.DOTALL)
    assert found, "the place of the scores is marked by comments"
    return found[1]


def test_the_two_commands_lead_and_exist() -> None:
    assert commands("make") == [["try"], ["test"]]
    assert {"try", "test"} <= targets()
    assert README.index("make try") < README.index("\n## ")


def test_every_target_that_people_are_told_of_exists() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "docs/architecture.md"):
        told = set(re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE))
        assert told <= targets(), name


def test_ci_runs_the_readme_test_command() -> None:
    assert re.search(r"^make test\b", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)


def test_files_that_the_readme_names_are_there() -> None:
    named = set(re.findall(r"(?<![:\w])((?:docs/|examples/)?[\w-]+\.(?:md|py))\b", README))
    assert {name for name in named if not (ROOT / name).is_file()} == set()


def test_the_scores_are_those_of_the_results() -> None:
    assert scores(README) == scores((ROOT / "docs" / "results.md").read_text(encoding="utf-8"))


load_once = cache(complete.load)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the examples, to run in."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(complete, "load", load_once)
    return tmp_path


def test_the_commands_run(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands("codegen25"):
        assert main(words) == 0, (words, capsys.readouterr().err)
    assert capsys.readouterr().out
    assert (clone / "examples" / "inventory.py").read_text() != (ROOT / "examples" / "inventory.py").read_text()
    assert (clone / "nano-hf" / "config.json").is_file()


def test_the_python_runs(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = blocks("python")
    assert found
    for block in found:
        exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_what_make_try_shows_runs(clone: Path) -> None:
    shown = [shlex.split(line) for line in re.findall(r"^\t@\$\(CODEGEN25\) (.*)$", MAKEFILE, re.MULTILINE)]
    assert [words[0] for words in shown] == ["complete", "infill"]
    assert [main([*words, "--max-tokens", "1"]) for words in shown] == [0, 0]
