"""The base install: models run without PyTorch, and the native engine is what a CPU gets unless told otherwise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from publisher_folder import random_llama
from safetensors.torch import load_file

import codegen25
from codegen25.errors import UsageError
from codegen25.model.checkpoint import save_llama


@pytest.fixture
def completes(tmp_path: Path) -> Path:
    """A tiny model that knows the tokens of the format, as a folder."""
    folder = tmp_path / "tiny"
    save_llama(random_llama(tiny.CONFIG, std=0.15), folder, dtype="bfloat16")
    tiny.write_tokenizer(folder)
    return folder


NO_TORCH = """
import importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "tokenizers"):
            raise ModuleNotFoundError(f"{name} was imported", name=name)
sys.meta_path.insert(0, Blocker())
import codegen25
model = codegen25.load(sys.argv[1], threads=1)
text = model.complete("def f(x):", max_tokens=6)
hole = model.infill("def f(x):\\n    return ", "\\n", max_tokens=4)
print(len(text.tokens) > 0, model.score("x = 1").total < 0, "torch" in sys.modules)
"""


def test_models_run_without_torch(completes: Path) -> None:
    run = subprocess.run([sys.executable, "-c", NO_TORCH, completes], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "True True False\n"), run.stderr
    assert re.fullmatch(rf"codegen25: {completes}: rounded to 8 bits [^\n]*\n", run.stderr)


def test_bin_weights_without_torch_are_a_clear_error(completes: Path) -> None:
    torch.save(load_file(completes / "model.safetensors"), completes / "pytorch_model.bin")
    (completes / "model.safetensors").unlink()
    run = subprocess.run([sys.executable, "-c", NO_TORCH, completes], capture_output=True, text=True)
    assert re.search(r"CodegenError: \S+pytorch_model.bin: [^\n]*pip install 'codegen25\[torch\]'", run.stderr)


def test_load_chooses_the_backend(completes: Path) -> None:
    text = "def f(x):\n    return x\n"
    notices: list[str] = []
    ours, theirs = (codegen25.load(str(completes), dtype=dtype, notice=notices.append) for dtype in (None, "float32"))
    assert type(ours.backend).__name__ == "CpuBackend" and type(theirs.backend).__name__ == "TorchBackend"
    assert ours.score(text).bits_per_byte == pytest.approx(theirs.score(text).bits_per_byte, rel=0.01)
    for options in ({"threads": 1}, {"bits": 4}):
        with pytest.raises(UsageError, match="native engine"):
            codegen25.load(str(completes), dtype="float32", **options)  # type: ignore[arg-type]
