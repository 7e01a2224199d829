"""The model against transformers' LlamaForCausalLM, through folders written by either side."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pathlib import Path

import pytest
import torch
from publisher_folder import random_llama
from transformers import LlamaConfig, LlamaForCausalLM

from codegen25.config import ModelConfig, from_hf
from codegen25.model.checkpoint import load_llama, save_llama
from codegen25.model.llama import Llama, Packed

CONFIGS = {
    "plain": ModelConfig(97, 32, 48, 2, 4, 4, 8, 64),
    "grouped, tied": ModelConfig(101, 48, 80, 3, 6, 2, 8, 64, 100000.0, 1e-5, tied=True),
    "one kv head, wide heads": ModelConfig(64, 24, 32, 2, 3, 1, 16, 64, 500.0),
    "narrow heads": ModelConfig(80, 40, 56, 2, 5, 5, 4, 64, 1e6, tied=True),
    "coarse norm": ModelConfig(80, 32, 40, 4, 8, 4, 6, 64, 10000.0, 1e-2),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def tokens(config: ModelConfig, rows: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))


def assert_same_logits(ours: Llama, theirs: LlamaForCausalLM) -> None:
    ids_BT = tokens(ours.config, 2, 33)
    theirs.train(False)
    with torch.no_grad():
        expected_BTV = theirs(ids_BT).logits
        found_BTV = ours(ids_BT)
    assert found_BTV.dtype == torch.float32
    assert expected_BTV.std() > 0.1, "logits that are all alike would pass for any model"
    torch.testing.assert_close(found_BTV, expected_BTV, atol=1e-4, rtol=1e-4)


@every_config
def test_folder_by_transformers(config: ModelConfig, tmp_path: Path) -> None:
    hf = {key: value for key, value in config.to_hf().items() if key not in ("model_type", "architectures")}
    torch.manual_seed(3)
    theirs = LlamaForCausalLM(LlamaConfig(**hf, initializer_range=0.2))
    for name, parameter in theirs.named_parameters():
        if "norm" in name:  # ones would hide a norm that is left out or misplaced
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    theirs.save_pretrained(tmp_path)
    ours = load_llama(tmp_path, dtype="float32", notice=pytest.fail)
    assert ours.config == config
    assert_same_logits(ours, theirs)


@every_config
@pytest.mark.parametrize("shard_bytes", [5 << 30, 10_000], ids=["one file", "shards"])
def test_folder_by_us(config: ModelConfig, shard_bytes: int, tmp_path: Path) -> None:
    ours = random_llama(config, std=0.2)
    save_llama(ours, tmp_path / "out", dtype="float32", shard_bytes=shard_bytes)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert from_hf(theirs.config.to_dict()) == config
    assert_same_logits(ours, theirs)


@every_config
def test_packed_documents_do_not_see_each_other(config: ModelConfig) -> None:
    model, lengths = random_llama(config, std=0.2), [7, 1, 12]
    ids_BT = tokens(config, 2, sum(lengths))
    document_T = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))
    position_T = torch.cat([torch.arange(length) for length in lengths])
    with torch.no_grad():
        packed = model(ids_BT, position_T.expand_as(ids_BT), Packed(document_T.expand_as(ids_BT)))
        alone = torch.cat([model(part) for part in torch.split(ids_BT, lengths, dim=1)], dim=1)
        joined = model(ids_BT)
    torch.testing.assert_close(packed, alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(packed, joined, atol=1e-2), "the documents saw each other and nobody noticed"


def test_rotary_positions_are_relative() -> None:
    """The same tokens further along give the same logits (RoPE), which packing and cache reuse rely on."""
    config = CONFIGS["grouped, tied"]
    model, ids_BT = random_llama(config, std=0.2), tokens(config, 2, 20)
    with torch.no_grad():
        shifted = model(ids_BT, torch.arange(20)[None] + 17)
        torch.testing.assert_close(shifted, model(ids_BT), atol=1e-4, rtol=1e-4)
        assert not torch.allclose(model(ids_BT, torch.arange(20)[None] * 3), model(ids_BT), atol=1e-2)


@every_config
def test_parameter_count(config: ModelConfig) -> None:
    assert sum(parameter.numel() for parameter in Llama(config).parameters()) == config.parameters
