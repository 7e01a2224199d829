"""Our dialects in front of other servers: the same text as without, whatever some of these do."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from faulty_upstream import FIXED, FaultyUpstream, faulty
from hypothesis import given
from hypothesis import strategies as st
from publisher_folder import random_llama
from serving import CONFIG, Running, serving

from codegen25.cli import main
from codegen25.errors import UsageError
from codegen25.model.checkpoint import save_llama
from codegen25.model.hf_tokenizer import write_tokenizer
from codegen25.serve.upstream import FAILURES, Failed, Upstream, address
from codegen25.serve.upstream_metrics import UpstreamFigures
from codegen25.serve.upstream_model import UpstreamModel, open_upstream
from codegen25.serve.upstream_pool import BLOCK, SLACK, Pool, beginnings
from codegen25.tokenizer import family

CODE = """import json


class Table:
    def __init__(self, rows, name=None):
        self.rows = rows
        self.name = name or "table"

    def total(self, key):
        return sum(row[key] for row in self.rows)


print(json.dumps(Table([{"a": 1}]).total("a")))
"""


@contextmanager
def routing(
    urls: Sequence[str], *, seconds: float = 20.0, expected: int | None = None
) -> Iterator[tuple[Running, Pool]]:
    """A server in front of others, of which `expected` (by default all) have come up."""
    pool = Pool([address(url) for url in urls])
    with serving(load=lambda: UpstreamModel(family(), CONFIG, pool, seconds=seconds)) as running:
        running.service.metrics.registry.register(UpstreamFigures(pool))
        wanted = len(pool.all) if expected is None else expected
        wait_until(lambda: sum(one.is_up for one in pool.all) >= wanted)
        yield running, pool


def wait_until(holds: Any) -> None:
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError("waited 20 seconds in vain")


@pytest.fixture(scope="module")
def direct() -> Iterator[Running]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def two() -> Iterator[list[Running]]:
    with ExitStack() as stack:
        yield [stack.enter_context(serving()) for _ in range(2)]


@pytest.fixture(scope="module")
def router(two: list[Running]) -> Iterator[Running]:
    with routing([one.url for one in two]) as (running, _):
        yield running


# --------------------------------------------------------------------------------------------------------- equal texts


def asks(at: int) -> list[tuple[str, dict[str, Any]]]:
    """Requests of all dialects with the cursor at a place in CODE."""
    before, behind = CODE[:at], CODE[at:]
    return [
        ("/v1/completions", {"prompt": before, "max_tokens": 12}),
        ("/v1/completions", {"prompt": before, "suffix": behind, "max_tokens": 12, "stop": ["\n\n", "self"]}),
        ("/v1/completions", {"prompt": family().encode(before) or [11], "max_tokens": 6, "logit_bias": {"11": -100}}),
        ("/v1/completions", {"prompt": before, "max_tokens": 5, "logprobs": 3, "echo": True}),
        ("/v1/completions", {"prompt": before, "suffix": behind, "max_tokens": 5, "logprobs": 2}),
        ("/v1/completions", {"parts": [before, "\n", behind], "max_tokens": 6}),
        ("/v1/completions", {"prompt": before, "max_tokens": 6, "n": 2, "temperature": 0}),
        ("/infill", {"input_prefix": before, "input_suffix": behind, "n_predict": 12}),
        ("/infill", {"input_prefix": before, "input_suffix": behind, "n_predict": 12, "n_indent": 4, "lines": "any",
                     "input_extra": [{"text": "def total(rows): ...\n", "filename": "a.py"}]}),
        ("/completion", {"prompt": before, "n_predict": 8, "repeat_penalty": 1.3}),
        ("/api/generate", {"prompt": before, "suffix": behind, "stream": False, "options": {"num_predict": 8}}),
        ("/fim/completions", {"prompt": before, "suffix": behind, "max_tokens": 8}),
        ("/v1/completions", {"segments": {"prefix": before, "suffix": behind}}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": before or "x"}], "max_tokens": 8}),
    ]  # fmt: skip


def said(reply: Any) -> Any:
    """An answer without what is another each time."""
    assert reply.status == 200, reply.body
    found = reply.json
    if "choices" in found:
        return [{**choice, "logprobs": rounded(choice.get("logprobs"))} for choice in found["choices"]]
    return found.get("content", found.get("response")), found.get("stop_type"), found.get("done_reason")


def rounded(logprobs: Any) -> Any:
    return logprobs and json.loads(json.dumps(logprobs), parse_float=lambda text: round(float(text), 4))


@pytest.mark.parametrize("at", [0, 7, 31, 68, 71, 130, 133, 151, 170, 199, 240, len(CODE)])
def test_the_same_as_without_a_router(direct: Running, router: Running, at: int) -> None:
    for path, body in asks(at):
        assert said(router.ask(path, body)) == said(direct.ask(path, body)), (path, body)


def test_the_same_as_without_a_router_in_streams(direct: Running, router: Running) -> None:
    for at in (40, 151):
        for path, body in asks(at)[:7]:
            texts = [told(one.ask(path, body | {"stream": True}).events) for one in (direct, router)]
            assert texts[0] == texts[1], (path, body)


def told(events: Sequence[Any]) -> dict[int, tuple[str, Any]]:
    """Text and end by choice."""
    found: dict[int, tuple[str, Any]] = {}
    for event in events:
        for choice in event["choices"]:
            text, _ = found.get(choice["index"], ("", None))
            found[choice["index"]] = text + choice["text"], choice["finish_reason"]
    return found


def test_the_best_of_several(router: Running) -> None:
    """Log-probabilities come from the upstream: the best of several is the likeliest."""
    ask = {"prompt": family().encode(CODE[:40]), "max_tokens": 4, "temperature": 1, "seed": 3, "logprobs": 0}
    all_five = router.ask("/v1/completions", ask | {"n": 5}).json["choices"]
    best = router.ask("/v1/completions", ask | {"n": 1, "best_of": 5}).json["choices"]
    unscored = {name: value for name, value in ask.items() if name != "logprobs"}
    (alone,) = router.ask("/v1/completions", unscored | {"n": 1, "best_of": 5}).json["choices"]

    def mean(choice: Any) -> float:
        found = choice["logprobs"]["token_logprobs"]
        return float(sum(found) / len(found))

    assert best[0]["text"] == max(all_five, key=mean)["text"] == alone["text"]
    assert len({choice["text"] for choice in all_five}) > 1


def test_what_vllm_adds_to_openais_fields_our_server_knows(direct: Running) -> None:
    prompt, allowed = family().encode("def f(x):\n"), family().encode(" return self")
    ask = {"prompt": prompt, "max_tokens": 9, "allowed_token_ids": allowed, "return_token_ids": True}
    (choice,) = direct.ask("/v1/completions", ask).json["choices"]
    assert len(choice["token_ids"]) == 9 and set(choice["token_ids"]) <= set(allowed)
    assert family().decode(choice["token_ids"]) == choice["text"]
    events = direct.ask("/v1/completions", ask | {"stream": True}).events
    assert [id for event in events for one in event["choices"] for id in one["token_ids"]] == choice["token_ids"]
    reply = direct.ask("/v1/completions", ask | {"allowed_token_ids": [10**9]})
    assert reply.status == 400 and reply.json["error"]["param"] == "allowed_token_ids"


def test_typing_along_asks_no_upstream(router: Running, two: list[Running]) -> None:
    ask = {"input_prefix": "def g(x):\n", "input_suffix": "\n", "prompt": "    y", "n_predict": 8, "lines": "any"}
    text = router.ask("/infill", ask).json["content"]
    before = [metric(one, "codegen25_requests_total") for one in two]
    along = router.ask("/infill", ask | {"prompt": "    y" + text[:2]}).json
    assert along["content"] == text[2:]
    assert [metric(one, "codegen25_requests_total") for one in two] == before


def metric(running: Running, name: str, **labels: str) -> float:
    """The sum of a metric over all but the given labels."""
    text = running.ask("/metrics").body.decode()
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    lines = [line for line in text.splitlines() if re.match(rf"{name}[{{ ]", line)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(label in line for label in wanted))


def test_an_upstream_that_heeds_nothing_of_vllms(direct: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """By text and the five likeliest tokens: holes end, stop strings hold, prompts heal where a likely token may."""
    with faulty(direct.port) as plain:
        ignored = {"allowed_token_ids", "return_token_ids", "return_tokens_as_token_ids", "stop_token_ids"}
        answer = plain.answer

        def without(handler: Any, body: bytes | None) -> None:
            members = json.loads(body) if body is not None else {}
            kept = {name: value for name, value in members.items() if name not in ignored}
            answer(handler, json.dumps(kept).encode() if body is not None else None)

        monkeypatch.setattr(plain, "answer", without)
        with routing([plain.url]) as (running, pool):
            assert not pool.all[0].constrains and not pool.all[0].gives_ids
            for path, body in asks(len(CODE) - 1)[:1] + asks(151)[2:3] + asks(71)[6:7]:
                routed = running.ask(path, body)
                assert routed.status == 200
            prompt = family().encode(CODE[:71])
            ask = {"prompt": prompt, "max_tokens": 12, "stop": ["e"]}
            assert said(running.ask("/v1/completions", ask)) == said(direct.ask("/v1/completions", ask))
            ask = {"prompt": prompt, "max_tokens": 12, "logprobs": 1}
            routed, own = (one.ask("/v1/completions", ask).json["choices"][0] for one in (running, direct))
            assert routed["text"] == own["text"]
            healed = running.ask("/v1/completions", {"prompt": "    return sel", "max_tokens": 4})
            assert healed.status == 200 and healed.json["usage"]["completion_tokens"] >= 1


# -------------------------------------------------------------------------------------------------- sick upstreams


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


# ------------------------------------------------------------------------------------------------------ which of them


def up(count: int) -> Pool:
    pool = Pool([f"http://host-{number}/v1" for number in range(count)])
    for one in pool.all:
        one.came_up("m", constrains=True, gives_ids=True)
    return pool


def test_sessions_stay_where_they_are(router: Running, two: list[Running]) -> None:
    """What somebody types goes to one upstream, what somebody else types to the other, if it is less busy."""
    pool = up(3)
    prompts = [[1000 * user + n for n in range(300)] for user in range(6)]
    first = [pool.choose(prompt) for prompt in prompts]
    assert {id(one) for one in first} == {id(one) for one in pool.all}
    for grown in range(1, 40):
        assert [pool.choose([*prompt, *range(grown)]) for prompt in prompts] == first
    assert pool.affine == 6 * 39


def test_a_session_leaves_one_that_is_overloaded() -> None:
    pool = up(2)
    prompt = list(range(10 * BLOCK))
    first = pool.choose(prompt)
    assert first is not None
    first.under_way = SLACK
    assert pool.choose(prompt) is first
    first.under_way = SLACK + 1
    assert pool.choose(prompt) is not first
    first.under_way = 0
    assert pool.choose(prompt) is not first, "the other one has it now, too, and served it last"


def test_a_beginning_that_all_share_is_no_session() -> None:
    pool = up(2)
    licence = list(range(2 * BLOCK))
    chosen = [pool.choose([*licence, *(n + 1 + number * 7919 for n in range(6 * BLOCK))]) for number in range(8)]
    assert [chosen.count(one) for one in pool.all] == [4, 4]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200), st.booleans(), st.integers(0, 9)), max_size=60))
def test_choices_hold_their_rule(steps: list[tuple[int, int, bool, int]]) -> None:
    """Against the rule by itself: up, not tried if others are, the least load but for a fair share more."""
    pool = up(4)
    for which, length, is_up, load in steps:
        pool.all[which].is_up, pool.all[which].under_way = is_up, load
        prompt = [length // 3 + n for n in range(length)]
        tried = [pool.all[(which + 1) % 4]]
        chosen = pool.choose(prompt, tried)
        possible = [one for one in pool.all if one.is_up]
        possible = [one for one in possible if one not in tried] or possible
        if chosen is None:
            assert not possible
            continue
        least = min(one.under_way for one in possible)
        assert chosen in possible and chosen.under_way <= 2 * least + SLACK
        again = pool.choose(prompt)
        assert again is not None and again.is_up


@given(st.lists(st.integers(0, 5), max_size=200), st.lists(st.integers(0, 5), max_size=200))
def test_equal_hashes_are_equal_beginnings(a: list[int], b: list[int]) -> None:
    shared = sum(x == y for x, y in zip(beginnings(a), beginnings(b), strict=False))
    same = next((n for n in range(min(len(a), len(b))) if a[n] != b[n]), min(len(a), len(b)))
    if len(a) >= BLOCK and len(b) >= BLOCK:
        assert shared == same // BLOCK


def test_failures_in_a_row() -> None:
    one = Upstream("http://x/v1")
    one.came_up("m", constrains=False, gives_ids=False)
    for _ in range(5):
        assert [one.failed(Failed("500")) for _ in range(FAILURES - 1)] == [False] * (FAILURES - 1)
        one.answered()
    assert one.is_up
    assert [one.failed(Failed("500")) for _ in range(FAILURES)] == [*[False] * (FAILURES - 1), True]
    assert not one.is_up and one.why == "500"
    one.came_up("m", constrains=False, gives_ids=False)
    assert one.failed(Failed("no time", is_hard=True)) and not one.is_up


# ---------------------------------------------------------------------------------------------- processes and killing


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upstream") / "tiny"
    save_llama(random_llama(CONFIG), path, dtype="float32", tokenizer=family())
    write_tokenizer(path)
    return path


class Process:
    """`codegen25 serve` in a process of its own, on a port that it takes."""

    def __init__(self, *arguments: str) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "codegen25", "serve", "--port", "0", *arguments],
            stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.url = ""
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r" at (http://\S+),", line):
                self.url = found[1]

    def wait(self, event: str) -> None:
        wait_until(lambda: self.url and any(f'"{event}"' in line for line in self.log))

    def kill(self, number: int = signal.SIGKILL) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def processes(folder: Path) -> Iterator[list[Process]]:
    made = [Process("--model", str(folder), "--threads", "1") for _ in range(3)]
    try:
        for one in made:
            one.wait("model")
        yield made
    finally:
        for one in made:
            one.kill()


def test_one_of_three_is_killed_under_load(processes: list[Process], folder: Path, tmp_path: Path) -> None:
    """50 at once, a third of the servers gone in the middle: who had not begun to stream is answered, and rightly."""
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    model = open_upstream(str(tmp_path), Pool([address(one.url) for one in processes]), None, 20.0)
    with serving(load=lambda: model) as running:
        wait_until(lambda: all(one.is_up for one in model.pool.all))
        ask = [{"prompt": family().encode(CODE[n : n + 60]), "max_tokens": 120} for n in range(50)]
        alone = [running.ask("/v1/completions", body).json["choices"][0] for body in ask]
        begun = threading.Event()

        def answered(number: int) -> Any:
            if number == 25:
                begun.set()
            return running.ask("/v1/completions", ask[number] | {"stream": number % 2 == 1})

        with ThreadPoolExecutor(50) as threads:
            found = [threads.submit(answered, number) for number in range(50)]
            begun.wait(20)
            wait_until(lambda: model.pool.all[1].under_way > 0 or all(one.done() for one in found))
            processes[1].kill()
            replies = [one.result() for one in found]
        wait_until(lambda: not model.pool.all[1].is_up)
        broken = 0
        for number, reply in enumerate(replies):
            assert reply.status == 200, reply.body
            if number % 2 == 0:
                assert reply.json["choices"][0]["text"] == alone[number]["text"]
            elif "error" in reply.events[-1]:  # its first token had come
                broken += 1
                assert reply.events[0].get("choices"), "an answer that had not begun was lost"
            else:
                assert told(reply.events)[0] == (alone[number]["text"], alone[number]["finish_reason"])
        assert broken < 25
        assert running.ask("/v1/completions", ask[0]).status == 200, "two are left"


def test_the_command(processes: list[Process], folder: Path, tmp_path: Path) -> None:
    """In front of servers, with a tokenizer and no weights, and a key; it ends well when it is told to."""
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    router = Process("--model", str(tmp_path), "--name", "team", *(f"--upstream={one.url}" for one in processes))
    try:
        router.wait("upstream")
        ask = json.dumps({"prompt": "def f(", "max_tokens": 4})
        text = [asyncio.run(posted(one.url, ask)) for one in (router, processes[0])]
        assert text[0] == text[1] and text[0]
    finally:
        code = router.kill(signal.SIGTERM)
    assert code == 0, router.log


async def posted(url: str, body: str) -> str:
    import httpx

    async with httpx.AsyncClient(trust_env=False) as http:
        reply = await http.post(f"{url}/v1/completions", content=body, timeout=30)
        return str(reply.json()["choices"][0]["text"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--upstream", "gpu-1:8000"],
        ["--upstream", "http://:8000"],
        ["--upstream", "http://gpu:99999999"],
        ["--upstream", "http://gpu", "--threads", "2"],
        ["--upstream", "http://gpu", "--model", "nowhere"],
        ["--upstream-key-file", "keys.txt"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "0", *arguments]) in (1, 2)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("url", ["http://a", "http://a/", "http://a:8000", "https://a/v1", "http://a/openai/v1/"])
def test_addresses(url: str) -> None:
    assert address(url).endswith("/v1") and not address(url).endswith("//v1")


@pytest.mark.parametrize("url", ["", "a", "ftp://a", "http://", "http://a:x", "http://a?x=1", "http://a b"])
def test_no_addresses(url: str) -> None:
    with pytest.raises(UsageError, match="--upstream"):
        address(url)
