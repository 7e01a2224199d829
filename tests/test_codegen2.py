"""CodeGen2's architecture against transformers', its tokenizer against Hugging Face's, and a model that infills."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import tokenizers
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from model_hub import ModelHub
from safetensors.torch import load_file, save_file
from transformers import CodeGenConfig, CodeGenForCausalLM

from codegen25.cli import main
from codegen25.complete import load
from codegen25.engine.torch import TorchBackend
from codegen25.errors import CodegenError
from codegen25.model.codegen2 import CodeGen2, load_codegen2
from codegen25.model.hf_tokenizer import tokenizer_json
from codegen25.model.older import is_older, read_shape
from codegen25.tokenizer import Tokenizer, family, from_json

SIZES: dict[str, Any] = {
    "vocab_size": 51200, "n_embd": 128, "n_head": 8, "n_layer": 2, "n_positions": 128, "rotary_dim": 8, "n_ctx": 128,
}  # fmt: skip
PARTS = 4  # what transformers knows


def older_tokenizer() -> dict[str, Any]:
    """The family's ids with runs of blanks as tokens that are taken out of a text first."""
    spec = tokenizer_json()
    vocab: dict[str, int] = spec["model"]["vocab"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    runs = [token for token in vocab if len(token) > 1 and set(token) in ({"Ġ"}, {"ĉ"}) and vocab[token] > 50256]
    added = [{"id": vocab.pop(run), "content": run.replace("Ġ", " ").replace("ĉ", "\t"), **flags} for run in runs]
    spec["model"]["merges"] = [pair for pair in spec["model"]["merges"] if "".join(pair) not in runs]
    spec["added_tokens"] = sorted([*spec["added_tokens"], *added], key=lambda token: token["id"])
    for token in spec["added_tokens"][1:]:  # as released, the vocabulary is GPT-2's alone
        vocab.pop(token["content"], None)
    return spec


@pytest.fixture(scope="module")
def theirs() -> Any:
    torch.manual_seed(0)
    config = CodeGenConfig(**SIZES, bos_token_id=50256, eos_token_id=50256, initializer_range=0.3)
    model: Any = CodeGenForCausalLM(config)
    model.eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "ln_" in name:
            torch.nn.init.normal_(parameter, 0.5, 0.3)
    return model


@pytest.fixture(scope="module")
def folder(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("codegen2") / "small"
    theirs.save_pretrained(path)
    (path / "tokenizer.json").write_text(json.dumps(older_tokenizer()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def ours(folder: Path) -> CodeGen2:
    return load_codegen2(folder, dtype="float32").eval()


def ids(count: int, rows: int = 1) -> torch.Tensor:
    return torch.randint(SIZES["vocab_size"], (rows, count), generator=torch.Generator().manual_seed(count))


# --------------------------------------------------------------------------------------------------------- architecture


def test_logits_are_transformers(theirs: Any, ours: CodeGen2) -> None:
    with torch.no_grad():
        for count in (1, 7, 128):
            expected = theirs(ids(count, 2)).logits
            torch.testing.assert_close(ours(ids(count, 2)), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 1, "logits that are all alike would pass for any model"


def test_greedy_text_is_transformers(theirs: Any, ours: CodeGen2) -> None:
    """Token by token through the backend's cache."""
    start = ids(9)
    with torch.no_grad():
        out = theirs.generate(start, max_new_tokens=40, do_sample=False, eos_token_id=-1, pad_token_id=0)[0].tolist()
    backend = TorchBackend(ours)
    sequence, new, found = backend.new(), start[0].tolist(), start[0].tolist()
    for _ in range(40):
        (logits,) = backend.forward([(sequence, new, False)])
        new = [int(logits[0].argmax())]
        found += new
    assert found == out and len(set(out[9:])) > 5


@pytest.mark.parametrize("said", ["mp_num", "head_dim", "code"])
def test_the_parts_of_the_fused_projection(said: str, folder: Path, theirs: Any, tmp_path: Path) -> None:
    """The same model with its projection laid out for 8 accelerators instead of 4."""
    state = load_file(folder / "model.safetensors")
    for name in [name for name in state if "qkv_proj" in name]:
        rows = state[name].view(PARTS, 3, 2, SIZES["n_embd"] // 8, -1)  # part, kind, half of the part, outputs, inputs
        state[name] = rows.transpose(1, 2).reshape(state[name].shape).contiguous()
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    more = {"mp_num": {"mp_num": 8}, "head_dim": {"head_dim": 16}, "code": {}}[said]
    (tmp_path / "config.json").write_text(json.dumps(config | more))
    if said == "code":
        (tmp_path / "modeling_codegen.py").write_text(
            "raise SystemExit\nclass A:\n    def f(self):\n        mp_num = 8\n"
        )
    with torch.no_grad():
        found = load_codegen2(tmp_path, dtype="float32")(ids(20))
        torch.testing.assert_close(found, theirs(ids(20)).logits, rtol=1e-4, atol=1e-4)


def test_bins_with_the_buffers_of_old_versions(folder: Path, ours: CodeGen2, tmp_path: Path) -> None:
    state = load_file(folder / "model.safetensors")
    for layer in range(2):
        state[f"transformer.h.{layer}.attn.causal_mask"] = torch.ones(1, 1, 128, 128, dtype=torch.uint8)
    torch.save(state, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with torch.no_grad():
        assert torch.equal(load_codegen2(tmp_path, dtype="float32")(ids(20)), ours(ids(20)))


# ------------------------------------------------------------------------------------------------------------ tokenizer


@pytest.fixture(scope="module")
def pair() -> tuple[Tokenizer, tokenizers.Tokenizer]:
    spec = older_tokenizer()
    text = json.dumps(spec)
    return from_json(text, spec, Path("tokenizer.json")), tokenizers.Tokenizer.from_str(text)


BLANKS = st.text(alphabet=" \t\n\rx", max_size=80)
TEXTS = st.text(
    alphabet=st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" \t\n\r1a'_.")), max_size=60
)


@settings(max_examples=500, deadline=None)
@example("<filename>")
@given(st.one_of(BLANKS, TEXTS))
def test_ids_are_hugging_faces(pair: tuple[Tokenizer, tokenizers.Tokenizer], text: str) -> None:
    found, oracle = pair
    assert found.encode(text, allow_control=True) == oracle.encode(text).ids
    assert found.decode(found.encode(text)) == text


@settings(max_examples=300, deadline=None)
@given(st.one_of(BLANKS, TEXTS), st.one_of(BLANKS, TEXTS))
def test_only_the_last_piece_can_change(pair: tuple[Tokenizer, tokenizers.Tokenizer], text: str, more: str) -> None:
    found, _ = pair
    kept = found.encode(text.removesuffix(found.last_piece(text)))
    assert found.encode(text + more)[: len(kept)] == kept


def test_runs_are_whole_tokens(pair: tuple[Tokenizer, tokenizers.Tokenizer]) -> None:
    found, _ = pair
    assert found.encode("    return x") == [50284, 7783, 2124]
    assert family().encode("    return x") == [50285, 1441, 2124], "CodeGen2.5 leaves a space to the word"


# ------------------------------------------------------------------------------------------------------------ as a user


def test_it_completes_and_infills(folder: Path, theirs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    model = load(str(folder), dtype="float32")
    out = model.complete("def f(x):\n    ", max_tokens=8)
    assert len(out.tokens) == 8
    hole = model.infill("def f(x):\n    return ", "\n", max_tokens=8, anchor=0)
    assert hole.finish_reason in ("stop", "length")
    assert load(str(folder)).complete("x", max_tokens=2).tokens, "on the CPU, where llamas run in the native engine"
    assert main(["complete", "x = 1", "--model", str(folder), "--max-tokens", "2"]) == 0
    assert capsys.readouterr().out
    assert main(["complete", "x = 1", "--model", str(folder), "--bits", "4"]) == 2
    assert "threads and bits" in capsys.readouterr().err


def test_a_hole_is_the_cards_form(folder: Path) -> None:
    """The prompt of the model card, in ids."""
    tokenizer = load(str(folder), dtype="float32").tokenizer
    text = "def f():\n<mask_1>x<|endoftext|><sep><mask_1>"
    oracle = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode(text, allow_control=True) == oracle.encode(text).ids


def test_from_a_hub(folder: Path, tmp_path: Path) -> None:
    hub = ModelHub(folder, "Salesforce/codegen2-1B_P")
    with hub.running():
        done = hub.codegen25(tmp_path, "complete", "x = ", "--model", hub.name, "--max-tokens", "2")
        assert done.returncode == 0 and done.stdout and "runs in PyTorch" in done.stderr, done.stderr
        again = hub.codegen25(
            tmp_path, "complete", "x = ", "--model", hub.name, "--max-tokens", "2", HF_HUB_OFFLINE="1"
        )
        assert (again.returncode, again.stdout, again.stderr) == (0, done.stdout, "")


# ------------------------------------------------------------------------------------------------------------ bad input


Damage = Callable[[Path, dict[str, Any]], object]


@pytest.mark.parametrize(
    "changes, part",
    [
        ({"n_head": 7}, "do not divide"),
        ({"rotary_dim": 40}, "rotary_dim"),
        ({"n_layer": 3}, "is missing"),
        ({"n_layer": 10**9}, "parameters"),
        ({"n_embd": "x"}, "positive number"),
        ({"mp_num": 3}, "parts"),
        ({"activation_function": "relu"}, "gelu_new"),
    ],
    ids=str,
)
def test_folders_that_contradict_themselves(changes: dict[str, Any], part: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    assert is_older(tmp_path)
    with pytest.raises(CodegenError, match=part) as error:
        load_codegen2(tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_shapes_of_the_published_models(tmp_path: Path) -> None:
    """1B: 16 heads of 128; 3.7B: of 256; 64 inputs of each rotated."""
    for width, heads in ((2048, 16), (4096, 16)):
        config = {"model_type": "codegen", "vocab_size": 51200, "n_embd": width, "n_head": heads, "n_layer": 16,
                  "n_positions": 2048, "rotary_dim": 64, "head_dim": width // heads}  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps(config))
        shape = read_shape(tmp_path)
        assert (shape.config.head_dim, shape.rotary_dim, shape.parts) == (width // heads, 64, 8)
