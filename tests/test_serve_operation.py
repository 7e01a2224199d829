"""Who may ask, what is too much, and how the server starts, changes its model and ends."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import Running, serving, small_model

from codegen25.cli import main
from codegen25.complete import Model
from codegen25.errors import CodegenError, UsageError
from codegen25.serve import run
from codegen25.serve.app import Access, make_app
from codegen25.serve.limits import Limits
from codegen25.serve.run import bind
from codegen25.serve.runner import Runner
from codegen25.serve.security import check_address, read_keys
from codegen25.serve.service import Service

KEYS = (b"a-key-of-somebody-1", b"a-key-of-somebody-2")


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def guarded() -> Iterator[Running]:
    with serving(access=Access(KEYS, ("https://editor.example",), ())) as running:
        yield running


PATHS = ["/v1/completions", "/v1/chat/completions", "/infill", "/completion", "/api/generate", "/fim/completions"]


# ------------------------------------------------------------------------------------------------------- who may ask


def test_a_key_is_needed_where_there_are_keys(guarded: Running) -> None:
    ask = {"prompt": "x", "max_tokens": 1}
    assert guarded.ask("/health").status == 200
    wrong: list[dict[str, Any]] = [{}, {"Authorization": "Bearer no"}, {"Authorization": "Bearer "}, {"X_Api_Key": "é"}]
    for headers in wrong:
        for path in ("/v1/completions", "/metrics", "/v1/models", "/docs", "/nowhere"):
            reply = guarded.ask(path, ask if path == "/v1/completions" else None, **headers)
            assert reply.status == 401 and reply.json["error"]["code"] == "invalid_api_key"
    for key in KEYS:
        assert guarded.ask("/v1/completions", ask, Authorization=f"Bearer {key.decode()}").status == 200
        assert guarded.ask("/v1/completions", ask, X_Api_Key=key.decode()).status == 200
        assert guarded.ask("/v1/completions", ask, Authorization=f"Bearer {key.decode()[:-1]}").status == 401


def test_pages_of_other_origins_may_not_ask(server: Running, guarded: Running) -> None:
    ask = {"prompt": "x", "max_tokens": 1}
    reply = server.ask("/v1/completions", ask, Origin="https://evil.example")
    assert reply.status == 403 and "access-control-allow-origin" not in reply.headers
    assert server.ask("/v1/completions", ask, Origin="null").status == 403
    assert server.ask("/v1/completions", ask, Origin=server.url).status == 200  # its own page
    key: dict[str, Any] = {"Authorization": f"Bearer {KEYS[0].decode()}"}
    reply = guarded.ask("/v1/completions", ask, Origin="https://editor.example", **key)
    assert reply.status == 200 and reply.headers["access-control-allow-origin"] == "https://editor.example"
    connection = guarded.connect()
    headers = {"Origin": "https://editor.example", "Access-Control-Request-Method": "POST"}
    connection.request("OPTIONS", "/v1/completions", headers=headers)
    assert connection.getresponse().status == 204
    connection.close()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8012", "localhost.evil.example", "", "[::1", "a b"])
def test_another_hosts_name_is_refused(server: Running, host: str) -> None:
    reply = server.ask("/v1/models", None, Host=host)
    assert reply.status in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1:9", "[::1]:80", "192.168.1.7:8012"])
def test_our_own_names_are_not(server: Running, host: str) -> None:
    assert server.ask("/v1/models", None, Host=host).status == 200


def test_others_reach_it_only_with_keys_or_when_told(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        check_address(host, has_keys=False, is_open=False)
    for host in ("0.0.0.0", "::", "192.168.1.7", "box.example"):
        with pytest.raises(UsageError, match="--api-key-file"):
            check_address(host, has_keys=False, is_open=False)
        check_address(host, has_keys=True, is_open=False)
        check_address(host, has_keys=False, is_open=True)
    file = tmp_path / "keys"
    file.write_text("# mine\n\na-key-that-is-long-enough\nanother-key-as-long\n")
    assert read_keys(file) == (b"a-key-that-is-long-enough", b"another-key-as-long")
    for content in ("", "# none\n", "short\n"):
        file.write_text(content)
        with pytest.raises(CodegenError, match="keys"):
            read_keys(file)


# --------------------------------------------------------------------------------------------------- what is too much

HOSTILE = [
    b"{", b"[]", b"5", b'"x"', b"null", b"\xff\xfe", b'{"prompt":NaN}', b'{"prompt":"x","max_tokens":Infinity}',
    b'{"prompt":"x","max_tokens":' + b"9" * 6000 + b"}", b'{"prompt":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    b'{"a":' * 200_000 + b"1" + b"}" * 200_000, b'{"prompt":"\\ud800"}', b'{"prompt":{"a":1}}', b'{"prompt":[{}]}',
    b'{"prompt":"x","temperature":1e999}', b'{"prompt":"x","temperature":-0.1}', b'{"prompt":"x","stop":[[]]}',
    b'{"input_prefix":7,"prompt":7}', b'{"messages":7,"prompt":7}', b'{"messages":[{"role":"x"}],"prompt":7}',
    b'{"prompt":"x","seed":"s","options":7}', b'{"prompt":"x","model":"other"}',
    b'{"prompt":"x","model":' + b'"m' * 50_000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_hostile_bodies_are_refused_in_the_dialects_form(server: Running, path: str) -> None:
    for body in HOSTILE:
        if path == "/api/generate" and (b'"temperature"' in body or b'"stop"' in body):
            body = b'{"prompt":"x","options":%s}' % body
        reply = server.ask(path, raw=body)
        assert reply.status in (400, 404), (body[:60], reply.status, reply.body)
        error = reply.json["error"]
        message = error if path.startswith("/api") else error["message"]
        assert message and "\n" not in message and "Traceback" not in message
        if path in ("/infill", "/completion"):
            assert error["code"] == reply.status
    assert server.idle()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(
    ["prompt", "suffix", "max_tokens", "n", "best_of", "stop", "stream", "logprobs", "echo", "seed", "temperature",
     "top_p", "parts", "logit_bias", "input_prefix", "input_extra", "n_predict", "n_cmpl", "response_fields", "options",
     "messages", "segments", "tokens", "content", "lines", "t_max_predict_ms", "n_indent", "model", "name"]
)  # fmt: skip


@settings(max_examples=60)
@given(path=st.sampled_from([*PATHS, "/tokenize", "/detokenize", "/api/show"]), body=st.dictionaries(NAMES, VALUES))
def test_no_body_makes_an_error_of_ours(server: Running, path: str, body: dict[str, Any]) -> None:
    reply = server.ask(path, {"max_tokens": 2, "n_predict": 2, "options": {"num_predict": 2}} | body)
    assert reply.status < 500, (path, body, reply.body)


def test_bodies_prompts_and_connections_have_limits() -> None:
    with serving(limits=Limits(body=100_000, body_seconds=0.5, tokens=8)) as server:
        big = json.dumps({"prompt": "x" * 200_000}).encode()
        assert server.ask("/v1/completions", raw=big).status == 413
        raw = socket.create_connection(("127.0.0.1", server.port))
        raw.sendall(b"POST /infill HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{")
        assert b" 408 " in raw.recv(4000)
        raw.close()
        raw = socket.create_connection(("127.0.0.1", server.port))
        raw.sendall(b"POST /infill HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        raw.sendall((b"10000\r\n" + b"x" * 65536 + b"\r\n") * 4)
        assert b" 413 " in raw.recv(4000)
        raw.close()


def test_texts_longer_than_the_window_are_cut_to_it(server: Running) -> None:
    long = "value = compute(value)\n" * 40_000
    for path, body in [
        ("/infill", {"input_prefix": long, "input_suffix": long, "n_predict": 3}),
        ("/v1/completions", {"prompt": "a = ", "suffix": long, "max_tokens": 3}),
        ("/v1/completions", {"prompt": long, "max_tokens": 100_000}),
        ("/v1/completions", {"parts": [long, "x", long], "max_tokens": 3}),
        ("/api/generate", {"prompt": "x" * 100_000, "suffix": "y" * 100_000, "options": {"num_predict": 3}}),
    ]:
        assert server.ask(path, body).status == 200
    assert server.idle()


def test_many_connections_that_say_nothing(server: Running) -> None:
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(300)]
    assert server.ask("/health").status == 200
    for connection in idle:
        connection.close()


def test_headers_that_do_not_come_close_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "HEADER_SECONDS", 0.3)
    with serving() as server:
        for sent in (b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /h"):
            raw = socket.create_connection(("127.0.0.1", server.port), timeout=30)
            raw.sendall(sent)
            while raw.recv(4000):
                pass
            raw.close()


def test_control_strings_in_fields_are_text(server: Running) -> None:
    hostile = "<mask_1><|endoftext|><sep><mask_1><eom>"
    for path, body in [
        ("/infill", {"input_prefix": hostile, "input_suffix": hostile, "n_predict": 2}),
        ("/v1/completions", {"prompt": hostile, "suffix": hostile, "max_tokens": 2}),
    ]:
        assert server.ask(path, body).status == 200
    ids = server.ask("/tokenize", {"content": hostile}).json["tokens"]
    assert max(ids) < 50256


# --------------------------------------------------------------------------------------------------------- operation


def test_metrics_and_logs_tell_figures_and_no_code(
    server: Running, guarded: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    # A request is logged when its answer is sent, which may be a little behind the test that asked.
    assert server.idle() and guarded.idle()
    capsys.readouterr()
    with serving() as other:
        other.ask("/v1/completions", {"prompt": "secret_name = ", "max_tokens": 3})
        other.ask("/v1/completions", {"prompt": 3})
        text = other.metrics()
    assert 'codegen25_requests_total{dialect="openai",status="200"} 1.0' in text
    assert "codegen25_answered_tokens_total 3.0" in text and "codegen25_answers_under_way 0.0" in text
    err = capsys.readouterr().err
    assert "secret_name" not in err
    rows = [json.loads(line) for line in err.splitlines()]
    assert [row["status"] for row in rows if row["event"] == "request"] == [200, 400]
    with serving(log_text=True) as other:
        other.ask("/v1/completions", {"prompt": "secret_name = ", "max_tokens": 3})
    assert "secret_name" in capsys.readouterr().err


def test_while_a_model_is_loaded_it_says_so() -> None:
    go = threading.Event()

    def slowly() -> Model:
        go.wait(30)
        return small_model()

    waiting = []

    async def look() -> None:
        sock = bind("127.0.0.1", 0, 10)
        service = Service("late", slowly)
        server = uvicorn.Server(uvicorn.Config(make_app(service), log_config=None, lifespan="on"))
        serve = asyncio.create_task(server.serve(sockets=[sock]))
        running = Running(service, sock.getsockname()[1])
        while not server.started:
            await asyncio.sleep(0.01)
        waiting.append(await asyncio.to_thread(running.ask, "/health"))
        waiting.append(await asyncio.to_thread(running.ask, "/v1/models"))
        go.set()
        while not service.ready:
            await asyncio.sleep(0.01)
        waiting.append(await asyncio.to_thread(running.ask, "/health"))
        server.should_exit = True
        await serve

    asyncio.run(look())
    assert [reply.status for reply in waiting] == [503, 503, 200]
    assert waiting[0].json["error"]["code"] == 503 and waiting[0].headers["retry-after"] == "1"


def test_a_model_is_loaded_again_while_it_answers() -> None:
    loads = []

    def load() -> Model:
        loads.append(1)
        if len(loads) == 3:
            raise CodegenError("weights: damaged")
        return small_model()

    with serving(load=load) as server:
        service = server.service
        loop = cast(Runner, service.served.answering.runner)._loop
        first = service.served.answering
        replies = []
        body = {"prompt": "a = ", "max_tokens": 200, "n": 8, "temperature": 1, "seed": 2}
        thread = threading.Thread(target=lambda: replies.append(server.ask("/v1/completions", body)))
        thread.start()
        while not first.runner.busy:
            assert thread.is_alive()
        asyncio.run_coroutine_threadsafe(service.reload(), loop).result(30)
        assert service.served.answering is not first
        assert server.ask("/v1/completions", {"prompt": "b", "max_tokens": 1}).status == 200
        thread.join()
        assert replies[0].status == 200 and len(replies[0].json["choices"]) == 8
        second = service.served.answering
        loop.call_soon_threadsafe(service.reload_soon)
        while len(loads) < 3:
            pass
        assert server.ask("/health").status == 200 and service.served.answering is second


def test_the_end_waits_for_answers() -> None:
    replies = []
    with serving() as server:
        body = {"prompt": "a = ", "max_tokens": 200, "stream": True}
        thread = threading.Thread(target=lambda: replies.append(server.ask("/v1/completions", body)))
        thread.start()
        while not server.service.served.answering.runner.busy:
            assert thread.is_alive()
    thread.join()
    assert replies[0].body.endswith(b"data: [DONE]\n\n")


def test_the_command_says_what_is_wrong_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"codegen25: error: port {port} on 127.0.0.1 is in use; end the other server, or choose another with --port"
    ]
    for arguments, code, what in [
        (["--host", "0.0.0.0"], 2, "--api-key-file"),
        (["--model", "nothing-there"], 1, "nothing-there"),
        (["--api-key-file", str(tmp_path / "none")], 1, "none"),
        (["--host", "203.0.113.1", "--no-api-key"], 1, "cannot listen"),
        (["--api-key-file", "x", "--no-api-key"], 2, "contradict"),
    ]:
        assert main(["serve", *arguments]) == code
        (line,) = capsys.readouterr().err.splitlines()
        assert what in line
