"""What is learned from a document: nothing of it is lost, moved, cut apart or leaked, and all chance is the seed's."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from codegen25.tokenizer import Tokenizer, family
from codegen25.train.objective import (
    MISSING_LINES,
    TAIL_LINES,
    Example,
    Objective,
    draw_cursor,
    draw_span,
    draw_spans,
    example,
)

TOKENIZERS = pytest.mark.parametrize("tokenizer", [family(), tiny.tokenizer()], ids=["family", "tiny"])

lines = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.sampled_from(["", "    return self.x", "\t\tpass", "<mask_1>", "<|endoftext|><sep><mask_1>x<eom>", "𝕏é𓀀" * 9]),
)
endings = st.sampled_from(["\n", "\r\n", "\r", "\n\n", "", "\x0c", "\u2028"])
texts = st.lists(st.tuples(lines, endings), max_size=12).map(lambda pairs: "".join(a + b for a, b in pairs))
objectives = st.builds(
    Objective,
    infill_rate=st.sampled_from([0.0, 0.5, 1.0, 1.0]),
    max_holes=st.integers(1, 8),
    more_holes=st.sampled_from([0.0, 0.25, 0.9, 1.0]),
    line_spans=st.sampled_from([0.0, 0.4, 0.6]),
    cursor_spans=st.sampled_from([0.0, 0.15, 0.4]),
    mask_ratio=st.sampled_from([0.1, 0.5, 1.0]),
    context_loss=st.booleans(),
)
seeds = st.integers(0, 2**32)


def is_corrupted(tokenizer: Tokenizer, one: Example) -> bool:
    return tokenizer.sep in one.ids


def take_apart(tokenizer: Tokenizer, ids: list[int]) -> tuple[list[list[int]], list[list[int]], bool]:
    """(parts, spans, whether `<|endoftext|>` closes the context), by the layout alone, not by the code under test."""
    border = ids.index(tokenizer.sep)
    context, answer = ids[:border], ids[border + 1 :]
    whole = context[-1:] == [tokenizer.eot]
    parts: list[list[int]] = [[]]
    for id in context[: len(context) - whole]:
        if tokenizer.is_control(id):
            assert id == tokenizer.masks[len(parts) - 1], "masks are numbered from the left"
            parts.append([])
        else:
            parts[-1].append(id)
    spans: list[list[int]] = []
    at = 0
    while answer[at] != tokenizer.eot:
        assert answer[at] == tokenizer.masks[len(spans)]
        end = answer.index(tokenizer.eom, at)
        assert not any(map(tokenizer.is_control, answer[at + 1 : end]))
        spans.append(answer[at + 1 : end])
        at = end + 1
    assert at == len(answer) - 1, "nothing follows the closing <|endoftext|>"
    return parts, spans, whole


def original(tokenizer: Tokenizer, one: Example) -> tuple[bytes, bool]:
    """The bytes of the text that an example was made from, and whether it says that this was the whole of it."""
    if not is_corrupted(tokenizer, one):
        whole = one.ids[-1:] == [tokenizer.eot]
        ids = one.ids[: len(one.ids) - whole]
        assert not any(map(tokenizer.is_control, ids))
        return tokenizer.decode_bytes(ids), whole
    parts, spans, whole = take_apart(tokenizer, one.ids)
    assert len(parts) == len(spans) + 1 >= 2
    pieces = [parts[0]]
    for span, part in zip(spans, parts[1:], strict=True):
        assert span, "a span is never empty"
        pieces += [span, part]
    return b"".join(map(tokenizer.decode_bytes, pieces)), whole


@TOKENIZERS
@given(text=texts, objective=objectives, seed=seeds, window=st.sampled_from([64, 80, 128, 512]))
def test_the_document_comes_back(tokenizer: Tokenizer, text: str, objective: Objective, seed: int, window: int) -> None:
    one = example(tokenizer, text, objective, random.Random(seed), window)
    assert len(one.ids) == len(one.learned) <= window
    data, whole = original(tokenizer, one)
    if whole:
        assert data.decode() == text
        return
    kept = data.decode()  # whole characters only
    assert kept, "something is always left to learn"
    starts = {0}
    for line in text.splitlines(keepends=True):
        starts.add(max(starts) + len(line))
    assert any(text.startswith(kept, start) for start in starts), "what is kept is a run of the text from a line start"
    assert len(tokenizer.encode(text)) > window - 23, "a text that fits is not cut"


@TOKENIZERS
@given(text=texts, objective=objectives, seed=seeds)
def test_what_is_learned(tokenizer: Tokenizer, text: str, objective: Objective, seed: int) -> None:
    one = example(tokenizer, text, objective, random.Random(seed), 128)
    if not is_corrupted(tokenizer, one):
        assert all(one.learned)
        assert objective.infill_rate < 1.0 or not text.strip() or not tokenizer.decode(one.ids[:-1]).strip()
        return
    assert objective.infill_rate > 0.0
    answer = one.ids.index(tokenizer.sep) + 1
    assert one.learned[:answer] == [objective.context_loss] * answer
    assert one.learned[answer] is False, "the first mask of the answer is given"
    assert all(one.learned[answer + 1 :]), "spans, <eom>, later masks and the closing <|endoftext|>"


@given(text=texts, objective=objectives, seed=seeds)
def test_pure_in_the_seed(text: str, objective: Objective, seed: int) -> None:
    made = [example(tiny.tokenizer(), text, objective, random.Random(seed), 96) for _ in range(2)]
    assert made[0] == made[1]


def test_another_seed_cuts_elsewhere() -> None:
    text, objective = "\n".join(map(str, range(40))), Objective(infill_rate=1.0)
    made = {tuple(example(tiny.tokenizer(), text, objective, random.Random(seed), 512).ids) for seed in range(20)}
    assert len(made) > 15


@given(text=texts.filter(bool), objective=objectives, seed=seeds, holes=st.integers(1, 8))
def test_spans_are_in_order_apart_and_inside(text: str, objective: Objective, seed: int, holes: int) -> None:
    spans = draw_spans(text, holes, objective, random.Random(seed))
    assert 1 <= len(spans) <= holes
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(before[1] < after[0] for before, after in pairwise(spans)), "a character stands between two spans"


@TOKENIZERS
def test_control_names_in_a_document_stay_text(tokenizer: Tokenizer) -> None:
    text = "a<mask_1>b<|endoftext|><sep><mask_1>c<eom><|endoftext|>\n" * 3
    for seed in range(50):
        one = example(tokenizer, text, Objective(infill_rate=0.7), random.Random(seed), 512)
        assert original(tokenizer, one) == (text.encode(), True)


@pytest.mark.parametrize("text", ["", "x", "\n", " ", "\r\n", "é", "𓀀"])
def test_tiniest_documents(text: str) -> None:
    for seed in range(20):
        one = example(family(), text, Objective(infill_rate=1.0), random.Random(seed), 64)
        assert original(family(), one) == (text.encode(), True)
        assert is_corrupted(family(), one) == bool(text.strip()), "blank documents are left as they are"


def test_many_tokens_in_few_characters() -> None:
    """Fewer characters than the window has tokens, but more tokens: cut, and never said to be whole."""
    tokenizer, text = tiny.tokenizer(), "𓀀" * 60
    for seed in range(20):
        for rate in (0.0, 1.0):
            one = example(tokenizer, text, Objective(infill_rate=rate), random.Random(seed), 100)
            data, whole = original(tokenizer, one)
            assert not whole and 0 < len(data) < len(text.encode())
            assert set(data.decode()) == {"𓀀"}


LONG_LINES = "".join(f"{n:0>300}\n" for n in range(30))


def kind(span: tuple[int, int]) -> str:
    """Told by its borders; with lines this long, other kinds meet a line's start by chance about once in 300."""
    if span[0] % 301:
        return "characters"
    return "lines" if span[1] % 301 == 0 else "cursor"


@pytest.mark.parametrize("line_spans, cursor_spans", [(0.6, 0.15), (0.2, 0.7), (0.0, 0.0), (1.0, 0.0)])
def test_kinds_come_in_their_shares(line_spans: float, cursor_spans: float) -> None:
    objective, rng = Objective(line_spans=line_spans, cursor_spans=cursor_spans), random.Random(5)
    draws = 4000
    found = Counter(kind(draw_span(LONG_LINES, objective, rng)) for _ in range(draws))
    wanted = {"lines": line_spans, "cursor": cursor_spans, "characters": 1 - line_spans - cursor_spans}
    for name, share in wanted.items():
        assert found[name] / draws == pytest.approx(share, abs=0.025), name


def test_documents_are_corrupted_at_their_rate_and_holes_follow() -> None:
    tokenizer, objective = tiny.tokenizer(), Objective(infill_rate=0.7, max_holes=3, more_holes=0.5, mask_ratio=0.05)
    text = "".join(f"line {n}\n" for n in range(60))
    made = [example(tokenizer, text, objective, random.Random(seed), 2048) for seed in range(1500)]
    corrupted = [one for one in made if is_corrupted(tokenizer, one)]
    assert len(corrupted) / len(made) == pytest.approx(0.7, abs=0.04)
    holes = Counter(one.ids.count(tokenizer.eom) for one in corrupted)
    assert max(holes) == 3
    # Drawn 1/2, 1/4, 1/4; a few spans of the larger numbers touch one another and are left out.
    assert holes[1] / len(corrupted) == pytest.approx(0.5, abs=0.08)
    assert holes[3] > holes[2] * 0.5


def test_span_lengths_keep_the_mask_ratio() -> None:
    rng, objective = random.Random(1), Objective(line_spans=0.0, cursor_spans=0.0, mask_ratio=0.25)
    lengths = [end - start for start, end in (draw_span("x" * 1000, objective, rng) for _ in range(3000))]
    assert min(lengths) <= 2 and 200 < max(lengths) <= 250
    assert sum(length <= 16 for length in lengths) / 3000 == pytest.approx(0.5, abs=0.05), "log-uniform"


def test_long_documents_are_cut_at_every_line() -> None:
    tokenizer, rng = tiny.tokenizer(), random.Random(0)
    text = "".join(f"{n:03}\n" for n in range(200))
    firsts = set()
    for _ in range(600):
        data, whole = original(tokenizer, example(tokenizer, text, Objective(infill_rate=0.0), rng, 80))
        assert not whole
        firsts.add(data[:3])
    assert len(firsts) > 150


def test_a_line_over_the_window_is_cut_between_characters() -> None:
    tokenizer, text = tiny.tokenizer(), "x = 'ж€𓀀" * 60
    kept = {
        original(tokenizer, example(tokenizer, "y" * n + text, Objective(), random.Random(n), 64)) for n in range(40)
    }
    for data, whole in kept:
        assert not whole and "\ufffd" not in data.decode()


@given(texts.filter(str.strip), seeds)
def test_a_cursor_is_drawn_inside_a_span_that_begins_at_a_line(text: str, seed: int) -> None:
    (start, end), cursor = draw_cursor(text, random.Random(seed))
    assert 0 <= start <= cursor < end <= len(text), "something is missing at the cursor"
    assert start == 0 or text[start - 1] == "\n"
    assert text[start:cursor].count("\n") <= TAIL_LINES
    assert text[cursor:end].count("\n") <= MISSING_LINES


@TOKENIZERS
@given(texts.filter(str.strip), seeds)
def test_of_an_anchored_example_only_what_is_missing_is_learned(tokenizer: Tokenizer, text: str, seed: int) -> None:
    anchored = Objective(infill_rate=1.0, anchored_rate=1.0, context_loss=False)
    one = example(tokenizer, text, anchored, random.Random(seed), 4096)
    rng = random.Random(seed)
    rng.random(), rng.random()  # corrupted, and anchored
    (start, end), cursor = draw_cursor(text, rng)
    parts, spans, whole = take_apart(tokenizer, one.ids)
    assert whole
    assert [tokenizer.decode(part) for part in parts] == [text[:start], text[end:]]
    assert [tokenizer.decode(span) for span in spans] == [text[start:end]]
    first = one.learned.index(True)
    assert one.learned == [False] * first + [True] * (len(one.ids) - first)
    missing = text[cursor:end].encode()
    learned = [id for id in one.ids[first:] if not tokenizer.is_control(id)]
    assert tokenizer.decode_bytes(learned).endswith(missing), "all of it is learned"
    assert len(tokenizer.decode_bytes(learned[1:])) < len(missing), "and no whole token before it"
