"""llama.cpp, Ollama, Tabby, Continue and chat: what their clients send, byte for byte, and what they read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from serving import Running, serving, small_model

from codegen25.serve import sentinels
from codegen25.serve.sentinels import Infilling

PREFIX = "def total(values):\n    result = 0\n    for value in values:\n"
LINE, SUFFIX = "        result += ", "\n    return result\n\n\nprint(total([1, 2, 3]))\n"

# As llama.vim's autoload/llama.vim makes it, and curl sends it.
LLAMA_VIM = (
    b'{"id_slot":0,"input_prefix":"def total(values):\\n    result = 0\\n    for value in values:\\n",'
    b'"input_suffix":"\\n    return result\\n\\n\\nprint(total([1, 2, 3]))\\n","input_extra":[{"text":"'
    b'def mean(values):\\n    return total(values) / len(values)\\n","time":[1732000000,5],"filename":"stats.py"}],'
    b'"prompt":"        result += ","n_predict":128,"stop":[],"n_indent":8,"top_k":40,"top_p":0.90,'
    b'"samplers":["top_k","top_p","infill"],"stream":false,"cache_prompt":true,"t_max_prompt_ms":500,'
    b'"t_max_predict_ms":1000,"response_fields":["content","timings/prompt_n","timings/prompt_ms",'
    b'"timings/prompt_per_token_ms","timings/prompt_per_second","timings/predicted_n","timings/predicted_ms",'
    b'"timings/predicted_per_token_ms","timings/predicted_per_second","truncated","tokens_cached"]}'
)
LLAMA_VIM_WARM = (
    b'{"id_slot":0,"input_prefix":"","input_suffix":"","input_extra":[{"text":"x = 1\\n","filename":"a.py"}],'
    b'"prompt":"","n_predict":0,"temperature":0.0,"stream":false,"samplers":[],"cache_prompt":true,'
    b'"t_max_prompt_ms":1,"t_max_predict_ms":1,"response_fields":[""]}'
)
LLAMA_VSCODE = (
    b'{"input_prefix":"def total(values):\\n","input_suffix":"\\n","input_extra":[],"prompt":"    return ",'
    b'"n_predict":16,"top_k":40,"top_p":0.99,"stream":false,"n_cmpl":3,"samplers":["top_k","top_p","infill"],'
    b'"cache_prompt":true,"t_max_prompt_ms":500,"t_max_predict_ms":1000}'
)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        yield running


# ----------------------------------------------------------------------------------------------------------- llama.cpp


def test_llama_vim(server: Running) -> None:
    """It finds the content by a pattern, and takes the figures from the root by their flattened names."""
    reply = server.ask("/infill", raw=LLAMA_VIM)
    assert reply.status == 200 and b"\n" not in reply.body
    assert re.match(rb'^\{"content":"', reply.body)
    found = reply.json
    assert set(found) == set(json.loads(LLAMA_VIM)["response_fields"])
    assert isinstance(found["timings/prompt_n"], int) and found["truncated"] is False and found["tokens_cached"] > 0
    assert "\n" not in found["content"]


def test_llama_vims_calls_in_advance_fill_the_cache(server: Running) -> None:
    reply = server.ask("/infill", raw=LLAMA_VIM_WARM)
    assert reply.status == 200 and reply.json == {}
    body = {"input_prefix": PREFIX * 6, "input_suffix": SUFFIX, "prompt": LINE}
    server.ask("/infill", body | {"n_predict": 0, "samplers": [], "t_max_predict_ms": 1, "response_fields": [""]})
    assert server.idle()
    first = server.ask("/infill", body | {"n_predict": 32}).json
    assert first["timings"]["cache_n"] > 0.8 * first["tokens_evaluated"]


def test_llama_vscode(server: Running) -> None:
    found = server.ask("/infill", raw=LLAMA_VSCODE).json
    assert isinstance(found, list) and len(found) == 3
    assert all(isinstance(one["content"], str) and "predicted_ms" in one["timings"] for one in found)
    wrong = server.ask("/infill", raw=b'{"input_prefix":5}')
    assert wrong.status == 400 and isinstance(wrong.json["error"]["message"], str)


def test_what_plugins_ask_beside_it(server: Running) -> None:
    assert server.ask("/health").json == {"status": "ok"}
    assert server.ask("/props").json["default_generation_settings"]["n_ctx"] == 640
    assert server.ask("/slots").json[0]["n_ctx"] == 640
    (row,) = server.ask("/v1/models").json["data"]
    assert row["owned_by"] and row["meta"]["n_vocab"] == 51200
    text = "def f(x):\n    return 'π'\n"
    tokens = server.ask("/tokenize", {"content": text}).json["tokens"]
    assert tokens == small_model().tokenizer.encode(text) == server.ask("/tokenize", {"prompt": text}).json["tokens"]
    assert server.ask("/detokenize", {"tokens": tokens}).json == {"content": text, "prompt": text}
    assert server.ask("/detokenize", {"tokens": [51_500]}).status == 400
    assert server.ask("/tokenizer_info").json["eos_token"] == "<|endoftext|>"
    pieces = server.ask("/tokenize", {"content": text, "with_pieces": True}).json["tokens"]
    assert "".join(piece["piece"] for piece in pieces[:5]) == text[: len("def f(x):")]


@pytest.mark.parametrize("path", ["/completion", "/infill"])
def test_llama_cpp_streams_what_it_says_whole(server: Running, path: str) -> None:
    body = {"prompt": LINE, "input_prefix": PREFIX, "input_suffix": "", "n_predict": 12, "lines": "any"}
    whole = server.ask(path, body)
    server.service.served.answering.suggested.forget()
    events = server.ask(path, body | {"stream": True}).events
    assert "".join(event["content"] for event in events) == whole.json["content"]
    assert [event["stop"] for event in events] == [False] * (len(events) - 1) + [True]
    assert events[-1]["stop_type"] == whole.json["stop_type"] and events[-1]["timings"]["predicted_n"] > 0
    assert server.ask("/completion", {"prompt": [1, 2, 3], "n_predict": 2}).status == 200


def test_one_line_less_indented_ends_an_answer(server: Running) -> None:
    reply = server.ask(
        "/infill", {"input_prefix": PREFIX, "prompt": LINE, "n_predict": 60, "n_indent": 8, "lines": "any"}
    )
    lines = reply.json["content"].split("\n")[1:]
    assert all(not line.strip() or line.startswith(" " * 8) for line in lines)


# -------------------------------------------------------------------------------------------------------------- ollama


def test_ollama(server: Running) -> None:
    assert server.ask("/api/version").json["version"]
    (tag,) = server.ask("/api/tags").json["models"]
    assert tag["name"] == "small:latest"
    assert ".Suffix" in server.ask("/api/show", {"model": tag["name"]}).json["template"]  # which Continue looks for
    assert server.ask("/api/show", {"name": "other"}).status == 404
    body: dict[str, Any] = {
        "model": "small:latest",
        "prompt": PREFIX + LINE,
        "suffix": SUFFIX,
        "options": {"num_predict": 12},
        "raw": True,
    }
    whole = server.ask("/api/generate", body | {"stream": False}).json
    assert whole["done"] and whole["eval_count"] >= 0 and whole["total_duration"] >= 0
    server.service.served.answering.suggested.forget()
    reply = server.ask("/api/generate", body)
    assert reply.headers["content-type"] == "application/x-ndjson"
    rows = [json.loads(line) for line in reply.body.splitlines()]
    assert "".join(row["response"] for row in rows) == whole["response"]
    assert [row["done"] for row in rows] == [False] * (len(rows) - 1) + [True]
    assert server.ask("/api/generate", {"model": "small", "prompt": ""}).json["done_reason"] == "load"
    wrong = server.ask("/api/generate", {"model": "gpt", "prompt": "x"})
    assert wrong.status == 404 and isinstance(wrong.json["error"], str)


# --------------------------------------------------------------------------------------------------------------- tabby


def test_tabby(server: Running) -> None:
    nothing: dict[str, Any] = {}
    for body in (None, nothing):
        health = server.ask("/v1/health", body).json
        assert health["model"] == "small" and health["version"]["git_describe"]
    segments = {
        "prefix": PREFIX + LINE, "suffix": SUFFIX, "filepath": "a.py", "clipboard": "value",
        "declarations": [{"filepath": "b.py", "body": "def result(): ..."}],
        "relevant_snippets_from_changed_files": [{"filepath": "c.py", "body": "result = 5", "score": 2.5}],
    }  # fmt: skip
    reply = server.ask("/v1/completions", {"language": "python", "segments": segments, "user": "u", "seed": 3})
    assert reply.status == 200 and reply.json["id"].startswith("cmpl-")
    assert [set(choice) for choice in reply.json["choices"]] == [{"index", "text"}]
    assert server.ask("/v1/events", {"type": "view", "completion_id": "x", "choice_index": 0}).status == 200
    assert server.ask("/v1beta/server_setting").json["disable_client_side_telemetry"] is True
    assert server.ask("/v1/completions", {"segments": {"prefix": 5}}).status == 400


# ------------------------------------------------------------------------------------------------------ continue, chat


def test_continue(server: Running) -> None:
    body: dict[str, Any] = {
        "model": "small",
        "prompt": PREFIX + LINE,
        "suffix": SUFFIX,
        "max_tokens": 12,
        "stop": ["\n\n", ""],
    }
    for path in ("/fim/completions", "/v1/fim/completions"):
        whole = server.ask(path, body).json["choices"][0]["message"]["content"]
        server.service.served.answering.suggested.forget()
        reply = server.ask(path, body | {"stream": True})
        assert reply.body.endswith(b"data: [DONE]\n\n")
        assert "".join(event["choices"][0]["delta"]["content"] for event in reply.events) == whole


def test_chat_is_a_completion_of_the_template(server: Running) -> None:
    from codegen25 import chat

    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    ]
    reply = server.ask("/v1/chat/completions", {"messages": messages, "max_tokens": 7})
    prompt = chat.render([chat.Message("system", "Be brief."), chat.Message("user", "Hi")])
    alone = small_model().complete(prompt, max_tokens=7, stop=[chat.STOP])
    assert reply.json["choices"][0]["message"] == {"role": "assistant", "content": alone.text}
    for wrong in ([], [{"role": "robot", "content": "x"}], [{"role": "user"}], [{"role": "assistant", "content": "x"}]):
        assert server.ask("/v1/chat/completions", {"messages": wrong}).status == 400


# ----------------------------------------------------------------------------------------- other models' formats, pages


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("<fim_prefix>a<fim_suffix>b<fim_middle>", Infilling("", "a", "b")),
        ("<|fim_prefix|>a\n<|fim_suffix|>b<|fim_middle|>\n", Infilling("", "a\n", "b")),
        ("<｜fim▁begin｜>a<｜fim▁hole｜>b<｜fim▁end｜>", Infilling("", "a", "b")),  # noqa: RUF001
        ("<PRE> a <SUF>b <MID>", Infilling("", "a", "b")),
        ("[SUFFIX]b[PREFIX]a", Infilling("", "a", "b")),
        ("+++++ c.py\nc\n[SUFFIX]b[PREFIX]a", Infilling("+++++ c.py\nc\n", "a", "b")),
        ("<file_sep>x.py\nc\n<fim_prefix>a<fim_suffix>b<fim_middle>", Infilling("x.py\nc\n", "a", "b")),
        ("a<mask_1>b<|endoftext|><sep><mask_1>", Infilling("", "a", "b")),
        ("text <fim_prefix> and <fim_suffix>", None),
        ("<fim_middle>", None),
        ("", None),
        ("def f(): # [SUFFIX]", None),
    ],
)  # fmt: skip
def test_foreign_formats(prompt: str, read: Infilling | None) -> None:
    assert sentinels.read(prompt) == read


def test_a_foreign_prompt_is_the_hole_it_means(server: Running) -> None:
    def text(path: str, body: dict[str, Any], field: str) -> str:
        server.service.served.answering.suggested.forget()
        found = server.ask(path, body).json
        return str(found["choices"][0][field] if "choices" in found else found[field])

    prompt = f"<fim_prefix>{PREFIX}{LINE}<fim_suffix>{SUFFIX}<fim_middle>"
    wanted = text("/v1/completions", {"prompt": PREFIX + LINE, "suffix": SUFFIX, "max_tokens": 12}, "text")
    assert text("/v1/completions", {"prompt": prompt, "max_tokens": 12}, "text") == wanted
    assert text("/completion", {"prompt": prompt, "n_predict": 12}, "content") == wanted
    assert text("/api/generate", {"prompt": prompt, "stream": False, "lines": "any", "options": {"num_predict": 12}},
                "response") == wanted  # fmt: skip


def test_the_page_of_the_interface_names_every_path(server: Running) -> None:
    document = server.ask("/openapi.json").json
    page = server.ask("/docs").body.decode()
    assert document["openapi"].startswith("3.") and len(document["paths"]) > 20
    assert all(f"<code>{path}</code>" in page for path in document["paths"])
    body: dict[str, Any] = {
        "prompt": "x",
        "max_tokens": 1,
        "n_predict": 1,
        "tokens": [1],
        "options": {"num_predict": 1},
    }
    body["messages"] = [{"role": "user", "content": "x"}]
    for path, operations in document["paths"].items():
        for method in operations:
            reply = server.ask(path, body if method == "post" else None)
            assert reply.status == 200, (path, reply.body)
    missing = server.ask("/nowhere", {})
    assert missing.status == 404 and missing.json["error"]["message"]
    assert server.ask("/infill").status == 405
