"""The stages, and what each learns from: `multi` all languages, `mono` Python, `instruct` responses to prompts."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from codegen25.errors import CodegenError, UsageError
from codegen25.tokenizer import Tokenizer
from codegen25.train.batches import Batches
from codegen25.train.examples import Corrupted, Examples
from codegen25.train.instruct import Instructions, read_instructions
from codegen25.train.objective import Objective
from codegen25.train.texts import CorpusTexts, read_texts

Stage = Literal["multi", "mono", "instruct"]
# Steps that are made to learn how many tokens one has.
SAMPLED = 4


def languages_of(stage: Stage, languages: Collection[str]) -> Collection[str]:
    """Those of a corpus that a stage learns; empty for all."""
    return languages or (("python",) if stage == "mono" else ())


def open_examples(
    data: Path, stage: Stage, tokenizer: Tokenizer, objective: Objective, languages: Collection[str], window: int
) -> Examples:
    """What `stage` learns from `data`: a corpus's folder, or a JSONL file, of which every line comes up once an epoch.

    `languages` are those of a corpus to learn; when empty all of them, for `mono` Python. Raises `CodegenError` when
    `data` is neither, is empty or damaged, or was built for another tokenizer.
    """
    if not data.exists():
        raise CodegenError(f"{data}: no such file or folder; name a corpus of `codegen25 data build`, or a JSONL file")
    if stage == "instruct":
        return Instructions(read_instructions(data), tokenizer)
    if data.is_dir():
        texts = CorpusTexts(data, tokenizer, languages=languages_of(stage, languages))
        return Corrupted(texts, tokenizer, objective, fill=window)
    if languages:
        raise UsageError(f"--languages: {data} is a file, of which every line is learned; leave it out")
    return Corrupted(read_texts(data), tokenizer, objective)


def steps_for(tokens: int, batches: Batches) -> int:
    """How many steps learn about `tokens` tokens, by those of the first steps; the same whenever it is asked."""
    sampled = sum(one.counted for step in range(SAMPLED) for one in batches.batch(step))
    if not sampled:
        raise CodegenError("the first documents are empty; build the data again, or give --steps")
    return math.ceil(tokens * SAMPLED / sampled)
