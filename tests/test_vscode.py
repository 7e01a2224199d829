"""The VS Code extension's manifest agrees with the server; its own tests are `make vscode`."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest

from codegen25.serve.ask import MOST_ANCHOR, Ask, Lines
from codegen25.serve_cli import serve

EXTENSION = Path(__file__).parent.parent / "editors" / "vscode"

pytestmark = pytest.mark.skipif(not EXTENSION.exists(), reason="no editors/ beside these tests")


def manifest() -> dict[str, Any]:
    return json.loads((EXTENSION / "package.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def test_the_settings_are_the_servers() -> None:
    settings = manifest()["contributes"]["configuration"]["properties"]
    assert set(settings["codegen25.lines"]["enum"]) == set(get_args(Lines))
    defaults = {option.name: option.default for option in serve.params}
    assert settings["codegen25.url"]["default"] == f"http://{defaults['host']}:{defaults['port']}"
    assert settings["codegen25.maxTokens"]["maximum"] <= defaults["max_tokens"]
    anchor = settings["codegen25.anchorLines"]
    assert (anchor["default"], anchor["maximum"]) == (Ask().anchor, MOST_ANCHOR)


def test_the_source_reads_the_settings_there_are_and_runs_the_commands_there_are() -> None:
    contributed = manifest()["contributes"]
    source = "".join(file.read_text(encoding="utf-8") for file in (EXTENSION / "src").glob("*.ts"))
    read = set(re.findall(r'setting<\w+>\("(\w+)"\)', source))
    assert {f"codegen25.{name}" for name in read} == set(contributed["configuration"]["properties"])
    registered = set(re.findall(r'registerCommand\("([\w.]+)"', source))
    assert registered == {command["command"] for command in contributed["commands"]}


def test_a_workspace_cannot_say_where_code_goes_or_what_is_run() -> None:
    settings = manifest()["contributes"]["configuration"]["properties"]
    assert {name for name, one in settings.items() if one.get("scope") == "machine"} == {
        "codegen25.url", "codegen25.command"
    }  # fmt: skip


def test_the_lock_names_no_registry() -> None:
    lock = json.loads((EXTENSION / "package-lock.json").read_text(encoding="utf-8"))
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]


@pytest.mark.slow
@pytest.mark.skipif(not (EXTENSION / "node_modules").exists(), reason="run `make vscode` first")
def test_its_own_tests_pass() -> None:
    done = subprocess.run(["npm", "test"], cwd=EXTENSION, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
