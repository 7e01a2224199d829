"""The model that training starts from: every old id and row as it was, every byte and control token there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_corpus
import tiny_gguf
import torch
from hypothesis import given
from hypothesis import strategies as st

from codegen25 import cli
from codegen25.errors import CodegenError
from codegen25.model.checkpoint import load_llama
from codegen25.model.gguf import GGUF
from codegen25.model.llama import Llama
from codegen25.tokenizer import Tokenizer, from_folder
from codegen25.train import __main__ as command
from codegen25.train.nano import BORDERS, ENDINGS, NEW_CONTROL, start

OLD = len(tiny_gguf.TOKENS)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "smol.gguf"
    tiny_gguf.write(path, tiny_gguf.theirs())
    return path


@pytest.fixture(scope="module")
def folder(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("start") / "start"
    assert start(source, out) == OLD, "the first new row"
    return out


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return from_folder(folder)


@pytest.fixture(scope="module")
def model(folder: Path) -> Llama:
    return load_llama(folder, dtype="float32", notice=pytest.fail)


def test_all_bytes_have_a_token(tokenizer: Tokenizer) -> None:
    singles = {tokenizer.token_bytes(id) for id in range(tokenizer.n_vocab) if not tokenizer.is_control(id)}
    assert {bytes([byte]) for byte in range(256)} <= singles


def test_old_ids_mean_what_they_meant(tokenizer: Tokenizer, source: Path) -> None:
    for id, token in enumerate(GGUF(source).tokens()):
        if token in tiny_gguf.CONTROL:
            assert tokenizer.control[token] == id
        else:
            assert tokenizer.token_bytes(id) == bytes(map(_byte_of().__getitem__, token))


def _byte_of() -> dict[str, int]:
    """GPT-2's `bytes_to_unicode`, the other way round, written down again here."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}


def test_control_tokens_by_name(tokenizer: Tokenizer) -> None:
    assert set(tokenizer.control) == {*tiny_gguf.CONTROL, *NEW_CONTROL}
    assert len(tokenizer.masks) == 16 and list(tokenizer.masks) == sorted(tokenizer.masks)
    assert tokenizer.eot == 0 and min(tokenizer.sep, tokenizer.eom, *tokenizer.masks) >= OLD + len(tiny_gguf.LACKING)
    assert tokenizer.encode("<sep>x", allow_control=True)[0] == tokenizer.sep != tokenizer.encode("<sep>")[0]


def test_old_rows_are_untouched(model: Llama, source: Path) -> None:
    old = {name: torch.from_numpy(np.array(array)) for name, array in GGUF(source).tensors()}
    for name, parameter in model.named_parameters():
        kept = parameter[:OLD] if name == "embed_tokens.weight" else parameter
        assert torch.equal(kept, old[name]), name


def test_rows_are_a_multiple_of_64_and_differ(model: Llama, tokenizer: Tokenizer) -> None:
    embedding_VD = model.embed_tokens.weight.detach()
    assert len(embedding_VD) % 64 == 0 and 0 <= len(embedding_VD) - tokenizer.n_vocab < 64
    assert torch.isfinite(embedding_VD).all()
    assert len(torch.unique(embedding_VD[OLD:], dim=0)) == len(embedding_VD) - OLD


def test_new_rows_begin_where_their_like_are(model: Llama, tokenizer: Tokenizer) -> None:
    """`<eom>` is nearest to what ends a text, the other new control tokens to what sets files apart."""
    embedding_VD = model.embed_tokens.weight.detach()
    ending, border = (embedding_VD[[tokenizer.control[n] for n in names]].mean(0) for names in (ENDINGS, BORDERS))
    mean = embedding_VD[:OLD].mean(0)
    for name in NEW_CONTROL:
        row = embedding_VD[tokenizer.control[name]]
        near = min(
            ("ending", ending), ("border", border), ("mean", mean), key=lambda pair: float((row - pair[1]).norm())
        )
        assert near[0] == ("ending" if name == "<eom>" else "border"), name


def test_old_text_scores_as_before(model: Llama) -> None:
    ids = torch.randint(OLD, (1, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(ids)[..., :OLD], tiny_gguf.theirs()(ids).logits, atol=1e-4, rtol=1e-4)


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not any(map(tokenizer.is_control, ids))


def test_digits_stand_alone(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("2024")) == 4


def test_pure_in_the_seed(source: Path, folder: Path, tmp_path: Path) -> None:
    start(source, tmp_path / "same", seed=0)
    start(source, tmp_path / "other", seed=1)
    weights = [(path / "model.safetensors").read_bytes() for path in (folder, tmp_path / "same", tmp_path / "other")]
    assert weights[0] == weights[1] != weights[2]


def test_refused(source: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match="exists already"):
        start(source, folder)
    model = tiny_gguf.theirs()
    tiny_gguf.write(tmp_path / "a.gguf", model, leave_out=["blk.1.attn_q.weight"])
    with pytest.raises(CodegenError, match=r"a\.gguf: .*layers\.1\.self_attn\.q_proj"):
        start(tmp_path / "a.gguf", tmp_path / "a")
    tiny_gguf.write(tmp_path / "b.gguf", model, changes={"tokenizer.ggml.token_type": [1] * OLD})
    with pytest.raises(CodegenError, match=r"b\.gguf: has no control token <\|endoftext\|>"):
        start(tmp_path / "b.gguf", tmp_path / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gguf", "b.gguf"]


# --- python -m codegen25.train ---


def run(*arguments: object) -> None:
    args = command._parser().parse_args([str(argument) for argument in arguments])
    args.run_command(args)


def corpus(folder: Path) -> Path:
    texts = [
        f'def f_{n}(x):\n    """Add {n} to a number that is given as x, and return what that makes. No more."""\n'
        f"    y = x + {n}\n    z = y\n\n    return z\n\n\nclass C_{n}:\n    def g_{n}(self, x):\n        y = x * {n}\n"
        "        # A comment that makes this method long enough to be a document of its own, as methods must be.\n"
        "        # It says nothing else.\n        return y\n"
        for n in range(30)
    ]
    small_corpus.write_corpus(
        folder, {"train": [[small_corpus.document(t, path=f"{n}.py") for n, t in enumerate(texts)]]}
    )
    return folder


def test_documents_are_deterministic(tmp_path: Path) -> None:
    source = corpus(tmp_path / "corpus")
    made: dict[str, list[str]] = {}
    for name, course, seed, hash_seed in (("a", "mono", 0, "1"), ("b", "mono", 0, "2"), ("c", "mono", 1, "1"),
                                          ("d", "multi", 0, "1")):  # fmt: skip
        out = tmp_path / name
        options = ["--corpus", source, "--course", course, "--out", out, "--seed", str(seed)]
        subprocess.run(
            [sys.executable, "-m", "codegen25.train", "documents", *map(str, options)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(__file__).parents[1])},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        made[name] = [json.loads(line)["content"] for line in out.read_text().splitlines()]
    assert made["a"] == made["b"] != made["c"]
    assert not set(made["a"]) & set(made["d"])
    described = [{t for t in made[name] if t.startswith("def f_") and "class" not in t} for name in ("a", "d")]
    assert [len(texts) for texts in described] == [21, 9]
    methods = {t for t in made["a"] if t.startswith(("class C_", "def g_"))}
    files = {t for t in made["a"] if t.startswith("def f_") and "class C_" in t}
    assert (len(methods), len(files)) == (10, 2), "half as many, and one in eight"
    assert sorted(made["a"]) != made["a"]


def test_the_recipe_end_to_end(source: Path, tmp_path: Path) -> None:
    run("start", "--gguf", source, "--out", tmp_path / "start")
    run("documents", "--corpus", corpus(tmp_path / "c"), "--course", "mono", "--out", tmp_path / "d")
    options = f"--steps 2 --warmup 1 --documents-per-step 2 --window 200 --dtype float32 --new-rows {OLD}"
    places = [
        "--data",
        tmp_path / "d",
        "--init",
        tmp_path / "start",
        "--out",
        tmp_path / "run",
        "--model-dtype",
        "float32",
    ]
    assert cli.main(["train", "--stage", "mono", *map(str, places), *options.split()]) == 0
    run("blend", "--start", tmp_path / "start", "--trained", tmp_path / "run/model", "--new-rows", str(OLD), "--weight",
        "0.25", "--out", tmp_path / "blend")  # fmt: skip
    begun, ended, blended = (
        load_llama(tmp_path / name, dtype="float32", notice=pytest.fail) for name in ("start", "run/model", "blend")
    )
    assert begun.config == ended.config
    assert not torch.equal(begun.embed_tokens.weight, ended.embed_tokens.weight)
    assert from_folder(tmp_path / "run/model").control == from_folder(tmp_path / "start").control
    for (name, a), b, mean in zip(begun.named_parameters(), ended.parameters(), blended.parameters(), strict=True):
        old = OLD if name == "embed_tokens.weight" else len(a)
        torch.testing.assert_close(mean[:old], (0.75 * a + 0.25 * b)[:old])
        assert torch.equal(mean[old:], b[old:]), "new rows are the trained ones alone"
    assert from_folder(tmp_path / "blend").control == from_folder(tmp_path / "start").control


@pytest.mark.parametrize("verb", [[], ["start"], ["documents"], ["blend"]])
def test_help_shows_examples_that_parse(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command._parser().parse_args([*verb, "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and "examples:" in shown
    lines = [line.split()[3:] for line in shown.splitlines() if line.startswith("  python -m codegen25.train ")]
    assert [line[0] for line in lines] == (verb or ["start", "documents", "blend"])
    for line in lines:
        command._parser().parse_args(line)


BAD = {
    "start": "--gguf {0}/none.gguf --out {0}/o",
    "documents": "--corpus {0}/none --course mono --out {0}/o",
    "blend": "--start {1} --trained {0}/none --new-rows 1 --out {0}/o",
}


@pytest.mark.parametrize("verb, options", BAD.items(), ids=BAD.keys())
def test_errors_are_one_line(
    verb: str, options: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train", verb, *options.format(tmp_path, folder).split()])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert str(ended.value.code).startswith("error: ") and "\n" not in str(ended.value.code)
    assert "none" in str(ended.value.code)
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_without_functions(tmp_path: Path) -> None:
    small_corpus.write_corpus(tmp_path / "c", {"train": [[small_corpus.document("x = 1\n")]]})
    with pytest.raises(CodegenError, match="has 0 functions"):
        run("documents", "--corpus", tmp_path / "c", "--course", "multi", "--out", tmp_path / "d")
    assert not (tmp_path / "d").exists()
