"""The two programs of the publisher's model card, run as a user would, with nothing but the folder's name changed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from publisher_folder import write_publisher_folder

from codegen25.model.checkpoint import load_llama
from codegen25.model.export import export_hf
from codegen25.model.folder import BUILT_IN
from codegen25.model.llama import Llama
from codegen25.tokenizer import Tokenizer, from_folder

CAUSAL = """\
from transformers import AutoTokenizer, AutoModelForCausalLM
tokenizer = AutoTokenizer.from_pretrained("FOLDER", trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained("FOLDER")
inputs = tokenizer("def hello_world():", return_tensors="pt")
sample = model.generate(**inputs, max_length=128)
print(tokenizer.decode(sample[0]))
"""
INFILL = """\
from transformers import AutoTokenizer, AutoModelForCausalLM
tokenizer = AutoTokenizer.from_pretrained("FOLDER", trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained("FOLDER")
def format(prefix, suffix):
  return prefix + "<mask_1>" + suffix + "<|endoftext|>" + "<sep>" + "<mask_1>"
prefix = "def hello_world():\\n    "
suffix = "    return name"
text = format(prefix, suffix)
input_ids = tokenizer(text, return_tensors="pt").input_ids
generated_ids = model.generate(input_ids, max_length=128)
print(tokenizer.decode(generated_ids[0], skip_special_tokens=False)[len(text):])
"""
CAUSAL_PROMPT = "def hello_world():"
INFILL_PROMPT = "def hello_world():\n    <mask_1>    return name<|endoftext|><sep><mask_1>"


def run(program: str, folder: Path) -> str:
    """What the program prints, in a process of its own, in another folder, with no network."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1", "HF_HOME": str(folder.parent / "hf_home")}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", program.replace("FOLDER", str(folder))]
    done = subprocess.run(
        command, check=False, capture_output=True, encoding="utf-8", env=environment, cwd=folder.parent
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def greedy(model: Llama, ids: Sequence[int], length: int, end: int) -> list[int]:
    """Our own continuation of `ids` to `length` tokens, or to the first `end`."""
    out = list(ids)
    with torch.no_grad():
        while len(out) < length:
            out.append(int(model.head(model.hidden(torch.tensor([out]))[0, -1]).argmax()))
            if out[-1] == end:
                break
    return out


def expected(folder: Path, prompt: str) -> tuple[Tokenizer, list[int]]:
    tokenizer = from_folder(folder)
    model = load_llama(folder, dtype="float32", notice=pytest.fail)
    return tokenizer, greedy(model, tokenizer.encode(prompt, allow_control=True), 128, tokenizer.eot)


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The publisher's layout with random weights and the 51,200 vocabulary, after `codegen25 export --to hf`."""
    folder = tmp_path_factory.mktemp("card")
    write_publisher_folder(folder / "codegen25-7b-multi")
    export_hf(folder / "codegen25-7b-multi", folder / "exported", lambda line: None, dtype="float32")
    return folder / "exported"


def test_causal_on_the_publishers_layout(publisher: Path) -> None:
    printed = run(CAUSAL, publisher)
    tokenizer, ids = expected(publisher, CAUSAL_PROMPT)
    assert len(ids) > 20 and printed.startswith(CAUSAL_PROMPT)
    assert printed == tokenizer.decode(ids) + "\n"


def test_infill_on_the_publishers_layout(publisher: Path) -> None:
    printed = run(INFILL, publisher)
    tokenizer, ids = expected(publisher, INFILL_PROMPT)
    assert ids[:14] == [4299, 23748, 62, 6894, 33529, 198, 50284, 51199, 50285, 1441, 1438, 50256, 50317, 51199]
    assert len(ids) > 20 and tokenizer.decode(ids).startswith(INFILL_PROMPT)
    assert printed == tokenizer.decode(ids)[len(INFILL_PROMPT) :] + "\n"


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card") / "exported"
    export_hf(BUILT_IN / "nano", folder, lambda line: None)
    return folder


def test_causal_on_nano(nano: Path) -> None:
    printed = run(CAUSAL, nano)
    assert printed.startswith(CAUSAL_PROMPT) and len(printed) > len(CAUSAL_PROMPT) + 20


def test_infill_on_nano(nano: Path) -> None:
    assert run(INFILL, nano).strip()
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(nano, trust_remote_code=True)
    assert theirs(INFILL_PROMPT).input_ids == from_folder(nano).encode(INFILL_PROMPT, allow_control=True)
