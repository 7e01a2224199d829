"""Exported folders as Hugging Face reads them: weights, ids, tokenizer, and no custom code."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from hypothesis import given, settings
from hypothesis import strategies as st
from publisher_folder import INSTRUCT, SHAPE, random_llama, write_publisher_folder
from transformers import AutoModelForCausalLM, AutoTokenizer

from codegen25.config import read_config
from codegen25.errors import CodegenError
from codegen25.model.checkpoint import load_llama, save_llama
from codegen25.model.export import export_hf
from codegen25.model.hf_tokenizer import write_tokenizer
from codegen25.tokenizer import family, from_folder


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The publisher's instruct layout, exported."""
    folder = tmp_path_factory.mktemp("export")
    write_publisher_folder(folder / "instruct", **INSTRUCT)
    export_hf(folder / "instruct", folder / "hf", silent, dtype="float32")
    return folder / "hf"


@pytest.mark.parametrize("trust", [False, True])
def test_auto_classes(exported: Path, trust: bool) -> None:
    model = AutoModelForCausalLM.from_pretrained(exported, trust_remote_code=trust)
    tokenizer = AutoTokenizer.from_pretrained(exported, trust_remote_code=trust)
    assert type(model).__module__.startswith("transformers.")
    assert type(tokenizer).__module__.startswith("transformers.")
    ids = model.config, model.generation_config, tokenizer
    for holder in ids:
        assert [holder.bos_token_id, holder.eos_token_id, holder.pad_token_id] == [50256] * 3
    text = "int add(int a, int b) { return a + b; }\nπ"
    assert tokenizer(text).input_ids == [600, 751, 7, 600, 257, 11, 493, 275, 8, 1391, 1441, 257, 1343, 275, 26, 1782,
                                         198, 46582]  # fmt: skip
    text = "prefix<mask_1>suffix<|endoftext|><sep><mask_1>"
    assert tokenizer(text).input_ids == [40290, 51199, 37333, 844, 50256, 50317, 51199]
    assert set(tokenizer(text)) == {"input_ids", "attention_mask"}, "generate() refuses token_type_ids"
    assert len(tokenizer) == model.config.vocab_size


def test_logits(exported: Path) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)
    ids_BT = torch.tensor([family().encode("def hello_world():\n    return")])
    with torch.no_grad():
        expected = random_llama(SHAPE)(ids_BT)
        torch.testing.assert_close(theirs(ids_BT).logits, expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.1


def test_files(exported: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    config = json.loads((exported / "config.json").read_text())
    assert "auto_map" not in config and config["dtype"] == "float32"
    assert "auto_map" not in json.loads((exported / "tokenizer_config.json").read_text())


def test_export_needs_no_repair_and_exports_again(exported: Path, tmp_path: Path) -> None:
    export_hf(exported, tmp_path / "again", pytest.fail, dtype="float32")
    for path in exported.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_notices_and_default_dtype(tmp_path: Path) -> None:
    lines: list[str] = []
    write_publisher_folder(tmp_path / "multi", bins=False)
    (tmp_path / "multi" / "README.md").write_text("the card")
    export_hf(tmp_path / "multi", tmp_path / "hf", lines.append)
    assert any("pad_token_id" in line for line in lines)
    assert (tmp_path / "hf" / "README.md").read_text() == "the card"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "hf").dtype == torch.bfloat16
    expected = random_llama(SHAPE).bfloat16().state_dict()
    for name, tensor in load_llama(tmp_path / "hf", notice=pytest.fail).state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_end_ids_of_a_tuned_model_are_kept(tmp_path: Path) -> None:
    write_publisher_folder(tmp_path / "tuned", bins=False, eos_token_id=[50256, 50318])
    export_hf(tmp_path / "tuned", tmp_path / "hf", silent)
    assert read_config(tmp_path / "hf")[1]["eos_token_id"] == [50256, 50318]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "hf").generation_config.eos_token_id == [50256, 50318]


@pytest.fixture(scope="module")
def pair(exported: Path) -> tuple[object, object]:
    return AutoTokenizer.from_pretrained(exported, trust_remote_code=True), from_folder(exported)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" \t\n<>_1sepmask|"))))
def test_ids_are_ours(pair: tuple[object, object], text: str) -> None:
    theirs, ours = pair
    assert theirs(text).input_ids == ours.encode(text, allow_control=True)  # type: ignore[operator,attr-defined]
    assert ours.encode(text) == family().encode(text)  # type: ignore[attr-defined]


@pytest.mark.parametrize("problem", ["no tokenizer", "small vocabulary", "damaged", "out exists", "out is source"])
def test_bad_input_leaves_nothing(problem: str, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    small = problem == "small vocabulary"
    save_llama(random_llama(SHAPE.with_vocab(51199 if small else 51200)), source, dtype="float32")
    if problem != "no tokenizer":
        write_tokenizer(source, family())
    if problem == "damaged":
        path = source / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-10])
    if problem == "out exists":
        out.mkdir()
        (out / "mine").write_text("mine")
    if problem == "out is source":
        out = source
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(CodegenError) as error:
        export_hf(source, out, silent)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert {path.name for path in tmp_path.iterdir()} <= {"source", "out"}
