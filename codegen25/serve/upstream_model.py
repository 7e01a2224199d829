"""A model that runs on other servers: what is known of it here, which is its tokenizer and its shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from codegen25 import infill
from codegen25.complete import MAX_WINDOW
from codegen25.config import ModelConfig, read_config
from codegen25.errors import CodegenError
from codegen25.model.folder import check_vocab, is_gguf, resolve
from codegen25.serve.runner import Running
from codegen25.serve.upstream_pool import Pool
from codegen25.tokenizer import Tokenizer, from_folder


@dataclass(frozen=True)
class UpstreamModel:
    """`pool` has the servers, `key` is what they want to see, `seconds` the longest that they may say nothing."""

    tokenizer: Tokenizer
    config: ModelConfig
    pool: Pool
    key: str | None = None
    seconds: float = 60.0

    @property
    def window(self) -> int:
        return min(self.config.max_positions, MAX_WINDOW)

    @cached_property
    def span_vocabulary(self) -> NDArray[np.bool_]:
        """What may come inside a span: text, and the tokens that end it."""
        mask = np.zeros(self.config.vocab_size, dtype=np.bool_)
        mask[[*self.tokenizer.tokens_starting_with(b""), *infill.stops(self.tokenizer)]] = True
        return mask

    def runner(self, on_broken: Callable[[BaseException], None]) -> Running:
        from codegen25.serve.upstream_runner import UpstreamRunner

        return UpstreamRunner(self, on_broken)


def open_upstream(name: str, pool: Pool, key: str | None, seconds: float) -> UpstreamModel:
    """By the folder of its tokenizer and config.json; its weights need not be there. Raises `CodegenError`."""
    path = resolve(name)
    if is_gguf(path):
        raise CodegenError(f"{path}: with --upstream, name a folder with tokenizer.json and config.json by --model")
    tokenizer, (config, _) = from_folder(path), read_config(path)
    check_vocab(config, tokenizer, path)
    return UpstreamModel(tokenizer, config, pool, key, seconds)
