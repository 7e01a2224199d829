"""Decoding, prefill and verification: our engine and others on one file, round by round in turn.

Every engine does what it does when it serves: single tokens are chosen greedily from the logits of the step before,
a prompt ends with the logits of its last token. Between their turns engines rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from codegen25.bench import weights
from codegen25.bench.figures import Bar, Figure, Options
from codegen25.bench.peer import PEERS, Peer, PeerError
from codegen25.config import SHAPES
from codegen25.engine.backend import Backend
from codegen25.errors import UsageError

REST = 0.05  # seconds between turns: threads that spin for more work have gone to sleep by then
DECODE_BARS = {"nano": Bar(">=", 2.5), "1b": Bar(">=", 1.4), "7b": Bar(">=", 1.3)}  # int4 against Q4_0
BANDWIDTH_BAR = Bar(">=", 0.8)  # of what the machine reads, int4, where the weights are far larger than caches
BANDWIDTH_SHAPES = ("1b", "7b")
PREFILL_BAR = Bar(">=", 1.5)
VERIFY_BARS = {4: Bar("<=", 2.4), 8: Bar("<=", 1.5)}  # nano, 8 tokens against one
PROBE_MIB = 1024  # memory that is read to measure bandwidth: more than any cache


class Engine(Protocol):
    """What is timed. Answers hold `seconds`."""

    def call(self, do: str, **arguments: Any) -> dict[str, Any]: ...


class Ours:
    """Our engine behind the calls of a `Peer`."""

    name = "codegen25"

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def call(self, do: str, **arguments: Any) -> dict[str, Any]:
        seconds: float = getattr(self, do)(**arguments)
        return {"seconds": seconds}

    @contextmanager
    def _behind(self, context: Sequence[int]) -> Iterator[tuple[int, int]]:
        """(a sequence that holds `context`, the likeliest token after it), given back at the end."""
        sequence = self.backend.new()
        try:
            (logits,) = self.backend.forward([(sequence, context, False)])
            yield sequence, int(logits[0].argmax())
        finally:
            self.backend.free(sequence)

    def decode(self, context: Sequence[int], n: int) -> float:
        with self._behind(context) as (sequence, token):
            start = time.perf_counter()
            for _ in range(n):
                (logits,) = self.backend.forward([(sequence, [token], False)])
                token = int(logits[0].argmax())
            return time.perf_counter() - start

    def prefill(self, tokens: Sequence[int]) -> float:
        start = time.perf_counter()
        with self._behind(tokens):
            return time.perf_counter() - start

    def verify(self, context: Sequence[int], tokens: Sequence[int]) -> float:
        """Unlike peers we return the logits of all `tokens`: that is what verification needs."""
        with self._behind(context) as (sequence, _):
            start = time.perf_counter()
            self.backend.forward([(sequence, tokens, True)])
            return time.perf_counter() - start


@dataclass(frozen=True)
class Runner:
    """The engines that share a file, with the settings that were fastest for `task`."""

    ours: Engine
    peers: Mapping[str, Engine]
    missing: Mapping[str, str]  # peers that cannot run, and why
    settings: Mapping[str, Mapping[str, Any]]


def open_ours(path: Path, threads: int) -> Ours:
    """Our engine on a GGUF file."""
    from codegen25.engine.cpu import load_cpu

    return Ours(load_cpu(path, threads=threads))


@contextmanager
def running(path: Path, options: Options, task: Mapping[str, Any]) -> Iterator[Runner]:
    """All engines with the model of `path` in memory, each with the settings that do `task` fastest."""
    with ExitStack() as stack:
        peers: dict[str, Engine] = {}
        missing: dict[str, str] = {}
        chosen: dict[str, Mapping[str, Any]] = {}
        for name in options.peers:
            try:
                chosen[name] = _calibrate(name, path, options, task)
                peer = stack.enter_context(Peer.start(name, options))
                peer.call("load", path=str(path), threads=options.threads, **chosen[name])
                peers[name] = peer
            except PeerError as error:
                missing[name] = str(error)
                options.say(str(error))
        options.say(f"loading {path.name}")
        yield Runner(open_ours(path, options.threads), peers, missing, chosen)


def _calibrate(name: str, path: Path, options: Options, task: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of a peer that do `task` in the least time, of two tries each."""
    candidates = PEERS[name].settings
    if len(candidates) == 1:
        return candidates[0]
    seconds: list[float] = []
    for settings in candidates:
        options.say(f"{name}: trying {dict(settings) or 'its defaults'}")
        with Peer.start(name, options) as peer:
            peer.call("load", path=str(path), threads=options.threads, **settings)
            seconds.append(min(peer.call(**task)["seconds"] for _ in range(2)))
    return candidates[seconds.index(min(seconds))]


def interleaved(
    engines: Sequence[tuple[Engine, Mapping[str, Any]]], rounds: int, say: Callable[[str], None]
) -> list[list[float]]:
    """Seconds of every engine's task, [engine][round]. Each has its turn in every round; a first round warms up."""
    seconds: list[list[float]] = [[] for _ in engines]
    for number in range(rounds + 1):
        say(f"round {number} of {rounds}" if number else "warming up")
        for taken, (engine, task) in zip(seconds, engines, strict=True):
            time.sleep(REST)
            value = float(engine.call(**task)["seconds"])
            if number:
                taken.append(value)
    return seconds


def random_ids(shape: str, count: int) -> list[int]:
    """Token ids for a prompt: speed does not depend on what it says."""
    return [int(id) for id in np.random.default_rng(0).integers(1000, 40000, count)]


def _label(shape: str, bits: int) -> str:
    return f"{shape} int{bits}"


def _rates(tokens: int, seconds: Sequence[float]) -> list[float]:
    return [tokens / value for value in seconds]


def _note(runner: Runner, name: str, options: Options) -> dict[str, Any]:
    return {"peer_settings": {"threads": options.threads} | dict(runner.settings.get(name, {}))}


def _missing(figure: Figure, runner: Runner) -> list[Figure]:
    """The same figure for each peer that could not run, which says why."""
    return [replace(figure, peer=(), peer_name=name, note=why) for name, why in runner.missing.items()]


def _against_peers(
    figure: Figure, runner: Runner, tasks: Mapping[str, Any], options: Options, to_value: Callable[[float], float]
) -> list[Figure]:
    """`figure` with numbers: ours and every peer's, measured in turn."""
    engines = [(runner.ours, tasks), *((peer, tasks) for peer in runner.peers.values())]
    ours, *theirs = interleaved(engines, options.rounds, options.say)
    mine = [to_value(value) for value in ours]
    measured = replace(figure, ours=mine)
    figures = [
        replace(measured, peer=[to_value(value) for value in taken], peer_name=name, more=_note(runner, name, options))
        for name, taken in zip(runner.peers, theirs, strict=True)
    ]
    return (figures or ([] if runner.missing else [replace(measured, bar=None)])) + _missing(measured, runner)


def decode(shape: str, bits: int, options: Options, *, context: int = 128, tokens: int = 64) -> list[Figure]:
    """Single-token steps, tokens per second, and the share of the memory's bandwidth that they use."""
    _check_window(shape, context + tokens)
    path = weights.model(shape, bits, options)
    task = {"do": "decode", "context": random_ids(shape, context), "n": tokens}
    bar = DECODE_BARS.get(shape) if bits == 4 else None
    figure = Figure(f"decode {_label(shape, bits)}", "tok/s", (), (), "", bar)
    with running(path, options, task) as runner:
        figures = _against_peers(figure, runner, task, options, lambda seconds: tokens / seconds)
        rates = figures[0].ours
        return [*figures, _bandwidth(shape, bits, path, rates, options)]


def _bandwidth(shape: str, bits: int, path: Path, rates: Sequence[float], options: Options) -> Figure:
    """How much of the bandwidth of reading memory the weights alone take."""
    from codegen25._native import read_bandwidth

    read = weights.bytes_per_token(path, SHAPES[shape]) / 1e9
    bar = BANDWIDTH_BAR if shape in BANDWIDTH_SHAPES and bits == 4 else None
    probes = [read_bandwidth(PROBE_MIB, options.threads) / 1e9 for _ in range(options.rounds)]
    return Figure(
        f"bandwidth {_label(shape, bits)}", "GB/s", [rate * read for rate in rates], probes, "reading memory", bar
    )


def prefill(shape: str, bits: int, options: Options, *, tokens: int = 512) -> list[Figure]:
    """Reading a prompt, tokens per second."""
    _check_window(shape, tokens)
    path = weights.model(shape, bits, options)
    task = {"do": "prefill", "tokens": random_ids(shape, tokens)}
    figure = Figure(f"prefill {_label(shape, bits)}", "tok/s", (), (), "", PREFILL_BAR)
    with running(path, options, task) as runner:
        return _against_peers(figure, runner, task, options, lambda seconds: tokens / seconds)


def verify(shape: str, bits: int, options: Options, *, context: int = 128, tokens: int = 8) -> list[Figure]:
    """What running several tokens at once costs: against one token, and against the peers."""
    _check_window(shape, context + tokens)
    path = weights.model(shape, bits, options)
    ids = random_ids(shape, context + tokens)
    task: dict[str, Any] = {"do": "verify", "context": ids[:context], "tokens": ids[context:]}
    one = task | {"tokens": ids[context : context + 1]}
    bar = VERIFY_BARS.get(bits) if shape == "nano" and tokens == 8 else None
    label = _label(shape, bits)
    with running(path, options, task) as runner:
        engines: dict[str, Engine] = {"ours": runner.ours, **runner.peers}
        turns = [(engine, wanted) for engine in engines.values() for wanted in (task, one)]
        seconds = interleaved(turns, options.rounds, options.say)
        milliseconds = [[1000 * value for value in taken] for taken in seconds]
    many = dict(zip(engines, milliseconds[::2], strict=True))
    single = dict(zip(engines, milliseconds[1::2], strict=True))
    figures = [Figure(f"verify {tokens} {label}", "ms", many["ours"], single["ours"], "one token, ours", bar)]
    for name in runner.peers:
        cost = Figure("", "ms", many[name], single[name], "").ratio
        note = "" if cost is None else f"{name}'s own cost of {tokens} tokens against one: {cost:.2f}"
        figures.append(
            Figure(
                f"verify {tokens} {label}",
                "ms",
                many["ours"],
                many[name],
                name,
                None,
                note,
                _note(runner, name, options),
            )
        )
    return figures + _missing(Figure(f"verify {tokens} {label}", "ms", many["ours"], (), ""), runner)


def _check_window(shape: str, tokens: int) -> None:
    if tokens > weights.WINDOW:
        raise UsageError(f"{tokens} tokens in all: the benchmarks' window has {weights.WINDOW}; ask for fewer")
