"""The scheduler with drafts and deadlines: neither changes what is answered, only when."""

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import tiny
import torch
from scheduling import (
    BASE,
    ENDS,
    LLAMA,
    SAMPLINGS,
    SIZE,
    TEXT,
    Noise,
    Recording,
    T,
    alone,
    free_drafts,
    request,
    rest,
    runs,
    said,
    same,
)

from codegen25.engine.answer import Piece, Request
from codegen25.engine.backend import Logits, Row
from codegen25.engine.draft import Draft
from codegen25.engine.pace import StepCost
from codegen25.engine.sampling import Sampling
from codegen25.engine.scheduler import Scheduler
from codegen25.engine.torch import TorchBackend

__all__ = ["free_drafts"]

# ----------------------------------------------------------------------------------------------------------- drafts


@pytest.mark.usefixtures("free_drafts")
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_drafts_change_nothing_but_the_steps(sampling: Sampling) -> None:
    wanted = [
        request(prompt, required=required, sampling=sampling, max_tokens=40)
        for prompt, required in [(BASE, b""), (BASE, b"a"), (BASE + "b", b""), (BASE, b""), ("((((a", b"    ")]
    ]
    plain, drafting = Recording(), Recording()
    without = runs(Scheduler(plain, T, longest_draft=0), wanted)
    scheduler = Scheduler(drafting, T)
    assert all(map(same, runs(scheduler, wanted), without))
    assert scheduler.counts.accepted > 0 and len(drafting.calls) < len(plain.calls)
    noise = Noise([[*each.prompt, *answer.tokens] for each, answer in zip(wanted, without, strict=True)])
    guessing = Scheduler(TorchBackend(LLAMA), T, drafts=[noise])
    assert all(map(same, runs(guessing, wanted), without))


@pytest.mark.usefixtures("free_drafts")
def test_asked_again_an_answer_comes_in_a_step() -> None:
    backend = Recording()
    scheduler = Scheduler(backend, T)
    first = replace(request(BASE, max_tokens=12, sampling=Sampling(repetition_penalty=1.3)), vocabulary=TEXT)
    (answer,) = runs(scheduler, [first])
    assert len(answer.tokens) > 3
    del backend.calls[:]
    again = replace(first, prompt=[*first.prompt, *answer.tokens[:2]], max_tokens=12 - 2)
    assert runs(scheduler, [again])[0].text == T.decode(answer.tokens[2:])
    assert len(backend.calls) == 1


@pytest.mark.usefixtures("free_drafts")
def test_drafts_leave_room_for_no_more_than_is_asked_for() -> None:
    longest = 0

    class Measured(TorchBackend):
        def forward(self, rows: Sequence[Row]) -> list[Logits]:
            nonlocal longest
            out = super().forward(rows)
            longest = max([longest, *(self.length(sequence) for sequence, _, _ in rows)])
            return out

    most = tiny.CONFIG.max_positions
    scheduler = Scheduler(Measured(LLAMA), T, drafts=[Noise()])
    prompt = T.encode("a" * (most - 10))
    only_a = np.zeros(SIZE, dtype=np.bool_)
    only_a[prompt[0]] = True
    (answer,) = runs(scheduler, [Request(prompt, only_a, ENDS, max_tokens=10**6)])
    # The last token is chosen behind the last position, and none can be chosen behind it.
    assert answer.text == "a" * 11 and answer.ends == [("length", None)] and longest == most
    longest = 0
    (answer,) = runs(scheduler, [Request(prompt[:50], only_a, ENDS, max_tokens=7)])
    assert answer.text == "a" * 7 and longest == 50 + 6


def exact(prompt: Sequence[int], ids: Sequence[int], length: int) -> dict[tuple[int, ...], float]:
    """The probability of every answer of so many tokens, from the whole forward pass of each."""
    out: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(length):
        longer: dict[tuple[int, ...], float] = {}
        for known, p in out.items():
            with torch.inference_mode():
                logits = LLAMA(torch.tensor([[*prompt, *known]]))[0, -1, list(ids)]
            for id, q in zip(ids, torch.softmax(logits.double(), 0).tolist(), strict=True):
                longer[(*known, id)] = p * q
        out = longer
    return out


@pytest.mark.usefixtures("free_drafts")
def test_sampling_with_drafts_keeps_the_distribution() -> None:
    """Pearson's chi-square of all 64 answers of three tokens, below the 99.9 % point of 63 degrees; fixed seeds."""
    prompt, ids = T.encode("ab(a"), T.encode("ab\n(")
    vocabulary = np.zeros(SIZE, dtype=np.bool_)
    vocabulary[ids] = True
    scheduler = Scheduler(TorchBackend(LLAMA), T)
    counts = dict.fromkeys(product(ids, repeat=3), 0)
    for n in range(1200):
        wanted = Request(prompt, vocabulary, ENDS, max_tokens=3, sampling=Sampling(temperature=1), index=n)
        scheduler.submit(wanted)
        counts[tuple(piece.token for piece in rest(scheduler) if piece.token is not None)] += 1
    assert scheduler.counts.drafted > 800 and 0.1 < scheduler.counts.accepted / scheduler.counts.drafted < 0.9
    expected = {answer: 1200 * p for answer, p in exact(prompt, ids, 3).items()}
    assert min(expected.values()) > 2.5
    assert sum((counts[answer] - e) ** 2 / e for answer, e in expected.items()) < 103.4


def test_drafts_that_never_come_true_are_given_up_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step costs as much as it has tokens."""
    monkeypatch.setattr(StepCost, "seconds", lambda _, tokens: tokens.astype(np.float64))

    class Wrong:
        def propose(self, ids: Sequence[int], limit: int) -> Sequence[int]:
            return T.encode("(" * limit)

    only_a = np.zeros(SIZE, dtype=np.bool_)
    only_a[T.encode("a(")] = True
    backend = Recording()
    scheduler = Scheduler(backend, T, drafts=[Wrong()], longest_draft=8)
    guesses: list[Draft] = [Wrong()]
    scheduler._drafts = guesses
    choice = Request(T.encode("x"), only_a, ENDS, max_tokens=200, sampling=Sampling(repetition_penalty=1e-6))
    runs(scheduler, [choice])
    assert scheduler.counts.drafted < 100 < len(backend.calls)


# --------------------------------------------------------------------------------------------------------- deadlines


def test_after_the_deadline_an_answer_ends_with_its_line() -> None:
    for sampling in SAMPLINGS:
        whole = request(BASE, sampling=sampling, max_tokens=60)
        text, lines = alone(whole).text, alone(replace(whole, stop=("\n",)))
        late = alone(replace(whole, deadline=time.monotonic() - 1))
        assert late.text == text.partition("\n")[0] and late.ends == lines.ends
        early = alone(replace(whole, deadline=time.monotonic() + 10**6))
        assert early.text == text


def test_a_deadline_that_passes_meanwhile() -> None:
    """The first newline behind it counts, not one before."""
    newline = int(T.encode("\n")[0])
    vocabulary = np.zeros(SIZE, dtype=np.bool_)
    vocabulary[[newline, *T.encode("ab")]] = True
    scheduler = Scheduler(TorchBackend(LLAMA), T)
    wanted = Request(
        T.encode("a"), vocabulary, ENDS, max_tokens=200, sampling=Sampling(temperature=1), deadline=time.monotonic()
    )
    whole = alone(replace(wanted, deadline=None)).text
    ticket = scheduler.submit(replace(wanted, deadline=1e18))
    pieces: list[Piece] = []
    while "".join(piece.text for piece in pieces).count("\n") < 2:
        pieces += scheduler.step()
    before = "".join(piece.text for piece in pieces)
    (work,) = scheduler._running
    work.answer.request = wanted
    pieces += rest(scheduler)
    line = whole[len(before) :].partition("\n")[0]
    assert said(pieces, ticket).text == before + line and said(pieces, ticket).ends == [("stop", None)]
