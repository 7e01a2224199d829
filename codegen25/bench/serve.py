"""The server beside llama.cpp's, on the same weights: time to the first token while people type, tokens a second of all
streams, and what becomes of streams when others are dropped or are no requests at all.

People type as in `typing`, each in a thread with a file of their own; both servers get the same prompts as ids, so that
only what a server does is compared. llama.cpp's server has a slot for each person. Suggestions that repeat the text
behind the cursor are counted on files that the model has not seen, as the model gives them and as the server does.
"""

from __future__ import annotations

import random
import re
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Thread

import numpy as np
from numpy.typing import NDArray

from codegen25.bench import weights
from codegen25.bench.figures import Bar, Figure, Options
from codegen25.bench.llama_server import LLAMA, LlamaClient, LlamaServer
from codegen25.bench.peer import PeerError
from codegen25.bench.serve_client import OurServer, Server, at_once, complete, get, post
from codegen25.bench.session import generate, library_files, replay
from codegen25.bench.speed import REST
from codegen25.bench.typing import Author, percentile
from codegen25.complete import Model
from codegen25.complete import load as load_model
from codegen25.editing import Editing
from codegen25.engine.answer import Request
from codegen25.engine.decode import decode
from codegen25.files import read_source
from codegen25.serve.tidy import Tidy

PEER = "llama.cpp server"
FIRST_BAR, SPEED_BAR, OVERHEAD_BAR = Bar("<=", 0.5), Bar(">=", 1.5), Bar("<=", 1.05)
EQUAL_BAR, MEMORY_BAR, LESS_BAR = Bar(">=", 1.0), Bar("<=", 1.05), Bar("<=", 0.1)
PROMPT, ANSWER = 96, 48  # tokens of a stream
# Installed packages of which nothing is in nano's corpus.
UNSEEN = ("uvicorn", "starlette", "openai", "dulwich", "datasketch", "hypothesis")


def run(
    options: Options, *, users: Sequence[int], seconds: float, streams: int, cursors: int, seed: int = 0
) -> Iterator[Figure]:
    """`seconds` of typing for each number of `users`, and of `streams` at once; `cursors` 0 leaves duplicates out."""
    path = weights.model("nano", 4, options)
    model = load_model(str(path), threads=options.threads, notice=options.say)
    prompts = _prompts(model, max(streams, 16), seed)
    with ExitStack() as stack:
        ours = stack.enter_context(OurServer(options, path))
        theirs, why = _peer(stack, options, path, model, max(users, default=1))
        for count in users:
            options.say(f"{count} typing")
            yield _typing(options, model, ours, theirs, why, count, seconds, seed)
        options.say("throughput")
        yield _throughput(options, ours, theirs, why, prompts[:16])
        yield _overhead(model, ours, _prompts(model, max(5, options.rounds), seed + 1))
        options.say(f"{streams} streams")
        yield from endurance(ours, prompts[:streams], seconds, seed)
    if cursors:
        options.say(f"{cursors} cursors")
        yield _duplicates(model, cursors, seed)


def _peer(stack: ExitStack, options: Options, path: Path, model: Model, slots: int) -> tuple[LlamaServer | None, str]:
    if LLAMA not in options.peers:
        return None, "not asked for"
    try:
        return stack.enter_context(LlamaServer(options, path, model.window, 0, slots)), ""
    except PeerError as error:
        return None, str(error)


def _prompts(model: Model, count: int, seed: int) -> list[list[int]]:
    """Beginnings of different places in the standard library, in tokens."""
    rng = random.Random(seed)
    texts = [read_source(file).text for file in library_files(12, seed)]
    ids = [model.tokenizer.encode(text) for text in texts]
    starts = [(rng.choice(ids), rng.random()) for _ in range(count)]
    return [one[(at := int(where * (len(one) - PROMPT))) : at + PROMPT] for one, where in starts]


# ------------------------------------------------------------------------------------------------------------- typing


def _typing(
    options: Options, model: Model, ours: OurServer, theirs: LlamaServer | None, why: str, users: int, seconds: float,
    seed: int,
) -> Figure:  # fmt: skip
    """Milliseconds from a key to the first text behind it, 95th percentile."""
    found: dict[str, list[float]] = {"ours": [], "peer": []}
    addresses = {"ours": ours.address} | ({"peer": theirs.address} if theirs else {})
    for number in range(options.rounds):
        for name, address in addresses.items():
            time.sleep(REST)
            times = _people(model, address, users, seconds, seed + 100 * number)
            if times:
                found[name].append(1000 * percentile(times, 95))
    return Figure(f"serve: first token, p95, {users} typing", "ms", found["ours"], found["peer"], PEER, FIRST_BAR, why)


def _people(model: Model, address: str, users: int, seconds: float, seed: int) -> list[float]:
    """The times of all people together, each with a file and a thread of their own."""
    authors, threads = [], []
    for user in range(users):
        editing = Editing(model, max_tokens=32, stop=["\n"])
        author = Author(str(user), LlamaClient(address, model.tokenizer), editing, 0.5)
        moments = list(replay(generate(library_files(1, seed + user), seed + user, 2)))
        kept = [moment for moment in moments if moment.event.t_ms < 1000 * seconds]
        authors.append(author)
        threads.append(Thread(target=author.work, args=(kept,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [one for author in authors for one in author.first]


# --------------------------------------------------------------------------------------------------------- throughput


def _speed(address: str, prompts: Sequence[Sequence[int]]) -> float:
    """Tokens a second of answers to all prompts at once."""
    started = time.perf_counter()
    heard = at_once([partial(complete, address, ids, ANSWER) for ids in prompts])
    return sum(one.tokens for one in heard) / (time.perf_counter() - started)


def _throughput(
    options: Options, ours: OurServer, theirs: LlamaServer | None, why: str, prompts: Sequence[Sequence[int]]
) -> Figure:
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(options.rounds):
        fresh = [[*ids[number + 1 :]] for ids in prompts]  # not what a cache holds
        for server, values in zip((ours, theirs), found, strict=True):
            if server:
                time.sleep(REST)
                values.append(_speed(server.address, fresh))
    return Figure(f"serve: {len(prompts)} streams, all together", "tokens/s", *found, PEER, SPEED_BAR, why)


def _overhead(model: Model, ours: OurServer, prompts: Sequence[Sequence[int]]) -> Figure:
    """Milliseconds a token of one stream, through the server and in this process, of prompts that neither has seen."""
    found: tuple[list[float], list[float]] = ([], [])
    for ids in prompts:
        complete(ours.address, ids, 1)
        started = time.perf_counter()
        tokens = complete(ours.address, ids, ANSWER).tokens
        found[0].append(1000 * (time.perf_counter() - started) / max(1, tokens))
        request = Request(ids, _text(model), frozenset({model.tokenizer.eot}), max_tokens=1)
        list(decode(model.scheduler, model.tokenizer, [request]))
        request = Request(ids, _text(model), frozenset({model.tokenizer.eot}), max_tokens=ANSWER)
        started = time.perf_counter()
        pieces = list(decode(model.scheduler, model.tokenizer, [request]))
        found[1].append(1000 * (time.perf_counter() - started) / max(1, sum(p.token is not None for p in pieces)))
    return Figure("serve: a token of one stream", "ms", *found, "the engine alone", OVERHEAD_BAR)


def _text(model: Model) -> NDArray[np.bool_]:
    """What may come in plain text."""
    vocabulary = model.span_vocabulary.copy()
    vocabulary[[model.tokenizer.eom, model.tokenizer.sep, *model.tokenizer.masks]] = False
    return vocabulary


# ---------------------------------------------------------------------------------------------------------- endurance


def endurance(ours: Server, prompts: Sequence[Sequence[int]], seconds: float, seed: int) -> Iterator[Figure]:
    """Rounds of all streams at once, a fifth dropped midway and a tenth no request, for `seconds`."""
    alone = {n: complete(ours.address, ids, ANSWER).text for n, ids in enumerate(prompts)}
    rng = random.Random(seed)
    survived = equal = errors = rounds = 0
    memory: list[int] = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends or rounds < 2:
        order = list(range(len(prompts)))
        rng.shuffle(order)
        dropped, malformed = set(order[: len(order) // 5]), set(order[-(len(order) // 10) :])
        work = [
            partial(post, ours.address, b'{"prompt": [1, "x"') if n in malformed
            else partial(complete, ours.address, prompts[n], ANSWER, drop_after=2 if n in dropped else None)
            for n in range(len(prompts))
        ]  # fmt: skip
        for n, heard in enumerate(at_once(work)):
            errors += heard.status != (400 if n in malformed else 200)
            if n not in malformed and not heard.dropped:
                survived += 1
                equal += heard.text == alone[n]
        memory.append(ours.memory)
        rounds += 1
    more = {"rounds": rounds, "errors": errors, "dropped": int(_metric(ours, "codegen25_disconnects_total"))}
    name = f"serve: {len(prompts)} streams at once"
    yield Figure(f"{name}, equal alone", "", [equal - errors], [survived], "all that survived", EQUAL_BAR, more=more)
    half = len(memory) // 2
    yield Figure(
        f"{name}, memory", "MB", [max(memory[half:]) / 1e6], [max(memory[: half or 1]) / 1e6], "the first half",
        MEMORY_BAR,
    )  # fmt: skip


def _metric(ours: Server, name: str) -> float:
    found = re.search(rf"(?m)^{name} (\S+)$", get(ours.address, "/metrics")[1].decode())
    return float(found[1]) if found else 0.0


# --------------------------------------------------------------------------------------------------------- duplicates


def _duplicates(model: Model, cursors: int, seed: int) -> Figure:
    """The share of suggestions, in percent, that repeat what stands behind the cursor: as the server gives them, and as
    the model does; both end at the same block or line."""
    repeated = [0, 0]
    for prefix, suffix in _cursors(cursors, seed):
        answer = model.infill(prefix, suffix, max_tokens=48).text
        for place, repeats in enumerate((False, True)):
            tidy = Tidy(prefix, suffix, lines="auto", repeats=repeats)
            repeated[place] += is_repeated(prefix, tidy.push(answer) + tidy.finish(), suffix)
    ours, before = ([100 * count / cursors] for count in repeated)
    peer = f"as the model gives them, {cursors} cursors"
    return Figure("serve: suggestions that repeat", "%", ours, before, peer, LESS_BAR)


def _cursors(count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Cursors in files of packages that the model has not seen, where the rest of a line, a whole line or the arguments
    of a call are missing."""
    rng = random.Random(seed)
    folder = Path(sysconfig.get_path("purelib"))
    files = [file for name in UNSEEN for file in sorted((folder / name).glob("*.py")) if file.stat().st_size > 2000]
    for number in range(count):
        text = read_source(rng.choice(files)).text
        if number % 3 == 2 and (calls := list(re.finditer(r"\w\(([^()\n]+)\)", text))):
            call = rng.choice(calls)
            yield text[: call.start(1)], text[call.end(1) :]
            continue
        lines = list(re.finditer(r"(?m)^[ \t]*(\S.{8,})$", text))
        line = rng.choice(lines)
        start = line.start(1) if number % 3 == 0 else rng.randrange(line.start(1) + 1, line.end())
        yield text[:start], text[line.end() :]


def is_repeated(prefix: str, answer: str, suffix: str) -> bool:
    """Whether an answer says again what is behind: the next line there, or what stands on the right of the cursor.

    Written without the rules of `tidy`, by looking at the text that an editor would show.
    """
    right, _, below = suffix.partition("\n")
    following = next((line.strip() for line in below.split("\n") if len(line.strip()) > 1), None)
    shown = (prefix[prefix.rfind("\n") + 1 :] + answer).split("\n")
    if following is not None and answer.strip() and following in (line.strip() for line in shown):
        return True
    first = answer.split("\n")[0].rstrip()
    right = right.strip()
    if not right or not first.endswith(right):
        return False
    line = shown[0] + right
    return any(c.isalnum() for c in right) or any(line.count(b) > line.count(a) for a, b in ("()", "[]", "{}"))
