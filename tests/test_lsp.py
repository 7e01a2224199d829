"""`codegen25 lsp` as a process, with a small model of random weights: what it suggests is the model's own."""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lsp_client import URI, Client, at, inline_params
from publisher_folder import write_publisher_folder

from codegen25.complete import Model, load
from codegen25.serve.tidy import Tidy

CODE = "def total(values):\n    found = 0\n    \n    return found\n\n\nprint(total([1, 2]))\n"
TOKENS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("lsp") / "model"
    write_publisher_folder(made, bins=False)
    return made


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(str(folder), threads=1)


@pytest.fixture(scope="module")
def shared(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server that has begun, for tests that leave it as it was."""
    log = tmp_path_factory.mktemp("log") / "stderr"
    with Client(folder, log, "--max-tokens", str(TOKENS), "--lines", "any") as one:
        one.begin()
        yield one


_names = itertools.count()


def fresh(client: Client, text: str, *others: str) -> str:
    """The URI of a new document with the text; all but it are closed."""
    for old in range(next(_names) + 1):
        client.notify("textDocument/didClose", {"textDocument": {"uri": f"file:///project/{old}.py"}})
    uri = f"file:///project/{next(_names)}.py"
    client.open(text, uri)
    return uri


def expected(model: Model, prefix: str, suffix: str, max_tokens: int = TOKENS) -> str:
    """What the model says between two texts, without what would repeat the second."""
    said = model.infill(prefix, suffix, max_tokens=max_tokens).text
    tidy = Tidy(prefix, suffix)
    kept = tidy.push(said) + tidy.finish()
    text = kept if suffix.partition("\n")[0].strip() else kept.rstrip()
    assert text.strip(), "the model of this test has to say something here"
    return text


def test_ghost_text_is_the_models_own(shared: Client, model: Model) -> None:
    uri = fresh(shared, CODE)
    prefix = "def total(values):\n    found = 0\n    "
    (item,) = shared.inline(2, 4, uri)
    assert item == {
        "insertText": expected(model, prefix, CODE[len(prefix) :]), "range": {"start": at(2, 4), "end": at(2, 4)}
    }  # fmt: skip


def test_with_text_on_the_right_there_is_no_range(shared: Client, model: Model) -> None:
    uri = fresh(shared, CODE)
    prefix = "def total(values):\n    found = 0\n    \n    return "
    assert shared.inline(3, 11, uri) == [{"insertText": expected(model, prefix, CODE[len(prefix) :])}]


@pytest.mark.parametrize(("encoding", "units"), [("utf-16", 14), ("utf-8", 19), ("utf-32", 12)])
def test_positions_count_the_units_agreed_on(
    folder: Path, model: Model, tmp_path: Path, encoding: str, units: int
) -> None:
    text = 'name = "🙂𐐷é"\r\n\r\nother = '
    wanted = expected(model, 'name = "🙂𐐷é"', "\n\nother = ")
    with Client(folder, tmp_path / "stderr", "--max-tokens", str(TOKENS), "--lines", "any") as client:
        capabilities = client.begin(encodings=["utf-7", encoding])
        assert capabilities["positionEncoding"] == encoding
        client.open(text)
        assert client.inline(0, units)[0]["insertText"] == wanted
        # Past the end of the line is its end, in front of CR and LF.
        assert client.inline(0, 99)[0]["insertText"] == wanted


def test_what_is_typed_is_seen_before_it_is_saved(shared: Client, model: Model) -> None:
    uri = fresh(shared, CODE)
    shared.change("found += values", (2, 4), (2, 4), uri)
    shared.change("", (0, 0), (0, 4), uri)
    shared.change("\ndef ", (0, 0), (0, 0), uri)
    prefix = "\ndef total(values):\n    found = 0\n    found += values"
    suffix = "\n    return found\n\n\nprint(total([1, 2]))\n"
    assert shared.inline(3, 19, uri)[0]["insertText"] == expected(model, prefix, suffix)
    whole = {"textDocument": {"uri": uri, "version": 9}, "contentChanges": [{"text": "x = 1\r\ny = "}]}
    shared.notify("textDocument/didChange", whole)
    assert shared.inline(1, 4, uri)[0]["insertText"] == expected(model, "x = 1\ny = ", "")


def test_what_is_typed_along_is_the_rest(shared: Client) -> None:
    uri = fresh(shared, CODE)
    text = shared.inline(2, 4, uri)[0]["insertText"]
    shared.change(text[:2], (2, 4), (2, 4), uri)
    assert shared.inline(2, 6, uri)[0]["insertText"] == text[2:]


def test_a_menus_choice_counts_as_typed(shared: Client, model: Model) -> None:
    uri = fresh(shared, "import os\nos.pa\n")
    place = {"start": at(1, 3), "end": at(1, 5)}
    params = inline_params(1, 5, uri)
    params["context"]["selectedCompletionInfo"] = {"range": place, "text": "path"}
    (item,) = shared.result("textDocument/inlineCompletion", params)
    text = expected(model, "import os\nos.path", "\n")
    assert item == {"insertText": "path" + text, "range": place}


def test_a_capability_may_be_null(folder: Path, tmp_path: Path) -> None:
    """As lsp-mode for Emacs sends it."""
    with Client(folder, tmp_path / "stderr") as client:
        assert "inlineCompletionProvider" in client.begin({"textDocument": {"inlineCompletion": None}})


def test_one_line_or_what_the_client_asks_for(folder: Path, model: Model, tmp_path: Path) -> None:
    with Client(folder, tmp_path / "stderr") as client:
        client.begin(maxTokens=3, lines="any")
        client.open(CODE)
        prefix = "def total(values):\n    found = 0\n    "
        assert client.inline(2, 4)[0]["insertText"] == expected(model, prefix, CODE[len(prefix) :], 3)


def test_a_hole_opens_where_the_client_asks_for(folder: Path, model: Model, tmp_path: Path) -> None:
    with Client(folder, tmp_path / "stderr") as client:
        client.begin(maxTokens=9, lines="any", anchorLines=0)
        client.open(CODE)
        prefix = "def total(values):\n    found = 0\n    "
        said = model.infill(prefix, CODE[len(prefix) :], max_tokens=9, anchor=0).text
        assert client.inline(2, 4)[0]["insertText"] == said.rstrip()


# --------------------------------------------------------------------------------------------------------- cancellation


def test_a_cancelled_request_is_answered_as_such(folder: Path, tmp_path: Path) -> None:
    with Client(folder, tmp_path / "stderr", "--max-tokens", "1000", "--lines", "any") as client:
        client.begin()
        client.open(CODE)
        number = client.ask_inline(2, 4)
        client.notify("$/cancelRequest", {"id": number})
        assert client.answer(number)["error"]["code"] == -32800
        older, newer = client.ask_inline(2, 4), client.ask_inline(3, 0)
        assert client.answer(older)["error"]["code"] == -32800
        client.notify("$/cancelRequest", {"id": newer})
        assert client.answer(newer)["error"]["code"] == -32800
        client.notify("$/cancelRequest", {"id": 12345})
        assert client.end() == 0


def test_documents_do_not_end_each_others_requests(shared: Client) -> None:
    shared.open(CODE, "file:///a.py")
    shared.open(CODE, "file:///b.py")
    numbers = [shared.ask_inline(2, 4, uri) for uri in ("file:///a.py", "file:///b.py")]
    assert all("result" in shared.answer(number) for number in numbers)
    for uri in ("file:///a.py", "file:///b.py"):
        shared.notify("textDocument/didClose", {"textDocument": {"uri": uri}})


# ------------------------------------------------------------------------------------------------------ a menu's item


def test_clients_without_ghost_text_get_an_item(folder: Path, model: Model, tmp_path: Path) -> None:
    text = CODE.replace("    \n", "    fo\n", 1)
    prefix = "def total(values):\n    found = 0\n    fo"
    with Client(folder, tmp_path / "stderr", "--max-tokens", str(TOKENS), "--lines", "any") as client:
        capabilities = client.begin({})
        assert "inlineCompletionProvider" not in capabilities and "completionProvider" in capabilities
        client.open(text)
        params = {"textDocument": {"uri": URI}, "position": at(2, 6)}
        found = client.result("textDocument/completion", params)
        (item,) = found["items"]
        whole = "fo" + expected(model, prefix, text[len(prefix) :])
        assert found["isIncomplete"] and item["filterText"] == whole.partition("\n")[0]
        assert item["textEdit"] == {"range": {"start": at(2, 4), "end": at(2, 6)}, "newText": whole}
        params["textDocument"]["uri"] = "file:///unknown"  # type: ignore[index]
        assert client.result("textDocument/completion", params)["items"] == []


# -------------------------------------------------------------------------------------------------------- hostile input


@pytest.mark.parametrize(("line", "units"), [(10**9, 0), (2**31 - 1, 2**31 - 1), (0, 10**9), (7, 0), (2, 5)])
def test_a_position_past_the_end_is_the_end(shared: Client, line: int, units: int) -> None:
    shared.inline(line, units, fresh(shared, CODE))


def test_a_document_that_is_not_open_is_not_read(shared: Client, tmp_path: Path) -> None:
    file = tmp_path / "there.py"
    file.write_text(CODE)
    for uri in ("file:///nowhere.py", file.as_uri(), "untitled:1", ""):
        assert shared.inline(2, 4, uri) == []
        shared.change("x", (0, 0), (0, 0), uri)


BAD: list[Any] = [
    inline_params(-1, 0),
    inline_params(0, -1),
    inline_params(2**40, 0),
    {"textDocument": {"uri": URI}},
    {"textDocument": {"uri": URI}, "position": {"line": "0", "character": None}, "context": {"triggerKind": 2}},
    [],
    "text",
    None,
]


@pytest.mark.parametrize("params", BAD)
def test_parameters_that_are_none_are_refused(shared: Client, params: Any) -> None:
    error = shared.answer(shared.ask("textDocument/inlineCompletion", params))["error"]
    assert error["code"] == -32602 and "data" not in error


@pytest.mark.parametrize("body", [b"{", b"[]", b"7", b"\xff\xfe", b"[" * 100_000, b'{"jsonrpc": "1.0"}', b'{"id": 1}'])
def test_bodies_that_are_no_messages_are_left_out(shared: Client, body: bytes) -> None:
    shared.write(body)
    shared.inline(2, 4, fresh(shared, CODE))


def test_changes_that_are_none_leave_the_text(shared: Client, model: Model) -> None:
    uri = fresh(shared, CODE)
    shared.change("", (6, 99), (0, 0), uri)  # ends before it begins
    shared.notify("textDocument/didChange", {"textDocument": {"uri": uri}, "contentChanges": [{"range": 7}]})
    prefix = "def total(values):\n    found = 0\n    "
    assert shared.inline(2, 4, uri)[0]["insertText"] == expected(model, prefix, CODE[len(prefix) :])


def test_half_a_character_is_refused_in_a_line(shared: Client) -> None:
    uri = fresh(shared, "x = '\ud800'\n")
    error = shared.answer(shared.ask_inline(1, 0, uri))["error"]
    assert error["code"] == -32803 and "\n" not in error["message"]


def test_options_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    with Client(folder, tmp_path / "stderr") as client:
        for member, value in [("maxTokens", 0), ("lines", "two"), ("anchorLines", -1), ("model", 7)]:
            options = {member: value}
            params = {"processId": None, "rootUri": None, "capabilities": {}, "initializationOptions": options}
            error = client.answer(client.ask("initialize", params))["error"]
            assert error["code"] == -32602 and member in error["message"]
        assert client.begin(maxTokens=3)["inlineCompletionProvider"] == {}


def test_a_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    with Client("nowhere/at-all", tmp_path / "stderr") as client:
        client.begin()
        client.open(CODE)
        error = client.answer(client.ask_inline(2, 4))["error"]
        assert error["code"] == -32803 and "nowhere/at-all" in error["message"]
        assert {told["method"] for told in client.told} >= {"window/logMessage", "window/showMessage"}
        assert client.end() == 0


# --------------------------------------------------------------------------------------------------- its end, and logs


def test_nothing_that_was_typed_is_written_to_a_log(folder: Path, tmp_path: Path) -> None:
    with Client(folder, tmp_path / "stderr", "--max-tokens", "4") as client:
        client.begin()
        client.open("secret = 'hunter2'\n" + CODE)
        client.inline(3, 4)
        client.answer(client.ask("textDocument/inlineCompletion", {"hunter2": "hunter2"}))
        client.write(b'{"jsonrpc": "2.0", "method": "textDocument/didOpen", "params": {"text": "hunter2"}}')
        client.write(b"hunter2")
        client.ask("textDocument/hunter2", {})
        assert client.end() == 0
        told = json.dumps([one for one in client.told if "hunter2" in json.dumps(one)])
        assert "hunter2" not in (tmp_path / "stderr").read_text() and told == "[]"


def test_an_exit_without_shutdown_is_told_by_its_code(folder: Path, tmp_path: Path) -> None:
    with Client(folder, tmp_path / "stderr") as client:
        client.begin()
        client.notify("exit")
        assert client.process.wait(timeout=120) == 1


def test_a_client_that_dies_ends_it(folder: Path, tmp_path: Path) -> None:
    with Client(folder, tmp_path / "stderr", "--max-tokens", "1000", "--lines", "any") as client:
        client.begin()
        client.open(CODE)
        client.ask_inline(2, 4)
        assert client.process.stdin
        client.process.stdin.close()
        assert client.process.wait(timeout=120) == 1
    assert "Traceback" not in (tmp_path / "stderr").read_text()


def test_what_is_no_lsp_ends_it_in_a_line(folder: Path) -> None:
    command = [sys.executable, "-m", "codegen25", "lsp", "--model", str(folder)]
    done = subprocess.run(command, input=b"hello\n", capture_output=True, timeout=240)
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr.startswith(b"codegen25: error: what comes in is no LSP") and done.stderr.count(b"\n") == 1


def test_one_client_over_tcp(folder: Path) -> None:
    """And a web page that posts to the port is none."""
    command = [sys.executable, "-m", "codegen25", "lsp", "--model", str(folder), "--tcp", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr
        port = int(process.stderr.readline().rsplit(b":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
            assert connection.recv(1) == b""
        assert process.wait(timeout=120) == 1 and b"no LSP" in process.stderr.read()
