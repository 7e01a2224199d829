"""Choosing among answers: candidates' ends, likelihoods against the slow way, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen25.choose import LEAD, candidates, ends, infill_chosen, judged
from codegen25.cli import main
from codegen25.complete import Model
from codegen25.engine.sampling import Sampling, log_softmax
from codegen25.engine.torch import TorchBackend
from codegen25.errors import UsageError
from codegen25.scopes import faults

TEXT = st.text("ab (\n", max_size=12)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(TorchBackend(tiny.model()), tiny.tokenizer())


def slowly(model: Model, prefix: str, text: str, suffix: str) -> float:
    """log p(text + beginning of the suffix | prefix), all tokens in one pass."""
    tokenizer = model.tokenizer
    lead = tokenizer.encode(suffix)
    behind = tokenizer.decode_bytes(lead[:LEAD]).decode(errors="ignore")
    ids = [tokenizer.eot, *tokenizer.encode(prefix + text + behind), *[tokenizer.eot] * (len(lead) <= LEAD)]
    alone = [tokenizer.eot, *tokenizer.encode(prefix)]
    shared = next((n for n, (a, b) in enumerate(zip(ids, alone, strict=False)) if a != b), min(len(ids), len(alone)))
    shared = max(1, min(shared, len(ids) - 1))
    sequence = model.backend.new()
    (logits,) = model.backend.forward([(sequence, ids[:-1], True)])
    model.backend.free(sequence)
    return math.fsum(float(log_softmax(logits[n - 1])[ids[n]]) for n in range(shared, len(ids)))


@settings(max_examples=30, deadline=None)
@given(prefix=TEXT, text=TEXT, suffix=TEXT)
def test_one_is_judged_as_slowly(model: Model, prefix: str, text: str, suffix: str) -> None:
    (found,) = judged(model, prefix, [text], suffix, max_tokens=16)
    assert found == pytest.approx(slowly(model, prefix, text, suffix), abs=1e-3)


@settings(max_examples=10, deadline=None)
@given(prefix=TEXT, texts=st.lists(TEXT, min_size=2, max_size=5), suffix=TEXT)
def test_neighbours_change_differences_by_nothing(model: Model, prefix: str, texts: list[str], suffix: str) -> None:
    """What all share is counted for all or for none."""
    together = judged(model, prefix, texts, suffix, max_tokens=16)
    pairs = [judged(model, prefix, [texts[0], text], suffix, max_tokens=16) for text in texts[1:]]
    for score, (one, other) in zip(together[1:], pairs, strict=True):
        assert score - together[0] == pytest.approx(other - one, abs=2e-3)


def test_ends_of_whole_lines() -> None:
    assert ends("    a\n    b", "x:\n", "    c\n") == ["    a\n", "    a\n    b\n"]


def test_ends_of_the_end_of_a_line() -> None:
    assert ends("a\n  b", "x = ", "\nc\n") == ["a\n  b", "a"]


def test_ends_inside_a_line() -> None:
    assert ends("a, f(b))\nmore)", "f(", ") + 1\n") == ["a, f(b))\nmore)"]
    assert ends("a, f(b)) + 1\n", "f(", ")\n") == ["a, f(b)) + 1\n", "a, f(b", "a, f(b)"]


@given(TEXT, TEXT, TEXT)
def test_ends_are_beginnings(answer: str, prefix: str, suffix: str) -> None:
    found = ends(answer, prefix, suffix)
    assert found
    assert all((answer + "\n").startswith(end) for end in found)


def test_the_best_comes_first_and_again(model: Model) -> None:
    once = candidates(model, "def f(a):\n", "    return b\n", 5, max_tokens=8)
    assert [c.logprob for c in once] == sorted((c.logprob for c in once), reverse=True)
    again = candidates(model, "def f(a):\n", "    return b\n", 5, max_tokens=8)
    assert [(c.text, c.logprob) for c in once] == [(c.text, c.logprob) for c in again]
    assert np.isfinite([c.logprob for c in once]).all()


def test_of_python_the_fewest_faults_come_first(model: Model) -> None:
    before, behind = "def f(a):\n", "    return count\n"
    plainly = candidates(model, before, behind, 9, max_tokens=8)
    found = candidates(model, before, behind, 9, max_tokens=8, python=True)
    assert [(c.faults, -c.logprob) for c in found] == sorted((c.faults, -c.logprob) for c in found)
    assert all(c.faults == faults(before + c.text + behind) for c in found) and not any(c.faults for c in plainly)
    assert sum(c.text.startswith("    count =") for c in found) > sum(c.text.startswith("    count =") for c in plainly)
    assert candidates(model, "f(", ")", 9, max_tokens=8, python=True), "nothing parses, and something is chosen"


def test_a_seed_draws_others(model: Model) -> None:
    drawn = [
        {c.text for c in candidates(model, "a", "b", 12, max_tokens=8, sampling=Sampling(temperature=2, seed=seed))}
        for seed in (0, 1)
    ]
    assert drawn[0] != drawn[1]


def test_a_candidate_ends_as_its_answer_does_or_where_the_suffix_goes_on(model: Model) -> None:
    found = candidates(model, "def f(a):\n    x = ", "\n    return b\n", 8, max_tokens=8)
    whole = [c for c in found if c.text == c.answer.text]
    assert whole and all(c.finish_reason == c.answer.finish_reason for c in whole)
    assert all(c.finish_reason == "stop" and c.answer.text.startswith(c.text) for c in found if c not in whole)
    best = infill_chosen(model, "def f(a):\n    x = ", "\n    return b\n", 8, max_tokens=8)
    assert (best.text, best.finish_reason) == (found[0].text, found[0].finish_reason)
    assert model.tokenizer.decode(best.tokens) == best.text and not best.trimmed
    assert infill_chosen(model, "a = 1\n" * 999, "b", 2, max_tokens=8).trimmed


def test_a_guard_that_refuses_all_is_told_of(model: Model) -> None:
    class Never:
        def allows(self, answer: bytes) -> bool:
            return False

    best = infill_chosen(model, "a = ", "\nb\n", 4, max_tokens=8, guard=Never)
    assert best.refused and best.finish_reason == "content_filter"


def test_one_answer_leaves_no_choice(model: Model) -> None:
    with pytest.raises(UsageError, match="2 or more"):
        infill_chosen(model, "a", "b", 1)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "f.py"
    file.write_text("def add(a, b):\n    return a + \n\n\nprint(add(1, 2))\n", encoding="utf-8")
    asked = ["infill", str(file), "--at", "2", "--choose", "4", "--max-tokens", "8"]
    assert main([*asked, "--json"]) == 0
    (hole,) = json.loads(capsys.readouterr().out)["holes"]
    assert main(asked) == 0
    assert capsys.readouterr().out.rstrip("\n") == hole["text"].rstrip("\n")
    assert main([*asked, "--at", "1"]) == 2
    assert "one cursor" in capsys.readouterr().err
    assert main([*asked, "--logprobs"]) == 2
    assert "--logprobs" in capsys.readouterr().err


def test_the_command_binds_what_python_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, text = tmp_path / "f.py", "def mean(xs):\n    for x in xs:\n        total += x\n    return total / len(xs)\n"
    file.write_text(text, encoding="utf-8")
    assert main(["infill", str(file), "--at", "2:1", "--choose", "5", "--max-tokens", "8", "--apply"]) == 0
    assert faults(text) == 1 and faults(file.read_text(encoding="utf-8")) == 0
    assert "    total =" in capsys.readouterr().out
