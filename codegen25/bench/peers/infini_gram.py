"""infini-gram: its engine on an index that was written for it from the same shard."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

from infini_gram.engine import InfiniGramEngine


class Engine:
    """`load` opens an index, `attribute` asks for the spans of a text."""

    def load(self, folder: str, end: int) -> dict[str, Any]:
        self.engine = InfiniGramEngine(index_dir=folder, eos_token_id=end, vocab_size=65535, token_dtype="u16")
        return {"version": version("infini-gram")}

    def attribute(self, ids: list[int], least: int) -> dict[str, Any]:
        """The maximal spans of `least` ids or more, and how long that took."""
        start = time.perf_counter()
        found = self.engine.attribute(input_ids=ids, delim_ids=[], min_len=least, max_cnt=1_000_000, enforce_bow=False)
        seconds = time.perf_counter() - start
        return {"spans": [[span["l"], span["r"]] for span in found["spans"]], "seconds": seconds}
