"""Sick upstreams: whatever they do, their clients are answered by others or told so, and they come back."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from typing import Any

import pytest
from faulty_upstream import FIXED, FaultyUpstream, faulty
from routing import CODE, direct, metric, router, routing, said, told, two, wait_until
from serving import Running

from codegen25.serve.upstream import FAILURES
from codegen25.tokenizer import family

__all__ = ["direct", "router", "two"]

HARD = ["half a json", "a number", "no choices", "text is a number", "ids of another vocabulary",
        "ids are text", "half a character", "deep", "401", "404", "hang", "junk"]  # fmt: skip
SOFT = ["html", "no http", "500", "an error in the stream", "nothing", "cut at once"]
FIXED["cut at once"] = (200, {"Content-Length": "1000"}, b"data:")


@pytest.mark.parametrize("fault", [*HARD, *SOFT, "busy", "slow"])
def test_somebody_else_answers(fault: str, direct: Running, two: list[Running]) -> None:
    """Whatever one does before its first token, the other answers; the sick one is out, and comes back."""
    ask = {"prompt": family().encode("def f(x):\n    return x"), "max_tokens": 8, "stream": True}
    expected = told(direct.ask("/v1/completions", ask).events)
    is_hard = fault in HARD
    with faulty(two[0].port) as sick, routing([sick.url, two[1].url], seconds=2) as (running, pool):
        sick.mode = fault
        for number in range(1 if is_hard else FAILURES):
            pool.all[0].last_chosen = -1
            pool.forget(pool.all[1])
            assert told(running.ask("/v1/completions", ask).events) == expected
            assert len(sick.asked) > number
        assert pool.all[0].is_up == (fault in ("busy", "slow")), pool.all[0].why
        kind = {"busy": "busy", "slow": "answered"}.get(fault, "failed")
        assert metric(running, "codegen25_upstream_requests_total", upstream=sick.url, outcome=kind) >= 1
        sick.mode = ""
        wait_until(lambda: pool.all[0].is_up)
        pool.all[0].last_chosen = -1
        assert told(running.ask("/v1/completions", ask).events) == expected


@pytest.mark.parametrize("fault", ["cut", "silent"])
def test_behind_the_first_token_nothing_is_asked_again(fault: str, direct: Running) -> None:
    """A stream that broke off says so; an answer of which nobody has seen any goes on elsewhere, the text the same."""
    asks = [{"prompt": f"# {fault} {number}\n{CODE[:151]}", "max_tokens": 12} for number in range(2)]

    with ExitStack() as stack:
        sick = stack.enter_context(faulty(direct.port))
        running, pool = stack.enter_context(routing([sick.url, direct.url], seconds=1))
        sick.mode = fault
        pool.all[0].last_chosen = -1
        reply = running.ask("/v1/completions", asks[0] | {"stream": True})
        whole = said(direct.ask("/v1/completions", asks[0]))
        events = reply.events
        assert reply.status == 200 and events[-1]["error"]["code"] == "upstream_failed"
        begun = "".join(choice["text"] for event in events[:-1] for choice in event["choices"])
        assert begun and whole[0]["text"].startswith(begun) and begun != whole[0]["text"]
        sick.mode = ""
        wait_until(lambda: pool.all[0].is_up)
        sick.mode = fault
        pool.all[0].last_chosen = -1
        before = len(sick.asked)
        answered = said(running.ask("/v1/completions", asks[1]))
        assert len(sick.asked) == before + 2 and pool.retries == 1, "healed and begun, then asked elsewhere"
        assert answered == said(direct.ask("/v1/completions", asks[1]))


def test_a_request_that_is_wrong_is_not_tried_again(router: Running, two: list[Running]) -> None:
    with faulty(two[0].port) as strict, routing([strict.url]) as (running, pool):
        FIXED["400"] = (400, {}, b'{"error": {"message": "max_logprobs is 0"}}')
        strict.mode = "400"
        reply = running.ask("/v1/completions", {"prompt": [1, 2], "max_tokens": 1})
        assert reply.status == 400 and "max_logprobs is 0" in reply.json["error"]["message"]
        assert pool.all[0].is_up and pool.retries == 0


def test_one_that_no_upstream_can_answer_does_not_take_all_out(two: list[Running]) -> None:
    with faulty(two[0].port) as one, faulty(two[1].port) as other, routing([one.url, other.url]) as (running, pool):
        one.mode = other.mode = "500"
        reply = running.ask("/v1/completions", {"prompt": [1, 2], "max_tokens": 1})
        assert reply.status == 503 and reply.headers["retry-after"]
        assert [upstream.is_up for upstream in pool.all] == [True, True]


ERRORS: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/completions", {"prompt": "x"}, "error.code"),
    ("/infill", {"input_prefix": "x", "input_suffix": ""}, "error.type"),
    ("/api/generate", {"prompt": "x"}, "error"),
    ("/v1/completions", {"segments": {"prefix": "x"}}, "error.message"),
    ("/fim/completions", {"prompt": "x", "suffix": ""}, "error.message"),
]


def test_all_upstreams_down() -> None:
    """503 with Retry-After, each dialect in its own form; and no request has to wait for that."""
    with routing(["http://127.0.0.1:9", "http://127.0.0.1:1"], expected=0) as (running, _):
        for path, body, where in ERRORS:
            reply = running.ask(path, body)
            assert reply.status == 503 and int(reply.headers["retry-after"]) > 0
            found = reply.json
            for name in where.split("."):
                found = found[name]
            assert "127.0.0.1" not in reply.body.decode(), "addresses are not for clients"
        assert running.ask("/health").status == 503
        assert metric(running, "codegen25_upstream_up") == 0
        assert running.ask("/metrics").status == 200


def test_another_window_and_another_vocabulary_are_never_in(
    two: list[Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty(two[0].port) as small, faulty(two[0].port) as other:

        def answer_with(upstream: FaultyUpstream, old: bytes, new: bytes) -> None:
            begin = upstream._pass_on

            def pass_on(handler: Any, body: bytes | None, mode: str) -> None:
                write = handler.wfile.write
                monkeypatch.setattr(handler.wfile, "write", lambda data: write(re.sub(old, new, data)))
                begin(handler, body, mode)

            monkeypatch.setattr(upstream, "_pass_on", pass_on)

        answer_with(small, rb'"max_model_len":\d+', b'"max_model_len":8')
        answer_with(other, rb'"text":"[^"]+"', b'"text":"ozone"')
        with routing([small.url, other.url], expected=0) as (running, pool):
            wait_until(lambda: all("not asked" not in one.why for one in pool.all))
            assert "serves 8 tokens" in pool.all[0].why and "'ozone'" in pool.all[1].why
            assert running.ask("/v1/completions", {"prompt": "x"}).status == 503


def test_a_client_that_leaves_ends_the_upstreams_work(router: Running, two: list[Running]) -> None:
    connection = router.connect()
    ask = {"prompt": "def f(", "max_tokens": 256, "stream": True}
    connection.request("POST", "/v1/completions", json.dumps(ask))
    assert connection.getresponse().read(20)
    connection.close()
    assert router.idle() and all(one.idle() for one in two)
    answered = sum(metric(one, "codegen25_answered_tokens_total") for one in two)
    assert sum(metric(one, "codegen25_disconnects_total") for one in two) >= 1
    assert metric(router, "codegen25_upstream_requests_total", outcome="dropped") >= 1
    assert answered == sum(metric(one, "codegen25_answered_tokens_total") for one in two)
