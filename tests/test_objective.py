"""What is learned from a document: nothing of it is lost, moved, cut apart or leaked, and all chance is the seed's."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import asdict, replace

import hostile
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from codegen25 import infill
from codegen25.errors import UsageError
from codegen25.tokenizer import Tokenizer, family
from codegen25.train.objective import CAUSAL, KINDS, Example, Objective, example, parse_mixture
from codegen25.train.spans import DENSE_LINES, draw_cursor
from codegen25.train.syntax import GRAMMARS

TOKENIZERS = pytest.mark.parametrize("tokenizer", [family(), tiny.tokenizer()], ids=["family", "tiny"])
texts = hostile.texts
languages = st.sampled_from(["", "markdown", "python", "c++"])
objectives = st.builds(
    Objective,
    infill_rate=st.sampled_from([0.0, 0.5, 1.0, 1.0, 1.0]),
    mixture=st.sampled_from([dict.fromkeys(KINDS, 1.0), *({kind: 1.0} for kind in KINDS)]),
    mask_ratio=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    max_holes=st.sampled_from([1, 4, 8, 1000]),
    more_holes=st.sampled_from([0.0, 0.25, 0.9, 1.0]),
    context_loss=st.booleans(),
    prefix_loss=st.booleans(),
)
seeds = st.integers(0, 2**32)
windows = st.sampled_from([64, 80, 128, 512, 2048])


def only(kind: str, **fields: object) -> Objective:
    return replace(Objective(infill_rate=1.0, mixture={kind: 1.0}), **fields)  # type: ignore[arg-type]


def is_corrupted(tokenizer: Tokenizer, one: Example) -> bool:
    return tokenizer.sep in one.ids


def take_apart(tokenizer: Tokenizer, ids: list[int]) -> tuple[list[list[int]], list[list[int]], bool]:
    """(parts, spans, whether `<|endoftext|>` closes the context); spans as the reader of a model's answers finds them.

    The context is read by the layout alone, not by the code under test.
    """
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
    spans = infill.parse(tokenizer, answer[1:])
    assert all(finish == "stop" for _, finish in spans)
    assert infill.answer(tokenizer, [span for span, _ in spans]) == answer, "nothing follows the <|endoftext|>"
    return parts, [span for span, _ in spans], whole


def original(tokenizer: Tokenizer, one: Example) -> tuple[bytes, bool]:
    """The bytes of the text that an example was made from, and whether it says that the document ends with it."""
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
@given(text=texts, objective=objectives, seed=seeds, window=windows, language=languages)
def test_the_document_comes_back(
    tokenizer: Tokenizer, text: str, objective: Objective, seed: int, window: int, language: str
) -> None:
    one = example(tokenizer, text, objective, random.Random(seed), window, language)
    assert len(one.ids) == len(one.learned) <= window
    data, whole = original(tokenizer, one)
    kept = data.decode()  # whole characters only
    assert one.left_out == len(text) - len(kept), "what did not fit is counted"
    assert text.endswith(kept) if whole else kept in text, "a document that ends is said to end"
    if one.left_out:
        assert kept, "something is always left to learn"
        starts = [0, *(i + 1 for i, c in enumerate(text) if c == "\n")]
        assert any(text.startswith(kept, start) for start in starts), "what is kept begins at a line"
        # Control tokens, and what spans cut in pieces may need more; no text that fits without a doubt is cut.
        assert len(tokenizer.encode(text)) + infill.overhead(window // 16) > window * 0.6
    else:
        assert kept == text and whole


@TOKENIZERS
@given(text=texts, objective=objectives, seed=seeds, language=languages)
def test_what_is_learned(tokenizer: Tokenizer, text: str, objective: Objective, seed: int, language: str) -> None:
    one = example(tokenizer, text, objective, random.Random(seed), 128, language)
    if not is_corrupted(tokenizer, one):
        assert all(one.learned) and one.kind == CAUSAL
        return
    answer = one.ids.index(tokenizer.sep) + 1
    assert one.learned[:answer] == [objective.context_loss] * answer
    assert one.learned[answer] is False, "the first mask of the answer is given"
    asked = one.learned[answer + 1 :]
    if objective.prefix_loss or one.kind not in ("anchored", "suffix_first"):
        assert all(asked), "spans, <eom>, later masks and the closing <|endoftext|>"
    else:
        assert asked == sorted(asked) and all(asked[-3:]), "from the cursor on: its text, <eom>, <|endoftext|>"


@given(text=texts, objective=objectives, seed=seeds, language=languages)
def test_what_was_asked_is_done_or_said_not_to_be(text: str, objective: Objective, seed: int, language: str) -> None:
    one = example(tiny.tokenizer(), text, objective, random.Random(seed), 96, language)
    assert one.asked in {CAUSAL, *objective.mixture} and (objective.infill_rate < 1.0 or one.asked != CAUSAL)
    assert (one.kind == CAUSAL) == (not is_corrupted(tiny.tokenizer(), one))
    if one.kind != one.asked:
        blank = not original(tiny.tokenizer(), one)[0].decode().strip()
        assert (one.kind == CAUSAL and blank) or (one.asked, one.kind) == ("syntax", "line")
    if one.asked == "syntax" and language not in GRAMMARS:
        assert one.kind in ("line", CAUSAL)


@given(text=texts, objective=objectives, seed=seeds)
def test_pure_in_the_seed(text: str, objective: Objective, seed: int) -> None:
    made = [example(tiny.tokenizer(), text, objective, random.Random(seed), 96) for _ in range(2)]
    assert made[0] == made[1]


def test_a_mixture_is_the_same_in_any_order() -> None:
    text = "".join(f"line {n}\n" for n in range(60))
    weights = {"line": 0.5, "anchored": 0.25, "dense": 0.25}
    backwards = dict(reversed(weights.items())) | {"token": 0.0}
    for seed in range(20):
        made = [
            example(family(), text, Objective(1.0, mixture), random.Random(seed), 512)
            for mixture in (weights, backwards)
        ]
        assert made[0] == made[1]


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_cuts_elsewhere(kind: str) -> None:
    text = "\n".join(f"a{n} = b{n}(c)" for n in range(40))
    made = {tuple(example(family(), text, only(kind), random.Random(seed), 2048, "python").ids) for seed in range(20)}
    assert len(made) > 13


@TOKENIZERS
@pytest.mark.parametrize("kind", KINDS)
def test_control_names_in_a_document_stay_text(tokenizer: Tokenizer, kind: str) -> None:
    text = "a<mask_1>b<|endoftext|><sep><mask_1>c<eom><|endoftext|>\n" * 3
    for seed in range(20):
        one = example(tokenizer, text, only(kind), random.Random(seed), 512)
        assert original(tokenizer, one) == (text.encode(), True)


@pytest.mark.parametrize("text", ["", "x", "\n", " ", "\r\n", "é", "𓀀"])
@pytest.mark.parametrize("kind", KINDS)
def test_tiniest_documents(text: str, kind: str) -> None:
    for seed in range(5):
        one = example(family(), text, only(kind), random.Random(seed), 64, "python")
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


def test_documents_are_corrupted_at_their_rate_and_holes_follow() -> None:
    tokenizer, objective = tiny.tokenizer(), Objective(infill_rate=0.7, max_holes=3, more_holes=0.5)
    text = "".join(f"line {n}\n" for n in range(60))
    made = [example(tokenizer, text, objective, random.Random(seed), 2048) for seed in range(1500)]
    corrupted = [one for one in made if is_corrupted(tokenizer, one)]
    assert len(corrupted) / len(made) == pytest.approx(0.7, abs=0.04)
    holes = Counter(one.ids.count(tokenizer.eom) for one in corrupted)
    assert {count: holes[count] / len(corrupted) for count in holes} == pytest.approx(
        {1: 0.5, 2: 0.25, 3: 0.25}, abs=0.05
    )
    kinds = Counter(one.kind for one in corrupted)
    assert {kind: kinds[kind] / len(corrupted) for kind in kinds} == pytest.approx(dict(objective.mixture), abs=0.05)


def test_long_documents_are_cut_at_every_line() -> None:
    tokenizer, rng = tiny.tokenizer(), random.Random(0)
    text = "".join(f"{n:03}\n" for n in range(200))
    firsts = set()
    for _ in range(600):
        one = example(tokenizer, text, Objective(infill_rate=0.0), rng, 80)
        data, whole = original(tokenizer, one)
        assert whole == data.endswith(b"199\n")
        firsts.add(data[:3])
    assert len(firsts) > 150


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_is_filled(kind: str) -> None:
    """What does not fit is cut by as much as is needed: less than a line or two of room stays."""
    text = "".join(f"    value_{n} = other_{n} + {n}\n" for n in range(2000))
    lengths = []
    for seed in range(30):
        one = example(family(), text, only(kind), random.Random(seed), 512, "python")
        if one.ids[one.ids.index(family().sep) - 1] != family().eot:  # not from the end of the document
            lengths.append(len(one.ids))
    assert sum(lengths) / len(lengths) > 440


@TOKENIZERS
def test_dense_learns_about_half_of_a_document_in_many_holes(tokenizer: Tokenizer) -> None:
    text = "".join(f"a{n} = b(c)\n" for n in range(45))
    shares, most = [], 0
    for seed in range(100):
        one = example(tokenizer, text, only("dense", context_loss=False), random.Random(seed), 2048)
        _, spans, _ = take_apart(tokenizer, one.ids)
        assert all(1 <= tokenizer.decode(span).count("\n") <= DENSE_LINES for span in spans)
        most = max(most, len(spans))
        shares.append(sum(map(len, spans)) / len(tokenizer.encode(text)))
    assert sum(shares) / 100 == pytest.approx(0.5, abs=0.06)
    assert most >= 8


@TOKENIZERS
@given(texts.filter(lambda text: text.strip() and len(text) < 1000), seeds, st.booleans())
def test_suffix_first(tokenizer: Tokenizer, text: str, seed: int, prefix_loss: bool) -> None:
    """`<mask_1> suffix <|endoftext|><sep><mask_1> prefix middle <eom>`."""
    objective = only("suffix_first", context_loss=False, prefix_loss=prefix_loss)
    one = example(tokenizer, text, objective, random.Random(seed), 4096)
    assert one.ids[0] == tokenizer.masks[0]
    (before, suffix), (span,), whole = take_apart(tokenizer, one.ids)
    assert before == [] and whole
    assert tokenizer.decode(span) + tokenizer.decode(suffix) == text
    border = len(one.ids) - 2 - len(span)
    first = one.learned.index(True)
    assert one.learned == [False] * first + [True] * (len(one.ids) - first)
    assert first == border if prefix_loss else first >= border


@TOKENIZERS
@given(texts.filter(lambda text: text.strip() and len(text) < 1000), seeds)
def test_of_an_anchored_example_only_what_is_missing_is_learned(tokenizer: Tokenizer, text: str, seed: int) -> None:
    one = example(tokenizer, text, only("anchored", context_loss=False), random.Random(seed), 4096)
    rng = random.Random(seed)
    rng.random(), rng.random()  # corrupted, and which kind
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


def test_the_mixture_as_words_and_as_json() -> None:
    assert parse_mixture("line=0.6, anchored=0.4") == {"line": 0.6, "anchored": 0.4}
    objective = Objective(0.7, parse_mixture("dense=1"), prefix_loss=True)
    assert Objective(**json.loads(json.dumps(asdict(objective)))) == objective


@pytest.mark.parametrize(
    "text, says",
    [
        ("lines=1", "lines: no such kind"),
        ("line", "'line': write KIND=WEIGHT"),
        ("", "'': write KIND=WEIGHT"),
        ("line=x", "write KIND=WEIGHT"),
        ("line=-1", "a number from 0 up"),
        ("line=nan", "a number from 0 up"),
        ("line=inf", "a number from 0 up"),
        ("line=0,token=0", "all weights are 0"),
    ],
)
def test_a_mixture_that_is_none(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_mixture(text)


@pytest.mark.parametrize(
    "fields", [{"infill_rate": 1.5}, {"mask_ratio": -0.1}, {"more_holes": float("nan")}, {"max_holes": 0}]
)
def test_an_objective_that_is_none(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(fields))} .*must be"):
        Objective(**fields)  # type: ignore[arg-type]
