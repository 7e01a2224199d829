"""In front of vLLM itself, two servers of it, one of which is killed; where CODEGEN25_VLLM names its program.

    CODEGEN25_VLLM=…/bin/vllm python -m pytest -m slow tests/test_upstream_vllm.py

`docs/models.md` has how to install it on a CPU.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from publisher_folder import random_llama
from routing import killed_under_load
from serving import CONFIG

from codegen25.bench.figures import Options
from codegen25.bench.vllm_server import VllmServer
from codegen25.model.checkpoint import save_llama
from codegen25.model.hf_tokenizer import write_tokenizer
from codegen25.tokenizer import family

PROGRAM = os.environ.get("CODEGEN25_VLLM")


@pytest.mark.slow
@pytest.mark.skipif(not PROGRAM, reason="CODEGEN25_VLLM does not name vLLM's program")
def test_one_of_two_is_killed_under_load(tmp_path: Path) -> None:
    """Sums of vLLM depend on what else is computed, so a few answers may be others than those of a quiet server."""
    folder = tmp_path / "tiny"
    config = replace(CONFIG, hidden_size=128, heads=2, kv_heads=1, head_dim=64)  # of sizes that vLLM has kernels for
    save_llama(random_llama(config), folder, dtype="bfloat16", tokenizer=family())
    write_tokenizer(folder)
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                VllmServer(Path(str(PROGRAM)), folder, Options(tmp_path / name, 1, 1, (), print), CONFIG.max_positions)
            )
            for name in ("first", "second")
        ]
        loaded = killed_under_load(folder, [one.address for one in servers], kill=servers[1].kill)
    print(f"streams broken off: {loaded.broken}; other answers than of a quiet server: {loaded.other}")
    assert loaded.broken < 25
    assert loaded.other < 10
