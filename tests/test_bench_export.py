"""`bench export`: what is compared, where texts part, and all of it on a small model with programs that tests need."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import tiny
import torch
from publisher_folder import random_llama

from codegen25.bench import export
from codegen25.bench.export import Parting, greedy, lines, parting, prompts, run
from codegen25.bench.figures import Options
from codegen25.bench.peer import PEERS
from codegen25.cli import main
from codegen25.config import ModelConfig
from codegen25.engine.torch import TorchBackend
from codegen25.model.checkpoint import save_llama
from codegen25.model.hf_tokenizer import write_tokenizer
from codegen25.tokenizer import family


def test_what_is_compared_is_always_the_same() -> None:
    found = lines(500)
    assert found == lines(500) and len(found) == 500
    assert sum(any(piece in line for piece in ("\u3000", "🦊", "<mask_1>", "[UNUSED_1]")) for line in found) > 20
    assert any(line.startswith("    ") and line.endswith("\n") for line in found)
    asked = prompts(20)
    assert asked == prompts(20) and len(set(asked)) == 20
    assert all(0 < len(prompt) <= export.LONGEST and not prompt.endswith("\n") for prompt in asked)


def test_where_texts_part() -> None:
    backend = TorchBackend(tiny.model())
    prompt, end = tiny.tokenizer().encode("def f("), tiny.tokenizer().eot
    ours = greedy(backend, prompt, 8, end)
    assert len(ours) == 8 and parting(backend, prompt, 3, ours, list(ours), end) is None
    with torch.no_grad():
        logprobs = tiny.model()(torch.tensor([[*prompt, *ours[:4]]]))[0, -1].log_softmax(-1)
    second = int(logprobs.topk(2).indices[1])
    found = parting(backend, prompt, 3, ours, [*ours[:4], second, 1, 2], end)
    assert found is not None and (found.prompt, found.after) == (3, 4) and found.margin > 0
    assert found.margin == pytest.approx(float(logprobs[ours[4]] - logprobs[second]), abs=1e-5)
    shorter = parting(backend, prompt, 3, ours, ours[:6], end)
    assert shorter is not None and shorter.after == 6, "an end is a token like others"


@pytest.mark.parametrize(
    "tokens, kept", [([5, 6, 0], [5, 6]), ([5, 0, 0, 1], [5]), ([5, 6], [5, 6]), ([0], []), ([], [])]
)
def test_what_ends_a_text_is_no_part_of_it(tokens: list[int], kept: list[int]) -> None:
    assert export._until(0, tokens) == kept


def test_ties_count_as_equal_and_other_partings_do_not() -> None:
    figure = export._texts("x", [Parting(1, 5, 0.01), Parting(7, 2, -0.05)], 10, 16)
    assert figure.holds and "8 equal to the end" in figure.note and "1 after 5 (+0.010)" in figure.note
    assert export._texts("x", [Parting(1, 5, 1.5)], 10, 16).holds is False


def test_no_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "export", "--lines", "0"]) == 2
    assert main(["bench", "export", "--help"]) == 0
    assert "--vllm" in capsys.readouterr().out


@pytest.mark.slow
def test_a_small_model_is_read_by_others_as_by_us(tmp_path: Path) -> None:
    """llama.cpp and transformers from the packages that the tests need anyway."""
    pytest.importorskip("xllamacpp")
    shape = ModelConfig(51200, 64, 128, 2, 2, 1, 32, 2048)
    save_llama(random_llama(shape, std=0.1), tmp_path / "m", dtype="bfloat16")
    write_tokenizer(tmp_path / "m", family())
    for name in ("llama.cpp", "hf-folder"):
        folder = tmp_path / "cache" / "peers" / "+".join(PEERS[name].packages)
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (folder / "bin" / "python").chmod(0o755)
        (folder / "complete").touch()
    options = Options(tmp_path / "cache", 1, 1, (), lambda line: None)
    figures = list(run(options, str(tmp_path / "m"), 2000, 6, 12))
    assert [(figure.name, figure.peer_name) for figure in figures] == [
        (name, peer)
        for peer in ("llama.cpp F16", "transformers bf16")
        for name in ("token ids of lines", "greedy texts")
    ]
    assert all(figure.holds for figure in figures), [figure.note for figure in figures]
    assert not list((tmp_path / "cache").glob("tmp*")), "what was exported is gone"
