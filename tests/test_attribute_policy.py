"""With a policy a model that knows GPL code by heart does not give it back; without one it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from attributed import function, tracer

from codegen25.attribute.draft import CorpusDraft
from codegen25.attribute.policy import PolicyGuard, read_policy
from codegen25.attribute.trace import Tracer
from codegen25.bench.overfitted import Overfitted
from codegen25.complete import Model
from codegen25.data.lexemes import Lexemes
from codegen25.engine.answer import MOST_REFUSED
from codegen25.engine.scheduler import Scheduler
from codegen25.errors import CodegenError
from codegen25.tokenizer import family

SOURCES = ("alpha", "gpl-tools", "nobody")


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Tracer:
    return tracer(tmp_path_factory.mktemp("traced"))


def overfitted(*texts: str) -> Model:
    T = family()
    return Model(Overfitted([[T.eot, *T.encode(text), T.eot] for text in texts], T.n_vocab), T)


def beginning(text: str) -> str:
    return text[: text.index("\n") + 1]


def repeated(answer: str, text: str, lexemes: int) -> list[str]:
    """Pieces of the answer of so many lexemes that stand in the text."""
    found, data = Lexemes(answer).all, answer.encode()
    found = found.take(np.append(True, found.hashes[1:] != found.hashes[:-1]))
    starts = found.starts - (len(found.data) - len(data)) // 2
    ends = starts + found.lengths
    pieces = []
    for first in range(len(found) - lexemes + 1):
        piece = data[starts[first] : ends[first + lexemes - 1]].decode()
        if piece in text:
            pieces.append(piece)
    return pieces


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_not_allowed_is_not_given_back(traced: Tracer, source: str) -> None:
    policy, text = read_policy("permissive"), function((source, 0, 0))
    model = overfitted(text)
    prompt = beginning(text)
    plain = model.complete(prompt, max_tokens=400)
    assert plain.text == text.removeprefix(prompt)
    guarded = model.complete(prompt, max_tokens=400, guard=lambda: PolicyGuard(traced, policy))
    if source == "alpha":
        assert guarded == plain
    else:
        assert repeated(plain.text, text, 2 * policy.lexemes)
        assert not repeated(guarded.text, text, policy.lexemes)
        assert guarded.refused > 0
        assert guarded.text != plain.text


def test_an_answer_ends_when_too_much_is_refused(traced: Tracer) -> None:
    text = function(("gpl-tools", 0, 0))
    asked = []

    class Stubborn:
        """Allows a few bytes."""

        def allows(self, answer: bytes) -> bool:
            asked.append(answer)
            return len(answer) < 10

    completion = overfitted(text).complete(beginning(text), max_tokens=50, guard=Stubborn)
    assert completion.finish_reason == "content_filter"
    assert completion.refused == MOST_REFUSED + 1
    assert len(completion.text.encode()) < 10
    assert completion.text.encode() in asked


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_drafts_change_nothing_with_a_guard_and_without(traced: Tracer, temperature: float) -> None:
    from codegen25.engine.sampling import Sampling

    texts = [function((source, 0, 0)) for source in SOURCES]
    T, policy, sampling = family(), read_policy("permissive"), Sampling(temperature=temperature, seed=3)
    backend = overfitted(*texts).backend
    said = []
    for drafts, longest in (((), 0), ((CorpusDraft(traced.index, T),), 16)):
        scheduler = Scheduler(backend, T, drafts=drafts, longest_draft=longest)
        model = Model(backend, T, scheduler=scheduler)
        said += [
            [model.complete(beginning(t), max_tokens=90, sampling=sampling, guard=guard) for t in texts]
            for guard in (None, lambda: PolicyGuard(traced, policy))
        ]
        if longest:
            assert scheduler.counts.drafted > 0
    assert said[0] == said[2]
    assert said[1] == said[3]


def test_a_draft_is_what_follows_in_the_corpus(traced: Tracer) -> None:
    T, draft = family(), CorpusDraft(traced.index, family())
    ids = T.encode(function(("beta", 1, 2)))
    assert list(draft.propose(ids[:40], 8)) == ids[40:48]
    assert list(draft.propose(T.encode("nothing like this was ever written"), 8)) == []
    assert list(draft.propose(ids[:3], 8)) == []
    last = T.encode("    return run(args.paths)\n")
    assert list(draft.propose([*T.encode("INFO)\n"), *last], 8)) == []  # the end of a document


def test_tokens_that_the_guard_sees_make_no_difference(traced: Tracer) -> None:
    """Byte by byte or at once, what it says of an answer is the same: never too late."""
    text = function(("gpl-tools", 1, 1))
    policy = read_policy("permissive")
    for step in (1, 3, 7, 40):
        guard, data = PolicyGuard(traced, policy), text.encode()
        refused = next(end for end in range(step, len(data), step) if not guard.allows(data[:end]))
        assert len(Lexemes(data[: refused - step].decode(errors="ignore")).all) <= policy.lexemes


def test_a_policy_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('allow = ["MIT", "gpl-3.0-only"]\nlexemes = 20\n')
    policy = read_policy(str(path))
    assert policy.lexemes == 20
    assert policy.allows("MIT OR LGPL-2.1-only", "header")
    assert policy.allows("GPL-3.0-only", "file")
    assert not policy.allows("Apache-2.0", "file")
    assert not policy.allows("", "")
    assert not policy.allows("MIT", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("allow = [", "no policy"),
        ("allow = 'MIT'", "give a list"),
        ("alow = ['MIT']", "'alow' is no key"),
        ("allow = ['MIT']\nlexemes = 3", "10 or more"),
        ("allow = ['MIT']\nlexemes = true", "10 or more"),
        ("allow = ['Mitt']", "not on the SPDX list"),
    ],
)
def test_a_policy_that_is_none_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(CodegenError, match=said):
        read_policy(str(path))
    with pytest.raises(CodegenError, match="no policy"):
        read_policy(str(tmp_path / "other.toml"))


def test_the_overfitted_model_says_what_followed() -> None:
    backend = Overfitted([[1, 2, 3, 1, 2, 4]], 8)
    one = backend.new()
    (logits,) = backend.forward([(one, [1, 2, 3], True)])
    assert np.argmax(logits, axis=1).tolist() == [2, 3, 1]
