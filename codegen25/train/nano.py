"""Where `nano` begins: SmolLM2-135M from a GGUF file, with the control tokens of the family added to its vocabulary.

SmolLM2 knows StarCoder's metadata tokens but no infilling, and 21 bytes have no token. What is missing is appended:
first the bytes, then `<mask_1>` … `<mask_16>`, `<sep>`, `<eom>` and the commit tokens; then rows that stay unused,
up to a multiple of 64.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from codegen25.errors import CodegenError
from codegen25.model.checkpoint import load_llama, save_llama
from codegen25.model.gguf import GGUF
from codegen25.model.hf_tokenizer import build_tokenizer_json
from codegen25.model.llama import Llama
from codegen25.tokenizer import from_folder, to_byte_characters

MASKS = 16
NEW_CONTROL = (
    *(f"<mask_{n}>" for n in range(1, MASKS + 1)),
    "<sep>",
    "<eom>",
    "<commit_before>",
    "<commit_msg>",
    "<commit_after>",
)
# Rows of the old vocabulary whose mean a new control token starts from: a closing token from those that end a text,
# an opening one from those that set files apart.
ENDINGS, BORDERS = ("<|endoftext|>", "<|im_end|>"), ("<file_sep>", "<repo_name>", "<jupyter_code>")
NOISE = 0.1  # of the embedding's standard deviation, so that no two new rows are equal


def extended_vocabulary(source: GGUF) -> tuple[list[str], dict[str, int]]:
    """All tokens in id order, in the byte-level alphabet, and the control tokens by name."""
    tokens, control = source.tokens(), source.control()
    known = set(tokens)
    tokens += [c for c in (to_byte_characters(bytes([b])) for b in range(256)) if c not in known]
    for name in NEW_CONTROL:
        control[name] = len(tokens)
        tokens.append(name)
    return tokens, control


def extended_embedding(old_VD: Tensor, control: Mapping[str, int], rows: int, generator: torch.Generator) -> Tensor:
    """The embedding with `rows` rows, fp32: the old ones, then new ones near a mean of old ones that do a like job."""
    noise = torch.randn(rows - len(old_VD), old_VD.shape[1], generator=generator) * old_VD.std() * NOISE
    new = old_VD.mean(0) + noise
    ending = old_VD[[control[name] for name in ENDINGS]].mean(0)
    border = old_VD[[control[name] for name in BORDERS]].mean(0)
    for name in NEW_CONTROL:
        row = control[name] - len(old_VD)
        new[row] = (ending if name == "<eom>" else border) + noise[row]
    return torch.cat([old_VD, new])


def start(gguf: Path, out: Path, seed: int = 0) -> int:
    """Write the model that training starts from as a Hugging Face folder; returns the first new row.

    Raises `CodegenError` when the file is not SmolLM2's, or holds other tensors than it says.
    """
    source = GGUF(gguf)
    if lacking := [name for name in (*ENDINGS, *BORDERS) if name not in source.control()]:
        raise CodegenError(f"{gguf}: has no control token {lacking[0]}; start from SmolLM2, which has")
    tokens, control = extended_vocabulary(source)
    config = source.config
    old_vocab = config.vocab_size
    config = config.with_vocab(-(-len(tokens) // 64) * 64)
    model = Llama(config)
    state = {name: torch.from_numpy(np.array(array)) for name, array in source.tensors()}
    state["embed_tokens.weight"] = extended_embedding(
        state["embed_tokens.weight"], control, config.vocab_size, torch.Generator().manual_seed(seed)
    )
    if config.tied:
        state["lm_head.weight"] = state["embed_tokens.weight"]
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CodegenError(f"{gguf}: {' '.join(str(error).split())}; download the file again") from error
    save_llama(model, out, dtype="float32")
    spec = build_tokenizer_json(tokens, source.merges(), control, digits=True)
    (out / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
    from_folder(out)  # it must read back
    return old_vocab


@torch.no_grad()
def blend(start: Path, trained: Path, out: Path, *, weight: float, new_rows: int) -> None:
    """Write `weight` of the trained weights and the rest of those they began from (WiSE-FT, Wortsman et al., 2022).

    It gives back what training forgot and keeps most of what it taught. Rows of the embedding from `new_rows` on are
    the trained ones alone: what they began from never meant anything.
    """
    old, model = load_llama(start, dtype="float32"), load_llama(trained, dtype="float32")
    if old.config != model.config:
        raise CodegenError(f"{trained}: its shape is not that of {start}; blend a model with the one it began from")
    was = dict(old.named_parameters())
    rows = model.embed_tokens.weight[new_rows:].clone()
    for name, parameter in model.named_parameters():
        parameter.copy_(torch.lerp(was[name], parameter, weight))
    model.embed_tokens.weight[new_rows:] = rows
    save_llama(model, out, dtype="float32")
    shutil.copyfile(trained / "tokenizer.json", out / "tokenizer.json")
