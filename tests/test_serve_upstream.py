"""Our dialects in front of other servers: the same text as without, whatever some of these do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from faulty_upstream import faulty
from routing import CODE, direct, metric, router, routing, said, told, two
from serving import Running

from codegen25.tokenizer import family

__all__ = ["direct", "router", "two"]


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


@pytest.mark.parametrize("at", [0, 7, 31, 68, 71, 130, 133, 151, 170, 199, 240, len(CODE)])
def test_the_same_as_without_a_router(direct: Running, router: Running, at: int) -> None:
    for path, body in asks(at):
        assert said(router.ask(path, body)) == said(direct.ask(path, body)), (path, body)


def test_the_same_as_without_a_router_in_streams(direct: Running, router: Running) -> None:
    for at in (40, 151):
        for path, body in asks(at)[:7]:
            texts = [told(one.ask(path, body | {"stream": True}).events) for one in (direct, router)]
            assert texts[0] == texts[1], (path, body)


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


def test_what_somebody_types_stays_at_one_upstream(two: list[Running]) -> None:
    """Two people, a key at a time: each has an upstream of their own, whose cache has all but the last words."""
    with routing([one.url for one in two]) as (running, pool):
        before = [one.outcomes["answered"] for one in pool.all]
        texts = [CODE, CODE.replace("Table", "Chair").replace("import json", "from json import dumps\nimport os")]
        for at in range(120, 150, 3):
            for who, text in enumerate(texts):
                ask = {"input_prefix": text[:at], "input_suffix": text[150:], "n_predict": 4}
                reply = running.ask("/infill", ask, X_Client_Id=str(who))
                assert reply.status == 200
                if at > 130:
                    assert reply.json["timings"]["cache_n"] > reply.json["timings"]["prompt_n"]
        answered = [one.outcomes["answered"] - n for one, n in zip(pool.all, before, strict=True)]
        assert sum(answered) <= 20 and abs(answered[0] - answered[1]) <= 2 and min(answered) >= 8
