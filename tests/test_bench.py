"""Benchmarks: their arithmetic, the models they write, peers that run, fail or are missing, and hostile arguments."""

from __future__ import annotations

import ast
import json
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from codegen25.bench import cli, machine, speed, weights
from codegen25.bench import peer as peers
from codegen25.bench.figures import Bar, Figure, Options, table
from codegen25.bench.peer import DRIVERS, PEERS, Peer, PeerError, Recipe
from codegen25.cli import main
from codegen25.config import SHAPES, ModelConfig
from codegen25.errors import CodegenError
from codegen25.model.cached import cache_folder

VOCAB = tiny.tokenizer().n_vocab
TINY = ModelConfig(VOCAB, 64, 96, 2, 4, 2, 16, 256)
NUMBERS = st.lists(st.floats(0.01, 1e6), min_size=1, max_size=9)


def silent(line: str) -> None:
    pass


def options(cache: Path, *names: str, rounds: int = 2) -> Options:
    return Options(cache=cache, threads=1, rounds=rounds, peers=names, say=silent)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where models of the shape `tiny` are written once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def tiny_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a vocabulary that is read in no time."""
    monkeypatch.setitem(SHAPES, "tiny", TINY)
    tokenizer_of = weights.tokenizer_of
    monkeypatch.setattr(weights, "tokenizer_of", lambda s: tokenizer_of(s) if s == "nano" else tiny.tokenizer())


# -------------------------------------------------------------------------------------------------------------- figures


@given(NUMBERS, NUMBERS, st.floats(0.01, 100), st.sampled_from([">=", "<="]))
def test_a_figure_compares_medians(ours: list[float], peer: list[float], value: float, sense: Any) -> None:
    figure = Figure("x", "tok/s", ours, peer, "other", Bar(sense, value))
    ratio = statistics.median(ours) / statistics.median(peer)
    assert figure.ratio == ratio
    assert figure.holds is (ratio >= value if sense == ">=" else ratio <= value)
    told = figure.to_json()
    assert told["ratio"] == pytest.approx(ratio, rel=1e-3) and told["bar"] == f"{sense} {value:g}"
    assert list(told) == [
        "name", "unit", "ours", "ours_rounds", "peer", "peer_rounds", "peer_name", "ratio", "bar", "holds", "note",
    ]  # fmt: skip
    json.dumps(told, allow_nan=False)


@pytest.mark.parametrize("ours, peer", [([1.0], []), ([], [1.0]), ([1.0], [0.0]), ([], [])])
def test_what_was_not_measured_holds_nothing(ours: list[float], peer: list[float]) -> None:
    figure = Figure("x", "ms", ours, peer, "other", Bar("<=", 2), "it broke")
    assert figure.ratio is None and figure.holds is None
    json.dumps(figure.to_json(), allow_nan=False)
    assert "it broke" in table([figure])


def test_a_table_is_for_reading() -> None:
    figures = [
        Figure("decode", "tok/s", [1234.5, 1200.0, 1300.0], [500.0], "llama.cpp", Bar(">=", 2.5)),
        Figure("verify", "ms", [1.0], [2.0], "llama.cpp"),
    ]
    head, decode, verify = table(figures).splitlines()
    assert head.split() == ["figure", "ours", "peer", "ratio", "bar", "holds"]
    assert decode.endswith("2.47   >= 2.5  NO") and "1,234 tok/s (1,200-1,300)" in decode
    assert verify.endswith("0.50")


def test_machine() -> None:
    about = machine.describe()
    assert about["cores"] >= 1 and about["cpu"] and about["available_memory_gib"] > 0
    json.dumps(about)
    assert machine.commit()


# --------------------------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize("bits", [4, 8])
def test_random_models_are_the_same_again_and_behave(bits: int, tmp_path: Path, cache: Path) -> None:
    pytest.importorskip("codegen25._native")
    path = weights.model("tiny", bits, options(cache))
    again = weights.model("tiny", bits, options(tmp_path))
    assert path.read_bytes() == again.read_bytes()
    stamp = path.stat().st_mtime_ns
    assert weights.model("tiny", bits, options(cache)) == path and path.stat().st_mtime_ns == stamp
    backend = speed.open_ours(path, 1).backend
    sequence = backend.new()
    (logits,) = backend.forward([(sequence, speed.random_ids("tiny", 64), True)])
    assert np.isfinite(logits).all()
    assert 0.1 < logits.std() < 10, "a trained model's logits are of that size"


def test_random_weights_are_centred() -> None:
    import gguf

    tensors = {tensor.name: tensor for tensor in weights.random_tensors(TINY, 4)}
    for name, kind, deviation in (("blk.0.ffn_up.weight", "Q4_0", 64**-0.5), ("output.weight", "Q8_0", 64**-0.5)):
        blocks = tensors[name].blocks().reshape(tensors[name].shape[0], -1)
        numbers = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind])
        assert numbers.shape == tensors[name].shape
        assert abs(numbers.mean()) < 0.1 * deviation
        assert numbers.std() == pytest.approx(deviation, rel=0.1)


def test_too_large_for_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, "huge", ModelConfig(51200, 32768, 98304, 400, 256, 256, 128, 2048))
    with pytest.raises(CodegenError, match=r"--shape huge: needs .* GiB of memory") as caught:
        weights.model("huge", 4, options(tmp_path))
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_disk(tmp_path: Path) -> None:
    peers.check_disk(tmp_path / "not" / "there" / "yet", 1, "a byte")
    with pytest.raises(CodegenError, match=r"a lot needs 1073741824.0 GiB of disk.*--cache"):
        peers.check_disk(tmp_path / "not" / "there" / "yet", 1 << 60, "a lot")


def test_the_cache_is_where_the_system_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/codegen25")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the specification says to ignore
    assert cache_folder() == Path.home() / ".cache" / "codegen25"


# ----------------------------------------------------------------------------------------------------------- our engine


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> speed.Ours:
    pytest.importorskip("codegen25._native")
    folder = tmp_path_factory.mktemp("ours")
    tensors = weights.random_tensors(TINY, 4)
    weights.write(folder / "x.gguf", "tiny", TINY, tiny.tokenizer(), tensors)
    return speed.open_ours(folder / "x.gguf", 1)


def test_our_engine_gives_its_sequences_back(ours: speed.Ours) -> None:
    ids = speed.random_ids("tiny", 20)
    for task in (
        {"do": "decode", "context": ids, "n": 5},
        {"do": "prefill", "tokens": ids},
        {"do": "verify", "context": ids, "tokens": ids[:8]},
    ):
        assert ours.call(**task)["seconds"] > 0
        assert ours.backend.cache_bytes == 0


def test_commands_without_peers(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flags say `nano`; what runs is tiny."""
    pytest.importorskip("codegen25._native")
    monkeypatch.setitem(SHAPES, "1b", TINY)
    monkeypatch.setattr(speed, "PROBE_MIB", 4)
    shared = ["--shape", "1b", "--rounds", "2", "--threads", "1", "--peers", "none", "--cache", str(cache)]
    expected = {
        ("decode", "--tokens", "4", "--context", "8"): ["decode 1b int4", "bandwidth 1b int4"],
        ("prefill", "--tokens", "16"): ["prefill 1b int4"],
        ("verify", "--tokens", "3"): ["verify 3 1b int4", "verify 3 1b int8"],
    }
    for command, names in expected.items():
        assert main(["bench", *command, *shared, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert list(told) == ["machine", "commit", "figures"]
        assert [figure["name"] for figure in told["figures"]] == names
        for figure in told["figures"]:
            assert figure["ours"] > 0 and len(figure["ours_rounds"]) == 2
        assert main(["bench", *command, *shared]) == 0
        assert names[0] in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------------------------- peers


def test_drivers_need_nothing_of_ours() -> None:
    for file in DRIVERS.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or "."] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.startswith((".", "codegen25"))], file


ENGINE = """
import os, sys, time
print("a library says hello on stdout", flush=True)

class Engine:
    def load(self, path, threads):
        os.write(1, b"and so does C\\n")
        return {"path": path}
    def decode(self, context, n):
        return {"seconds": 0.001 * n}
    def prefill(self, tokens):
        raise ValueError("no\\nprompt")
    def sleep(self):
        time.sleep(60)
    def die(self):
        os._exit(3)
"""


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Options]:
    """Options whose cache holds environments of these peers that are the tests' own."""

    def prepare(*names: str) -> Options:
        for name in names:
            folder = tmp_path / "cache" / "peers" / "+".join(PEERS[name].packages)
            (folder / "bin").mkdir(parents=True)
            (folder / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
            (folder / "bin" / "python").chmod(0o755)
            (folder / "complete").touch()
        return options(tmp_path / "cache", *names)

    (tmp_path / "engine.py").write_text(ENGINE)
    monkeypatch.setitem(PEERS, "toy", Recipe(str(tmp_path / "engine.py"), ("toy",), 0))
    return prepare


@pytest.fixture
def toy(prepared: Callable[..., Options]) -> Iterator[Peer]:
    with Peer.start("toy", prepared("toy")) as peer:
        yield peer


def is_running(peer: Peer) -> bool:
    return peer._process.poll() is None


def test_a_peer_answers(toy: Peer) -> None:
    assert toy.call("load", path="é\n", threads=1) == {"path": "é\n"}
    assert toy.call("decode", context=[1], n=2) == {"seconds": 0.002}
    with pytest.raises(PeerError, match=r"^toy cannot prefill: ValueError: no prompt$"):
        toy.call("prefill", tokens=[])
    assert toy.call("decode", context=[1], n=3) == {"seconds": 0.003}, "it goes on after an error"
    assert "and so does C" in toy.log.read_text() and "hello" in toy.log.read_text()


def test_a_peer_that_dies(toy: Peer) -> None:
    for _ in range(2):
        with pytest.raises(PeerError, match="toy ended while it was asked to die; its last words are in"):
            toy.call("die")


def test_an_idle_peer_uses_no_processor(toy: Peer) -> None:
    toy.call("load", path="", threads=1)

    def ticks() -> int:
        fields = Path(f"/proc/{toy._process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(0.3)
    assert ticks() == before


def test_an_interrupt_ends_the_peer(prepared: Callable[..., Options]) -> None:
    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt), Peer.start("toy", prepared("toy")) as peer:
            peer.call("sleep")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert not is_running(peer)


def test_a_peer_that_cannot_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setitem(PEERS, "none", Recipe("none.py", ("codegen25-has-no-such-peer",), 0))
    with pytest.raises(PeerError, match=r"^none could not be installed: ERROR: ") as caught:
        peers.environment("none", tmp_path, silent)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "peers").iterdir()), "half an environment is left"


def test_a_missing_peer_is_said_and_the_others_go_on(
    cache: Path, prepared: Callable[..., Options], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("codegen25._native")
    monkeypatch.setattr(speed, "PROBE_MIB", 4)
    monkeypatch.setitem(PEERS, "broken", Recipe("none.py", ("broken",), 1 << 60))
    path = weights.model("tiny", 4, options(cache))
    monkeypatch.setattr(weights, "model", lambda *_: path)
    chosen = prepared("toy")
    both = Options(chosen.cache, 1, 2, ("broken", "toy"), silent)
    broken, found, bandwidth = speed.decode("tiny", 4, both, context=8, tokens=4)
    assert (broken.peer_name, broken.ratio) == ("broken", None) and "GiB of disk" in broken.note
    assert (found.peer_name, found.note) == ("toy", "")
    assert list(found.peer) == pytest.approx([1000.0, 1000.0])
    assert found.bar is None and bandwidth.ours
    (failed,) = speed.prefill("tiny", 4, Options(chosen.cache, 1, 2, ("toy",), silent), tokens=8)
    assert failed.note == "toy cannot prefill: ValueError: no prompt" and failed.holds is None and failed.ours


@pytest.mark.slow
def test_llama_cpp_runs_beside_us(cache: Path, prepared: Callable[..., Options]) -> None:
    pytest.importorskip("xllamacpp")
    pytest.importorskip("codegen25._native")
    chosen = prepared("llama.cpp")
    path = weights.model("tiny", 4, options(cache))
    (chosen.cache / "models").mkdir()
    (chosen.cache / "models" / path.name).write_bytes(path.read_bytes())
    decode, bandwidth = speed.decode("tiny", 4, chosen, context=16, tokens=8)
    (prefill,) = speed.prefill("tiny", 4, chosen, tokens=32)
    one, against = speed.verify("tiny", 4, chosen, context=16, tokens=4)
    for figure in (decode, prefill, against):
        assert figure.peer_name == "llama.cpp" and not figure.note
        assert len(figure.ours) == len(figure.peer) == 2 and min(*figure.ours, *figure.peer) > 0
        assert "threads" in figure.more["peer_settings"]
    assert bandwidth.ratio and one.ratio and against.more["peer_cost_against_one"] > 0


# -------------------------------------------------------------------------------------------------------- command line


def test_the_command_line_names_what_there_is() -> None:
    """It has lists of its own, so that `--help` imports nothing."""
    alone = {"hf-folder"}  # the one that `bench export` has
    assert {*cli.PEERS, *cli.DATA_PEERS, *cli.ATTRIBUTE_PEERS, *cli.TRAIN_PEERS, *alone} == set(PEERS)
    assert set(cli.TRAINED) <= set(SHAPES)
    assert set(cli.SHAPES) <= set(SHAPES)
    assert set(speed.DECODE_BARS) == set(cli.SHAPES) and speed.BARRED in PEERS
    assert all((DRIVERS / recipe.driver).is_file() for recipe in PEERS.values())


@pytest.mark.parametrize(
    "command, code, match",
    [
        ("decode --rounds 0", 2, "--rounds 0"),
        ("decode --threads 0", 2, "--threads 0"),
        ("decode --threads -3", 2, "--threads -3"),
        ("decode --peers llama.cpp,vllm", 2, "--peers vllm"),
        ("decode --peers ,", 2, "--peers"),
        ("decode --shape 70b", 2, "70b"),
        ("decode --bits 5", 2, "5"),
        ("decode --tokens 0", 2, "tokens"),
        ("decode --tokens 100000", 2, "100128 tokens in all"),
        ("prefill --tokens 1000000000", 2, "tokens in all"),
        ("verify --context 1020", 2, "1028 tokens in all"),
        ("infill --files /nowhere/at/all", 1, "no such folder"),
        ("data --files /nowhere/at/all", 1, "no such folder"),
        ("data --documents 1", 2, "documents"),
        ("data --peers llama.cpp", 2, "--peers llama.cpp: choose from datatrove, or none"),
        ("infill --seed -1", 2, "seed"),
        ("swim", 2, "swim"),
    ],
)
def test_hostile_arguments(
    command: str, code: int, match: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command.split()
    cache = ["--cache", str(tmp_path / "cache")] if words[0] != "swim" else []
    assert main(["bench", *words, *cache]) == code
    out, err = capsys.readouterr()
    assert out == "" and match in err
    assert [line.startswith("codegen25: error: ") for line in err.splitlines() if "other programs" not in line] == [
        True
    ]
    assert not (tmp_path / "cache" / "models").exists()


def test_a_cache_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(["bench", "prefill", "--peers", "none", "--cache", str(tmp_path / "file")]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"
