"""A server of ours asked directly and through `serve --upstream`: what the way through adds, and what it saves.

Prompts are in the server's cache, so that its own part is short and alike. Both ways take turns, request by request.
"""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from codegen25.bench.figures import Bar, Figure, Options
from codegen25.bench.serve_client import OurServer
from codegen25.bench.session import library_files
from codegen25.bench.typing import percentile
from codegen25.files import read_source
from codegen25.model.folder import resolve
from codegen25.tokenizer import Tokenizer, from_folder

PROMPTS, PROMPT, ANSWER = 16, 256, 32  # tokens
ADDED = 2.0  # ms that the way through may add at the 95th percentile
WITHIN, ALL = Bar("<=", 1.0), Bar(">=", 1.0)


def run(options: Options, *, requests: int, streams: int, seed: int = 0) -> Iterator[Figure]:
    """Figures by `requests` either way, and by `streams` at once."""
    path = resolve("nano")  # a folder: the router reads its tokenizer
    prompts = _prompts(from_folder(path), seed)
    with ExitStack() as stack:
        server = stack.enter_context(OurServer(options, path, number=1))
        router = stack.enter_context(OurServer(options, path, upstreams=[server.address], number=2))
        ways = (router.address, server.address)
        options.say("token ids")
        yield _added("token ids", options, ways, [list(ids) for ids, _ in prompts], requests, has_bar=True)
        options.say("texts, healed")
        yield _added("texts, healed", options, ways, [text for _, text in prompts], requests, has_bar=False)
    options.say(f"{streams} streams, a server killed")
    yield _killed(options, path, [list(ids) for ids, _ in prompts], streams)


def _prompts(tokenizer: Tokenizer, seed: int) -> list[tuple[list[int], str]]:
    """Places in the standard library, as ids and as texts that end inside a word."""
    rng = random.Random(seed)
    found = []
    for file in library_files(PROMPTS, seed):
        ids = tokenizer.encode(read_source(file).text)
        start = rng.randrange(max(1, len(ids) - PROMPT))
        some = ids[start : start + PROMPT]
        found.append((some, tokenizer.decode(some)))
    return found


def _added(
    what: str, options: Options, ways: Sequence[str], prompts: Sequence[Any], requests: int, *, has_bar: bool
) -> Figure:
    """Milliseconds to the first token at the 95th percentile, above those of the server itself."""
    added, more = [], {}
    for _ in range(options.rounds):
        first: dict[str, list[float]] = {way: [] for way in ways}
        whole: dict[str, list[float]] = {way: [] for way in ways}
        for prompt in prompts:  # into the caches, and the connections made
            for way in ways:
                stream(way, prompt)
        for number in range(requests):
            for way in ways if number % 2 else reversed(ways):
                prompt = prompts[number % len(prompts)]
                # One token by itself: behind it a server may verify a draft of the whole answer in the same step.
                first[way].append(1000 * stream(way, prompt, 1)[0])
                whole[way].append(1000 * stream(way, prompt)[1])
        routed, direct = ([percentile(first[way], share) for share in (50, 95)] for way in ways)
        added.append(routed[1] - direct[1])
        more = {
            "first_token_p50_p95": {"routed": _short(routed), "direct": _short(direct)},
            "whole_p50": {"routed": _short([percentile(whole[ways[0]], 50)])[0],
                          "direct": _short([percentile(whole[ways[1]], 50)])[0]},
        }  # fmt: skip
    name = f"route: first token, p95, added; {what}"
    if not has_bar:
        return Figure(name, "ms", added, [], "", note="asks for the first token by itself", more=more)
    return Figure(name, "ms", added, [ADDED], "what it may add", WITHIN, more=more)


def _short(values: Sequence[float]) -> list[float]:
    return [round(value, 2) for value in values]


def stream(address: str, prompt: Any, tokens: int = ANSWER) -> tuple[float, float]:
    """Seconds to the first event, and to the end of a greedy answer."""
    url = urlsplit(address)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=60)
    ask = {"prompt": prompt, "max_tokens": tokens, "stream": True}
    first = 0.0
    try:
        connection.connect()
        started = time.perf_counter()
        connection.request("POST", "/v1/completions", json.dumps(ask), {"Content-Type": "application/json"})
        with connection.getresponse() as response:
            while line := response.readline():
                if not first and line.startswith(b"data: {"):
                    first = time.perf_counter() - started
        return first, time.perf_counter() - started
    finally:
        connection.close()


def _killed(options: Options, path: Path, prompts: Sequence[Sequence[int]], streams: int) -> Figure:
    """Whole answers, of which nothing was sent before their end: none may be lost when one of three servers dies."""
    with ExitStack() as stack:
        servers = [stack.enter_context(OurServer(options, path, number=3 + n)) for n in range(3)]
        addresses = [server.address for server in servers]
        router = stack.enter_context(OurServer(options, path, upstreams=addresses, number=6))
        asks = [[*prompts[n % len(prompts)], *prompts[(n + 1) % len(prompts)][:n]] for n in range(streams)]
        with ThreadPoolExecutor(streams) as pool:
            found = [pool.submit(answered, router.address, ids) for ids in asks]
            while sum(one.done() for one in found) < streams // 10:
                time.sleep(0.01)
            servers[1].kill()
            texts = [one.result() for one in found]
        alone = [answered(servers[0].address, ids) for ids in asks]
    right = sum(text is not None and text == other for text, other in zip(texts, alone, strict=True))
    return Figure(
        f"route: one of three servers killed under {streams} requests, answered alike",
        "",
        [right],
        [streams],
        "all",
        ALL,
    )


def answered(address: str, ids: Sequence[int]) -> str | None:
    """The text of a greedy answer; None for an error."""
    url = urlsplit(address)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=120)
    try:
        body = json.dumps({"prompt": list(ids), "max_tokens": ANSWER})
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        return str(answer["choices"][0]["text"]) if response.status == 200 else None
    except OSError:
        return None
    finally:
        connection.close()
