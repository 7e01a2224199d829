"""A tokenizer as a corpus needs it: its `tokenizer.json`, by which text becomes ids in bulk, and what names it."""

from __future__ import annotations

import json

from codegen25.data.tokens import Vocabulary
from codegen25.model.hf_tokenizer import tokenizer_json
from codegen25.tokenizer import Tokenizer


def vocabulary_of(tokenizer: Tokenizer | None = None) -> Vocabulary:
    """The vocabulary of a tokenizer, or the family's. Raises CodegenError when shards cannot hold its ids."""
    return Vocabulary.from_json(json.dumps(tokenizer_json(tokenizer), ensure_ascii=False))
