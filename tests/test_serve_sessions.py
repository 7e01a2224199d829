"""Typing against the server: prompts grow, what was suggested is not asked again, other files help."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from serving import serving, small_model

from codegen25 import editing, infill
from codegen25.complete import Model
from codegen25.editing import common
from codegen25.serve.ask import Ask, Extra
from codegen25.serve.extra import fit
from codegen25.serve.sessions import Sessions
from codegen25.serve.suggested import Suggested, Suggestion

SOURCE = Path(editing.__file__).read_text()
PREFIX, TYPED, SUFFIX = SOURCE[:6000], SOURCE[6000:6060], SOURCE[6060:9000]
EXTRA = (
    Extra("def unrelated_thing(zebra):\n    return zebra\n", "zoo.py"),
    Extra("class Anchor:\n    context: tuple\n    behind: str\n    kept: bytes\n", "anchor.py"),
)


@pytest.fixture(scope="module")
def model() -> Model:
    return small_model()


def ask(prefix: str, suffix: str = SUFFIX, **more: Any) -> Ask:
    return Ask(parts=(prefix, suffix), max_tokens=32, is_typing=True, **more)


@pytest.mark.parametrize("extra", [(), EXTRA])
def test_a_key_appends_to_the_prompt_before(model: Model, extra: tuple[Extra, ...]) -> None:
    sessions = Sessions(model)
    prompts = [sessions.place(ask(PREFIX + TYPED[:n], extra=extra)).ids for n in range(len(TYPED))]
    new = [len(b) - common(a, b) for a, b in pairwise(prompts)]
    assert max(new) < 12 and len(sessions) == 1
    assert all(len(ids) + 32 <= model.window for ids in prompts)


def test_files_do_not_disturb_each_other(model: Model) -> None:
    sessions = Sessions(model)
    other = "import os\n" * 50
    alone = [Sessions(model).place(ask(PREFIX)), Sessions(model).place(ask(other, "\n"))]
    for n in range(3):
        assert sessions.place(ask(PREFIX)) == alone[0]
        assert sessions.place(ask(other, "\n")) == alone[1]
        sessions.place(ask("x" * n, "y", client="somebody"))
    assert len(sessions) == 3


def test_a_hole_opens_where_this_request_says(model: Model) -> None:
    sessions, prefix = Sessions(model), "".join(f"x = {n}\n" for n in range(60)) + "y = "
    for lines in (4, 0, 2, 4):
        placed = sessions.place(ask(prefix, anchor=lines))
        assert placed == Sessions(model).place(ask(prefix, anchor=lines)), "not where an earlier one said"
        start = len(placed.ids) - placed.ids[::-1].index(model.tokenizer.sep)
        tail = model.tokenizer.decode(placed.ids[start:]).removeprefix("<mask_1>") + placed.required.decode()
        assert tail == "".join(prefix.splitlines(keepends=True)[-lines:] if lines else [])


def test_one_request_alone_does_not_depend_on_others(model: Model) -> None:
    sessions = Sessions(model)
    quiet = Ask(parts=(PREFIX + TYPED, SUFFIX), max_tokens=32)
    alone = sessions.place(quiet)
    for n in range(20):
        sessions.place(ask(PREFIX + TYPED[:n]))
    assert sessions.place(quiet) == alone


def test_what_is_alike_comes_into_the_prompt(model: Model) -> None:
    tokenizer = model.tokenizer
    taken, ids = fit(tokenizer, EXTRA, "anchor = Anchor(context, behind, kept)", "", 60)
    assert taken == EXTRA[1:] and len(ids) <= 60
    assert tokenizer.decode(ids).startswith("# anchor.py\nclass Anchor:")
    assert fit(tokenizer, EXTRA, "nothing", "", 60) == ((), ())
    placed = Sessions(model).place(ask("anchor = Anchor(context, behind, ", "", extra=EXTRA))
    text = tokenizer.decode(placed.ids)
    assert text.index("class Anchor") < text.index("anchor = Anchor") and "zebra" not in text
    many = tuple(Extra(f"class Anchor{n}:\n    context: tuple\n" * 30) for n in range(50))
    assert len(fit(tokenizer, many, "Anchor1 context tuple", "", 100)[1]) <= 100


def test_a_window_too_small_for_it_all_keeps_the_cursor(model: Model) -> None:
    huge = tuple(Extra(SOURCE, f"{n}.py") for n in range(20))
    placed = Sessions(model).place(ask(PREFIX, extra=huge))
    assert len(placed.ids) + 32 <= model.window and placed.trimmed
    assert model.tokenizer.masks[0] in placed.ids
    assert infill.overhead(1) < len(placed.ids)


def test_typing_along_a_suggestion_asks_for_nothing() -> None:
    body = {"input_prefix": PREFIX, "input_suffix": SUFFIX, "prompt": "", "n_predict": 12, "lines": "any"}
    with serving() as server:
        whole = server.ask("/infill", body).json["content"]
        assert len(whole) > 3
        steps = server.service.served.answering.runner.steps
        for n in range(1, len(whole)):
            assert server.ask("/infill", body | {"prompt": whole[:n]}).json["content"] == whole[n:]
        assert server.service.served.answering.runner.steps == steps
        assert server.ask("/infill", body | {"prompt": whole[:2], "seed": 3}).status == 200
        other = server.ask("/infill", body | {"prompt": whole[:2], "temperature": 0.5}).json
        assert other["tokens_evaluated"] > 0  # sampled: not the same each time
        assert server.ask("/infill", body | {"prompt": "~"}).json["tokens_evaluated"] > 0  # not along it
        assert f"codegen25_typed_along_total {len(whole)}.0" in server.metrics()


def test_more_patience_is_another_question() -> None:
    suggested = Suggested()
    hurried = replace(ask(PREFIX), patience=0.01)
    suggested.remember(hurried, Suggestion("short", "length"))
    assert suggested.rest(hurried) == Suggestion("short", "length")
    assert suggested.rest(ask(PREFIX)) is None
