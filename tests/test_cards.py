"""The card of a trained model: what the run wrote down, and nothing of the machine's paths."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from huggingface_hub import ModelCard
from test_report import write_run

from codegen25.errors import CodegenError
from codegen25.train.cards import card, write_card
from codegen25.train.runs import Run, read_run

SETTINGS: dict[str, Any] = {
    "train": {"steps": 100, "rate": 2.5e-4, "optimizer": "muon", "warmup": 3, "decay": 20, "weight_decay": 0.01},
    "data": {"documents": 1234, "sha256": "ab12", "documents_per_step": 14, "window": 512},
    "model": asdict(tiny.CONFIG), "dtype": "bfloat16", "stage": "mono",
    "objective": {"infill_rate": 0.9, "mixture": {"dense": 0.6, "anchored": 0.4}},
}  # fmt: skip
START = {"time": "2026-11-25T15:00:00Z", "init": "/home/someone/runs/multi/model", "data": "/home/someone/corpus",
         "environment": {"codegen25": "0.1.0", "torch": "2.13.0", "cpu": "a CPU"}}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return replace(read_run(write_run(tmp_path / "mono")), settings=SETTINGS, starts=(START,))


def test_what_the_run_wrote_down(run: Run) -> None:
    text = card(run, [("lines exact", "12 of 96")])
    for said in (
        f"{tiny.CONFIG.parameters:,} parameters", "| begins from | multi/model |", "corpus: 1,234 documents", "`ab12`",
        "6,000 tokens in 60 of 100 steps", "muon, rate 0.00025", "90% of documents with holes: dense 0.6, anchored 0.4",
        "| bits per byte python | 0.01667 |", "| lines exact | 12 of 96 |", "2026-11-25",
    ):  # fmt: skip
        assert said in text
    assert "/home" not in text and "codegen25 infill" in text
    assert "/v1/chat/completions" in card(replace(run, settings={**SETTINGS, "stage": "instruct"}))


def test_the_hub_reads_its_front_matter(run: Run) -> None:
    data = ModelCard(card(run)).data.to_dict()  # type: ignore[no-untyped-call]
    assert data["base_model"] == "multi/model" and data["language"] == ["code"] and "infilling" in data["tags"]


def test_a_run_from_chance_and_a_hub_id(run: Run) -> None:
    start = {**START, "init": None, "shape": "350m"}
    text = card(replace(run, starts=(start,), steps=(), evaluations=()))
    assert "base_model" not in text and "the shape 350m" in text and "Nothing, beside the loss." in text
    hub = card(replace(run, starts=({**START, "init": "Salesforce/codegen25-7b-multi_P"},)))
    assert "base_model: Salesforce/codegen25-7b-multi_P" in hub


def test_a_disk_that_refuses(run: Run, tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match=r"README\.md: cannot be written"):
        write_card(tmp_path / "nowhere", run)
