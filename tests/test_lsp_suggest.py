"""Suggestions of one client: what the model need not do, and what it stops doing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from serving import CONFIG, ENGINE, small_model

from codegen25.complete import Model
from codegen25.engine.backend import Logits, Row
from codegen25.engine.cpu import CpuBackend
from codegen25.errors import CodegenError
from codegen25.serve.lsp_suggest import Cursor, Suggest
from codegen25.tokenizer import family

PREFIX, SUFFIX = "def total(values):\n    return ", "\n\nprint(total([1, 2]))\n"


class Counted(CpuBackend):
    """Knows its steps, each of which takes a while, and what it was given."""

    def __init__(self) -> None:
        super().__init__(ENGINE, CONFIG)
        self.steps = 0
        self.tokens: list[int] = []

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        self.steps += 1
        self.tokens += [token for _, tokens, _ in rows for token in tokens]
        time.sleep(0.002)
        return super().forward(rows)


def run(
    work: Callable[[Suggest], Coroutine[Any, Any, None]], load: Callable[[], Model] = small_model, max_tokens: int = 200
) -> list[object]:
    """Do it with a `Suggest`; what that told meanwhile."""
    told: list[object] = []

    async def main() -> None:
        suggest = Suggest(
            load, max_tokens=max_tokens, lines="any", on_loaded=told.append, on_failed=told.append,
            on_broken=told.append,
        )  # fmt: skip
        await work(suggest)
        await suggest.close()

    asyncio.run(main())
    return told


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("by", ["cancel", "newer", "close"])
def test_a_suggestion_nobody_wants_stops_within_a_step(by: str) -> None:
    backend = Counted()
    model = Model(backend, family())

    async def work(suggest: Suggest) -> None:
        task = asyncio.create_task(suggest.at(Cursor("a", PREFIX, SUFFIX)))
        await until(lambda: backend.steps >= 5)
        newer = None
        if by == "cancel":
            task.cancel()
        elif by == "close":
            await suggest.close()
        else:
            newer = asyncio.create_task(suggest.at(Cursor("a", "", "")))
        await asyncio.wait([task])
        before = backend.steps
        assert task.cancelled()
        if newer:
            newer.cancel()
        await until(lambda: not model.scheduler.active)
        assert backend.steps - before <= 1 + (by == "newer")

    run(work, lambda: model)


def test_other_documents_go_on() -> None:
    async def work(suggest: Suggest) -> None:
        one, two = (asyncio.create_task(suggest.at(Cursor(uri, PREFIX, SUFFIX))) for uri in "ab")
        assert (await one).text == (await two).text != ""

    run(work, max_tokens=8)


def test_what_is_typed_along_asks_the_model_for_nothing() -> None:
    backend = Counted()

    async def work(suggest: Suggest) -> None:
        text = (await suggest.at(Cursor("a", PREFIX, SUFFIX))).text
        before = backend.steps
        for typed in range(1, len(text)):
            assert (await suggest.at(Cursor("a", PREFIX + text[:typed], SUFFIX))).text == text[typed:]
        assert backend.steps == before
        assert (await suggest.at(Cursor("a", PREFIX + "~", SUFFIX))).text != text
        assert backend.steps > before

    run(work, lambda: Model(backend, family()), max_tokens=8)


def test_requests_wait_for_the_model_and_the_last_one_is_answered() -> None:
    async def work(suggest: Suggest) -> None:
        tasks = [asyncio.create_task(suggest.at(Cursor("a", PREFIX + "x" * typed, SUFFIX))) for typed in range(3)]
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [True, True, False]

    assert len(run(work, max_tokens=4)) == 1


def test_what_kept_the_model_from_loading_is_told_to_all_who_ask() -> None:
    def load() -> Model:
        raise CodegenError("no such model")

    async def work(suggest: Suggest) -> None:
        for _ in range(2):
            with pytest.raises(CodegenError, match="no such model"):
                await suggest.at(Cursor("a", PREFIX, SUFFIX))

    (told,) = run(work, load)
    assert str(told) == "no such model"


def test_other_open_documents_go_into_the_prompt() -> None:
    """A name in common with the text at the cursor is what brings them in."""
    backend = Counted()
    other, foreign = "def values_of(values):\n    return values\n", "nothing.alike()\n"
    beside = (("file:///project/some%20other.py", other), ("file:///project/foreign.py", foreign))

    async def work(suggest: Suggest) -> None:
        await suggest.at(Cursor("a", PREFIX, SUFFIX, beside))

    run(work, lambda: Model(backend, family()), max_tokens=1)
    assert family().decode(backend.tokens).startswith(f"# some other.py\n{other}")
