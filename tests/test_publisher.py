"""The publisher's known faults in a folder's configuration: each repaired and told in a line, others' left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from edits import edit_config
from publisher_folder import INSTRUCT, TOKENIZER_CONFIG, write_publisher_folder

from codegen25.config import read_config
from codegen25.model.checkpoint import load_llama
from codegen25.model.publisher import repair


def notices_of(folder: Path) -> tuple[dict[str, Any], list[str]]:
    lines: list[str] = []
    fixed = repair(read_config(folder)[1], folder, lines.append)
    assert all("\n" not in line and str(folder) in line for line in lines)
    return fixed, lines


def test_instruct_ids_are_repaired(tmp_path: Path) -> None:
    write_publisher_folder(tmp_path / "instruct", bins=False, **INSTRUCT)
    fixed, lines = notices_of(tmp_path / "instruct")
    assert [fixed[key] for key in INSTRUCT] == [50256] * 3
    for key, wrong in INSTRUCT.items():
        assert sum(f"{key} {wrong} " in line for line in lines) == 1
    assert len(lines) == 4, "three ids and the tokenizer's code"
    loading: list[str] = []
    load_llama(tmp_path / "instruct", notice=loading.append)
    assert loading == lines


def test_multi_needs_only_its_pad(tmp_path: Path) -> None:
    write_publisher_folder(tmp_path / "multi", bins=False)
    fixed, lines = notices_of(tmp_path / "multi")
    assert [fixed[key] for key in INSTRUCT] == [50256] * 3
    assert len(lines) == 2 and "pad_token_id 0 " in lines[1]


@pytest.mark.parametrize("where", ["config", "tokenizer", "map"])
def test_pad_outside_the_embedding(where: str, tmp_path: Path) -> None:
    folder = tmp_path / "tuned"
    write_publisher_folder(folder, bins=False, pad_token_id=51200 if where == "config" else 50256)
    if where == "tokenizer":
        (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG | {"pad_token": "[PAD]"}))
    if where == "map":
        (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "[PAD]"}}))
    fixed, lines = notices_of(folder)
    assert fixed["pad_token_id"] == 50256
    assert len(lines) == 2 and "51200" in lines[1] and "outside" in lines[1]


def test_what_others_chose_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "tuned"
    write_publisher_folder(folder, bins=False, eos_token_id=[50256, 50318], pad_token_id=50256)
    fixed, lines = notices_of(folder)
    assert fixed["eos_token_id"] == [50256, 50318] and len(lines) == 1
    # The same numbers beside a tokenizer.json of its own are that tokenizer's business.
    edit_config(folder, **INSTRUCT)
    (folder / "tokenizer.json").write_text("{}")
    fixed, lines = notices_of(folder)
    assert [fixed[key] for key in INSTRUCT] == [1, 2, 0] and not lines
