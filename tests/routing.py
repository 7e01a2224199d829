"""Servers in front of others, and what is compared of their answers."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from serving import CONFIG, Running, serving

from codegen25.serve.upstream import address
from codegen25.serve.upstream_metrics import UpstreamFigures
from codegen25.serve.upstream_model import UpstreamModel, open_upstream
from codegen25.serve.upstream_pool import Pool
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


@dataclass
class Loaded:
    """What became of 50 requests: `broken` streams had begun; `other` answers are not those of a quiet server."""

    broken: int = 0
    other: int = 0


def killed_under_load(folder: Path, urls: Sequence[str], *, kill: Callable[[], object]) -> Loaded:
    """50 requests at once, half of them streams, to a router in front of `urls`, of which `kill` kills the second."""
    model = open_upstream(str(folder), Pool([address(url) for url in urls]), None, 20.0)
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
            kill()
            replies = [one.result() for one in found]
        wait_until(lambda: not model.pool.all[1].is_up)
        loaded = Loaded()
        for number, reply in enumerate(replies):
            assert reply.status == 200, reply.body
            if number % 2 == 0:
                loaded.other += reply.json["choices"][0]["text"] != alone[number]["text"]
            elif "error" in reply.events[-1]:  # its first token had come
                loaded.broken += 1
                assert reply.events[0].get("choices"), "an answer that had not begun was lost"
            else:
                loaded.other += told(reply.events)[0] != (alone[number]["text"], alone[number]["finish_reason"])
        assert running.ask("/v1/completions", ask[0]).status == 200, "the others are left"
    return loaded


def said(reply: Any) -> Any:
    """An answer without what is another each time."""
    assert reply.status == 200, reply.body
    found = reply.json
    if "choices" in found:
        return [{**choice, "logprobs": rounded(choice.get("logprobs"))} for choice in found["choices"]]
    return found.get("content", found.get("response")), found.get("stop_type"), found.get("done_reason")


def rounded(logprobs: Any) -> Any:
    return logprobs and json.loads(json.dumps(logprobs), parse_float=lambda text: round(float(text), 4))


def told(events: Sequence[Any]) -> dict[int, tuple[str, Any]]:
    """Text and end by choice."""
    found: dict[int, tuple[str, Any]] = {}
    for event in events:
        for choice in event["choices"]:
            text, _ = found.get(choice["index"], ("", None))
            found[choice["index"]] = text + choice["text"], choice["finish_reason"]
    return found


def metric(running: Running, name: str, **labels: str) -> float:
    """The sum of a metric over all but the given labels."""
    text = running.ask("/metrics").body.decode()
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    lines = [line for line in text.splitlines() if re.match(rf"{name}[{{ ]", line)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(label in line for label in wanted))
