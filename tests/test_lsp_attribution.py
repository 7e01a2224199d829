"""With an index, suggestions carry their sources, and who accepts one is told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from attributed import function, tracer
from lsp_client import Client
from lsprotocol import types
from publisher_folder import write_publisher_folder

from codegen25.attribute.inline import Inline, beside
from codegen25.bench.overfitted import Overfitted
from codegen25.complete import Model
from codegen25.serve.lsp_items import SOURCES, completion_item, inline_item, told
from codegen25.serve.lsp_suggest import Cursor, Suggest, Suggestion
from codegen25.tokenizer import family

TEXT = function(("gpl-tools", 0, 0))
START = TEXT[: TEXT.index("\n") + 1]
HERE = types.Position(1, 0)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    tracer(folder)
    return folder / "index"


def overfitted() -> Model:
    T = family()
    return Model(Overfitted([[T.eot, *T.encode(TEXT), T.eot]], T.n_vocab), T)


def suggested(index: Path, policy: str | None = None) -> tuple[Cursor, Suggestion]:
    """What is suggested behind the first line of a text that the model knows by heart."""
    failures: list[object] = []

    async def ask() -> tuple[Cursor, Suggestion]:
        suggest = Suggest(
            overfitted, max_tokens=120, lines="any", on_loaded=lambda _: None, on_failed=failures.append,
            on_broken=failures.append, attribute=beside(index, policy),
        )  # fmt: skip
        cursor = Cursor("file:///a.py", START, "")
        try:
            return cursor, await suggest.at(cursor)
        finally:
            await suggest.close()

    found = asyncio.run(ask())
    assert not failures
    return found


def test_an_item_brings_its_sources_and_what_tells_them(index: Path) -> None:
    cursor, suggestion = suggested(index)
    inline = Inline(index, None, overfitted())
    assert suggestion.text == suggestion.text.rstrip() and suggestion.text in TEXT
    item = inline_item(cursor, suggestion, types.Range(HERE, HERE), "")
    assert item.command and item.command.command == SOURCES and isinstance(item.insert_text, str)
    arguments: Any = item.command.arguments
    (spans,) = arguments
    (span,) = spans
    (whole,) = inline.spans(suggestion.text)
    assert span == whole and span["end"] <= len(item.insert_text)
    (line,) = told(spans)
    assert "gpl-tools 1.0, gpl-tools/m0.py:" in line and "(GPL-3.0-only)" in line
    menu = completion_item(cursor, suggestion, HERE, "utf-16")
    assert menu.data == {"attribution": spans} and menu.command == item.command


def test_places_are_those_of_the_text_that_is_inserted(index: Path) -> None:
    cursor, suggestion = suggested(index)
    item = inline_item(cursor, suggestion, types.Range(HERE, HERE), "chosen")
    assert isinstance(item.insert_text, str) and item.command
    arguments: Any = item.command.arguments
    ((span,),) = arguments
    (bare,) = suggestion.attribution
    assert item.insert_text[span["start"] : span["end"]] == suggestion.text[bare["start"] : bare["end"]]


def test_the_policy_holds(index: Path) -> None:
    cursor, suggestion = suggested(index, "permissive")
    assert suggestion.text and suggestion.attribution == ()
    item = inline_item(cursor, suggestion, types.Range(HERE, HERE), "")
    assert item.command is None and completion_item(cursor, suggestion, HERE, "utf-8").data is None


def test_who_accepts_it_is_told(index: Path, tmp_path: Path) -> None:
    """The protocol of it, with a process of the command; its model is of random weights and repeats nothing."""
    write_publisher_folder(tmp_path / "model", bins=False)
    spans = Inline(index, None, overfitted()).spans(TEXT)
    hostile: list[Any] = [None, 3, [], [7], [{}], [{"sources": 3}], [{"sources": [[]]}], {"a": 1}]
    with Client(tmp_path / "model", tmp_path / "stderr", "--index", str(index)) as client:
        capabilities = client.begin()
        assert capabilities["executeCommandProvider"]["commands"] == [SOURCES]
        for arguments in ([spans], *([one] for one in hostile), []):
            assert client.result("workspace/executeCommand", {"command": SOURCES, "arguments": arguments}) is None
        client.open("x = ")
        assert "command" not in client.inline(0, 4)[0]
        shown = [one["params"]["message"] for one in client.told if one["method"] == "window/showMessage"]
        assert len(shown) == len(spans) == 1 and "(GPL-3.0-only)" in shown[0]
        assert client.end() == 0
