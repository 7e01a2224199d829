"""Many at once: every stream that survives is the same request's alone, and what is dropped stops within a step."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from serving import CONFIG, ENGINE, Reply, Running, serving, small_model

from codegen25.complete import Model
from codegen25.engine.answer import Request
from codegen25.engine.backend import Logits, Row
from codegen25.engine.cpu import CpuBackend
from codegen25.serve.limits import Limits
from codegen25.serve.runner import Broken, Mailbox, Runner
from codegen25.tokenizer import family

CODE = "def f_{n}(a, b):\n    total = a + b * {n}\n    return total\n\n\nclass C{n}:\n    def g(self):\n        return "


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        yield running


def mixed(number: int) -> tuple[str, dict[str, Any]]:
    """A request that is answered alike each time, of one dialect or another."""
    text, suffix = CODE.format(n=number), f"\n\nprint(C{number}().g())\n"
    match number % 5:
        case 0:
            return "/v1/completions", {"prompt": text, "max_tokens": 40, "stream": True}
        case 1:
            return "/infill", {"input_prefix": text, "input_suffix": suffix, "n_predict": 40, "lines": "any"}
        case 2:
            return "/completion", {"prompt": text, "n_predict": 40, "temperature": 0.7, "seed": number}
        case 3:
            return "/api/generate", {"prompt": text, "suffix": suffix, "options": {"num_predict": 40}, "lines": "any"}
        case _:
            return "/v1/completions", {"prompt": text, "n": 2, "temperature": 1, "seed": 1, "max_tokens": 20}


def said(reply: Reply) -> list[Any]:
    """What of an answer does not change with time."""
    assert reply.status == 200, reply.body
    body = reply.body.removesuffix(b"data: [DONE]\n\n").replace(b"data: ", b"")
    found = [json.loads(line) for line in body.split(b"\n") if line]
    texts = [[c["text"] for c in one["choices"]] if "choices" in one else [one.get("content", one.get("response"))]
             for one in found]  # fmt: skip
    if all(len(text) == 1 for text in texts):  # a stream may come in one piece or in several
        return ["".join(part[0] for part in texts)]
    return texts


def test_fifty_at_once_a_fifth_of_them_dropped(server: Running) -> None:
    alone: dict[int, list[Any]] = {}
    for number in range(50):
        with_fresh = mixed(number)
        if number % 5 != 4 or number < 10:
            alone[number] = said(server.ask(*with_fresh))
    served = server.service.served.answering
    served.suggested.forget()
    found: dict[int, list[Any]] = {}

    def one(number: int) -> None:
        if number % 5 == 4 and number >= 10:
            drop(server, *mixed(number), after=number % 3)
        else:
            found[number] = said(server.ask(*mixed(number)))

    order = list(range(50))
    random.Random(0).shuffle(order)
    threads = [threading.Thread(target=one, args=(number,)) for number in order]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone
    assert server.idle()


def drop(server: Running, path: str, body: dict[str, Any], after: int) -> None:
    """Send a request and go away: at once, or when some of the answer has come."""
    connection = server.connect()
    connection.request("POST", path, json.dumps(body | {"stream": True}))
    if after:
        connection.getresponse().read(after)
    connection.close()


class Counting(CpuBackend):
    """Counts forward passes."""

    passes = 0

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        self.passes += 1
        return super().forward(rows)


def request(text: str = "x = ", count: int = 400) -> Request:
    vocabulary = small_model().span_vocabulary.copy()
    vocabulary[family().eom] = False
    return Request(family().encode(text), vocabulary, frozenset(), max_tokens=count)


def test_what_nobody_wants_is_not_computed() -> None:
    async def run() -> None:
        backend = Counting(ENGINE, CONFIG)
        runner = Runner(Model(backend, family()), lambda error: None)
        try:
            for _ in range(5):
                with Mailbox(runner) as box:
                    box.submit(request())
                    await box.next()
                before = backend.passes  # one may have begun, or be about to
                await asyncio.sleep(0.2)
                assert backend.passes - before <= 1
                assert runner.busy == 0 and not runner.model.scheduler.active
        finally:
            await runner.close()

    asyncio.run(run())


class Breaking(CpuBackend):
    """Fails once."""

    left = 1

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        if self.left:
            self.left -= 1
            raise RuntimeError("a bug")
        return super().forward(rows)


def test_a_step_that_fails_ends_its_requests_and_no_others() -> None:
    async def run() -> None:
        told: list[BaseException] = []
        runner = Runner(Model(Breaking(ENGINE, CONFIG), family()), told.append)
        try:
            with Mailbox(runner) as box:
                box.submit(request())
                with pytest.raises(Broken):
                    await box.next()
            assert [str(error) for error in told] == ["a bug"]
            with Mailbox(runner) as box:
                box.submit(request(count=3))
                assert await box.next()
        finally:
            await runner.close()

    asyncio.run(run())


def test_a_bug_is_told_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(load=lambda: Model(Breaking(ENGINE, CONFIG), family())) as server:
        reply = server.ask("/v1/completions", {"prompt": "x"})
        assert reply.status == 500 and reply.json["error"]["code"] == "internal"
        assert b"Traceback" not in reply.body and b"a bug" not in reply.body
        assert server.ask("/v1/completions", {"prompt": "x"}).status == 200
    assert "RuntimeError: a bug" in capsys.readouterr().err


def long_request(server: Running, replies: list[Reply]) -> threading.Thread:
    """One of client "me" that is under way; its reply comes into `replies`."""
    body = {"prompt": "a = ", "max_tokens": 256, "n": 60, "temperature": 1}
    thread = threading.Thread(target=lambda: replies.append(server.ask("/v1/completions", body, X_Client_Id="me")))
    thread.start()
    while not server.service.served.answering.runner.busy:
        assert thread.is_alive()
    return thread


def test_a_newer_request_of_the_same_client_ends_the_older(server: Running) -> None:
    first: list[Reply] = []
    thread = long_request(server, first)
    others = server.ask("/v1/completions", {"prompt": "b = ", "max_tokens": 2}, X_Client_Id="you")
    newer = server.ask("/v1/completions", {"prompt": "a = 1", "max_tokens": 2}, X_Client_Id="me")
    thread.join()
    assert others.status == newer.status == 200
    assert first[0].status == 409 and first[0].json["error"]["code"] == "superseded"
    assert server.idle()


def test_so_does_one_that_is_answered_without_the_model(server: Running) -> None:
    around = {"input_prefix": "def add(a, b):\n    return ", "input_suffix": "\n"}
    body = around | {"prompt": "", "n_predict": 12, "lines": "any"}
    whole = server.ask("/infill", body).json["content"]
    assert len(whole) > 1
    first: list[Reply] = []
    thread = long_request(server, first)
    along = server.ask("/infill", body | {"prompt": whole[:1]}, X_Client_Id="me").json
    thread.join()
    assert along["content"] == whole[1:] and along["tokens_evaluated"] == 0
    assert first[0].status == 409
    assert server.idle()


def test_a_slow_reader_holds_nobody_up() -> None:
    with serving(limits=Limits(tokens=256, stall_seconds=1.0)) as server:
        slow = server.connect()
        slow.connect()
        slow.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        slow.request(
            "POST", "/v1/completions",
            b'{"prompt":"a","max_tokens":256,"n":20,"temperature":1,"logprobs":5,"echo":true,"stream":true}',
        )  # fmt: skip
        for _ in range(5):
            assert server.ask("/v1/completions", {"prompt": "b", "max_tokens": 3}).status == 200
        assert server.idle()
        slow.close()


def test_an_answer_that_takes_too_long_is_given_up() -> None:
    with serving(limits=Limits(tokens=256, answer_seconds=0.001)) as server:
        reply = server.ask("/infill", {"input_prefix": "a = ", "n_predict": 256, "n_cmpl": 50})
        assert reply.status == 504 and reply.json["error"]["type"] == "timeout_error"
        assert server.idle()


def test_the_queue_has_an_end() -> None:
    with serving(limits=Limits(tokens=256, queue=4)) as server:
        reply = server.ask("/v1/completions", {"prompt": "a", "n": 5})
        assert reply.status == 429 and reply.headers["retry-after"] == "1"
        reply = server.ask("/v1/completions", {"prompt": ["a"] * 5, "max_tokens": 20})
        assert reply.status == 429
        assert server.ask("/v1/completions", {"prompt": "a", "n": 4, "max_tokens": 2}).status == 200
        assert server.idle()
