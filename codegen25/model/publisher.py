"""Known faults of the checkpoints that the publisher released, repaired where a folder is loaded.

The weights are sound; what is wrong stands in the JSON and Python files beside them:

- `instruct` says bos 1, eos 2, which are `"` and `#` here: a plain `generate()` stops at every comment.
- `pad_token_id` 0 is `!`.
- A pad token that the vocabulary lacks, such as `[PAD]`, lands on id 51200, one past the embedding.
- The tokenizer is custom code that breaks on transformers from 4.34 on. It is never run; ours gives the same ids.

Only folders with the publisher's tokenizer are touched: elsewhere the same numbers may be right.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from codegen25.errors import CodegenError

VOCAB_SIZE = 51200
END_OF_TEXT = 50256
WRONG_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def _read_json(path: Path) -> dict[str, Any]:
    """The object in `path`, or an empty one where there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise CodegenError(f"{path}: not valid JSON; copy or export the folder again") from error
    if not isinstance(value, dict):
        raise CodegenError(f"{path}: not a JSON object; copy or export the folder again")
    return value


def has_publisher_tokenizer(folder: Path) -> bool:
    """Whether the folder's tokenizer is the publisher's Python class, and no `tokenizer.json` stands in for it."""
    if (folder / "tokenizer.json").is_file():
        return False
    if (folder / "tokenization_codegen25.py").is_file():
        return True
    return _read_json(folder / "tokenizer_config.json").get("tokenizer_class") == "CodeGen25Tokenizer"


def _pad_token(folder: Path) -> str | None:
    """The pad token by name, from whichever of the tokenizer's files gives one."""
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        token = _read_json(folder / file).get("pad_token")
        if isinstance(token, Mapping):
            token = token.get("content")
        if isinstance(token, str):
            return token
    return None


def repair(hf_config: Mapping[str, Any], folder: Path, notice: Callable[[str], None]) -> dict[str, Any]:
    """A copy of `hf_config` (the content of `config.json`) without the known faults; one `notice` line for each."""
    fixed = dict(hf_config)
    vocab_size = fixed.get("vocab_size", 0)
    if vocab_size < VOCAB_SIZE or not has_publisher_tokenizer(folder):
        return fixed
    notice(f"{folder}: the publisher's tokenizer code fails on today's transformers; ours, with the same ids, is used")
    for key, wrong in WRONG_IDS.items():
        value = fixed.get(key)
        outside = isinstance(value, int) and not 0 <= value < vocab_size
        if value == wrong or outside:
            fixed[key] = END_OF_TEXT
            what = "is outside the embedding" if outside else "is a known mistake"
            notice(f"{folder}: config.json: {key} {value} {what}; {END_OF_TEXT} (<|endoftext|>) is used")
    pad = _pad_token(folder)
    if pad == "[PAD]" and vocab_size == VOCAB_SIZE:
        fixed["pad_token_id"] = END_OF_TEXT
        notice(f"{folder}: pad token {pad} would be id {VOCAB_SIZE}, outside the embedding; <|endoftext|> is used")
    return fixed
