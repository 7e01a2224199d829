"""A plan's arithmetic against numbers worked out by hand, its remedies, and its command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen25 import cli
from codegen25.config import SHAPES, ModelConfig
from codegen25.errors import UsageError
from codegen25.model.llama import Llama
from codegen25.terminal import count
from codegen25.train.accelerators import ACCELERATORS, Accelerator, Cluster, parse_cluster
from codegen25.train.memory import block_parameters, layer_bytes, memory, moment_numbers
from codegen25.train.plan import Plan, describe

SMALL = ModelConfig(100, 8, 16, 2, 2, 1, 4, 64)
PAPER = Plan("7b", SHAPES["7b"], Cluster(256, ACCELERATORS["H100"]), 1_400_000_000_000, price_per_hour=2.0)


def test_a_small_shape_by_hand() -> None:
    # A block: q 64, k and v 32 each, o 64, three matrices of 128, two norms of 8. Outside: two of 800, a norm of 8.
    assert block_parameters(SMALL) == 64 + 2 * 32 + 64 + 3 * 128 + 16 == 592
    assert SMALL.parameters == 2 * 592 + 1608
    # Multiplied: the blocks' matrices and the head, 6 operations each.
    small = Plan("small", SMALL, Cluster(1, ACCELERATORS["H100"]), 1000, window=9)
    assert small.weight_flops == 6 * (2 * 576 + 800)
    # Two products of 8 numbers with 5 of 9 keys, 2 operations each, three times, in 2 layers.
    assert small.attention_flops == 2 * 8 * 5 * 2 * 3 * 2
    assert moment_numbers(SMALL, "adamw") == 2 * SMALL.parameters
    assert moment_numbers(SMALL, "muon") == 2 * SMALL.parameters - 2 * 576
    # Norms 2 x (36 + 32), q and o 16 each, k and v 8 each, log-sum-exp 8, a mask of 10, four times 16 in bf16.
    assert layer_bytes(SMALL, 10) == 2 * 68 + 2 * (16 + 8) + 8 + 20 + 128


def test_a_tied_head_is_counted_once() -> None:
    assert block_parameters(replace(SMALL, tied=True)) == block_parameters(SMALL)


def test_the_publishers_shape() -> None:
    assert PAPER.config.parameters == 6_895_702_016  # 6.9 B, in 27.6 GB of fp32
    assert PAPER.tokens_per_step == 256 * 4 * 2048 == 1 << 21
    assert PAPER.steps == 667_573
    assert PAPER.weight_flops == 6 * (6_895_702_016 - 65 * 4096 - 51200 * 4096)
    assert PAPER.attention_flops == 12 * 32 * 4096 * 1024.5
    assert PAPER.seconds / 86400 == pytest.approx(6.67, abs=0.01)
    assert PAPER.cost == pytest.approx(2.0 * 256 * PAPER.seconds / 3600)
    assert PAPER.model_bytes == 2 * PAPER.config.parameters
    assert PAPER.state_bytes == 12 * PAPER.config.parameters
    assert PAPER.shard_bytes == 2_800_000_000_000
    found = PAPER.memory(checkpointing=False)
    assert found.masters == 4 * -(-PAPER.config.parameters // 256)
    assert PAPER.fits(found) and PAPER.remedies() == []


@given(
    st.sampled_from(sorted(SHAPES)), st.integers(1, 64), st.sampled_from([1, 2, 7, 256]), st.booleans(),
    st.sampled_from(["adamw", "muon"]),
)  # fmt: skip
def test_memory_grows_and_shrinks_as_it_must(
    shape: str, rows: int, devices: int, checkpointing: bool, optimizer: str
) -> None:
    def peak(rows: int, devices: int, checkpointing: bool) -> int:
        return memory(
            SHAPES[shape], rows=rows, window=512, devices=devices, checkpointing=checkpointing,
            optimizer=optimizer,  # type: ignore[arg-type]
        ).peak  # fmt: skip

    assert peak(rows, devices, True) <= peak(rows, devices, False)
    assert peak(rows, devices, checkpointing) <= peak(rows + 1, devices, checkpointing)
    assert devices == 1 or peak(rows, 2 * devices, checkpointing) <= peak(rows, devices, checkpointing)


def test_what_does_not_fit_says_what_would() -> None:
    crowded = replace(PAPER, rows=16)
    assert not crowded.fits(crowded.memory(checkpointing=False))
    assert "activation checkpointing at 16 rows" in crowded.remedies()
    assert crowded.fits(crowded.memory(checkpointing=False, rows=crowded.most_rows(checkpointing=False)))
    assert not crowded.fits(crowded.memory(checkpointing=False, rows=crowded.most_rows(checkpointing=False) + 1))

    alone = replace(PAPER, cluster=Cluster(1, ACCELERATORS["H100"]))
    assert alone.most_rows(checkpointing=True) == 0
    devices = int(alone.remedies()[0].split()[0])
    assert alone.fits(alone.memory(checkpointing=True, rows=1, devices=devices))
    assert not alone.fits(alone.memory(checkpointing=True, rows=1, devices=devices // 2))
    assert "NO" in describe(alone) and alone.remedies()[0] in describe(alone)

    hopeless = replace(PAPER, cluster=Cluster(4, Accelerator("toy", 1e12, 1e9, "")))
    assert "no number" in describe(replace(hopeless, config=replace(PAPER.config, vocab_size=1 << 24)))


def test_parameters_are_those_of_the_model() -> None:
    assert sum(p.numel() for p in Llama(SMALL).parameters()) == SMALL.parameters


def test_counts() -> None:
    for text, value in {"1.4T": 1_400_000_000_000, "20m": 20_000_000, " 7 ": 7, "6.5B": 6_500_000_000}.items():
        assert count(text) == value


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "1e9", "1.4TB", "9" * 30, "٣", "1_000"])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(UsageError, match="no count"):
        count(text)


@pytest.mark.parametrize("text", ["", "H100", "0xH100", "-1xH100", "8xV100", "8 x H100", "99999999xH100"])
def test_what_is_no_cluster(text: str) -> None:
    with pytest.raises(UsageError, match="--gpus"):
        parse_cluster(text)


def test_clusters_by_any_case() -> None:
    assert parse_cluster("8xh100") == (8, "H100") and parse_cluster("1xCPU") == (1, "cpu")


@pytest.mark.parametrize(
    "wrong", ["--rows 0", "--mfu 0", "--mfu 1.5", "--window 4096", "--window -1", "--accumulate 0", "--epochs 0",
              "--price-per-hour -1", "--tokens x", "--gpus 8xV100", "--shape 9b"],
)  # fmt: skip
def test_wrong_usage_is_one_line(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    right = {"--shape": "7b", "--tokens": "1T", "--gpus": "8xH100"}
    name, value = wrong.split()
    args = [part for pair in (right | {name: value}).items() for part in pair]
    assert cli.main(["plan", *args]) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1 and value in output.err


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["plan", "--shape", "7b", "--tokens", "1.4T", "--gpus", "256xH100", "--price-per-hour", "2"]
    assert cli.main(args) == 0
    text = capsys.readouterr().out
    assert text == describe(PAPER)
    assert "6,895,702,016" in text and "6.7 days at 40 %" in text and "FSDP2" in text
    assert cli.main([*args, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["memory"]["plain"]["peak"] == PAPER.memory(checkpointing=False).peak
    assert found["fits"] == {"plain": True, "checkpointing": True} and found["cost"] == PAPER.cost


def test_this_machine_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--shape", "nano", "--tokens", "3M", "--gpus", "1xcpu", "--window", "512", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accelerator"]["peak_flops"] > 1e9 and found["mfu"] == 0.55


def test_the_page_is_what_the_command_says() -> None:
    page = (Path(__file__).parent.parent / "docs" / "scale.md").read_text(encoding="utf-8")
    assert f"```\n{describe(replace(PAPER, price_per_hour=None))}```" in page
