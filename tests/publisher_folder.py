"""A folder laid out as the publisher's releases are, small, with random weights, for tests of loading and export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from codegen25.config import ModelConfig
from codegen25.model.llama import Llama

SHAPE = ModelConfig(51200, 16, 44, 3, 2, 2, 8, 2048)

# As released, but for the sizes. `instruct` has other ids.
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 50256,
    "eos_token_id": 50256,
    "hidden_act": "silu",
    "hidden_size": 16,
    "initializer_range": 0.02,
    "intermediate_size": 44,
    "max_position_embeddings": 2048,
    "model_type": "llama",
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.28.0",
    "use_cache": True,
    "vocab_size": 51200,
}
INSTRUCT: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

TOKENIZER_CONFIG = {
    "add_prefix_space": False,
    "add_special_tokens": True,
    "auto_map": {"AutoTokenizer": ["tokenization_codegen25.CodeGen25Tokenizer", None]},
    "eos_token": "<|endoftext|>",
    "model_max_length": 2048,
    "tokenizer_class": "CodeGen25Tokenizer",
}


def random_llama(config: ModelConfig, *, seed: int = 0, std: float = 0.3) -> Llama:
    """Weights wide enough that logits differ clearly, so that greedy decoding has no near ties."""
    model = Llama(config)
    model.init_weights(torch.Generator().manual_seed(seed), std=std)
    return model


def write_publisher_folder(
    folder: Path, *, safetensors: bool = True, bins: bool = True, shape: ModelConfig = SHAPE, **changes: Any
) -> Llama:
    """Write the folder, `changes` over its config.json; returns the model whose weights it holds."""
    folder.mkdir()
    model = random_llama(shape)
    sizes = {key: value for key, value in shape.to_hf().items() if key in CONFIG}
    (folder / "config.json").write_text(json.dumps(CONFIG | sizes | changes))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
    (folder / "tokenization_codegen25.py").write_text('raise RuntimeError("the custom tokenizer was imported")\n')
    if bins:
        write_shards(folder, model, "pytorch_model", ".bin")
    if safetensors:
        write_shards(folder, model, "model", ".safetensors")
    return model


def write_shards(folder: Path, model: Llama, stem: str, suffix: str) -> None:
    """Three fp32 shards and their index; the `.bin` ones with the buffers that old transformers wrote."""
    state = {n if n == "lm_head.weight" else f"model.{n}": p.detach() for n, p in model.named_parameters()}
    if suffix == ".bin":
        for layer in range(model.config.layers):
            state[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(model.config.head_dim // 2)
    weight_map: dict[str, str] = {}
    for i in range(3):
        file = f"{stem}-{i + 1:05}-of-00003{suffix}"
        shard = {name: tensor for j, (name, tensor) in enumerate(state.items()) if j * 3 // len(state) == i}
        if suffix == ".bin":
            torch.save(shard, folder / file)
        else:
            save_file(shard, folder / file)
        weight_map |= dict.fromkeys(shard, file)
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
