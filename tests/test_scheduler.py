"""The scheduler on a small LLaMA: whatever runs beside it, from whatever cache and draft, an answer is the same.

The weights are float64, so that no rounding of one batch or another decides between tokens.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from threading import Thread

import numpy as np
import pytest
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_model import twins

from codegen25 import infill
from codegen25.config import ModelConfig
from codegen25.engine.answer import Counts, OutOfMemory, Piece, Request
from codegen25.engine.backend import Logits, Row
from codegen25.engine.cpu import CpuBackend
from codegen25.engine.decode import decode
from codegen25.engine.draft import Draft
from codegen25.engine.pace import StepCost
from codegen25.engine.sampling import GREEDY, Sampling
from codegen25.engine.scheduler import Scheduler
from codegen25.engine.torch import TorchBackend
from codegen25.errors import CodegenError, UsageError

T = tiny.tokenizer()
LLAMA = tiny.model(torch.float64)
SIZE = tiny.CONFIG.vocab_size
TEXT = np.array([not T.is_control(id) for id in range(SIZE)])
SPAN = TEXT.copy()
SPAN[list(infill.stops(T))] = True
ENDS = infill.stops(T)
FEW = np.zeros(SIZE, dtype=np.bool_)  # a vocabulary in which answers repeat themselves soon
FEW[T.encode("ab\n (")] = True
ENDING = FEW.copy()
ENDING[T.eom] = True


@pytest.fixture
def free_drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step seems to cost the same, so that drafts are as long as they can be."""
    monkeypatch.setattr(StepCost, "seconds", lambda _, tokens: np.ones(len(tokens)))


def request(prompt: str, **wanted: object) -> Request:
    return Request(T.encode(prompt), FEW, ENDS, **wanted)  # type: ignore[arg-type]


def rest(scheduler: Scheduler) -> list[Piece]:
    """The pieces up to the end of all requests."""
    pieces = []
    while scheduler.active:
        pieces += scheduler.step()
    return pieces


@dataclass
class Said:
    text: str
    tokens: list[int]
    logprobs: list[float]
    ends: list[tuple[str | None, int | None]]


def said(pieces: Sequence[Piece], ticket: int) -> Said:
    ours = [piece for piece in pieces if piece.request == ticket]
    tokens = [(piece.token, piece.logprob) for piece in ours if piece.token is not None]
    return Said(
        "".join(piece.text for piece in ours),
        [token for token, _ in tokens],
        [logprob for _, logprob in tokens],
        [(piece.finish, piece.stop_id) for piece in ours if piece.finish],
    )


def alone(wanted: Request) -> Said:
    return said(list(decode(TorchBackend(LLAMA), T, [wanted])), 0)


def same(a: Said, b: Said) -> bool:
    return replace(a, logprobs=[]) == replace(b, logprobs=[]) and np.allclose(a.logprobs, b.logprobs, atol=1e-4)


def held(scheduler: Scheduler) -> None:
    """No sequence is lost: each is at work on a request, or in the cache."""
    backend = scheduler.backend
    assert isinstance(backend, TorchBackend)
    working = [work.sequence for work in scheduler._running if work.sequence is not None]
    assert sorted(backend._caches) == sorted([*working, *scheduler._cache._used.values()])


class Noise:
    """Guesses anything, also what is no id at all, and now and then what really comes."""

    def __init__(self, answers: Sequence[Sequence[int]] = ()) -> None:
        self.rng, self.answers = np.random.default_rng(0), answers

    def propose(self, ids: Sequence[int], limit: int) -> Sequence[int]:
        for answer in self.answers:
            if self.rng.random() < 0.7 and list(answer[: len(ids)]) == list(ids):
                return [*answer[len(ids) :], 3][:limit]
        return [int(id) for id in self.rng.integers(-5, SIZE + 5, limit)]


BASE = "def f(self):\n    return self\n"
PROMPTS = ["a", "ab(", BASE, BASE + "    re", BASE * 2, BASE * 2 + "b", "x" + BASE, BASE[:9] + "((("]
SAMPLINGS = [
    GREEDY,
    Sampling(temperature=1.0, seed=1),
    Sampling(temperature=0.7, top_p=0.9, seed=2),
    Sampling(repetition_penalty=1.3),
    Sampling(temperature=1.5, top_k=9, min_p=0.02, repetition_penalty=1.2, seed=3),
]
REQUESTS = st.builds(
    Request,
    prompt=st.sampled_from([T.encode(prompt) for prompt in PROMPTS]),
    vocabulary=st.sampled_from([SPAN, FEW, ENDING, TEXT]),
    stop_ids=st.just(ENDS),
    required=st.sampled_from([b"", b"", b"re", b"    ", b"("]),
    max_tokens=st.integers(0, 20),
    stop=st.sampled_from([(), ("\n",), ("a", "ab\n")]),
    sampling=st.sampled_from(SAMPLINGS),
    index=st.integers(0, 1),
    related=st.sampled_from([(), (T.encode("abab(((a\n" * 2),)]),
)
ACTIONS = st.one_of(
    st.tuples(st.just("submit"), REQUESTS), st.tuples(st.just("cancel"), st.integers(0, 9)), st.just(("step", 1))
)


def interleaved(
    scheduler: Scheduler, actions: Sequence[tuple[str, object]]
) -> tuple[dict[int, Request], dict[int, int], list[Piece]]:
    """Do all that, then what is left: (requests by ticket, cancelled tickets with the pieces before, all pieces)."""
    requests: dict[int, Request] = {}
    cancelled: dict[int, int] = {}
    pieces: list[Piece] = []
    for action, value in actions:
        if action == "submit":
            assert isinstance(value, Request)
            requests[scheduler.submit(value)] = value
        elif action == "cancel" and requests:
            ticket = min(int(str(value)), max(requests))
            scheduler.cancel(ticket)
            cancelled.setdefault(ticket, len(pieces))
        else:
            pieces += scheduler.step()
            if isinstance(scheduler.backend, TorchBackend):
                held(scheduler)
    return requests, cancelled, pieces + rest(scheduler)


@pytest.mark.usefixtures("free_drafts")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(ACTIONS, min_size=3, max_size=25),
    st.sampled_from([0, 30_000, 10**9]),
    st.sampled_from([3, 256]),
    st.data(),
)
def test_any_interleaving_is_each_alone(
    actions: list[tuple[str, object]], cache_bytes: int, chunk: int, data: st.DataObject
) -> None:
    noise = [Noise()] if data.draw(st.booleans()) else []
    scheduler = Scheduler(TorchBackend(LLAMA), T, cache_bytes=cache_bytes, prefill_chunk=chunk, drafts=noise)
    requests, cancelled, pieces = interleaved(scheduler, actions)
    for ticket, wanted in requests.items():
        ours, expected = said(pieces, ticket), alone(wanted)
        if ticket in cancelled:
            assert expected.text.startswith(ours.text) and expected.tokens[: len(ours.tokens)] == ours.tokens
            assert all(piece.request != ticket for piece in pieces[cancelled[ticket] :])
        else:
            assert same(ours, expected) and len(ours.ends) == 1
    scheduler.close()
    assert not scheduler.backend.cache_bytes and not scheduler.active


NATIVE = ModelConfig(SIZE, 64, 96, 2, 6, 2, 16, 256)


@cache
def native(pages: int) -> CpuBackend:
    """A model in the kernel, with room for so many pages of 16 tokens, or any number for 0."""
    limit = pages * twins(NATIVE)[0].page_bytes
    return CpuBackend(twins(NATIVE, cache_limit=limit)[0], NATIVE)


@pytest.mark.usefixtures("free_drafts")
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ACTIONS, min_size=3, max_size=25), st.sampled_from([0, 8, 20]), st.sampled_from([3, 256]))
def test_in_the_kernel_not_a_bit_differs(actions: list[tuple[str, object]], pages: int, chunk: int) -> None:
    """Whatever the batch, the cache and the drafts, and where memory runs out, for those who can be served."""
    backend = native(pages)
    scheduler = Scheduler(backend, T, prefill_chunk=chunk, drafts=[Noise()])
    requests, cancelled, pieces = interleaved(scheduler, actions)
    failed = {piece.request for piece in pieces if piece.error}
    assert pages or not failed
    scheduler.close()
    assert backend.cache_bytes == 0
    for ticket, wanted in requests.items():
        if ticket not in cancelled and ticket not in failed:
            assert said(pieces, ticket) == said(list(decode(native(0), T, [wanted])), 0)


# ------------------------------------------------------------------------------------------- batches and the cache


class Recording(TorchBackend):
    def __init__(self) -> None:
        super().__init__(LLAMA)
        self.calls: list[list[tuple[int, int]]] = []  # (length before, new tokens) of every row

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        self.calls.append([(self.length(sequence), len(tokens)) for sequence, tokens, _ in rows])
        return super().forward(rows)


def test_a_long_prompt_does_not_hold_the_others_up() -> None:
    backend = Recording()
    scheduler = Scheduler(backend, T, prefill_chunk=10, longest_draft=0)
    short, long = request("a", max_tokens=9), request("b" * 45, max_tokens=3)
    one = scheduler.submit(short)
    scheduler.step()
    other = scheduler.submit(long)
    pieces = rest(scheduler)
    # A row that decodes in every step, beside it the chunks, at last the few tokens that are left.
    assert backend.calls[:6] == [[(0, 1)], *([(1 + n, 1), (10 * n, 10)] for n in range(4)), [(5, 1), (40, 5)]]
    assert said(pieces, other).text == alone(long).text
    assert alone(short).text.endswith(said(pieces, one).text)


def test_equal_prompts_run_once_also_while_they_are_run() -> None:
    backend = Recording()
    scheduler = Scheduler(backend, T, prefill_chunk=10, cache_bytes=0)
    prompt = "b" * 25
    wanted = [request(prompt, sampling=Sampling(temperature=1, seed=4), index=n, max_tokens=5) for n in range(4)]
    tickets = [scheduler.submit(each) for each in wanted[:3]]
    pieces = scheduler.step()
    tickets.append(scheduler.submit(wanted[3]))
    pieces += rest(scheduler)
    assert [call[0] for call in backend.calls[:3]] == [(0, 10), (10, 10), (20, len(wanted[0].prompt) - 20)]
    assert all(len(call) == 1 for call in backend.calls[:3])
    assert all(same(said(pieces, ticket), alone(each)) for ticket, each in zip(tickets, wanted, strict=True))
    counts = [piece.counts for piece in pieces if piece.counts]
    assert sorted(each.reused for each in counts) == [0, *[len(wanted[0].prompt)] * 3]


def test_of_twins_the_first_is_cancelled() -> None:
    scheduler = Scheduler(TorchBackend(LLAMA), T, prefill_chunk=5)
    wanted = [request(BASE, index=n, sampling=Sampling(temperature=1), max_tokens=5) for n in range(3)]
    tickets = [scheduler.submit(each) for each in wanted]
    scheduler.step()
    scheduler.cancel(tickets[0])
    scheduler.cancel(tickets[2])
    pieces = rest(scheduler)
    assert {piece.request for piece in pieces} == {tickets[1]}
    assert same(said(pieces, tickets[1]), alone(wanted[1]))
    held(scheduler)


def test_what_was_typed_is_all_that_is_computed() -> None:
    """Also when the request before it was cancelled half-way."""
    scheduler = Scheduler(TorchBackend(LLAMA), T, longest_draft=0, prefill_chunk=16)
    ids = T.encode(BASE * 3)
    scheduler.submit(Request(ids[:-8], FEW, ENDS, max_tokens=4))
    rest(scheduler)
    for typed in range(7, 0, -1):
        ticket = scheduler.submit(Request(ids[:-typed], FEW, ENDS, max_tokens=1))
        (counts,) = [piece.counts for piece in rest(scheduler) if piece.finish]
        assert counts == Counts(len(ids) - typed, len(ids) - typed - 1, 1)
    ticket = scheduler.submit(Request([*ids, *ids, *ids], FEW, ENDS))
    scheduler.step()
    scheduler.cancel(ticket)
    ticket = scheduler.submit(Request([*ids, *ids, 7], FEW, ENDS, max_tokens=1))
    (counts,) = [piece.counts for piece in rest(scheduler) if piece.finish]
    assert counts is not None and counts.reused == len(ids) - 1 + 16
    assert scheduler.counts.reused == sum(len(ids) - typed - 1 for typed in range(7, 0, -1)) + 2 * (len(ids) - 1) + 16


def test_what_another_request_is_computing_is_shared() -> None:
    """Several cursors in one file: the second prompt waits for its turn and then finds the beginning done."""
    backend = Recording()
    scheduler = Scheduler(backend, T, prefill_chunk=32, longest_draft=0)
    wanted = [request(BASE * 5 + end, max_tokens=5) for end in ("a", "b(", "(((")]
    tickets = [scheduler.submit(each) for each in wanted]
    pieces = rest(scheduler)
    assert all(same(said(pieces, ticket), alone(each)) for ticket, each in zip(tickets, wanted, strict=True))
    counts = {piece.request: piece.counts for piece in pieces if piece.finish}
    first, *others = [counts[ticket] for ticket in tickets]
    assert first is not None and first.reused == 0
    assert all(each is not None and each.reused >= len(wanted[0].prompt) - 32 for each in others)
    held(scheduler)


def test_forgetting() -> None:
    scheduler = Scheduler(TorchBackend(LLAMA), T)
    scheduler.submit(request(BASE, max_tokens=4))
    rest(scheduler)
    assert scheduler.backend.cache_bytes > 0
    scheduler.forget()
    assert scheduler.backend.cache_bytes == 0
    scheduler.submit(request(BASE, max_tokens=4))
    (counts,) = [piece.counts for piece in rest(scheduler) if piece.finish]
    assert counts is not None and counts.reused == 0


def test_the_budget_bounds_what_is_kept() -> None:
    one = TorchBackend(LLAMA)
    one.new()
    scheduler = Scheduler(TorchBackend(LLAMA), T, cache_bytes=3 * one.cache_bytes)
    for n in range(9):
        scheduler.submit(request("ab(" * n + "a\n", max_tokens=3))
        rest(scheduler)
        assert scheduler.backend.cache_bytes <= 3 * one.cache_bytes
    assert len(scheduler._cache) == 3


# ----------------------------------------------------------------------------------------------------------- drafts


def runs(scheduler: Scheduler, wanted: Sequence[Request]) -> list[Said]:
    """One after the other, so that each profits from those before."""
    out = []
    for each in wanted:
        ticket = scheduler.submit(each)
        out.append(said(rest(scheduler), ticket))
    return out


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


# ------------------------------------------------------------------------------------------------- errors and memory


class Full(TorchBackend):
    """Has room for so many tokens, and notices only when some rows have run."""

    def __init__(self, room: int) -> None:
        super().__init__(LLAMA)
        self.room, self.refused = room, 0

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        out = []
        for row in rows:
            if sum(cache.length for cache in self._caches.values()) + len(row[1]) > self.room:
                self.refused += 1
                raise MemoryError
            out += super().forward([row])
        return out


def test_without_memory_the_cache_goes_first() -> None:
    backend = Full(100)
    scheduler = Scheduler(backend, T)
    wanted = [request(letter * 40, max_tokens=30) for letter in "abc("]
    assert all(map(same, runs(scheduler, wanted), map(alone, wanted)))
    assert backend.refused
    held(scheduler)


def test_without_memory_the_youngest_is_given_up() -> None:
    backend = Full(100)
    scheduler = Scheduler(backend, T)
    wanted = [request(letter * 30, max_tokens=15) for letter in "ab("]
    tickets = [scheduler.submit(each) for each in wanted]
    pieces = rest(scheduler)
    (error,) = [piece for piece in pieces if piece.error]
    assert error.request == tickets[2] and error.finish is None
    assert isinstance(error.error, CodegenError) and "no memory" in str(error.error) and "\n" not in str(error.error)
    for ticket, each in zip(tickets[:2], wanted, strict=False):
        assert same(said(pieces, ticket), alone(each))
    held(scheduler)
    with pytest.raises(OutOfMemory):
        list(decode(scheduler, T, [request("a" * 101)]))
    assert all(map(same, runs(scheduler, wanted[2:]), map(alone, wanted[2:])))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("failing", range(1, 7))
def test_an_error_drops_what_runs_and_no_more(error: type[BaseException], failing: int) -> None:
    class Failing(TorchBackend):
        calls = 0

        def forward(self, rows: Sequence[Row]) -> list[Logits]:
            self.calls += 1
            if self.calls == failing:
                raise error
            return super().forward(rows)

    scheduler = Scheduler(Failing(LLAMA), T, prefill_chunk=10)
    wanted = [request(BASE + letter, max_tokens=9) for letter in "aab"]
    for each in wanted:
        scheduler.submit(each)
    with pytest.raises(error):
        rest(scheduler)
    assert not scheduler.active
    held(scheduler)
    assert all(map(same, runs(scheduler, wanted), map(alone, wanted)))


def test_prompts_that_cannot_be_run_are_refused_at_once() -> None:
    scheduler = Scheduler(TorchBackend(LLAMA), T)
    going = scheduler.submit(request("a", max_tokens=3))
    for prompt in ([], [0] * 257, [SIZE], [-1]):
        with pytest.raises(ValueError, match="prompt"):
            scheduler.submit(Request(prompt, FEW, ENDS))
    assert {piece.request for piece in rest(scheduler)} == {going}


def test_a_busy_scheduler_takes_no_loop() -> None:
    """The pieces of the other would get lost."""
    scheduler = Scheduler(TorchBackend(LLAMA), T)
    pieces: Iterator[Piece] = decode(scheduler, T, [request("a", max_tokens=9)])
    next(pieces)
    with pytest.raises(UsageError, match="another request"):
        next(decode(scheduler, T, [request("b")]))
    pieces.close()  # type: ignore[attr-defined]
    assert not scheduler.active
    assert len(list(decode(scheduler, T, [request("b", max_tokens=2)]))) == 2


def test_other_threads_submit_and_cancel() -> None:
    scheduler = Scheduler(TorchBackend(LLAMA), T)
    wanted = [request("ab" * n + "(", max_tokens=5) for n in range(20)]
    tickets: dict[int, int] = {}
    cancelled = []

    def submit(first: int) -> None:
        for n in range(first, 20, 2):
            tickets[n] = scheduler.submit(wanted[n])
            if n % 4 == 0:
                scheduler.cancel(tickets[n])
                cancelled.append(n)

    threads = [Thread(target=submit, args=[first]) for first in (0, 1)]
    for thread in threads:
        thread.start()
    pieces = []
    while any(thread.is_alive() for thread in threads) or scheduler.active:
        pieces += scheduler.step()
    for n in set(range(20)) - set(cancelled):
        assert same(said(pieces, tickets[n]), alone(wanted[n]))
    scheduler.step()
    held(scheduler)


def test_cancelling_what_is_not_there() -> None:
    scheduler = Scheduler(TorchBackend(LLAMA), T)
    ticket = scheduler.submit(request("a", max_tokens=2))
    scheduler.cancel(ticket + 5)
    pieces = rest(scheduler)
    scheduler.cancel(ticket)
    other = scheduler.submit(request("a", max_tokens=2))
    assert other != ticket and same(said(rest(scheduler), other), said(pieces, ticket))
    waiting = scheduler.submit(request("b"))
    scheduler.cancel(waiting)
    assert not scheduler.active and scheduler.step() == []
