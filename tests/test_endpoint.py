"""Other people's servers: a small real one that answers, and that fails in the ways servers do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from codegen25.engine.sampling import Sampling
from codegen25.errors import CodegenError, UsageError
from codegen25.evaluate.endpoint import Endpoint, connect
from codegen25.evaluate.fim import TEMPLATES
from codegen25.evaluate.generate import ANCHORED, COMPLETION, LEFT_TO_RIGHT, PLAIN, Asking, generate
from codegen25.evaluate.samples import SampleFile
from codegen25.evaluate.tasks import FUNCTION_STOPS, Task, TaskSet

Handler = BaseHTTPRequestHandler
Reply = Callable[[Handler, dict[str, Any]], None]


def answer(text: str, finish: str = "stop", **more: Any) -> dict[str, Any]:
    return {"choices": [{"text": text, "finish_reason": finish}]} | more


def send(handler: Handler, body: Any, code: int = 200, **headers: str) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(code)
    for name, value in {"Content-Length": str(len(data)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)


class Server:
    """`reply` answers a POST; what was asked is in `asked`, with the headers."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.reply: Reply = lambda handler, body: send(handler, answer(body["prompt"].upper()))
        server = self

        class Answering(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                send(self, {"data": [{"id": "first"}, {"id": "second"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked.append(body)
                server.headers.append(dict(self.headers))
                server.reply(self, body)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def _endpoint(server: Server, **settings: Any) -> Endpoint:
    return connect(server.url, None, **{"backoff": 0.001, "attempts": 3, "timeout": 10.0} | settings)


def _complete(endpoint: Endpoint, *prompts: str, stop: tuple[str, ...] = ()) -> list[str]:
    completions = endpoint.complete_batch(prompts, max_tokens=9, sampling=Sampling(), stop=stop)
    return [completion.text for completion in completions]


def test_completions_come_in_order(server: Server) -> None:
    def later(handler: Handler, body: dict[str, Any]) -> None:
        time.sleep(0.002 * (9 - int(body["prompt"])))  # the first ones come last
        send(handler, answer(body["prompt"]))

    server.reply = later
    endpoint = _endpoint(server, concurrency=4)
    assert endpoint.model == "first" and endpoint.url.endswith("/v1")
    assert _complete(endpoint, *map(str, range(9))) == list(map(str, range(9)))


def test_what_is_sent(server: Server) -> None:
    endpoint = _endpoint(server, api_key="secret")
    assert "secret" not in repr(endpoint)
    sampling = Sampling(temperature=0.5, top_p=0.9, seed=7)
    endpoint.complete_batch(["a", "a"], max_tokens=9, sampling=sampling, stop=FUNCTION_STOPS)
    first = {"model": "first", "prompt": "a", "max_tokens": 9, "temperature": 0.5, "top_p": 0.9}
    stops = {"stop": list(FUNCTION_STOPS[:4])}
    asked = sorted(server.asked, key=lambda body: int(body["seed"]))
    assert asked == [first | stops | {"seed": seed} for seed in (7, 8)], "samples of one prompt have seeds of their own"
    assert server.headers[0]["Authorization"] == "Bearer secret"
    server.asked.clear()
    endpoint.infill_batch([("a", "b")], anchor=0, max_tokens=9, sampling=Sampling())
    assert server.asked == [
        {"model": "first", "prompt": "a", "suffix": "b", "max_tokens": 9, "temperature": 0.0, "seed": 0}
    ]


@pytest.mark.parametrize(
    ("name", "plain", "anchored"),
    [
        ("starcoder", "<fim_prefix>a\nb<fim_suffix>c<fim_middle>", "<fim_prefix>a\n<fim_suffix>c<fim_middle>b"),
        ("qwen", "<|fim_prefix|>a\nb<|fim_suffix|>c<|fim_middle|>", "<|fim_prefix|>a\n<|fim_suffix|>c<|fim_middle|>b"),
        ("codellama", "<PRE> a\nb <SUF>c <MID>", "<PRE> a\n <SUF>c <MID>b"),
        ("codegen25", "a\nb<mask_1>c<|endoftext|><sep><mask_1>", "a\n<mask_1>c<|endoftext|><sep><mask_1>b"),
    ],
)
def test_formats(name: str, plain: str, anchored: str, server: Server) -> None:
    stop = TEMPLATES[name].stops[0]
    server.reply = lambda handler, body: send(handler, answer(f"filled{stop}beyond", "length"))
    endpoint = _endpoint(server, template=TEMPLATES[name])
    for anchor, prompt in ((0, plain), (1, anchored), (None, anchored.replace("a\n", "").replace("b", "a\nb"))):
        (completion,) = endpoint.infill_batch([("a\nb", "c")], anchor=anchor, max_tokens=9, sampling=Sampling())
        if anchor is not None:
            assert server.asked[-1]["prompt"] == prompt
        # A server that ignores the stop strings changes nothing.
        assert (completion.text, completion.finish_reason) == ("filled", "stop")


def test_stops_that_were_not_sent_end_the_answer_too(server: Server) -> None:
    server.reply = lambda handler, body: send(handler, answer("    return 1\n@cache\ndef", "length"))
    assert _complete(_endpoint(server), "a", stop=FUNCTION_STOPS) == ["    return 1"]


def test_an_answer_that_was_cut_off_says_so(server: Server) -> None:
    server.reply = lambda handler, body: send(handler, answer("    return", "length", usage={"prompt_tokens": 5}))
    (completion,) = _endpoint(server).complete_batch(["a"], max_tokens=1, sampling=Sampling(), stop=())
    assert (completion.finish_reason, completion.prompt_tokens) == ("length", 5)


# ------------------------------------------------------------------------------------------------------------- failures


def _cut(handler: Handler, body: dict[str, Any]) -> None:
    """Half of what was announced."""
    data = json.dumps(answer("x")).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])


def _hang_up(handler: Handler, body: dict[str, Any]) -> None:
    handler.close_connection = True


PASSING: dict[str, tuple[Reply, str]] = {
    "busy": (lambda h, b: send(h, {"error": {"message": "too\nbusy"}}, 503), "answered 503: too busy, tried 3 times"),
    "rate": (lambda h, b: send(h, {"message": "slow down"}, 429, Retry_After="0"), "answered 429: slow down"),
    "page": (lambda h, b: send(h, b"<html>Bad gateway</html>", 502), "answered 502: <html>Bad gateway</html>"),
    "cut": (_cut, "broke off|or a part of one"),
    "half a JSON": (lambda h, b: send(h, b'{"choices": [{"te'), "answered with what is no JSON object, or a part"),
    "a list": (lambda h, b: send(h, []), "answered with what is no JSON object"),
    "hangs up": (_hang_up, "broke off|cannot be reached"),
}


@pytest.mark.parametrize("how", PASSING)
def test_what_may_pass_is_tried_again(how: str, server: Server) -> None:
    fails, message = PASSING[how]
    endpoint = _endpoint(server, concurrency=1)
    failed: list[int] = []

    def twice(handler: Handler, body: dict[str, Any]) -> None:
        if len(failed) < 2:
            failed.append(1)
            fails(handler, body)
        else:
            send(handler, answer("at last"))

    server.reply = twice
    assert _complete(endpoint, "a") == ["at last"]
    server.reply = fails
    with pytest.raises(CodegenError, match=message) as raised:
        _complete(endpoint, "a")
    assert "\n" not in str(raised.value) and "run the same command again" in str(raised.value)


def test_a_server_that_never_answers(server: Server) -> None:
    over = threading.Event()

    def wait(handler: Handler, body: dict[str, Any]) -> None:
        over.wait(60)
        _hang_up(handler, body)

    server.reply = wait
    try:
        with pytest.raises(CodegenError, match=r"gave no answer within 0.1 s \(--request-timeout\), tried 3 times"):
            _complete(_endpoint(server, timeout=0.1), "a")
    finally:
        over.set()


LASTING: dict[str, tuple[Reply, str]] = {
    "refused": (lambda h, b: send(h, {"error": "no such model"}, 404), "answered 404: no such model"),
    "key": (lambda h, b: send(h, {"error": {"message": "bad key"}}, 401), "answered 401: bad key"),
    "no choice": (lambda h, b: send(h, {"choices": []}), "answered without a completion"),
    "no text": (lambda h, b: send(h, {"choices": [{"text": None}]}), "answered without a completion"),
    "a chat": (lambda h, b: send(h, {"choices": [{"message": {"content": "x"}}]}), "answered without a completion"),
}


@pytest.mark.parametrize("how", LASTING)
def test_what_will_not_pass_is_said_at_once(how: str, server: Server) -> None:
    server.reply, message = LASTING[how]
    with pytest.raises(CodegenError, match=message):
        _complete(_endpoint(server), "a")
    assert len(server.asked) == 1


def test_when_one_fails_the_others_are_not_waited_for(server: Server) -> None:
    def fail(handler: Handler, body: dict[str, Any]) -> None:
        send(handler, {}, 503 if body["prompt"] == "busy" else 404)

    server.reply = fail
    with pytest.raises(CodegenError, match="answered 404"):
        _complete(_endpoint(server, backoff=1e6), "busy", "lost")


@pytest.mark.parametrize("code", [400, 500])
def test_a_server_without_suffix_is_told_from_others(code: int, server: Server) -> None:
    server.reply = lambda h, b: send(h, {"error": {"message": "suffix is not currently supported"}}, code)
    with pytest.raises(CodegenError, match="not currently supported; ask in the model's format by --template"):
        _endpoint(server).infill_batch([("a", "b")], anchor=0, max_tokens=1, sampling=Sampling())
    with pytest.raises(UsageError, match="add --template"):
        _endpoint(server).infill_batch([("a", "b")], anchor=8, max_tokens=1, sampling=Sampling())


def test_a_server_that_leaves_suffix_out_is_found_out(server: Server) -> None:
    def counting(heeds: bool, counts: bool) -> Reply:
        def count(handler: Handler, body: dict[str, Any]) -> None:
            text = body["prompt"] + (body.get("suffix", "") if heeds else "")
            send(handler, answer("x", usage={"prompt_tokens": len(text)} if counts else None))

        return count

    for server.reply in (counting(True, True), counting(False, False)):
        _endpoint(server).check_suffix()
    server.reply = counting(False, True)
    with pytest.raises(CodegenError, match="leaves `suffix` out and does not say so; ask by --template"):
        _endpoint(server).check_suffix()


def test_a_server_that_is_down(server: Server) -> None:
    endpoint = _endpoint(server)
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(CodegenError, match=r"cannot be reached .*tried 3 times; see to the server"):
        _complete(endpoint, "a")


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://a", "http://", "model"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(UsageError, match="not an address"):
        connect(url, None)


def test_a_run_goes_on_behind_a_failure(server: Server, tmp_path: Path) -> None:
    tasks = TaskSet("t", tuple(Task(f"SingleLineInfilling/{n}", "f", f"p{n}\n", "s", "", "") for n in range(20)))
    asking = Asking(9, Sampling(), batch=3)

    def ask(protocol: str) -> list[str]:
        file = SampleFile(tmp_path / f"{protocol}.jsonl", print)
        samples = generate(_endpoint(server, attempts=1), protocol, tasks, asking, file, lambda *_: None)
        return [sample.text for sample in samples]

    def until_ten(handler: Handler, body: dict[str, Any]) -> None:
        send(handler, answer("x"), 200 if len(server.asked) < 10 else 500)

    for protocol in (COMPLETION, LEFT_TO_RIGHT, PLAIN):
        server.asked.clear()
        server.reply = until_ten
        with pytest.raises(CodegenError, match="answered 500"):
            ask(protocol)
        kept = (tmp_path / f"{protocol}.jsonl").read_bytes()
        assert kept.count(b"\n") == 9
        server.reply = lambda handler, body: send(handler, answer("y"))
        assert ask(protocol) == ["x"] * 9 + ["y"] * 11
        assert (tmp_path / f"{protocol}.jsonl").read_bytes().startswith(kept)
    with pytest.raises(UsageError):
        ask(ANCHORED)
