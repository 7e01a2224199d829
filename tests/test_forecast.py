"""What more tokens would bring: a law is found again, and nothing is said where losses show none."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_report import write_run

from codegen25.train.forecast import EXPONENTS, FEWEST, fit, forecast
from codegen25.train.runs import Point, read_run


def law(
    count: int = 200, *, floor: float = 1.2, scale: float = 0.8, power: float = 0.3, noise: float = 0.0
) -> list[Point]:
    rng = random.Random(0)
    tokens = [float(2000 * n) for n in range(1, count + 1)]
    return [(t, floor + scale * (t / tokens[-1]) ** -power + rng.gauss(0, noise)) for t in tokens]


def test_a_law_is_found_again() -> None:
    found = fit(law())
    assert found is not None
    assert found.at(400_000) == pytest.approx(2.0, abs=1e-3)
    assert found.at(4_000_000) == pytest.approx(1.2 + 0.8 * 10**-0.3, abs=0.02)


def test_intervals_hold_what_comes() -> None:
    """Of twenty runs of noise, most forecasts of four times the tokens hold the truth, and more tokens widen them."""
    truth, held = 1.2 + 0.8 * 4**-0.3, 0
    for seed in range(20):
        rng = random.Random(seed)
        found = fit([(x, y + rng.gauss(0, 0.1)) for x, y in law()], seed)
        assert found is not None
        low, high = found.interval(1_600_000)
        held += low <= truth <= high
        near = found.interval(800_000)
        assert near[1] - near[0] < high - low
    assert held >= 12


@given(st.lists(st.floats(0.01, 20), min_size=FEWEST, max_size=60))
def test_more_tokens_are_never_expected_to_harm(losses: list[float]) -> None:
    found = fit([(1000.0 * n, loss) for n, loss in enumerate(losses, 1)])
    assert found is not None and found.floor >= 0 and found.scale >= 0 and found.exponent in EXPONENTS
    expected = [found.at(times * found.last) for times in (1, 2, 4, 10, 1000)]
    assert expected == sorted(expected, reverse=True)
    assert expected[-1] >= found.floor


def test_too_few_losses_show_no_law() -> None:
    assert fit([]) is None
    assert fit(law(FEWEST - 1)) is None
    assert fit(law()[-FEWEST:]) is None  # many, of about as many tokens


def test_warm_up_and_decay_are_no_part_of_it(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", steps=60))
    whole = forecast(run)
    assert whole is not None and whole.last == 6000
    steps = [dict(line) | {"rate": 1e-4, "loss": 99.0} if not 6 < line["step"] <= 50 else line for line in run.steps]
    part = forecast(replace(run, steps=tuple(steps)))
    assert (
        part is not None and part.last == 5000 and part.at(5000) == pytest.approx(2.0, abs=0.2)
    )  # a line is no such law
