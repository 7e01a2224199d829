"""Our encodings as Hugging Face tokenizer folders, which `AutoTokenizer` loads with no custom code, ids equal to ours.

Every control token is written as *special*. So `skip_special_tokens=True` drops all of them (the publisher's class
drops `<|endoftext|>` alone), and `split_special_tokens=True` makes Hugging Face read control strings in text as text,
which is what our `encode` does unless it is allowed otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from codegen25.errors import CodegenError
from codegen25.tokenizer import (
    END_OF_TEXT,
    NEVER_IN_UTF8,
    Tokenizer,
    family_control,
    family_ranks,
    to_byte_characters,
)

# The window of the published models; a tokenizer only uses it to warn about longer texts.
_MODEL_MAX_LENGTH = 2048


def write_tokenizer(folder: Path, tokenizer: Tokenizer | None = None) -> None:
    """Writes `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`, the family's unless told.

    Raises CodegenError when the folder cannot be written.
    """
    special = {f"{role}_token": END_OF_TEXT for role in ("bos", "eos", "unk", "pad")}
    config = special | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": _MODEL_MAX_LENGTH,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
        "add_eos_token": False,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / "tokenizer.json", tokenizer_json(tokenizer))
        _write_json(folder / "tokenizer_config.json", config)
        _write_json(folder / "special_tokens_map.json", special)
    except OSError as error:
        raise CodegenError(
            f"{folder}: cannot write the tokenizer here ({error.strerror}); name another folder"
        ) from None


def _write_json(file: Path, value: Mapping[str, Any]) -> None:
    aside = file.with_name(file.name + ".part")
    aside.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    aside.replace(file)


def tokenizer_json(tokenizer: Tokenizer | None = None) -> dict[str, Any]:
    """The `tokenizer.json` of a tokenizer: the one it was read from, or the family's."""
    if tokenizer is not None and tokenizer.definition is not None:
        definition: dict[str, Any] = json.loads(tokenizer.definition)
        return definition
    ranks, control = family_ranks(), family_control()
    tokens = [""] * (len(ranks) + len(control))
    for token, rank in ranks.items():
        tokens[rank] = to_byte_characters(token)
    for name, id in control.items():
        tokens[id] = name
    merges = [
        (to_byte_characters(left), to_byte_characters(right))
        for left, right in (last_merge(token, ranks) for token in ranks if len(token) > 1)
    ]
    return build_tokenizer_json(tokens, merges, control, digits=False)


def last_merge(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """The two parts that byte-pair encoding joins last to make `token`, by the ranks below its own.

    For a run of spaces these are one space and the rest, as longer runs come first in the ranks.
    """
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pair_ranks = [ranks.get(left + right, len(ranks)) for left, right in pairwise(parts)]
        best = pair_ranks.index(min(pair_ranks))
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]


def missing_bytes(tokens: Sequence[str]) -> list[str]:
    """The bytes of UTF-8 text that no token stands for, as tokens to append to a vocabulary (SmolLM2's lacks eight)."""
    known = set(tokens)
    characters = [to_byte_characters(bytes([byte])) for byte in range(256) if byte not in NEVER_IN_UTF8]
    return [character for character in characters if character not in known]


def build_tokenizer_json(
    tokens: Sequence[str], merges: Sequence[tuple[str, str]], control: Mapping[str, int], *, digits: bool
) -> dict[str, Any]:
    """A byte-level BPE `tokenizer.json`.

    `tokens`: id to token, in byte-level characters (`to_byte_characters`). `merges`: in the order of training.
    `control`: name to id, either where `tokens` holds that very name or after its end. `digits`: every digit is a piece
    of its own.
    Raises CodegenError when ids collide or leave holes, or when some text would have no tokens.
    """
    vocab = {token: id for id, token in enumerate(tokens)} | dict(control)
    if sorted(vocab.values()) != list(range(len(vocab))) or any(
        id < len(tokens) and tokens[id] != name for name, id in control.items()
    ):
        raise CodegenError(
            "the ids of the vocabulary collide or leave holes; number tokens and control tokens in one row"
        )
    if lacking := missing_bytes(tokens):
        raise CodegenError(f"the vocabulary has no token for {len(lacking)} bytes; append missing_bytes(tokens) to it")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    one_digit = {"type": "Digits", "individual_digits": True}
    split = {"type": "Sequence", "pretokenizers": [one_digit, byte_level]} if digits else byte_level
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    by_id = sorted(control.items(), key=lambda item: item[1])
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": id, "content": name, **flags} for name, id in by_id],
        "normalizer": None,
        "pre_tokenizer": split,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])),
            "merges": [list(merge) for merge in merges],
        },
    }
