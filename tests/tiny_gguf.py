"""GGUF files of small random LLaMAs, made the way llama.cpp's converter makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM

from codegen25.tokenizer import to_byte_characters

# As in SmolLM2: control tokens first, and some bytes without a token.
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<file_sep>", "<jupyter_code>")
LACKING = (0x05, 0x06, 0xC0, 0xC1, 0xE5, 0xF5, 0xFF)
MERGES = [("Ġ", "Ġ"), ("ĠĠ", "ĠĠ"), ("d", "e"), ("de", "f"), ("r", "e"), ("re", "t"), ("Ã", "©")]
TOKENS = [
    *CONTROL,
    *(to_byte_characters(bytes([byte])) for byte in range(256) if byte not in LACKING),
    *(left + right for left, right in MERGES),
]

_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def theirs(*, tied: bool = True, kv_heads: int = 2, seed: int = 0) -> LlamaForCausalLM:
    """A random model of transformers; no norm is all ones, so that none can be left out or misplaced unseen."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(TOKENS), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=kv_heads, max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=tied,
        initializer_range=0.15, rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model.train(False)
    return model


def permute(weights: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """`LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py."""
    return (
        weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
        .swapaxes(1, 2)
        .reshape(weights.shape)
    )


def metadata(model: LlamaForCausalLM) -> dict[str, Any]:
    c = model.config
    return {
        "llama.block_count": c.num_hidden_layers,
        "llama.context_length": c.max_position_embeddings,
        "llama.embedding_length": c.hidden_size,
        "llama.feed_forward_length": c.intermediate_size,
        "llama.attention.head_count": c.num_attention_heads,
        "llama.attention.head_count_kv": c.num_key_value_heads,
        "llama.rope.freq_base": 5000.0,
        "llama.rope.dimension_count": c.hidden_size // c.num_attention_heads,
        "llama.attention.layer_norm_rms_epsilon": c.rms_norm_eps,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [3 if token in CONTROL else 1 for token in TOKENS],
        "tokenizer.ggml.merges": [f"{left} {right}" for left, right in MERGES],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
    }


def write(
    path: Path,
    model: LlamaForCausalLM,
    *,
    architecture: str = "llama",
    changes: Mapping[str, Any] | None = None,
    leave_out: Sequence[str] = (),
    extra: Mapping[str, NDArray[np.float32]] | None = None,
    quantization: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
) -> None:
    """`leave_out` names metadata keys and tensors; matrices are stored in `quantization`."""
    writer = gguf.GGUFWriter(path, architecture)
    add: dict[type, Callable[..., None]] = {
        bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string,
        list: writer.add_array,
    }  # fmt: skip
    for key, value in {**metadata(model), **(changes or {})}.items():
        if key not in leave_out:
            add[type(value)](key, value)
    for name, array in {**tensors(model), **(extra or {})}.items():
        if name in leave_out:
            continue
        if array.ndim == 2 and quantization != gguf.GGMLQuantizationType.F32:
            writer.add_tensor(name, gguf.quants.quantize(array, quantization), raw_dtype=quantization)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors(model: LlamaForCausalLM) -> dict[str, NDArray[np.float32]]:
    c = model.config
    heads = {"q_proj": c.num_attention_heads, "k_proj": c.num_key_value_heads or c.num_attention_heads}
    found = {}
    for name, parameter in model.named_parameters():
        array = parameter.detach().numpy()
        short = _NAMES.get(name)
        if short is None:
            _, _, layer, kind = name.removesuffix(".weight").split(".", 3)
            short = f"blk.{layer}.{_LAYER[kind]}.weight"
            if kind[-6:] in heads:
                array = permute(array, heads[kind[-6:]])
        found[short] = np.ascontiguousarray(array)
    return found
