"""With an index every answer says where it comes from, and a policy holds for each stream by itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attributed import function, tracer
from serving import Reply, Running, serving, small_model

from codegen25 import chat
from codegen25.attribute.inline import Inline, beside
from codegen25.bench.overfitted import Overfitted
from codegen25.cli import main
from codegen25.complete import Model
from codegen25.data.lexemes import Lexemes
from codegen25.engine.backend import Facts
from codegen25.serve.attribution import placed
from codegen25.tokenizer import family

FREE, GPL, NOBODYS = (function((source, 0, 0)) for source in ("alpha", "gpl-tools", "nobody"))
QUESTION = [{"role": "user", "content": "Write it."}]
ASKED = chat.render(chat.messages_of(QUESTION))


def overfitted() -> Model:
    T = family()
    texts = [[T.eot, *T.encode(text), T.eot] for text in (FREE, GPL, NOBODYS)]
    return Model(Overfitted([*texts, [*T.encode(ASKED), *T.encode(FREE), T.eot]], T.n_vocab), T)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    tracer(folder)
    return folder / "index"


@pytest.fixture(scope="module")
def inline(index: Path) -> Inline:
    return Inline(index, None, overfitted())


@pytest.fixture(scope="module")
def plain(index: Path) -> Iterator[Running]:
    """With an index and no policy."""
    with serving(load=overfitted, attribute=beside(index, None)) as running:
        yield running


@pytest.fixture(scope="module")
def strict(index: Path) -> Iterator[Running]:
    with serving(load=overfitted, attribute=beside(index, "permissive")) as running:
        yield running


def beginning(text: str) -> str:
    return text[: text.index("\n") + 1]


# ------------------------------------------------------------------------------------------------------------ dialects


def openai(text: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/completions", {"prompt": beginning(text), "max_tokens": 120, **more}


def dialects(text: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """By name: a path and a request for what comes behind the first line of a text."""
    start, hole = beginning(text), {"lines": "any"}
    return {
        "openai": openai(text),
        "openai hole": openai(text, suffix="", lines="any"),
        "chat": ("/v1/chat/completions", {"messages": QUESTION}),
        "completion": ("/completion", {"prompt": start, "n_predict": 160}),
        "infill": ("/infill", {"input_prefix": start, "n_predict": 160, **hole}),
        "ollama": ("/api/generate", {"prompt": start, "options": {"num_predict": 160}}),
        "continue": ("/fim/completions", {"prompt": start, "suffix": "", "max_tokens": 160, **hole}),
        "tabby": ("/v1/completions", {"segments": {"prefix": start, "suffix": ""}, **hole}),
    }


NAMES = list(dialects(FREE))


def said(one: dict[str, Any]) -> tuple[str, list[dict[str, Any]] | None, str | None]:
    """Text, attribution and the word for its end, of an answer or a frame of one."""
    choice: dict[str, Any] = one["choices"][0] if "choices" in one else one
    inner = choice.get("message") or choice.get("delta") or choice
    text = inner.get("content", choice.get("text", choice.get("response", "")))
    end = choice.get("finish_reason") or choice.get("done_reason") or choice.get("stop_type")
    return text, choice.get("attribution"), end


def asked(server: Running, path: str, body: dict[str, Any], stream: bool) -> Any:
    """(text, attribution, end) of a request, put together where it is streamed."""
    server.service.served.answering.suggested.forget()
    reply = server.ask(path, body | {"stream": stream})
    assert reply.status == 200, reply.body
    if not stream:
        return said(reply.json)
    frames = [said(one) for one in objects(reply)]
    assert all(spans is None for _, spans, _ in frames[:-1]), "attribution comes with the last event"
    return "".join(text for text, _, _ in frames), *frames[-1][1:]


def objects(reply: Reply) -> list[Any]:
    lines = (line.removeprefix(b"data: ") for line in reply.body.split(b"\n"))
    return [json.loads(line) for line in lines if line not in (b"", b"[DONE]")]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_every_dialect_says_where_an_answer_stands(plain: Running, inline: Inline, name: str, stream: bool) -> None:
    if name == "tabby" and stream:
        pytest.skip("has no streams")
    text, spans, _ = asked(plain, *dialects(FREE)[name], stream)
    assert text in FREE and len(text) > 300
    assert spans == json.loads(json.dumps(inline.spans(text))) and spans
    (span,) = spans
    assert span["count"] == 1 and span["sources"][0]["source"] == "alpha" and span["sources"][0]["license"] == "MIT"
    assert span["end"] - span["start"] > len(text) - 30


def test_every_hole_has_its_own(plain: Running, inline: Inline) -> None:
    parts = [beginning(FREE), "\n\n\n" + beginning(GPL), "\n"]
    reply = plain.ask("/v1/completions", {"parts": parts, "max_tokens": 120, "lines": "any"}).json
    for choice, source in zip(reply["choices"], ("alpha", "gpl-tools"), strict=True):
        assert choice["attribution"] == json.loads(json.dumps(inline.spans(choice["text"])))
        assert [span["sources"][0]["source"] for span in choice["attribution"]] == [source]


@pytest.mark.parametrize("stream", [False, True])
def test_behind_an_echo_the_places_are_those_of_the_text(plain: Running, inline: Inline, stream: bool) -> None:
    path, body = openai(FREE, echo=True)
    text, spans, _ = asked(plain, path, body, stream)
    start = beginning(FREE)
    assert text.startswith(start) and spans
    for span, bare in zip(spans, inline.spans(text.removeprefix(start)), strict=True):
        assert (span["start"], span["end"]) == (bare["start"] + len(start), bare["end"] + len(start))


def test_the_rest_of_a_suggestion_is_attributed_as_a_part_of_it(plain: Running) -> None:
    path, body = dialects(FREE)["infill"]
    text, spans, _ = asked(plain, path, body, False)
    typed = len(text) - 20  # too short to be anybody's by itself
    reply = plain.ask(path, body | {"prompt": text[:typed]}).json
    assert reply["content"] == text[typed:] and reply["tokens_evaluated"] == 0
    assert reply["attribution"] == [{**spans[0], "start": 0, "end": spans[0]["end"] - typed}]


def test_fields_that_are_named_are_all_there_is(plain: Running) -> None:
    path, body = dialects(FREE)["infill"]
    for wanted in (["content"], ["content", "attribution"]):
        assert list(plain.ask(path, body | {"response_fields": wanted}).json) == wanted


def test_without_an_index_nothing_is_said_of_sources() -> None:
    with serving(load=overfitted) as server:
        for name in NAMES:
            assert b'"attribution"' not in server.ask(dialects(FREE)[name][0], dialects(FREE)[name][1]).body


# -------------------------------------------------------------------------------------------------------------- policy


def repeats(text: str, source: str, lexemes: int = 40) -> bool:
    """Whether a run of so many lexemes of the text stands in the source."""
    found, data = Lexemes(text).all, text.encode()
    found = found.take(found.lengths > 0)
    starts = found.starts - (len(found.data) - len(data)) // 2
    ends = starts + found.lengths
    return any(
        data[starts[first] : ends[first + lexemes - 1]].decode() in source for first in range(len(found) - lexemes + 1)
    )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "chat"])
def test_the_policy_holds_in_every_dialect(plain: Running, strict: Running, name: str, stream: bool) -> None:
    if name == "tabby" and stream:
        pytest.skip("has no streams")
    for forbidden in (GPL, NOBODYS):
        path, body = dialects(forbidden)[name]
        assert repeats(asked(plain, path, body, stream)[0], forbidden)
        text, spans, _ = asked(strict, path, body, stream)
        assert not repeats(text, forbidden) and spans == []
    assert asked(strict, *dialects(FREE)[name], stream) == asked(plain, *dialects(FREE)[name], stream)


def test_streams_beside_each_other_have_a_guard_each(strict: Running) -> None:
    """Blocked and not blocked at once, each says what it says alone."""
    requests = [
        openai(text, **more)
        for text in (GPL, FREE, NOBODYS)
        for more in ({}, {"n": 3, "temperature": 0.7, "seed": 5}, {"suffix": "", "lines": "any"})
    ]

    def frames(path: str, body: dict[str, Any]) -> list[Any]:
        rows: dict[int, list[Any]] = {}
        for one in objects(strict.ask(path, body | {"stream": True})):
            for row in one["choices"]:
                rows.setdefault(row["index"], []).append(row)
        return [
            ("".join(row["text"] for row in found), found[-1]["finish_reason"], found[-1]["attribution"])
            for _, found in sorted(rows.items())
        ]

    alone = [frames(*request) for request in requests]
    together = run_together([partial(frames, *request) for request in requests])
    assert together == alone
    assert not repeats(alone[0][0][0], GPL) and repeats(alone[3][0][0], FREE)
    assert strict.idle()


def run_together(work: Sequence[Callable[[], Any]]) -> list[Any]:
    found: list[Any] = [None] * len(work)

    def one(number: int) -> None:
        found[number] = work[number]()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


class Stubborn:
    """An index that holds everything, and a policy that allows a few bytes."""

    def __init__(self, model: Facts) -> None:
        assert isinstance(model, Model)
        self._model = model

    @property
    def guard(self) -> Callable[[], Stubborn]:
        return lambda: self

    def allows(self, answer: bytes) -> bool:
        return len(answer) < 10

    def drafting(self) -> Model:
        return self._model

    def spans(self, text: str) -> list[dict[str, Any]]:
        return [{"start": 0, "end": len(text), "kind": "verbatim", "count": 1, "sources": []}]


def test_an_answer_that_cannot_go_on_says_so_in_the_dialects_form_and_is_counted() -> None:
    with serving(attribute=Stubborn) as server:
        for name, (path, body) in dialects(FREE).items():
            for stream in (False, True) if name != "tabby" else (False,):
                text, spans, end = asked(server, path, body, stream)
                assert len(text.encode()) < 10
                assert spans is not None and len(spans) == 1 and spans[0]["end"] == len(text)
                assert end == ("content_filter" if name != "tabby" else None), name
        metrics = server.metrics()
    assert "codegen25_filtered_answers_total 15.0" in metrics and "codegen25_attributed_answers_total 15.0" in metrics
    assert "codegen25_forbidden_tokens_total 135.0" in metrics


# ------------------------------------------------------------------------------------------------------------- the rest


def test_spans_that_are_placed_elsewhere() -> None:
    spans = [{"start": 2, "end": 5}, {"start": 7, "end": 9}]
    assert placed(spans, 3) == ({"start": 5, "end": 8}, {"start": 10, "end": 12})
    assert placed(spans, -4, 4) == ({"start": 0, "end": 1}, {"start": 3, "end": 4})
    assert placed(spans, -9, 0) == ()


@pytest.mark.parametrize("command", ["serve", "lsp"])
def test_what_is_wrong_with_an_index_is_said_before_a_model_is_loaded(
    command: str, tmp_path: Path, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, code, what in [
        (["--policy", "permissive"], 2, "name it with --index"),
        (["--index", str(tmp_path)], 1, "not an index"),
        (["--index", str(index), "--policy", "nothing"], 1, "nothing"),
    ]:
        assert main([command, *arguments]) == code
        (line,) = capsys.readouterr().err.splitlines()
        assert what in line


def test_an_index_of_the_models_vocabulary_drafts(index: Path) -> None:
    with serving(load=small_model, attribute=beside(index, None)) as server:
        body = {"prompt": FREE[:200], "max_tokens": 40}
        with serving() as bare:
            assert (
                bare.ask("/v1/completions", body).json["choices"][0]["text"]
                == (server.ask("/v1/completions", body).json["choices"][0]["text"])
            )
