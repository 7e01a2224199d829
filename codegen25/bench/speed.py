"""Decoding, prefill and verification: our engine and others on one file, round by round in turn.

Every engine does what it does when it serves: single tokens are chosen greedily from the logits of the step before,
a prompt ends with the logits of its last token. Between their turns engines rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from codegen25.bench import weights
from codegen25.bench.figures import Bar, Figure, Options, Say
from codegen25.bench.peer import PEERS, Peer, PeerError
from codegen25.config import SHAPES
from codegen25.engine.backend import Backend
from codegen25.errors import UsageError

BARRED = "llama.cpp"  # the peer that the bars are about
OURS = "codegen25"
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

    def __init__(self, backend: Backend, isa: str) -> None:
        self.backend, self.isa = backend, isa

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


@dataclass
class Runner:
    """The engines that share a file, ours first, and the peers' settings; `missing` peers cannot run, and why."""

    ours: Ours
    peers: dict[str, Engine] = field(default_factory=dict)
    settings: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    builds: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # versions, and what they were compiled for
    missing: dict[str, str] = field(default_factory=dict)

    def interleaved(self, tasks: Sequence[Mapping[str, Any]], rounds: int, say: Say) -> dict[str, list[list[float]]]:
        """Seconds of every engine for every task, [engine][task][round]; `OURS` is the first engine.

        Each has its turn in every round; a first round warms up. A peer that fails becomes `missing`.
        """
        seconds: dict[str, list[list[float]]] = {name: [[] for _ in tasks] for name in (OURS, *self.peers)}
        for number in range(rounds + 1):
            say(f"round {number} of {rounds}" if number else "warming up")
            for name in list(seconds):
                time.sleep(REST)
                try:
                    engine: Engine = self.ours if name == OURS else self.peers[name]
                    taken = [float(engine.call(**task)["seconds"]) for task in tasks]
                except PeerError as error:
                    self.missing[name] = str(error)
                    say(str(error))
                    del seconds[name]
                    continue
                for known, value in zip(seconds[name], taken if number else [], strict=False):
                    known.append(value)
        return seconds


def open_ours(path: Path, threads: int) -> Ours:
    """Our engine on a GGUF file."""
    from codegen25.engine.cpu import load_cpu

    backend = load_cpu(path, threads=threads)
    return Ours(backend, backend.engine.isa)


@contextmanager
def running(path: Path, options: Options, task: Mapping[str, Any]) -> Iterator[Runner]:
    """All engines with the model of `path` in memory, each with the settings that do `task` fastest."""
    options.say(f"loading {path.name}")
    runner = Runner(open_ours(path, options.threads))
    with ExitStack() as stack:
        for name in options.peers:
            try:
                settings = _calibrate(name, path, options, task)
                peer = stack.enter_context(Peer.start(name, options))
                build = peer.call("load", path=str(path), threads=options.threads, **settings)
                runner.peers[name], runner.settings[name], runner.builds[name] = peer, settings, build
            except PeerError as error:
                runner.missing[name] = str(error)
                options.say(str(error))
        yield runner


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


def random_ids(shape: str, count: int) -> list[int]:
    """Token ids for a prompt, none of them a control token: speed does not depend on what it says."""
    size = SHAPES[shape].vocab_size
    return [int(id) for id in np.random.default_rng(0).integers(size // 10, size * 8 // 10, count)]


def _label(shape: str, bits: int) -> str:
    return f"{shape} int{bits}"


def _against_peers(
    figure: Figure, runner: Runner, task: Mapping[str, Any], options: Options, to_value: Callable[[float], float]
) -> list[Figure]:
    """`figure` with numbers: ours and every peer's, measured in turn."""
    seconds = runner.interleaved([task], options.rounds, options.say)
    values = {name: [to_value(value) for value in taken] for name, (taken,) in seconds.items()}
    return _per_peer(replace(figure, ours=values.pop(OURS)), runner, options, values)


def _per_peer(figure: Figure, runner: Runner, options: Options, values: Mapping[str, Sequence[float]]) -> list[Figure]:
    """`figure` beside every peer's numbers, or the reason why it has none; alone where no peer was asked for."""
    figures = []
    for name in options.peers:
        settings = {"threads": options.threads, **runner.settings.get(name, {})}
        about = {"isa": runner.ours.isa, "peer_settings": settings, "peer_build": runner.builds.get(name)}
        figures.append(
            replace(
                figure, peer=values.get(name, ()), peer_name=name, note=runner.missing.get(name, figure.note),
                bar=figure.bar if name == BARRED else None, more=figure.more | about,
            )
        )  # fmt: skip
    return figures or [replace(figure, bar=None, more=figure.more | {"isa": runner.ours.isa})]


def decode(shape: str, bits: int, options: Options, *, context: int = 128, tokens: int = 64) -> list[Figure]:
    """Single-token steps, tokens per second, and the share of the memory's bandwidth that they use."""
    _check_window(shape, context + tokens)
    path = weights.model(shape, bits, options)
    task = {"do": "decode", "context": random_ids(shape, context), "n": tokens}
    bar = DECODE_BARS.get(shape) if bits == 4 else None
    figure = Figure(f"decode {_label(shape, bits)}", "tok/s", (), (), "", bar)
    with running(path, options, task) as runner:
        figures = _against_peers(figure, runner, task, options, lambda seconds: tokens / seconds)
    return [*figures, _bandwidth(shape, bits, path, figures[0].ours, options)]


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
    many: dict[str, Any] = {"do": "verify", "context": ids[:context], "tokens": ids[context:]}
    one = many | {"tokens": ids[context : context + 1]}
    with running(path, options, many) as runner:
        seconds = runner.interleaved([many, one], options.rounds, options.say)
    values = {name: [[1000 * value for value in taken] for taken in both] for name, both in seconds.items()}
    ours, single = values.pop(OURS)
    bar = VERIFY_BARS.get(bits) if shape == "nano" and tokens == 8 else None
    name = f"verify {tokens} {_label(shape, bits)}"
    costs = {peer: Figure("", "ms", both[0], both[1], "").ratio for peer, both in values.items()}
    against = [
        replace(figure, more=figure.more | {"peer_cost_against_one": costs.get(figure.peer_name)})
        for figure in _per_peer(Figure(name, "ms", ours, (), ""), runner, options, {p: v[0] for p, v in values.items()})
    ]
    return [Figure(name, "ms", ours, single, "one token, ours", bar), *(against if options.peers else [])]


def _check_window(shape: str, tokens: int) -> None:
    most = min(weights.WINDOW, SHAPES[shape].max_positions)
    if tokens > most:
        raise UsageError(f"{tokens} tokens in all: the benchmarks' window has {most}; ask for fewer")
