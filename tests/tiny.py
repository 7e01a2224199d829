"""Small things to train: a byte-level tokenizer with a few merges, a model of its vocabulary, documents."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from codegen25.config import ModelConfig
from codegen25.model.hf_tokenizer import build_tokenizer_json
from codegen25.model.llama import Llama
from codegen25.tokenizer import Tokenizer, from_folder, to_byte_characters

CONTROL = ("<|endoftext|>", *(f"<mask_{n}>" for n in range(1, 9)), "<sep>", "<eom>")
MERGES = [("Ġ", "Ġ"), ("ĠĠ", "ĠĠ"), ("r", "e"), ("re", "t"), ("s", "e"), ("se", "l"), ("sel", "f"), ("Ċ", "ĠĠĠĠ")]


def write_tokenizer(folder: Path) -> None:
    """`tokenizer.json` of all bytes, `MERGES` and `CONTROL`."""
    tokens = [to_byte_characters(bytes([byte])) for byte in range(256)] + [left + right for left, right in MERGES]
    control = {name: len(tokens) + i for i, name in enumerate(CONTROL)}
    spec = build_tokenizer_json(tokens, MERGES, control, digits=True)
    (folder / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")


@cache
def tokenizer() -> Tokenizer:
    with TemporaryDirectory() as folder:
        write_tokenizer(Path(folder))
        return from_folder(Path(folder))


CONFIG = ModelConfig(256 + len(MERGES) + len(CONTROL), 16, 24, 2, 2, 1, 8, 256, tied=True)


def model(dtype: torch.dtype = torch.float32, seed: int = 0) -> Llama:
    made = Llama(CONFIG)
    made.init_weights(torch.Generator().manual_seed(seed), std=0.1)
    return made.to(dtype)


def documents(count: int = 23) -> list[str]:
    """Short functions, no two alike."""
    return [
        f"def scale_{n}(self, x):\n    if x > {n}:\n        return {n % 7} * x\n    self.y = x\n    return -x\n"
        for n in range(count)
    ]
