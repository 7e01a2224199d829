"""datatrove: its local executor filters, signs, buckets, clusters and drops, as its own MinHash example does.

It is given our words and none of its rewriting of prose, so that both compare the same sets of n-grams. That is less
work for it than its defaults, which load a tokenizer of English.
"""

from __future__ import annotations

import json
import re
import symtable
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.text import TextNormConfig
from datatrove.utils.word_tokenizers import WordTokenizer

PLAIN = TextNormConfig(
    lowercase=False, norm_whitespace=False, remove_punctuation=False, norm_unicode_diacritics=False, norm_numbers=False
)


class Words(WordTokenizer):  # type: ignore[misc]
    """Runs of word characters, those beyond ASCII among them."""

    def word_tokenize(self, text: str) -> list[str]:
        return re.findall(r"[0-9A-Za-z_\u0080-\U0010ffff]+", text)

    def sent_tokenize(self, text: str) -> list[str]:
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


def is_code(document: Document) -> bool:
    """StarCoder's rules of lines and letters, and that Python can read it, which is what takes our filters longest."""
    text = document.text
    lengths = [len(line) for line in text.splitlines()] or [0]
    if max(lengths) > 1000 or sum(lengths) > 100 * len(lengths) or sum(map(str.isalnum, text)) < 0.25 * len(text):
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            symtable.symtable(text, "<source>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


class Engine:
    """`run` does all of it."""

    def load(self) -> dict[str, Any]:
        return {"version": version("datatrove")}

    def run(self, folder: str, out: str, workers: int, buckets: int, hashes: int) -> dict[str, Any]:
        """Deduplicate the .jsonl files of `folder` into `out`; a file is a task. Seconds by stage, and the ids kept."""
        work, tasks = Path(out), len(list(Path(folder).glob("*.jsonl")))
        config = MinhashConfig(n_grams=5, num_buckets=buckets, hashes_per_bucket=hashes, norm_config=PLAIN)

        def at(name: str) -> str:
            return str(work / name)

        def write(name: str) -> JsonlWriter:
            return JsonlWriter(at(name), compression=None)

        stages: dict[str, tuple[int, list[Any]]] = {
            "filter": (tasks, [JsonlReader(folder), LambdaFilter(is_code), write("filtered")]),
            "sign": (tasks, [JsonlReader(at("filtered")), MinhashDedupSignature(at("signatures"), config, Words())]),
            "bucket": (buckets, [MinhashDedupBuckets(at("signatures"), at("buckets"), config=config)]),
            "cluster": (1, [MinhashDedupCluster(at("buckets"), at("remove"), config=config)]),
            "drop": (tasks, [JsonlReader(at("filtered")), MinhashDedupFilter(at("remove")), write("kept")]),
        }
        seconds = {}
        for name, (count, steps) in stages.items():
            start = time.perf_counter()
            LocalPipelineExecutor(steps, tasks=count, workers=min(workers, count), logging_dir=at(f"logs/{name}")).run()
            seconds[name] = time.perf_counter() - start
        kept = [
            json.loads(line)["id"]
            for file in sorted((work / "kept").glob("*.jsonl"))
            for line in file.read_text(encoding="utf-8").split("\n")
            if line
        ]
        return {"seconds": seconds, "kept": kept}
