"""The benchmark of training: what it reads from a run, what it asks of the peer, and runs that fail."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from codegen25.bench import train as benchmark
from codegen25.bench.figures import Options
from codegen25.bench.peer import PEERS, Peer
from codegen25.bench.train import HF, SMOOTHED, Ours, first_below, write_documents
from codegen25.config import SHAPES, ModelConfig
from codegen25.errors import CodegenError

TINY = ModelConfig(49216, 32, 48, 1, 2, 1, 16, 1024, tied=True)


def steps(*losses: float) -> Ours:
    """Each of 100 tokens, in a second."""
    return Ours(
        [
            {"step": n, "loss": loss, "tokens": 100.0 * n, "tokens_per_second": 100.0, "mfu": n / 100}
            for n, loss in enumerate(losses, 1)
        ]
    )


def test_the_first_steps_do_not_count() -> None:
    assert steps(4, 3, 2, 1).rates == [100, 100] and steps(4, 3, 2, 1).shares == [0.03, 0.04]


def test_time_to_a_loss_counts_all_steps() -> None:
    falling = steps(*range(20, 0, -1))
    curve = falling.losses()
    assert len(curve) == 20 - SMOOTHED + 1
    # The mean of eight losses in a row is that of their middle: 16.5 behind the eighth, then one less each.
    assert curve[0] == (8.0, 16.5) and curve[-1] == (20.0, 4.5)
    assert first_below(curve, 10.5) == 14.0 and first_below(curve, 10.4) == 15.0
    assert first_below(curve, 4.0) is None and first_below([], 1.0) is None


def test_documents_are_long_and_the_same_by_their_seed(tmp_path: Path) -> None:
    one, again, other = (write_documents(tmp_path / str(n), seed).read_text() for n, seed in enumerate((0, 0, 1)))
    assert one == again != other
    texts = [json.loads(line)["content"] for line in one.splitlines()]
    assert len(texts) > 20 and min(map(len, texts)) > benchmark.CHARACTERS[0] / 2


def test_a_run_that_fails_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match=r"failed: .*nowhere") as error:
        benchmark.train(tmp_path, tmp_path / "nowhere.jsonl", "pico", 1, 1, threads=1)
    assert "\n" not in str(error.value)


def test_ours_is_the_command_itself(tmp_path: Path) -> None:
    documents = write_documents(tmp_path / "code.jsonl", 0)
    ours = benchmark.train(tmp_path, documents, "pico", 1, 3, threads=1)
    assert len(ours.steps) == 3 and len(ours.rates) == len(ours.shares) == 1
    # A row is nearly full: a document is cut at a line.
    assert 450 <= ours.steps[0]["tokens"] <= benchmark.WINDOW


def test_the_peer_trains_the_same_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("accelerate")
    monkeypatch.setitem(SHAPES, "tiny", TINY)
    folder = tmp_path / "cache" / "peers" / "+".join(PEERS[HF].packages)
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / "bin" / "python").chmod(0o755)
    (folder / "complete").touch()
    options = Options(tmp_path / "cache", 1, 2, (HF,), lambda line: None)
    with Peer.start(HF, options) as peer:
        assert "torch" in peer.call("load", threads=1)["version"]
    figures = list(benchmark._beside_hf(steps(3, 2, 1), options, "tiny", 1))
    assert [figure.bar and figure.bar.value for figure in figures] == [2.0, 1.3]
    assert all(len(figure.peer) == 2 and min(figure.peer) > 0 and figure.ratio for figure in figures)
    alone = Options(tmp_path, 1, 1, (), print)
    assert not any(figure.peer for figure in benchmark._beside_hf(steps(3, 2, 1), alone, "tiny", 1))
