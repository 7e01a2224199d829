"""Licences of models that are fetched: shown, asked for where they are no open ones, and recorded."""

from __future__ import annotations

import json
import os
import pty
import shutil
import sys
from pathlib import Path

import pytest
from fetching import SHARDS, Serve, caches, one_line, published, serve, silent
from model_hub import ModelHub
from publisher_folder import INSTRUCT

from codegen25.cli import main
from codegen25.errors import CodegenError
from codegen25.model import terms
from codegen25.model.cached import fetched, origin, place
from codegen25.model.hub import fetch

__all__ = ["caches", "published", "serve"]  # the fixtures
INSTRUCT_ID = "Salesforce/codegen25-7b-instruct_P"


@pytest.fixture
def research(published: Path, serve: Serve, tmp_path: Path) -> ModelHub:
    shutil.copytree(published, tmp_path / "instruct")
    config = json.loads((published / "config.json").read_text())
    (tmp_path / "instruct" / "config.json").write_text(json.dumps(config | INSTRUCT))
    return serve(tmp_path / "instruct", INSTRUCT_ID, "cc-by-nc-4.0")


def test_a_research_licence_is_shown_and_must_be_accepted(
    research: ModelHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", INSTRUCT_ID]) == 1
    said = capsys.readouterr().err
    assert "For research only." in said and "research use only" in said and "Citation" not in said
    assert said.splitlines()[-1].endswith(f"run `codegen25 fetch {INSTRUCT_ID} --accept-license`")
    assert research.gets(SHARDS[0]) == [] and not terms._path().exists()
    assert main(["fetch", INSTRUCT_ID, "--accept-license", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["folder"] == str(place(INSTRUCT_ID, 8)) and "For research only." in told.err
    recorded = json.loads(terms._path().read_text())[INSTRUCT_ID]
    assert recorded["license"] == "cc-by-nc-4.0" and recorded["accepted"][:2] == "20"
    assert recorded["sha256"] == origin(place(INSTRUCT_ID, 8))["license_text_sha256"]
    config = json.loads((place(INSTRUCT_ID, 8) / "config.json").read_text())
    assert [config[f"{role}_token_id"] for role in ("bos", "eos", "pad")] == [50256] * 3
    # Once: another form of it is fetched without a word about it.
    assert main(["fetch", INSTRUCT_ID, "--bits", "4"]) == 0
    assert "research use" not in capsys.readouterr().err


def test_another_text_is_shown_again(research: ModelHub) -> None:
    fetch(INSTRUCT_ID, 4, accept=True, notice=silent)
    (research.folder / "LICENSE.txt").write_text("Not for you.")
    del research.hashes
    research.commit = "e" * 40
    said: list[str] = []
    one_line(lambda: fetch(INSTRUCT_ID, 4, notice=said.append), "--accept-license")
    assert "  Not for you." in said and fetched(INSTRUCT_ID) == place(INSTRUCT_ID, 4), "what is accepted still runs"


@pytest.mark.parametrize(
    "answer, accepted", [("y\n", True), ("Yes\n", True), ("\n", False), ("n\n", False), ("", False)]
)
def test_at_a_terminal_it_is_asked(
    answer: str, accepted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, answer.encode() or b"\x04")
    with os.fdopen(theirs) as stdin, os.fdopen(os.dup(theirs), "w") as stderr:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stderr", stderr)
        try:
            terms.agree("a/b", "other", "Terms.", False, silent)
        except CodegenError:
            assert not accepted
        else:
            assert accepted and "sha256" in json.loads(terms._path().read_text())["a/b"]
    os.close(ours)


@pytest.mark.parametrize("license, is_open", [("apache-2.0", True), ("mit", True), ("", False), ("other", False)])
def test_open_licences_ask_nothing(license: str, is_open: bool) -> None:
    assert terms.is_open("owner/model", license) == is_open
    assert not terms.is_open("Salesforce/codegen25-7b-instruct_P", license), "known to be for research only"
