"""Text in, text out with a small random LLaMA on the family's encoding, against loops over its whole forward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import numpy as np
import pytest
import torch
from publisher_folder import random_llama

from codegen25 import complete as module
from codegen25 import infill
from codegen25.complete import Completion, Model, Options
from codegen25.config import ModelConfig
from codegen25.engine import healing
from codegen25.engine.backend import Logits, Row
from codegen25.engine.sampling import Sampling
from codegen25.engine.scheduler import Scheduler
from codegen25.engine.torch import TorchBackend
from codegen25.errors import CodegenError, UsageError
from codegen25.tokenizer import GPT2_PATTERN, Tokenizer, family

T = family()
LLAMA = random_llama(ModelConfig(51200, 32, 48, 2, 4, 2, 8, 512, tied=True), seed=1)
SAMPLED = Sampling(temperature=1, top_p=0.9, seed=11)
SOURCE = Path(module.__file__).read_text()
HEAD = 'import sys\n\n\ndef total(values: list[int]) -> int:\n    """The sum."""\n    result = 0\n'
SUFFIX = "    return result\n\n\nprint(total([1, 2]))\n"


class Recording(TorchBackend):
    """Keeps what every new sequence was first given."""

    def __init__(self) -> None:
        super().__init__(LLAMA)
        self.prompts: list[list[int]] = []

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        self.prompts += [list(tokens) for sequence, tokens, _ in rows if not self.length(sequence)]
        return super().forward(rows)


def plain(backend: TorchBackend, window: int | None = None) -> Model:
    """Without cached prompts and drafts, so that what is run is what is asked for."""
    return Model(backend, T, window, Scheduler(backend, T, cache_bytes=0, longest_draft=0))


def model(window: int | None = None) -> Model:
    return plain(Recording(), window)


def prompts_of(m: Model) -> list[list[int]]:
    assert isinstance(m.backend, Recording)
    assert not m.backend._caches  # every sequence was given back
    return m.backend.prompts


@torch.inference_mode()
def logits_after(ids: Sequence[int]) -> Logits:
    """[V]: of the whole forward pass."""
    row: Logits = LLAMA(torch.tensor([list(ids)]))[0, -1].numpy()
    return row


def may_come(span: bool) -> list[int]:
    ends = infill.stops(T) if span else {T.eot}
    return [id for id in range(T.n_vocab) if not T.is_control(id) or id in ends]


def naive_greedy(prompt: list[int], required: bytes, steps: int, *, span: bool = False) -> tuple[bytes, list[int]]:
    """(bytes behind the required ones, the tokens that spell them): argmax over the full forward pass, step by step."""
    ids, new, text = list(prompt), list[int](), b""
    while len(new) < steps:
        allowed = healing.allowed(T, required).tolist() if required else may_come(span)
        row = logits_after(ids)
        token = max(allowed, key=lambda id: float(row[id]))
        if token in infill.stops(T):
            break
        ids.append(token)
        spelled = T.token_bytes(token)
        if len(spelled) > len(required) or not required:
            new.append(token)
            text += spelled[len(required) :]
        required = healing.remaining(required, spelled)
    return text, new


@pytest.mark.parametrize("prompt", ["", "def f(x):\n    ret", HEAD, "π = 3", "<mask_1> <sep>", "   ", "漢"])
def test_greedy_is_the_loop_over_whole_passes(prompt: str) -> None:
    kept, required = healing.split(T, prompt)
    text, tokens = naive_greedy(T.encode(kept) or [T.eot], required, 6)
    m = model()
    completion = m.complete(prompt, max_tokens=6)
    assert completion.tokens == tuple(tokens)
    assert completion.text == text.decode(errors="replace")
    assert completion.prompt_tokens == len(T.encode(kept) or [T.eot]) == len(prompts_of(m)[0])


def test_logprobs_are_those_of_the_whole_pass() -> None:
    completion = model().complete("", max_tokens=5, sampling=SAMPLED)
    ids = [T.eot]
    for token, logprob in zip(completion.tokens, completion.logprobs, strict=True):
        assert logprob == pytest.approx(float(torch.log_softmax(torch.tensor(logits_after(ids)), 0)[token]), abs=1e-4)
        ids.append(token)
    assert len(ids) == 6


def test_an_answer_goes_on_from_the_prompts_bytes() -> None:
    """Cut anywhere: the first token may spell bytes of the prompt, the text does not, and nothing is lost."""
    m = model()
    for cut in range(1, len(HEAD), 7):
        prompt = HEAD[:cut]
        completion = m.complete(prompt, max_tokens=2, sampling=SAMPLED)
        spelled = T.decode_bytes(completion.tokens).decode(errors="replace")
        assert spelled.endswith(completion.text)
        assert prompt.endswith(spelled[: len(spelled) - len(completion.text)])


def test_no_control_token_comes_in_plain_text() -> None:
    m = model()
    completions = m.samples("", 3, max_tokens=30, sampling=Sampling(temperature=5, seed=2))
    assert not any(T.is_control(id) for completion in completions for id in completion.tokens)
    assert sum(len(completion.tokens) for completion in completions) > 50


def test_only_ids_that_are_tokens_come() -> None:
    """A folder's vocabulary may have gaps, and fewer ids than the model has rows."""
    control = {"<|endoftext|>": 300, "<sep>": 301, "<eom>": 302, "<mask_1>": 303, "<|im_start|>": 299}
    t = Tokenizer({bytes([n]): n for n in range(256)}, pattern=GPT2_PATTERN, control=control)
    llama = random_llama(ModelConfig(320, 32, 48, 1, 2, 2, 8, 512))
    m = Model(TorchBackend(llama), t)
    for completion in m.samples("x", 8, max_tokens=100, sampling=Sampling(temperature=10)):
        assert set(completion.tokens) <= set(range(256))
    assert set(m.infill("x", "y", max_tokens=100, sampling=Sampling(temperature=10)).tokens) <= set(range(256))


# ----------------------------------------------------------------------------------------------- batches and samples

TEXTS = ["", "x", HEAD, HEAD + "    for v", "def " * 30]


@pytest.mark.parametrize("sampling", [Sampling(), SAMPLED], ids=["greedy", "sampled"])
def test_a_batch_is_one_by_one(sampling: Sampling) -> None:
    m = model()
    alone = [m.complete(text, max_tokens=6, sampling=sampling) for text in TEXTS]
    together = m.complete_batch(TEXTS, max_tokens=6, sampling=sampling)
    for a, b in zip(alone, together, strict=True):
        assert replace(a, logprobs=()) == replace(b, logprobs=())
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
    pairs = [(HEAD, SUFFIX), ("", ""), (HEAD, "x")]
    alone = [m.infill(*pair, max_tokens=6, sampling=sampling) for pair in pairs]
    assert [c.tokens for c in m.infill_batch(pairs, max_tokens=6, sampling=sampling)] == [c.tokens for c in alone]
    assert m.complete_batch([]) == []


def test_samples_are_runs_of_their_own_numbers() -> None:
    m = model()
    samples = m.samples(HEAD, 4, max_tokens=8, sampling=SAMPLED)
    assert len(prompts_of(m)) == 1  # the prompt is run once
    assert samples[0].tokens == m.complete(HEAD, max_tokens=8, sampling=SAMPLED).tokens
    assert [s.tokens for s in samples[:2]] == [s.tokens for s in m.samples(HEAD, 2, max_tokens=8, sampling=SAMPLED)]
    assert len({s.tokens for s in samples}) == 4
    mixed = m.complete_batch([HEAD, "x", HEAD], max_tokens=8, sampling=SAMPLED)
    assert [mixed[0].tokens, mixed[2].tokens] == [s.tokens for s in samples[:2]]
    with pytest.raises(UsageError, match="n is 0"):
        m.samples(HEAD, 0)


def test_streamed_text_is_the_text() -> None:
    m = model()
    heard: dict[int, str] = {}

    def on_text(number: int, text: str) -> None:
        assert text
        heard[number] = heard.get(number, "") + text

    completions = m.complete_batch(TEXTS, max_tokens=12, sampling=SAMPLED, stop=["a", "\n"], on_text=on_text)
    assert [heard.get(n, "") for n in range(len(TEXTS))] == [c.text for c in completions]
    assert not any(s in c.text for c in completions for s in "a\n")
    heard.clear()
    holes = m.infill_holes([HEAD, "\n", SUFFIX], max_tokens=12, sampling=SAMPLED, on_text=on_text)
    assert [heard.get(n, "") for n in range(2)] == [c.text for c in holes]


def test_a_listener_that_raises_leaves_no_cache() -> None:
    def on_text(number: int, text: str) -> None:
        raise KeyboardInterrupt

    m = model()
    with pytest.raises(KeyboardInterrupt):
        m.complete_batch(TEXTS, max_tokens=50, on_text=on_text)
    assert prompts_of(m)


# ------------------------------------------------------------------------------------------------------------ infill


def test_the_plain_hole_is_the_cards_program() -> None:
    card = T.encode(f"{HEAD}<mask_1>{SUFFIX}<|endoftext|><sep><mask_1>", allow_control=True)
    m = model()
    completion = m.infill(HEAD, SUFFIX, anchor=0, max_tokens=6)
    assert prompts_of(m) == [card]
    text, tokens = naive_greedy(card, b"", 6, span=True)
    assert (completion.text, completion.tokens) == (text.decode(errors="replace"), tuple(tokens))
    assert completion.prompt_tokens == len(card)


@pytest.mark.parametrize("anchor", [1, 2, 8, None])
def test_the_anchored_hole_hands_lines_back(anchor: int | None) -> None:
    prefix = HEAD + "    for v"
    head, tail = infill.split_tail(prefix, anchor)
    assert tail.endswith("for v") and len(tail.splitlines()) == min(anchor or 99, 7)
    m = model()
    completion = m.infill(prefix, SUFFIX, anchor=anchor, max_tokens=6)
    kept = tail.removesuffix(" v")
    expected = T.encode(f"{head}<mask_1>{SUFFIX}<|endoftext|><sep><mask_1>{kept}", allow_control=True)
    assert prompts_of(m) == [expected]
    text, tokens = naive_greedy(expected, b" v", 6, span=True)
    assert (completion.text, completion.tokens) == (text.decode(errors="replace"), tuple(tokens))


@pytest.mark.parametrize("anchor", [0, 1, 8])
def test_prompts_of_several_holes(anchor: int) -> None:
    """Every hole is asked for behind the answers before it, as one whole example lays them out."""
    parts = [HEAD, "\n    x = <mask_1>\n    y", "\n\nz = 2", SUFFIX]
    m = model()
    completions = m.infill_holes(parts, anchor=anchor, max_tokens=5, sampling=SAMPLED)
    tails = [infill.split_tail(part, anchor) for part in parts[:-1]]
    context = infill.context(T, [T.encode(text) for text in [*(head for head, _ in tails), parts[-1]]])
    # What was generated is spelled again in the tokenizer's own tokens.
    spans = [T.encode(tail + c.text) for (_, tail), c in zip(tails, completions, strict=True)]
    for hole, prompt in enumerate(prompts_of(m)):
        kept, _ = healing.split(T, tails[hole][1])
        answered = infill.answer(T, spans[:hole])[:-1]
        assert prompt == context + answered + infill.opening(T, hole, T.encode(kept))
        assert completions[hole].prompt_tokens == len(prompt)
    assert len(prompts_of(m)) == 3
    assert completions[0].tokens == m.infill_holes(parts, anchor=anchor, max_tokens=5, sampling=SAMPLED)[0].tokens


class Ending(Recording):
    """Wants one id above all as soon as the prompt and two more tokens are in."""

    def __init__(self, end: int) -> None:
        super().__init__()
        self.end, self.steps = end, 0

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        out = super().forward(rows)
        for (_, tokens, _), logits in zip(rows, out, strict=True):
            self.steps = 0 if len(tokens) > 1 else self.steps + 1
            logits[:, self.end] = 1e4 if self.steps == 2 else -1e4
        return out


@pytest.mark.parametrize(
    "end, reason",
    [(T.eom, "stop"), (T.eot, "length"), (T.masks[1], "length"), (T.masks[880], "length"), (T.sep, "length")],
)
def test_a_span_without_eom_is_not_complete(end: int, reason: str) -> None:
    m = plain(Ending(end))
    completion = m.infill(HEAD, SUFFIX, anchor=0, max_tokens=9)
    assert completion.finish_reason == reason and len(completion.tokens) == 2
    assert m.complete(HEAD, max_tokens=9).finish_reason == ("stop" if end == T.eot else "length")


def test_a_stop_string_completes_a_span() -> None:
    m = model()
    text = m.infill(HEAD, SUFFIX, max_tokens=8).text
    completion = m.infill(HEAD, SUFFIX, max_tokens=8, stop=[text[3:6]])
    assert completion.text == text[: text.index(text[3:6])] and completion.finish_reason == "stop"


# ------------------------------------------------------------------------------------------- what a model remembers


def test_what_is_remembered_changes_no_answer() -> None:
    """Typed on, asked again, with other files open: as if asked for the first time."""
    forgetful, m = model(), Model(TorchBackend(LLAMA), T)

    def ask(m: Model, **options: Unpack[Options]) -> Iterator[Completion]:
        for typed in (0, 2, 9):
            yield m.complete(HEAD + SUFFIX[:typed], **options)
            yield m.infill(HEAD + "    for v"[:typed], SUFFIX, **options)
        yield from m.samples(HEAD, 2, **options)
        yield from m.infill_holes([HEAD, "\n\nz = 2", SUFFIX], **options)

    for sampling in (Sampling(), SAMPLED):
        expected = list(ask(forgetful, max_tokens=4, sampling=sampling))
        for _ in range(2):
            again = ask(m, max_tokens=4, sampling=sampling, extra=[SOURCE[:2000], HEAD])
            for ours, theirs in zip(again, expected, strict=True):
                assert replace(ours, logprobs=()) == replace(theirs, logprobs=())
                assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
    assert m.scheduler.counts.reused > m.scheduler.counts.computed
    m.forget()
    assert m.backend.cache_bytes == 0


def test_the_next_hole_computes_no_more_than_is_new() -> None:
    m = Model(TorchBackend(LLAMA), T)
    first, second = m.infill_holes([HEAD, "\n\nz = 2", SUFFIX], anchor=0, max_tokens=5)
    assert m.scheduler.counts.reused >= first.prompt_tokens
    assert second.prompt_tokens - first.prompt_tokens < 20


def test_options_that_are_none() -> None:
    m = model()
    with pytest.raises(TypeError, match="temperature"):
        m.complete("x", temperature=1)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="extra is the string 'x'"):
        m.complete("x", extra="x")


# ------------------------------------------------------------------------------------- the window, and odd arguments


@pytest.mark.parametrize(
    "prompt",
    [SOURCE, "x = 1\n" * 900, "a" * 9000, " " * 5000, "漢" * 900, "\n" * 3000, "=" * 70, "👧" * 70],
    ids=lambda text: repr(text[:3]),
)
@pytest.mark.parametrize("max_tokens", [0, 9])
def test_nothing_goes_over_the_window(prompt: str, max_tokens: int) -> None:
    class Longest(Recording):
        longest = 0

        def free(self, sequence: int) -> None:
            Longest.longest = max(Longest.longest, self.length(sequence))
            super().free(sequence)

    m = plain(Longest(), 320)
    completion = m.complete(prompt, max_tokens=max_tokens)
    assert completion.prompt_tokens + max_tokens <= 320
    if max_tokens == 0:
        assert (completion.text, completion.finish_reason, completion.tokens) == ("", "length", ())
    m.infill(prompt, prompt, anchor=1 if "\n" in prompt else 0, max_tokens=max_tokens)
    assert Longest.longest <= 320 and not m.backend._caches  # type: ignore[attr-defined]


def test_a_long_prompt_keeps_its_end_from_a_line_start() -> None:
    m = model(200)
    m.complete(SOURCE, max_tokens=50)
    kept, required = healing.split(T, SOURCE)
    spelled = T.decode(prompts_of(m)[0])
    assert kept.endswith("\n" + spelled) and 100 < len(prompts_of(m)[0]) <= 150 - len(required)


def test_arguments_out_of_range() -> None:
    m = model(64)
    for tokens in (-1, 64, 10**9):
        with pytest.raises(UsageError, match=f"max tokens is {tokens}"):
            m.complete("x", max_tokens=tokens)
        with pytest.raises(UsageError, match=f"max tokens is {tokens}"):
            m.infill("x", "y", max_tokens=tokens)
    with pytest.raises(UsageError, match="anchor is -1"):
        m.infill("x", "y", anchor=-1)
    with pytest.raises(UsageError, match="two parts"):
        m.infill_holes(["x"])
    with pytest.raises(UsageError, match="max tokens"):
        m.infill_holes(["x"] * 4, max_tokens=30)
    with pytest.raises(UsageError, match="empty"):
        m.score("")
    for stop, message in (("END", "list"), (["a", ""], "empty")):
        with pytest.raises(UsageError, match=message):
            m.complete("x", stop=stop, max_tokens=5)
        with pytest.raises(UsageError, match=message):
            m.infill("x", "y", stop=stop, max_tokens=5)
    with pytest.raises(CodegenError, match="over the window"):
        m.infill("word " * 100, "", anchor=8, max_tokens=1)
    assert not prompts_of(m)


@pytest.mark.parametrize("text", ["\ud800", "x \udc00 y"])
def test_lone_surrogates(text: str) -> None:
    m = model()
    calls: list[Callable[[str], object]] = [m.complete, m.score, lambda t: m.infill(t, ""), lambda t: m.infill("", t)]
    for call in calls:
        with pytest.raises(CodegenError, match="surrogate"):
            call(text)


def test_a_window_too_small_is_refused() -> None:
    for window in (0, 1, 2, -5):
        with pytest.raises(CodegenError, match=f"window of {window} tokens"):
            model(window)
    assert model().window == 512


# ------------------------------------------------------------------------------------------------------------- score


@torch.inference_mode()
def naive_logprobs(context: list[int], new: list[int]) -> list[float]:
    logprobs = torch.log_softmax(LLAMA(torch.tensor([context + new])), -1)[0]
    return [float(logprobs[len(context) - 1 + i, id]) for i, id in enumerate(new)]


@pytest.mark.parametrize("text", ["x", HEAD, "<mask_1>π", SOURCE[:1500]], ids=["token", "code", "names", "long"])
def test_score_is_the_log_softmax_of_the_whole_pass(text: str) -> None:
    m = model()
    score = m.score(text)
    ids = T.encode(text)
    assert score.tokens == tuple(ids) and score.n_bytes == len(text.encode())
    np.testing.assert_allclose(score.logprobs, naive_logprobs([T.eot], ids), atol=1e-3)
    assert score.total == pytest.approx(sum(score.logprobs)) and score.total < 0
    assert score.bits_per_byte == pytest.approx(-sum(score.logprobs) / math.log(2) / len(text.encode()))
    assert prompts_of(m)


@pytest.mark.parametrize("window", [16, 17, 64])
def test_score_of_a_text_over_the_window(window: int) -> None:
    """Each window hands half of it on: a token is scored given at least that many, but for the first window."""
    ids = T.encode(HEAD * 3)
    expected = naive_logprobs([T.eot], ids[: window - 1])
    while len(expected) < len(ids):
        done = len(expected)
        context = [T.eot, *ids[max(0, done - window // 2) : done]]
        expected += naive_logprobs(context, ids[done : done + window - len(context)])
    m = model(window)
    np.testing.assert_allclose(m.score(HEAD * 3).logprobs, expected, atol=1e-3)
    assert len(prompts_of(m)) >= 2
