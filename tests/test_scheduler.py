"""The scheduler on a small LLaMA: whatever runs beside it, from whatever cache, an answer is the same."""

from collections.abc import Iterator, Sequence
from functools import cache
from threading import Thread

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_model import twins
from scheduling import (
    ACTIONS,
    BASE,
    ENDS,
    FEW,
    LLAMA,
    SIZE,
    Noise,
    Recording,
    T,
    alone,
    free_drafts,
    held,
    interleaved,
    request,
    rest,
    runs,
    said,
    same,
)

from codegen25.config import ModelConfig
from codegen25.engine.answer import Counts, OutOfMemory, Piece, Request
from codegen25.engine.backend import Logits, Row
from codegen25.engine.cpu import CpuBackend
from codegen25.engine.decode import decode
from codegen25.engine.sampling import Sampling
from codegen25.engine.scheduler import Scheduler
from codegen25.engine.torch import TorchBackend
from codegen25.errors import CodegenError, UsageError

__all__ = ["free_drafts"]


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
