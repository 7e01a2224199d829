"""OpenAI's dialect: what it says is what the model says, in every combination, and the `openai` package reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
from serving import Running, serving, small_model

from codegen25 import Sampling
from codegen25.engine.decode import Request, decode
from codegen25.tokenizer import family

PROMPT = "def total(values):\n    return "
SUFFIX = "\n\nprint(total([1, 2]))\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        yield running


def completion(server: Running, **body: Any) -> dict[str, Any]:
    reply = server.ask("/v1/completions", body)
    assert reply.status == 200, reply.body
    return reply.json  # type: ignore[no-any-return]


def test_a_completion_is_the_models_own(server: Running) -> None:
    alone = small_model().complete(PROMPT, max_tokens=9)
    made = completion(server, prompt=PROMPT, max_tokens=9)
    (choice,) = made["choices"]
    assert choice == {"text": alone.text, "index": 0, "logprobs": None, "finish_reason": alone.finish_reason}
    usage = made["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (alone.prompt_tokens, len(alone.tokens))


def test_a_hole_is_the_models_own(server: Running) -> None:
    alone = small_model().infill(PROMPT, SUFFIX, max_tokens=9)
    (choice,) = completion(server, prompt=PROMPT, suffix=SUFFIX, max_tokens=9, logprobs=0, lines="any")["choices"]
    assert choice["finish_reason"] == alone.finish_reason
    assert choice["logprobs"]["text_offset"][0] == 0


def test_several_holes_are_the_models_own(server: Running) -> None:
    parts = ["import ", "\n\nprint(json.dumps(", "))\n"]
    alone = small_model().infill_holes(parts, max_tokens=6)
    found = completion(server, parts=parts, max_tokens=6)["choices"]
    assert [(c["text"], c["hole"], c["index"], c["finish_reason"]) for c in found] == [
        (one.text, number, number, one.finish_reason) for number, one in enumerate(alone)
    ]


def test_logprobs_of_several_holes_are_of_tokens_that_are_all_answer(server: Running) -> None:
    parts = ["import ", "\n\nprint(json.dumps(", ", indent=  ", "))\n"]
    body = {"parts": parts, "max_tokens": 6, "logprobs": 0}
    once, again = (completion(server, **body)["choices"] for _ in range(2))  # the second with drafts, and a full cache
    for first, second in zip(once, again, strict=True):
        tokens = "".join(token for token in first["logprobs"]["tokens"] if not token.startswith("<"))
        assert tokens == first["text"] == second["text"] or "bytes:" in tokens
        assert first["logprobs"]["token_logprobs"] == pytest.approx(second["logprobs"]["token_logprobs"], abs=1e-4)


@pytest.mark.parametrize("lines", [0, 2, 5])
def test_holes_open_as_many_lines_before_the_cursor_as_is_asked_for(server: Running, lines: int) -> None:
    parts = ["import os\n" * 20 + "x = ", "\n" + "y = 1\n" * 20 + "z = ", "\n"]
    hole, holes = parts[0], small_model().infill_holes(parts, anchor=lines, max_tokens=6)
    (one,) = completion(server, prompt=hole, suffix="\n", max_tokens=6, anchor=lines)["choices"]
    assert one["text"] == small_model().infill(hole, "\n", anchor=lines, max_tokens=6).text
    found = completion(server, parts=parts, max_tokens=6, anchor=lines)["choices"]
    assert [choice["text"] for choice in found] == [one.text for one in holes]


def greedy_ids(ids: list[int], count: int) -> list[int]:
    """What the model adds to these ids."""
    m = small_model()
    text = family().tokens_starting_with(b"")
    vocabulary = m.span_vocabulary.copy()
    vocabulary[:] = False
    vocabulary[[*text, family().eot]] = True
    request = Request(ids, vocabulary, frozenset({family().eot}), max_tokens=count)
    return [piece.token for piece in decode(m.backend, family(), [request]) if piece.token is not None]


def test_prompts_are_texts_or_ids_one_or_many(server: Running) -> None:
    one, two = family().encode("def f(x):"), family().encode("import os\n")
    wanted = [family().decode(greedy_ids(ids, 5)) for ids in (one, two)]
    found = completion(server, prompt=[one, two], max_tokens=5)["choices"]
    assert [choice["text"] for choice in found] == wanted
    assert [choice["index"] for choice in found] == [0, 1]
    assert completion(server, prompt=one, max_tokens=5)["choices"][0]["text"] == wanted[0]
    texts = completion(server, prompt=["a = 1\n", "b = 2\n"], n=2, temperature=0.5, seed=1, max_tokens=3)["choices"]
    assert [choice["index"] for choice in texts] == [0, 1, 2, 3]
    drawn = small_model().samples("b = 2\n", 2, max_tokens=3, sampling=Sampling(temperature=0.5, seed=1))
    assert [choice["text"] for choice in texts[2:]] == [one.text for one in drawn]


def test_echoed_logprobs_are_the_models_scores(server: Running) -> None:
    """As lm-eval asks: ids in, one token out, the prompt's own log-probabilities back."""
    ids = family().encode("for i in range(10):\n    print(i)\n")
    (choice,) = completion(server, prompt=[ids], max_tokens=1, logprobs=1, echo=True)["choices"]
    found = choice["logprobs"]
    assert (
        len(found["tokens"]) == len(ids) + 1 and found["token_logprobs"][0] is None and found["top_logprobs"][0] is None
    )
    m = small_model()
    sequence = m.backend.new()
    (logits,) = m.backend.forward([(sequence, ids, True)])
    for place in range(1, len(ids)):
        row = logits[place - 1].astype("float64")
        row -= row.max()
        expected = row[ids[place]] - np.log(np.exp(row).sum())
        assert found["token_logprobs"][place] == pytest.approx(expected, abs=1e-4)
        best = max(found["top_logprobs"][place], key=found["top_logprobs"][place].get)
        assert (best == found["tokens"][place]) == (int(row.argmax()) == ids[place])
    assert choice["text"].startswith("for i in range(10):\n    print(i)\n")
    assert [choice["text"][a:b] for a, b in zip(found["text_offset"], found["text_offset"][1:], strict=False)] == [
        family().decode([id]) for id in ids
    ]


COMBINED = [
    {"prompt": PROMPT, "suffix": suffix, "echo": echo, "logprobs": logprobs, "n": n, "best_of": n + more, "stop": stop,
     "temperature": 0.9, "seed": 5, "max_tokens": 6}
    for suffix in (None, SUFFIX) for echo in (False, True) for logprobs in (None, 0, 3) for n in (1, 2)
    for more in (0, 1) for stop in (None, ["e"])
]  # fmt: skip


@pytest.mark.parametrize("body", COMBINED[::3])
def test_everything_can_be_combined(server: Running, body: dict[str, Any]) -> None:
    made = completion(server, **body)
    assert len(made["choices"]) == body["n"]
    for choice in made["choices"]:
        assert choice["text"].startswith(PROMPT) == body["echo"]
        answer = choice["text"].removeprefix(PROMPT) if body["echo"] else choice["text"]
        assert not (body["stop"] and "e" in answer)
        assert (choice["logprobs"] is None) == (body["logprobs"] is None)
        if choice["logprobs"]:
            lengths = {len(values) for values in choice["logprobs"].values()}
            assert len(lengths) == 1
            tops = [top for top in choice["logprobs"]["top_logprobs"] if top is not None]
            assert all(body["logprobs"] <= len(top) <= body["logprobs"] + 1 or not body["logprobs"] for top in tops)


@pytest.mark.parametrize("body", [body for body in COMBINED if body["best_of"] == body["n"]][::2])
def test_a_stream_says_the_same(server: Running, body: dict[str, Any]) -> None:
    whole = completion(server, **body)
    reply = server.ask("/v1/completions", body | {"stream": True, "stream_options": {"include_usage": True}})
    assert reply.headers["content-type"] == "text/event-stream" and reply.body.endswith(b"data: [DONE]\n\n")
    *frames, last = reply.events
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    for index, choice in enumerate(whole["choices"]):
        ours = [frame["choices"][0] for frame in frames if frame["choices"][0]["index"] == index]
        assert "".join(frame["text"] for frame in ours) == choice["text"]
        assert [frame["finish_reason"] for frame in ours if frame["finish_reason"]] == [choice["finish_reason"]]
        if choice["logprobs"]:
            for name, values in choice["logprobs"].items():
                assert [value for frame in ours for value in frame["logprobs"][name]] == values


def test_the_best_of_many_is_the_likeliest(server: Running) -> None:
    body = {"prompt": PROMPT, "max_tokens": 6, "temperature": 1.5, "seed": 3, "logprobs": 0}
    everything = completion(server, n=6, **body)["choices"]
    best = completion(server, n=2, best_of=6, **body)["choices"]

    def mean(choice: dict[str, Any]) -> float:
        values = choice["logprobs"]["token_logprobs"]
        return float(sum(values) / len(values))

    assert [choice["text"] for choice in best] == [
        choice["text"] for choice in sorted(everything, key=mean, reverse=True)[:2]
    ]


def test_a_forbidden_token_does_not_come(server: Running) -> None:
    first = greedy_ids(family().encode("x = "), 1)[0]
    ids = family().encode("x = ")
    made = completion(server, prompt=ids, max_tokens=1, logprobs=0, logit_bias={str(first): -100})
    assert made["choices"][0]["text"] != family().decode([first])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"prompt": 5}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a", [1]]}, "prompt"),
        ({"prompt": [999999]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [1] * 5000}, "prompt"),
        ({"prompt": "a", "max_tokens": -1}, "max_tokens"),
        ({"prompt": "a", "max_tokens": 1e300}, "max_tokens"),
        ({"prompt": "a", "max_tokens": True}, "max_tokens"),
        ({"prompt": "a", "temperature": "hot"}, "temperature"),
        ({"prompt": "a", "temperature": -1}, "temperature"),
        ({"prompt": "a", "n": 0}, "n"),
        ({"prompt": "a", "n": 3, "best_of": 2}, "best_of"),
        ({"prompt": "a", "n": 1, "best_of": 2, "stream": True}, "best_of"),
        ({"prompt": "a", "logprobs": 6}, "logprobs"),
        ({"prompt": "a", "stop": 5}, "stop"),
        ({"prompt": "a", "stop": ["x"] * 500}, "stop"),
        ({"prompt": "a", "suffix": ["b"]}, "suffix"),
        ({"prompt": "a", "stream": "yes"}, "stream"),
        ({"prompt": "a", "parts": ["a", "b"]}, "parts"),
        ({"prompt": "a", "suffix": "b", "anchor": -1}, "anchor"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": "a", "frequency_penalty": 1}, "frequency_penalty"),
        ({"prompt": "a", "logit_bias": {"5": 3}}, "logit_bias"),
    ],
)
def test_a_wrong_field_is_named(server: Running, body: dict[str, Any], field: str) -> None:
    reply = server.ask("/v1/completions", body)
    assert reply.status == 400
    error = reply.json["error"]
    assert error["param"] == field and error["type"] == "invalid_request_error" and field in error["message"]
    assert server.idle()


def test_the_openai_package(server: Running) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["small"]
    assert client.models.retrieve("small").owned_by == "codegen25"
    alone = small_model().complete(PROMPT, max_tokens=8).text
    whole = client.completions.create(model="small", prompt=PROMPT, max_tokens=8)
    assert whole.choices[0].text == alone and whole.usage and whole.usage.completion_tokens == 8
    stream = client.completions.create(model="small", prompt=PROMPT, max_tokens=8, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == alone
    chat = client.chat.completions.create(model="small", messages=[{"role": "user", "content": "Hi"}], max_tokens=5)
    said = client.chat.completions.create(
        model="small", messages=[{"role": "user", "content": "Hi"}], max_tokens=5, stream=True
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in said) == chat.choices[0].message.content
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="gpt-9", prompt="x")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model="small", prompt="x", max_tokens=-5)
