"""Runs llama.cpp's own server (from xllamacpp) for the typing benchmark: settings in as one JSON argument, address out.

It serves until its standard input ends.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import xllamacpp


def parameters(path: str, threads: int, window: int, reuse: int = 0, slots: int = 1) -> xllamacpp.CommonParams:
    """Each slot has a window of its own. `reuse`: cached tokens are also found where text before them has changed, in
    chunks of at least so many (llama.cpp's --cache-reuse)."""
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx, params.n_parallel = window * slots, slots
    params.n_batch = params.n_ubatch = 256  # a request that is given up runs to the end of its batch
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_cache_reuse = reuse
    params.n_gpu_layers = 0
    params.fit_params = False  # no guessing at memory sizes: the window is the one that was asked for
    params.n_ctx_checkpoints = params.cache_ram_mib = 0  # no copies of old caches between requests
    params.use_jinja = params.enable_chat_template = False
    return params


def main() -> None:
    settings: dict[str, Any] = json.loads(sys.argv[1])
    private = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the library prints goes to standard error
    server = xllamacpp.Server(parameters(**settings))
    private.write(json.dumps({"address": server.listening_address, "version": xllamacpp.__version__}) + "\n")
    private.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
