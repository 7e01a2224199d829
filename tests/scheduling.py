"""A small LLaMA for tests of the scheduler, requests of many kinds, and what is compared of their answers.

The weights are float64, so that no rounding of one batch or another decides between tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import tiny
import torch
from hypothesis import strategies as st

from codegen25 import infill
from codegen25.engine.answer import Piece, Request
from codegen25.engine.backend import Logits, Row
from codegen25.engine.decode import decode
from codegen25.engine.pace import StepCost
from codegen25.engine.sampling import GREEDY, Sampling
from codegen25.engine.scheduler import Scheduler
from codegen25.engine.torch import TorchBackend

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


class Recording(TorchBackend):
    def __init__(self) -> None:
        super().__init__(LLAMA)
        self.calls: list[list[tuple[int, int]]] = []  # (length before, new tokens) of every row

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        self.calls.append([(self.length(sequence), len(tokens)) for sequence, tokens, _ in rows])
        return super().forward(rows)


def runs(scheduler: Scheduler, wanted: Sequence[Request]) -> list[Said]:
    """One after the other, so that each profits from those before."""
    out = []
    for each in wanted:
        ticket = scheduler.submit(each)
        out.append(said(rest(scheduler), ticket))
    return out
