"""Many requests on one model: a step is schedule, run, postprocess, with one forward pass for all of them.

Beside each other run the rows that decode one token, those that verify drafts, and chunks of prompts. Requests come
and go between steps.

Drafts are lossless. The tokens of a draft run in the same pass, and at each of them the next token is chosen from the
model's own logits, by the request's own rules and with its own random numbers, one per token: just what would happen
without drafts. While the choice is what was drafted, the logits behind it are valid too; at the first difference the
rest is cut off. So greedy and seeded sampling give the same text with drafts and without, and sampling keeps its
distribution, since no probability depends on a draft. How long drafts are depends on time measured, but text does not,
given a backend whose logits for a row are the same however rows are batched (the native one; with another, rounding
may decide between tokens that are as good as equal).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import count
from threading import Lock

from codegen25.engine import healing
from codegen25.engine.answer import Answer, Counts, OutOfMemory, Piece, Request
from codegen25.engine.backend import Backend, Logits
from codegen25.engine.cache import PrefixCache
from codegen25.engine.draft import Draft, Earlier, Lookup, Suffixes
from codegen25.engine.pace import PROBE_EVERY, PROBE_LENGTH, Acceptance, Chunk, StepCost, draft_length, expected_tokens
from codegen25.tokenizer import Tokenizer

CACHE_BYTES = 1 << 30
LONGEST_DRAFT = 32
# Prompt tokens that run in one step at the most, of all requests together: the others wait for no more than these.
PREFILL_CHUNK = 256
# A draft may stand behind the last tokens of a prompt when these are few: all their logits have to be made then.
MOST_PROMPT_BEFORE_DRAFT = 16
# Tokens from which on a match is trusted: beyond them about six of seven drafted tokens are right, below every second.
SURE_LOOKUP = 3
# The share of right tokens that is assumed at first: of earlier answers, sure and other lookups, drafts from outside.
EARLIER, SURE, OUTSIDE, UNSURE = 0.9, 0.8, 0.6, 0.5


@dataclass(eq=False)
class _Work:
    """A request in flight. Its sequence holds the first `held` of `ids`, the prompt and the answer so far.

    It gets a sequence when its prompt begins to run, so that it finds what the requests before it have computed.
    """

    answer: Answer
    ids: list[int]
    drafts: list[Draft]
    acceptance: list[Acceptance]
    sequence: int | None = None
    held: int = 0
    twins: list[Answer] = field(default_factory=list)  # of equal prompts; they get forks when the prompt has run

    @property
    def prefilling(self) -> bool:
        return self.held < len(self.answer.request.prompt)


@dataclass(eq=False)
class _Row:
    """What one request runs in this step: tokens it knows, then a draft by the source `source`."""

    work: _Work
    sequence: int
    tokens: list[int]
    is_last: bool  # whether the next token can be chosen behind them
    draft: list[int] = field(default_factory=list)
    source: int = 0


class Scheduler:
    """Runs requests on a backend. `cache_bytes` bounds what is kept for prompts to come; `drafts` are further sources.

    `longest_draft` 0 switches drafts off. `submit` and `cancel` may be called from any thread, everything else from
    the one that calls `step`.
    """

    def __init__(
        self,
        backend: Backend,
        tokenizer: Tokenizer,
        *,
        cache_bytes: int = CACHE_BYTES,
        drafts: Sequence[Draft] = (),
        longest_draft: int = LONGEST_DRAFT,
        prefill_chunk: int = PREFILL_CHUNK,
    ) -> None:
        self.backend, self.tokenizer = backend, tokenizer
        self.longest_draft = longest_draft
        self.counts = Counts()  # of all requests that have ended
        self._allowed = lru_cache(maxsize=64)(partial(healing.allowed, tokenizer))
        self._cache = PrefixCache(backend, cache_bytes)
        self._drafts = drafts
        self._earlier = Earlier()
        # By source, in the order in which they are asked: see `_work`.
        self._acceptance = [Acceptance(guess) for guess in (EARLIER, SURE, *[OUTSIDE] * len(drafts), UNSURE)]
        self._cost, self._chunk = StepCost(), Chunk(prefill_chunk, backend.config.parameters)
        self._numbers = count()
        self._lock = Lock()  # of the two that follow
        self._waiting: list[Answer] = []
        self._cancelled: set[int] = set()
        self._running: list[_Work] = []

    @property
    def active(self) -> bool:
        """Whether there is a request that has neither ended nor been cancelled."""
        with self._lock:
            going = [*self._waiting, *(answer for work in self._running for answer in (work.answer, *work.twins))]
            return any(answer.number not in self._cancelled for answer in going)

    def submit(self, request: Request) -> int:
        """The ticket, which the request's pieces carry. Raises `ValueError` for a prompt that cannot be run."""
        prompt, config = request.prompt, self.backend.config
        if not 0 < len(prompt) <= config.max_positions:
            raise ValueError(f"a prompt of {len(prompt)} tokens; it must have between 1 and {config.max_positions}")
        if min(prompt) < 0 or max(prompt) >= config.vocab_size:
            raise ValueError(f"a prompt has an id outside the vocabulary of {config.vocab_size}")
        answer = Answer(next(self._numbers), request, self.tokenizer, self._allowed)
        with self._lock:
            self._waiting.append(answer)
        return answer.number

    def cancel(self, ticket: int) -> None:
        """From the next step on the request is no more: no piece comes, its cache is free for others."""
        with self._lock:
            self._cancelled.add(ticket)

    def step(self) -> list[Piece]:
        """Schedule, run, postprocess. Of each request come pieces and, with `finish` or `error`, a last one.

        When it raises, all requests in flight are dropped and their sequences freed; what is cached stays.
        """
        try:
            self._drop_cancelled()
            pieces = self._admit()
            rows = self._schedule()
            if rows:
                logits = self._run(rows)
                pieces += self._fail_youngest() if logits is None else self._postprocess(rows, logits)
            self._cache.shrink()
        except BaseException:
            self._abort()
            raise
        return pieces

    def close(self) -> None:
        """Drop all requests, and free every sequence."""
        self._abort()
        self.forget()

    def forget(self) -> None:
        """Free what is cached for prompts to come, and forget earlier answers."""
        self._drop_cancelled()
        self._cache.clear()
        self._earlier = Earlier()

    # -------------------------------------------------------------------------------------------------- schedule

    def _drop_cancelled(self) -> None:
        """What a cancelled request had computed goes to the cache; of twins the next one takes it over."""
        with self._lock:
            cancelled, self._cancelled = self._cancelled, set()
            self._waiting = [answer for answer in self._waiting if answer.number not in cancelled]
        for work in list(self._running) if cancelled else ():
            work.twins = [twin for twin in work.twins if twin.number not in cancelled]
            if work.answer.number not in cancelled:
                continue
            if work.twins:
                heir = work.twins.pop(0)
                heir.counts, work.answer = work.answer.counts, heir
            else:
                self._end(work)

    def _admit(self) -> list[Piece]:
        """Line every new request up, or make it the twin of one whose equal prompt has not run to its end."""
        pieces = []
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for answer in waiting:
            prompt = list(answer.request.prompt)
            if answer.request.max_tokens <= 0:
                pieces.append(Piece(answer.number, "", None, 0.0, "length"))
            elif twin := next((work for work in self._running if work.prefilling and work.ids == prompt), None):
                twin.twins.append(answer)
            else:
                self._running.append(self._work(answer, prompt))
        return pieces

    def _work(self, answer: Answer, ids: list[int]) -> _Work:
        own, related = Suffixes(), answer.request.related
        drafts: list[Draft] = [self._earlier, Lookup(own, related, SURE_LOOKUP), *self._drafts, Lookup(own, related)]
        return _Work(answer, ids, drafts, [Acceptance(overall.rate) for overall in self._acceptance])

    def _acquire(self, work: _Work) -> None:
        """A sequence that holds as much of the prompt as there is anywhere."""
        busy = [(w.sequence, w.ids[: w.held]) for w in self._running if w.sequence is not None and w.held]
        work.sequence, work.held = self._cache.take(work.ids, busy)
        work.answer.counts.reused = work.held

    def _schedule(self) -> list[_Row]:
        """A row for every request: its next token, or what of its prompt there is room for in this step."""
        room, rows = self._chunk.tokens, []
        for work in self._running:
            if work.sequence is None and room:
                self._acquire(work)
            if work.sequence is None:
                continue
            waiting = len(work.ids) - work.held
            count = min(waiting, max(room, 1 - work.prefilling))
            if work.prefilling:
                room -= count
            if count:
                rows.append(_Row(work, work.sequence, work.ids[work.held : work.held + count], count == waiting))
        if self.longest_draft:
            self._add_drafts(rows)
        return rows

    def _add_drafts(self, rows: Sequence[_Row]) -> None:
        tokens = sum(len(row.tokens) for row in rows)
        expected = float(sum(row.is_last for row in rows))
        for row in rows:
            if row.is_last and len(row.tokens) <= MOST_PROMPT_BEFORE_DRAFT and not row.work.twins:
                self._draft(row, tokens, expected - 1)
                tokens += len(row.draft)
                expected += expected_tokens(row.work.acceptance[row.source].rate, len(row.draft)) - 1

    def _draft(self, row: _Row, tokens: int, others: float) -> None:
        """The first source that has a guess gives the draft, as much of it as pays in a step of so many `tokens`."""
        work, answer = row.work, row.work.answer
        limit = min(
            self.longest_draft,
            answer.left - 1 + len(answer.required),
            self.backend.config.max_positions - len(work.ids),
        )
        for source, draft in enumerate(work.drafts if limit > 0 else ()):
            guess = self._possible(answer, draft.propose(work.ids, limit))
            if guess:
                overall = self._acceptance[source]
                length = draft_length(work.acceptance[source].rate, len(guess), tokens, others, self._cost)
                if length == 0:
                    overall.idle += 1
                    length = PROBE_LENGTH if overall.idle >= PROBE_EVERY else 0
                row.draft, row.source = guess[:length], source
                return

    def _possible(self, answer: Answer, guess: Sequence[int]) -> list[int]:
        """The beginning of a guess that the request's rules allow: nothing that could only be refused is verified."""
        request, required = answer.request, answer.required
        out = []
        for id in guess:
            if not 0 <= id < len(request.vocabulary) or not request.vocabulary[id] or id in request.stop_ids:
                break
            if required:
                spelled = self.tokenizer.token_bytes(id)
                if not (required.startswith(spelled) or spelled.startswith(required)):
                    break
                required = required[len(spelled) :]
            out.append(id)
        return out

    # ------------------------------------------------------------------------------------------------------- run

    def _run(self, rows: Sequence[_Row]) -> list[Logits] | None:
        """One forward pass; None when there is not enough memory even without the cache of prompts to come."""
        call = [(row.sequence, row.tokens + row.draft, bool(row.draft)) for row in rows]
        for _ in range(2):
            started = time.perf_counter()
            try:
                logits = self.backend.forward(call)
            except MemoryError:
                for row in rows:
                    self.backend.truncate(row.sequence, row.work.held)
                self._cache.clear()
            else:
                tokens, seconds = sum(len(ids) for _, ids, _ in call), time.perf_counter() - started
                self._cost.record(tokens, seconds)
                self._chunk.record(tokens, seconds)
                return logits
        return None

    def _fail_youngest(self) -> list[Piece]:
        """Give one request up so that the others can go on with the next step. Those that wait take no memory."""
        running = [work for work in self._running if work.sequence is not None]
        work = max(running, key=lambda work: work.answer.number)
        answer = max((work.answer, *work.twins), key=lambda answer: answer.number)
        error = OutOfMemory(
            f"no memory for the key/value cache of {len(work.ids)} tokens beside {len(running) - 1} other "
            "requests; ask for less at once, or use a smaller model"
        )
        self.cancel(answer.number)
        self._drop_cancelled()
        self._cache.clear()
        return [Piece(answer.number, "", None, 0.0, error=error, counts=answer.counts)]

    # ----------------------------------------------------------------------------------------------- postprocess

    def _postprocess(self, rows: Sequence[_Row], logits: Sequence[Logits]) -> list[Piece]:
        pieces, now = [], time.monotonic()
        for row, out in zip(rows, logits, strict=True):
            work = row.work
            work.held += len(row.tokens)
            work.answer.counts.computed += len(row.tokens) + len(row.draft)
            if not row.is_last:
                continue
            for each in (work, *self._fork_twins(row)):
                pieces += self._advance(each, row, out[-1 - len(row.draft) :], now)
        return pieces

    def _fork_twins(self, row: _Row) -> list[_Work]:
        """The prompt has run: those who wait for the same one start from here."""
        twins, row.work.twins = [self._work(answer, list(row.work.ids)) for answer in row.work.twins], []
        for twin in twins:
            twin.sequence, twin.held = self.backend.fork(row.sequence), row.work.held
            twin.answer.counts.reused = twin.held
            self._running.append(twin)
        return twins

    def _advance(self, work: _Work, row: _Row, logits: Logits, now: float) -> list[Piece]:
        """Choose tokens while they are what was drafted, and one more. `logits` [draft + 1, V]."""
        pieces, answer, draft = [], work.answer, row.draft
        accepted = 0
        for place in range(len(draft) + 1):
            token, piece = answer.take(logits[place], now)
            if answer.finish is None and len(work.ids) >= self.backend.config.max_positions:
                piece = answer.cut(piece)
            work.ids.append(token)
            pieces.append(piece)
            is_right = place < len(draft) and token == draft[place]
            accepted += is_right
            if answer.finish or not is_right:
                break
        if draft:
            work.held += accepted
            self.backend.truncate(row.sequence, work.held)
            for acceptance in (work.acceptance[row.source], self._acceptance[row.source]):
                acceptance.record(min(len(pieces), len(draft)), accepted)
            answer.counts.drafted += len(draft)
            answer.counts.accepted += accepted
        if answer.finish:
            self._end(work)
        return pieces

    def _end(self, work: _Work) -> None:
        """The sequence goes to the cache, the answer to the earlier ones."""
        self._running.remove(work)
        request = work.answer.request
        answered = work.ids[len(request.prompt) :]
        if answered and answered[-1] in request.stop_ids:
            answered.pop()
        self._earlier.remember(request.prompt, answered)
        self.counts.add(work.answer.counts)
        if work.sequence is not None:
            self._cache.put(work.sequence, work.ids[: work.held])

    def _abort(self) -> None:
        running, self._running = self._running, []
        for work in running:
            if work.sequence is not None:
                self.backend.free(work.sequence)
        with self._lock:
            self._waiting.clear()
            self._cancelled.clear()
