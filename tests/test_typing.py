"""The typing benchmark's own parts: what counts as waiting, requests given up, the conversation with a server."""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codegen25 import editing, infill
from codegen25.bench import llama_server, typing
from codegen25.bench.figures import Options
from codegen25.bench.llama_server import LlamaClient, LlamaServer
from codegen25.bench.peer import PeerError
from codegen25.bench.session import Event, Moment, generate, library_files, replay
from codegen25.bench.typing import Author, costs, percentile, stretches
from codegen25.editing import Editing, Limits
from codegen25.engine.answer import Request
from codegen25.model.gguf_export import export_gguf
from codegen25.tokenizer import from_folder

NANO = from_folder(Path(editing.__file__).parent / "models" / "nano")


class Prompts:
    """As much of a model as the building of prompts needs: nothing is run here."""

    tokenizer = NANO
    window = 600

    span_vocabulary = np.ones(1, bool)


def session(*actions: tuple[str, str], gap: int = 1) -> list[Moment]:
    """A file in which an author does that, `gap` ms apart; the last key is a pause of its own."""
    events, at = [Event(0, "open", 0, inserted="def f():\n")], 9
    for number, (action, text) in enumerate(actions, 1):
        events.append(Event(number * gap, action, at, inserted=text, ask=action == "type"))  # type: ignore[arg-type]
        at += len(text)
    return list(replay(events))


class Scripted:
    """Answers a request with the next of `texts`; None stands for one that is not whole in time."""

    def __init__(self, *texts: str | None) -> None:
        self.texts = list(texts)
        self.requests: list[Request] = []

    def answer(self, request: Request, until: float, on_text: Callable[[], None]) -> str | None:
        self.requests.append(request)
        if request.max_tokens == 1:
            return "x"
        text = self.texts.pop(0)
        if text is None:
            time.sleep(max(0, until - time.perf_counter()))
        elif text:
            on_text()
        return text


def author(engine: Scripted, longest_pause: float = 0.02) -> Author:
    editing = Editing(Prompts(), max_tokens=8)  # type: ignore[arg-type]
    return Author("ours", engine, editing, longest_pause)


def test_keys_that_got_no_answer_wait_for_the_next_one() -> None:
    engine = Scripted(None, None, "cd", "z")
    one = author(engine)
    one.work(session(("type", "a"), ("type", "b"), ("type", " "), ("type", "q")))
    assert (one.asked, one.superseded, one.along) == (4, 2, 0)
    assert len(one.times) == len(one.first) == 4
    assert one.times[0] > one.times[1] > one.times[2]
    assert len(one.answered) == 2
    assert engine.texts == []


class Late(Scripted):
    def answer(self, request: Request, until: float, on_text: Callable[[], None]) -> str | None:
        text = super().answer(request, until, on_text)
        if text is None:
            time.sleep(0.05)  # one that does not stop when it is told to
        return text


def test_keys_are_pressed_while_an_engine_does_not_stop() -> None:
    one = author(Late(None, None, None, "x"))
    one.work(session(("type", "a"), ("type", "b"), ("type", " "), ("type", "q")))
    assert one.superseded == 3
    assert min(one.times) > 0.1  # the last key was pressed 3 ms after the first


def test_keys_along_a_suggestion_ask_nothing() -> None:
    engine = Scripted("return 1", "1")
    one = author(engine)
    one.work(session(("type", "\n    "), *(("type", letter) for letter in "return"), ("type", "()")))
    assert (one.asked, one.along) == (2, 6)
    assert len(one.times) == 2


def test_a_jump_is_made_ready_in_the_pause() -> None:
    engine = Scripted("x")
    author(engine, longest_pause=0.5).work(session(("move", ""), ("type", "a"), gap=500))
    ready, asked = engine.requests[-2:]
    assert (ready.max_tokens, asked.max_tokens) == (1, 8)
    assert editing.common(ready.prompt, asked.prompt) == len(ready.prompt)


def test_every_key_of_a_session_is_counted_once() -> None:
    moments = list(replay(generate(library_files(1, 5), seed=5, places=2)))
    pressed = sum(moment.event.ask for moment in moments)
    engine = Scripted(*["pass"] * pressed)
    one = Author("ours", engine, Editing(Prompts(), max_tokens=8), longest_pause=0.0)  # type: ignore[arg-type]
    parts = stretches(moments)
    for stretch in parts:
        one.work(stretch)
    assert [moment for stretch in parts for moment in stretch] == moments
    assert all(stretch[0].event.action in ("open", "move") for stretch in parts)
    assert one.asked + one.along == pressed and len(one.times) == len(one.first) == one.asked


def test_anchored_keys_cost_fewer_tokens_than_plain_ones() -> None:
    limits = Limits.of(1024, 32)
    moments = list(replay(generate(library_files(1, 2), seed=2, places=3)))
    anchored, plain = costs(NANO, limits, moments)
    assert len(anchored) == len(plain) == sum(moment.event.ask for moment in moments)
    assert percentile(anchored, 50) <= 3 and sum(plain) > 5 * sum(anchored)


def test_plain_prompts_open_the_hole_at_the_cursor() -> None:
    limits = Limits.of(600, 32)
    source = Path(editing.__file__).read_text()
    prompt = typing.plain(NANO, limits, source[:5000], source[5000:])
    ids = list(prompt.ids)
    assert len(ids) <= limits.prompt and ids[-1] == NANO.masks[0] and not prompt.required
    assert source[:5000].endswith(NANO.decode(ids[: ids.index(NANO.masks[0])]))


@pytest.mark.parametrize(
    ("percent", "value"), [(0, 1), (1, 1), (50, 3), (60, 3), (60.1, 4), (95, 5), (100, 5)]
)  # fmt: skip
def test_percentile_is_the_nearest_rank(percent: float, value: float) -> None:
    assert percentile([5, 3, 1, 2, 4], percent) == value


def test_figures_of_a_run() -> None:
    quick, slow = author(Scripted(*"xyz")), author(Scripted(None, None, "z"))
    for one in (quick, slow):
        one.work(session(("type", "a"), ("type", "b"), ("type", " ")))
    quick.times, slow.times = [0.01, 0.02], [0.1, 0.2]
    figures = {(f.name, f.peer_name): f for f in typing._time_figures([{"ours": quick, "same": slow}], {})}
    judged = figures["typing: time to suggestion, p95", typing.PEERS["same"]]
    assert (judged.ours, judged.peer, judged.holds) == ([20], [200], True)
    assert judged.to_json()["peer_keys"][0]["superseded"] == 2
    assert sum(figure.bar is not None for figure in figures.values()) == 1
    alone = list(typing._time_figures([{"ours": quick}], dict.fromkeys(typing.PEERS, "no network")))
    assert [f.note for f in alone if f.note] == 2 * ["no network"] and all(f.ratio is None for f in alone)


class Broken(Scripted):
    def answer(self, request: Request, until: float, on_text: Callable[[], None]) -> str | None:
        raise PeerError("llama.cpp ended")


def test_an_engine_that_breaks_off_leaves_the_others() -> None:
    parts = [session(("type", "a")), session(("type", "b")), session(("type", "c"))]
    good, bad = author(Scripted("x", "y", "z")), replace(author(Broken()), name="same")
    missing: dict[str, str] = {}
    assert typing._in_turn([bad, good], parts, missing) == {"ours": good}
    assert missing == {"same": "llama.cpp ended"} and good.asked == 3


# ------------------------------------------------------------------------------------------------------------- a server


class Server(ThreadingHTTPServer):
    """Says `lines` to every request, then waits until the client is gone where `hangs`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lines: list[bytes] = []
        self.hangs = False
        self.asked: list[dict[str, Any]] = []
        self.left = threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()
        for line in self.server.lines:
            self.wfile.write(line)
        self.wfile.flush()
        if self.server.hangs and not self.rfile.read(1):
            self.server.left.set()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def news(content: str, stop: bool = False) -> bytes:
    return b"data: " + json.dumps({"content": content, "stop": stop}).encode() + b"\n\n"


REQUEST = Request((5, 6), np.ones(1, bool), frozenset(), b" x", 8, ("\n",))


def client(server: Server) -> LlamaClient:
    return LlamaClient(f"http://127.0.0.1:{server.server_port}", NANO)


def test_an_answer_is_joined_from_its_events(server: Server) -> None:
    server.lines = [b": ping\n\n", news("re"), b":\n", news("turn"), news("", stop=True)]
    parts: list[int] = []
    assert client(server).answer(REQUEST, math.inf, lambda: parts.append(1)) == "return"
    assert len(parts) == 2
    (ask,) = server.asked
    assert ask["prompt"] == [5, 6, *NANO.encode(" x")]
    assert (ask["n_predict"], ask["stop"], ask["cache_prompt"]) == (8, ["\n"], True)


def test_a_superseded_answer_closes_the_connection(server: Server) -> None:
    server.lines, server.hangs = [news("re")], True
    assert client(server).answer(REQUEST, time.perf_counter() + 0.05, lambda: None) is None
    assert server.left.wait(20)


@pytest.mark.parametrize(
    "lines",
    [[b"error: no such model\n"], [news("re")], [b"data: {\n"], [b'data: {"error": {"message": "broken"}}\n']],
)
def test_a_server_that_does_not_answer(server: Server, lines: list[bytes]) -> None:
    server.lines = lines
    with pytest.raises(PeerError, match=r"llama\.cpp's server"):
        client(server).answer(REQUEST, math.inf, lambda: None)


def test_no_server() -> None:
    with pytest.raises(PeerError, match="no answer"):
        LlamaClient("http://127.0.0.1:9", NANO).answer(replace(REQUEST, stop=()), math.inf, lambda: None)


@pytest.mark.slow
def test_llama_cpp_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xllamacpp")
    path = tmp_path / "nano.gguf"
    export_gguf(Path(editing.__file__).parent / "models" / "nano", path, lambda line: None)
    monkeypatch.setattr(llama_server, "environment", lambda *_: sys.executable)
    options = Options(tmp_path, 1, 1, ("llama.cpp",), lambda line: None)
    stops = frozenset(infill.stops(NANO))
    prompt = [*NANO.encode("def mean(values):\n"), NANO.masks[0], NANO.eot, NANO.sep, NANO.masks[0]]
    asked = Request([*prompt, *NANO.encode("    return sum(values) / len")], np.ones(1, bool), stops, b"(", 8, ("\n",))
    with LlamaServer(options, path, 256, 0) as running:
        answers = [LlamaClient(running.address, NANO).answer(asked, math.inf, lambda: None) for _ in range(2)]
        assert LlamaClient(running.address, NANO).answer(asked, 0, lambda: None) is None
    assert answers == ["values)", "values)"]
    with pytest.raises(PeerError, match="no answer"):
        LlamaClient(running.address, NANO).answer(asked, math.inf, lambda: None)
    with pytest.raises(PeerError, match="did not start"):
        LlamaServer(options, tmp_path / "missing.gguf", 256, 0)
