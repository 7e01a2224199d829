"""Typing: a recorded session (see `session`) against our engine and llama.cpp's server, as an editor would ask them.

Keys come at their recorded times; pauses longer than `longest_pause` are cut to it. Every key that is not typed along a
suggestion on screen sends a request, and the next event ends it when it is still under way: at the next step of our
scheduler, or by closing the connection. In the rest of a pause an engine may run what the next key will need: a hole
that opens anew after the cursor has moved or because the tail is long. Both engines get the same prompts by the same
rules, the same limit of tokens and the end of the line as stop string; llama.cpp also, in a run of its own, the usual
layout, in which the whole text before the cursor stands in front. Its prompt ends at the cursor, where ours heals the
last piece; it drafts nothing, as is its default. The engines take turns from one jump of the cursor to the next.

The time to a suggestion runs from a key to the first whole suggestion on screen after it. So keys that come faster than
an engine answers count with all that their author waited.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from codegen25 import infill
from codegen25.bench import weights
from codegen25.bench.figures import Bar, Figure, Options
from codegen25.bench.llama_server import LLAMA, LlamaClient, LlamaServer
from codegen25.bench.peer import PeerError
from codegen25.bench.session import Event, Moment, generate, library_files, load, replay, save
from codegen25.bench.speed import REST
from codegen25.complete import Model
from codegen25.complete import load as load_model
from codegen25.editing import Anchor, Editing, Limits, Prompt, place, recomputed, run_request
from codegen25.engine.answer import Request
from codegen25.tokenizer import Tokenizer

STOP = "\n"
CACHE_REUSE = 256  # llama.cpp's, for the usual layout: what its editor plugins recommend
BAR = Bar("<=", 0.5)
OURS, SAME, PLAIN = "ours", "same", "plain"
PEERS = {SAME: "llama.cpp server, same prompts", PLAIN: "llama.cpp server, usual layout"}


class Engine(Protocol):
    """Answers one request at a time."""

    def answer(self, request: Request, until: float, on_text: Callable[[], None]) -> str | None:
        """The text; None when it was not whole at `until` (`time.perf_counter`), and was given up."""
        ...


class Ours:
    """Our engine in this process."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def answer(self, request: Request, until: float, on_text: Callable[[], None]) -> str | None:
        return run_request(
            self.model.scheduler,
            request,
            is_superseded=lambda: time.perf_counter() >= until,
            on_text=lambda _: on_text(),
        )


class Plain(Editing):
    """The usual layout: all of the text before the cursor in front of the hole."""

    def request(self, prefix: str, suffix: str) -> Request:
        return self._made(plain(self.model.tokenizer, self.limits, prefix, suffix), self.max_tokens)

    def warm(self, prefix: str, suffix: str) -> Request | None:
        return None


def plain(tokenizer: Tokenizer, limits: Limits, prefix: str, suffix: str) -> Prompt:
    """A prompt with the hole at the cursor."""
    return Prompt(tuple(infill.prompt(tokenizer, infill.fit(tokenizer, [prefix, suffix], [""], limits.prompt))), b"")


@dataclass
class Author:
    """Replays a session against one engine, and takes the times. Seconds."""

    name: str
    engine: Engine
    editing: Editing
    longest_pause: float
    times: list[float] = field(default_factory=list)  # from a key to a whole suggestion
    first: list[float] = field(default_factory=list)  # from a key to any of it
    answered: list[float] = field(default_factory=list)  # `times`, of the keys that were not superseded alone
    asked: int = 0
    along: int = 0
    superseded: int = 0
    _waiting: list[float] = field(default_factory=list)
    _waiting_first: list[float] = field(default_factory=list)

    def work(self, moments: Sequence[Moment]) -> None:
        """One stretch of a session; its last request is not superseded.

        An author does not wait for an engine: keys are pressed when their time has come, whether or not the engine has
        stopped what it was doing.
        """
        pressed = time.perf_counter()
        for moment, following in zip(moments, [*moments[1:], None], strict=True):
            until = math.inf
            if following is not None:
                until = pressed + min(self.longest_pause, (following.event.t_ms - moment.event.t_ms) / 1000)
            if moment.event.ask:
                self._ask(moment, pressed, until)
            if following is not None:
                self._pause(moment, until)
            pressed = until

    def _ask(self, moment: Moment, pressed: float, until: float) -> None:
        known = self.editing.known(moment.prefix, moment.suffix)
        if known is not None:
            self.along += 1
            self._some_text()
            self._whole_text()
            return
        self.asked += 1
        self._waiting.append(pressed)
        self._waiting_first.append(pressed)
        text = self.engine.answer(self.editing.request(moment.prefix, moment.suffix), until, self._some_text)
        if text is None:
            self.superseded += 1
            return
        self.answered.append(time.perf_counter() - pressed)
        self.editing.computed()
        self.editing.remember(moment.prefix, moment.suffix, text)
        self._some_text()
        self._whole_text()

    def _pause(self, moment: Moment, until: float) -> None:
        if time.perf_counter() < until:
            request = self.editing.warm(moment.prefix, moment.suffix)
            if request is not None and self.engine.answer(request, until, lambda: None) is not None:
                self.editing.warmed()
        time.sleep(max(0.0, until - time.perf_counter()))

    def _some_text(self) -> None:
        now = time.perf_counter()
        self.first += [now - key for key in self._waiting_first]
        self._waiting_first.clear()

    def _whole_text(self) -> None:
        now = time.perf_counter()
        self.times += [now - key for key in self._waiting]
        self._waiting.clear()


def run(
    options: Options,
    *,
    session: Path | None = None,
    files: int = 3,
    places: int = 4,
    seed: int = 0,
    max_tokens: int = 32,
    longest_pause: float = 1.0,
) -> list[Figure]:
    """Time to suggestion of both, p50 and p95, and the tokens a key costs in either layout.

    `session`: a recorded one, the same in every round; else one is made from `files` files of the standard library, at
    `places` places in each, another in each round. `longest_pause` in seconds.
    """
    path = weights.model("nano", 4, options)
    model = load_model(str(path), threads=options.threads, notice=options.say)
    results: list[dict[str, Author]] = []
    tokens: list[tuple[list[int], list[int]]] = []
    missing = {} if LLAMA in options.peers else dict.fromkeys(PEERS, "not asked for")
    for number in range(options.rounds):
        events = load(session) if session else _recorded(options, files, places, seed + number)
        moments = list(replay(events))
        tokens.append(costs(model.tokenizer, Limits.of(model.window, max_tokens), moments))
        options.say(f"round {number + 1} of {options.rounds}: {len(moments)} events, {events[-1].t_ms / 1000:.0f} s")
        with ExitStack() as stack:
            engines: dict[str, Engine] = {OURS: Ours(model)}
            engines |= _servers(stack, options, path, model, missing)
            authors = []
            for name, engine in engines.items():
                layout = Plain if name == PLAIN else Editing
                editing = layout(model, max_tokens=max_tokens, stop=[STOP])
                authors.append(Author(name, engine, editing, longest_pause))
            model.forget()
            results.append(_in_turn(authors, stretches(moments), missing))
    return [*_time_figures(results, missing), *_token_figures(tokens)]


def _recorded(options: Options, files: int, places: int, seed: int) -> list[Event]:
    """A session made anew, and kept in the cache to be looked at."""
    events = generate(library_files(files, seed), seed, places)
    path = options.cache / "sessions" / f"{files} files {places} places {seed}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    save(events, path)
    options.say(f"the session is in {path}")
    return events


def _servers(
    stack: ExitStack, options: Options, path: Path, model: Model, missing: dict[str, str]
) -> Iterator[tuple[str, Engine]]:
    """llama.cpp once for each layout. What does not start is put into `missing`, with the reason."""
    for name in PEERS:
        if name in missing:
            continue
        try:
            server = stack.enter_context(LlamaServer(options, path, model.window, CACHE_REUSE if name == PLAIN else 0))
            yield name, LlamaClient(server.address, model.tokenizer)
        except PeerError as error:
            missing[name] = str(error)


def _in_turn(
    authors: Sequence[Author], parts: Sequence[Sequence[Moment]], missing: dict[str, str]
) -> dict[str, Author]:
    """Let every author do each part of a session, another one first each time. Those that came to its end."""
    waiting = deque(authors)
    for part in parts:
        for author in tuple(waiting):
            time.sleep(REST)
            try:
                author.work(part)
            except PeerError as error:  # the other figures are not touched by that
                missing[author.name] = str(error)
                waiting.remove(author)
        waiting.rotate(-1)
    return {author.name: author for author in waiting}


def stretches(moments: Sequence[Moment]) -> list[list[Moment]]:
    """A session cut in front of every jump."""
    out: list[list[Moment]] = []
    for moment in moments:
        if moment.event.action in ("open", "move") or not out:
            out.append([])
        out[-1].append(moment)
    return out


def costs(tokenizer: Tokenizer, limits: Limits, moments: Sequence[Moment]) -> tuple[list[int], list[int]]:
    """Tokens that are computed at each key (anchored, in the usual layout) where a cache holds the prompt before."""
    anchor: Anchor | None = None
    anchored: list[Sequence[int]] = []
    usual: list[Sequence[int]] = []
    for moment in moments:
        if moment.event.ask:
            anchor, prompt = place(tokenizer, limits, anchor, moment.prefix, moment.suffix)
            anchored.append(prompt.ids)
            usual.append(plain(tokenizer, limits, moment.prefix, moment.suffix).ids)
    return recomputed(anchored), recomputed(usual)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent are not above (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def _time_figures(results: Sequence[Mapping[str, Author]], missing: Mapping[str, str]) -> Iterator[Figure]:
    ours = [result[OURS] for result in results]
    for peer, peer_name in PEERS.items():
        theirs = [result[peer] for result in results if peer in result]
        for what, label in (("times", "time to suggestion"), ("first", "time to its first text")):
            for percent in (50, 95):
                is_judged = (peer, what, percent) == (SAME, "times", 95)
                note = missing.get(peer, "") if percent == 95 and what == "times" else ""
                yield Figure(
                    f"typing: {label}, p{percent}", "ms", _percentiles(ours, what, percent),
                    _percentiles(theirs, what, percent), peer_name, BAR if is_judged else None, note,
                    {"ours_keys": _counts(ours), "peer_keys": _counts(theirs)} if is_judged else {},
                )  # fmt: skip


def _percentiles(authors: Sequence[Author], what: str, percent: float) -> list[float]:
    """Milliseconds, of each author's `times` or `first`."""
    return [1000 * percentile(getattr(author, what), percent) for author in authors if getattr(author, what)]


def _counts(authors: Sequence[Author]) -> list[dict[str, Any]]:
    """Of each: keys that asked, and were superseded; keys that had nothing to ask; times of whole answers alone."""
    return [
        {
            "asked": author.asked,
            "superseded": author.superseded,
            "typed_along": author.along,
            "answered_p50_ms": round(1000 * percentile(author.answered, 50), 1) if author.answered else None,
            "answered_p95_ms": round(1000 * percentile(author.answered, 95), 1) if author.answered else None,
        }
        for author in authors
    ]


def _token_figures(tokens: Sequence[tuple[list[int], list[int]]]) -> Iterator[Figure]:
    for label, of in (("mean", _mean), ("p95", lambda values: percentile(values, 95))):
        ours, usual = ([of(pair[side]) for pair in tokens] for side in (0, 1))
        yield Figure(f"typing: tokens computed for a key, {label}", "tokens", ours, usual, "usual layout")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
