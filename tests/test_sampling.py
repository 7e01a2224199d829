"""From logits to a token: against a naive reading of the definitions, against transformers, and by counting."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from codegen25.engine import sampling
from codegen25.engine.sampling import Row, Sampling
from codegen25.errors import UsageError

SIZE = 200


def random_logits(seed: int) -> Row:
    return (3 * np.random.default_rng(seed).standard_normal(SIZE)).astype(np.float32)


def naive(logits: Row, s: Sampling) -> list[float]:
    """The documented filters one after the other, in plain Python."""
    weight = {i: math.exp((float(x) - float(max(logits))) / s.temperature) for i, x in enumerate(logits)}
    ranked = sorted(weight, key=lambda i: (-weight[i], i))
    if s.top_k:
        ranked = ranked[: s.top_k]
    kept, mass, total = [], 0.0, sum(weight[i] for i in ranked)
    for i in ranked:
        kept.append(i)
        mass += weight[i] / total
        if s.top_p < 1 and mass >= s.top_p:
            break
    kept = [i for i in kept if weight[i] >= s.min_p * weight[kept[0]]]
    total = sum(weight[i] for i in kept)
    return [weight[i] / total if i in set(kept) else 0.0 for i in range(len(logits))]


SETTINGS = [
    Sampling(temperature=1),
    Sampling(temperature=0.3),
    Sampling(temperature=1, top_k=1),
    Sampling(temperature=1, top_k=7),
    Sampling(temperature=1, top_k=10**6),
    Sampling(temperature=0.8, top_p=0.95),
    Sampling(temperature=1, top_p=1e-9),
    Sampling(temperature=1, min_p=0.05),
    Sampling(temperature=1, min_p=1),
    Sampling(temperature=1.7, top_k=50, top_p=0.8, min_p=0.02),
    Sampling(temperature=0.5, top_k=20, top_p=0.6, min_p=0.1, repetition_penalty=1.3),
    Sampling(temperature=1, repetition_penalty=0.7),
]


@pytest.mark.parametrize("s", SETTINGS, ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_probabilities_are_the_definition(s: Sampling, seed: int) -> None:
    logits = random_logits(seed)
    np.testing.assert_allclose(sampling.probabilities(logits, s), naive(logits, s), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("s", SETTINGS, ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_probabilities_are_those_of_transformers(s: Sampling, seed: int) -> None:
    """Its warpers in the order in which its `generate` applies them."""
    logits = random_logits(seed)
    seen = list(range(0, SIZE, 3))
    warpers = LogitsProcessorList()
    if s.repetition_penalty != 1:
        warpers.append(RepetitionPenaltyLogitsProcessor(s.repetition_penalty))
    warpers.append(TemperatureLogitsWarper(float(s.temperature)))
    if s.top_k:
        warpers.append(TopKLogitsWarper(s.top_k))
    if s.top_p < 1:
        warpers.append(TopPLogitsWarper(s.top_p))
    if s.min_p:
        warpers.append(MinPLogitsWarper(s.min_p))
    ids, scores = cast(torch.LongTensor, torch.tensor([seen])), cast(torch.FloatTensor, torch.from_numpy(logits)[None])
    theirs = torch.softmax(warpers(ids, scores), -1)[0]
    ours = sampling.probabilities(sampling.penalize(logits, set(seen), s.repetition_penalty), s)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-12)


@given(st.lists(st.sampled_from([-np.inf, -2.0, 0.0, 0.5, 3.0]), min_size=1, max_size=9), st.data())
def test_probabilities_with_ties_and_masked_tokens(values: list[float], data: st.DataObject) -> None:
    logits = np.array([*values, 1.0], dtype=np.float32)  # one token at least can come
    s = Sampling(
        temperature=data.draw(st.sampled_from([0.5, 1.0, 2.0])),
        top_k=data.draw(st.integers(0, 12)),
        top_p=data.draw(st.sampled_from([0.1, 0.77, 1.0])),
        min_p=data.draw(st.sampled_from([0.0, 0.31])),
    )
    p = sampling.probabilities(logits, s)
    np.testing.assert_allclose(p, naive(logits, s), rtol=1e-9)
    assert (p[np.isneginf(logits)] == 0).all() and p.sum() == pytest.approx(1)
    if s.top_k:
        assert np.count_nonzero(p) <= s.top_k
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    assert p[sampling.choose(logits, s, rng)] > 0


def test_ties_at_the_border_of_top_k_go_to_the_lower_id() -> None:
    p = sampling.probabilities(np.array([1, 2, 1, 1], dtype=np.float32), Sampling(temperature=1, top_k=2))
    assert np.flatnonzero(p).tolist() == [0, 1]


@pytest.mark.parametrize("temperature", [1e-320, 1e-300, 1e-9, 1e300])
def test_extreme_temperatures(temperature: float) -> None:
    p = sampling.probabilities(np.array([1, -3e4, 3e4, -np.inf], dtype=np.float32), Sampling(temperature=temperature))
    assert p.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0] if temperature > 1 else [0, 0, 1, 0])


@given(st.lists(st.floats(-50, 50, width=32) | st.just(-np.inf), min_size=1, max_size=30))
def test_greedy_is_argmax(values: list[float]) -> None:
    logits = np.array([*values, -50], dtype=np.float32)
    s = Sampling(top_k=1, top_p=0.1, min_p=1, seed=3)
    assert sampling.choose(logits, s, np.random.default_rng(0)) == list(logits).index(max(logits))


def draws(logits: Row, s: Sampling, n: int) -> list[int]:
    rng = np.random.default_rng(s.seed)
    return [sampling.choose(logits, s, rng) for _ in range(n)]


def test_a_seed_repeats() -> None:
    logits = random_logits(0)
    assert draws(logits, Sampling(temperature=1, seed=5), 50) == draws(logits, Sampling(temperature=1, seed=5), 50)
    assert draws(logits, Sampling(temperature=1, seed=5), 50) != draws(logits, Sampling(temperature=1, seed=6), 50)


@pytest.mark.parametrize(
    "s", [Sampling(temperature=1), Sampling(temperature=2, top_k=5), Sampling(temperature=1, top_p=0.9)], ids=str
)
def test_frequencies(s: Sampling) -> None:
    """Pearson's chi-square of 20,000 draws, below the 99.9 % point; the seed is fixed."""
    logits = np.log(np.array([0.4, 0.0001, 0.25, 0.15, 0.1, 0.05, 0.0499])).astype(np.float32)
    expected: NDArray[np.float64] = 20000 * np.array(naive(logits, s))
    counts = np.bincount(draws(logits, s, 20000), minlength=7)
    alive = expected > 0
    assert counts[~alive].sum() == 0
    assert ((counts - expected)[alive] ** 2 / expected[alive]).sum() < 22.46  # six degrees of freedom at most


class _Ends:
    """Random numbers at the ends of [0, 1)."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


@pytest.mark.parametrize("value", [0.0, float(np.nextafter(1, 0))])
def test_the_ends_of_the_random_numbers(value: float) -> None:
    logits = np.array([-np.inf, 0.1, 0.2, 0.3, -np.inf], dtype=np.float32)
    token = sampling.choose(logits, Sampling(temperature=1), _Ends(value))  # type: ignore[arg-type]
    assert token == (1 if value == 0 else 3)


def test_log_softmax_is_torchs() -> None:
    logits = np.concatenate([random_logits(1), np.array([-np.inf, 500], dtype=np.float32)])
    for row in (logits, random_logits(2)):
        theirs = torch.log_softmax(torch.from_numpy(row), -1).numpy()
        np.testing.assert_allclose(sampling.log_softmax(row), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_logprob_is_one_of_log_softmax(seed: int) -> None:
    logits = np.append(random_logits(seed), np.float32(-np.inf))
    for sure in (0, 10, 20):  # next to certain, what is missing to 1 still has all its digits
        logits[7] += sure
        before = logits.copy()
        exact = logits.astype(np.float64) - np.logaddexp.reduce(logits.astype(np.float64))
        ours = [sampling.logprob(logits, token) for token in range(SIZE + 1)]
        assert ours == pytest.approx(exact.tolist(), rel=2e-6)
        assert (logits == before).all()


@pytest.mark.parametrize("size", [1, 255, 256, 257, 3000])
def test_choices_are_where_the_cumulated_probabilities_say(size: int) -> None:
    """Also across blocks, and for tokens that cannot come."""
    rng = np.random.default_rng(size)
    logits = np.where(rng.random(size) < 0.5, -np.inf, 9 * rng.standard_normal(size)).astype(np.float32)
    logits[size // 2] = 1
    p = sampling.probabilities(logits, Sampling(temperature=1))
    for number in rng.random(300).tolist():
        token = sampling.choose(logits, Sampling(temperature=1), _Ends(number))  # type: ignore[arg-type]
        assert p[token] > 0 and p[:token].sum() <= number + 1e-12 and p[: token + 1].sum() >= number - 1e-12


def test_penalty_leaves_its_input_and_the_unseen_alone() -> None:
    logits = np.array([2, -2, 3, 0], dtype=np.float32)
    assert sampling.penalize(logits, {0, 1}, 2.0).tolist() == [1, -4, 3, 0]
    assert logits.tolist() == [2, -2, 3, 0]
    assert sampling.penalize(logits, set(), 2.0).tolist() == logits.tolist()


@pytest.mark.parametrize(
    "name, values",
    [
        ("temperature", [-0.1, math.nan, math.inf]),
        ("top_k", [-1]),
        ("top_p", [0, -0.5, 1.01, math.nan]),
        ("min_p", [-0.01, 1.01, math.nan]),
        ("repetition_penalty", [0, -1, math.nan, math.inf]),
        ("seed", [-1]),
    ],
)
def test_out_of_range(name: str, values: list[float]) -> None:
    for value in values:
        with pytest.raises(UsageError, match=f"{name.replace('_', '[- ]')} is {value}"):
            Sampling(**{name: value})  # type: ignore[arg-type]
