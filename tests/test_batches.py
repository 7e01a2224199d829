"""Batches: the same whenever and by whomever they are made, every token once, documents apart."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from codegen25.errors import CodegenError
from codegen25.train.batches import Batch, Batches, Numbered, empty_batch, pack, permuted, to_batch
from codegen25.train.examples import Corrupted
from codegen25.train.objective import Example, Objective
from codegen25.train.texts import Entry, ListedTexts, read_texts

OBJECTIVE = Objective(infill_rate=0.7, context_loss=False)


def corrupted(texts: list[str] | None = None, fill: int | None = None, **changes: Any) -> Corrupted:
    made = ListedTexts(tiny.documents() if texts is None else texts)
    return Corrupted(made, tiny.tokenizer(), replace(OBJECTIVE, **changes), fill)


def batches(examples: Corrupted | None = None, **changes: Any) -> Batches:
    made = Batches(examples or corrupted(), seed=3, documents_per_step=5, window=160)
    return replace(made, **changes)


def only(batches: Batches, step: int) -> Batch:
    """The batch of a step that is one pass."""
    (one,) = batches.batch(step)
    return one


def equal(a: Batch, b: Batch) -> bool:
    names = ("tokens", "positions", "document", "targets")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)


def rows(batch: Batch) -> list[tuple[int, ...]]:
    """The ids of every packed document."""
    found = []
    for tokens, document in zip(batch.tokens, batch.document, strict=True):
        found += [tuple(tokens[document == n].tolist()) for n in range(1, int(document.max()) + 1)]
    return found


def test_a_batch_is_a_function_of_the_step() -> None:
    forward = {step: only(batches(), step) for step in range(14)}  # several epochs of 23 documents
    one, order = batches(), [*range(13, -1, -1), 0, 9, 4]
    assert all(equal(only(one, step), forward[step]) for step in order)
    assert all(not equal(a, b) for a, b in pairwise(forward.values()))


def test_another_seed_gives_other_batches() -> None:
    assert not equal(only(batches(), 0), only(batches(seed=4), 0))


def documents(one: Batches, first: int, count: int) -> list[int]:
    """Which documents `count` places from that of step `first` on take, in order."""
    single = replace(one, documents_per_step=1)
    return [number.document for step in range(first, first + count) for number in single.numbers(step)]


def test_each_epoch_is_a_permutation() -> None:
    epochs = [documents(batches(), 23 * epoch, 23) for epoch in range(3)]
    assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


@given(count=st.integers(1, 300), key=st.text(max_size=3))
def test_a_permutation_of_any_count(count: int, key: str) -> None:
    assert sorted(permuted(place, count, key) for place in range(count)) == list(range(count))


def test_permutations_look_drawn() -> None:
    """Of three documents each of the six orders comes up about as often; of many, none stays near its place."""
    orders = Counter(tuple(permuted(place, 3, f"{key}") for place in range(3)) for key in range(1200))
    assert len(orders) == 6 and min(orders.values()) > 140
    far = [abs(permuted(place, 1000, "k") - place) for place in range(1000)]
    assert 280 < sum(far) / 1000 < 390  # a third of 1000 by chance


def test_a_document_is_corrupted_differently_in_every_epoch() -> None:
    text = "".join(f"    x.f({n})\n" for n in range(40))
    one = batches(corrupted([text], infill_rate=1.0), documents_per_step=1, window=600)
    made = [rows(only(one, step))[0] for step in range(12)]
    assert len(set(made)) > 9


def test_every_document_of_a_step_is_there() -> None:
    """Also when a step takes its documents from two epochs."""
    one = batches(corrupted(infill_rate=0.0), window=512)
    decoded = [tiny.tokenizer().decode(ids[:-1]) for ids in rows(only(one, 4))]  # documents 20 to 24 of 23
    assert sorted(decoded) == sorted(tiny.documents()[number] for number in documents(one, 20, 5))


# --- ranks and passes ---


@given(step=st.integers(0, 30), world=st.integers(1, 9), seed=st.integers(0, 5))
def test_ranks_share_a_step(step: int, world: int, seed: int) -> None:
    one = batches(seed=seed)
    shares = [one.share(step, rank, world) for rank in range(world)]
    assert Counter(number for share in shares for number in share) == Counter(one.numbers(step))
    assert all(isinstance(number, Numbered) for share in shares for number in share)
    loads = [sum(min(160, one.examples.size(number.document)) for number in share) for share in shares]
    largest = max(min(160, one.examples.size(number.document)) for number in one.numbers(step))
    assert max(loads) - min(loads) <= largest, "the rank with the most would not have got its last document"


@given(step=st.integers(0, 9), world=st.integers(2, 6), pass_tokens=st.sampled_from([1, 160, 330, 4096]))
def test_ranks_and_passes_learn_what_one_rank_does(step: int, world: int, pass_tokens: int) -> None:
    alone = sorted(rows(only(batches(), step)))
    several = replace(batches(), pass_tokens=pass_tokens)
    passes = [one for rank in range(world) for one in several.batch(step, rank, world)]
    assert sorted(ids for one in passes for ids in rows(one)) == alone
    assert sum(one.learned for one in passes) == only(batches(), step).learned


def test_a_pass_is_bounded() -> None:
    one = batches(documents_per_step=23, pass_tokens=330)
    sizes = [tuple(p.tokens.shape) for p in one.batch(0)]
    assert len(sizes) > 2 and all(B * T <= 330 for B, T in sizes) and max(B for B, _ in sizes) > 1
    assert {len(p.tokens) for p in replace(one, pass_tokens=1).batch(0)} == {1}, "a row at least"


# --- rows ---


examples = st.lists(
    st.lists(st.tuples(st.integers(1, 99), st.booleans()), min_size=1, max_size=20).map(
        lambda pairs: Example([id for id, _ in pairs], [learned for _, learned in pairs])
    ),
    min_size=1,
    max_size=12,
)


@given(examples=examples, window=st.integers(20, 60))
def test_packing_keeps_every_token_once(examples: list[Example], window: int) -> None:
    packed = pack(examples, window)
    assert Counter(id(one) for row in packed for one in row) == Counter(map(id, examples))
    batch = to_batch(packed)
    assert batch.tokens.shape[1] == max(sum(len(one.ids) for one in row) for row in packed) <= window
    assert Counter(rows(batch)) == Counter(tuple(one.ids) for one in examples)
    assert batch.counted == sum(len(one.ids) for one in examples)
    fill = [sum(len(one.ids) for one in row) for row in packed]
    assert all(a + b > window for a, b in pairwise(fill)), "two rows that would fit into one are one"


@given(examples=examples)
def test_positions_documents_and_targets(examples: list[Example]) -> None:
    """Against a walk over every place of every row."""
    packed = pack(examples, 40)
    batch = to_batch(packed)
    T = batch.tokens.shape[1]
    for b, row in enumerate(packed):
        expected = [
            (id, place, number, one.ids[place + 1] if place + 1 < len(one.ids) and one.learned[place + 1] else -1)
            for number, one in enumerate(row, 1)
            for place, id in enumerate(one.ids)
        ]
        expected += [(0, 0, 0, -1)] * (T - len(expected))
        found = torch.stack([batch.tokens[b], batch.positions[b], batch.document[b], batch.targets[b]], dim=1)
        assert found.tolist() == [list(place) for place in expected]


@given(examples=examples)
def test_without_padding_it_is_the_same_documents(examples: list[Example]) -> None:
    packed = pack(examples, 40)
    flat = to_batch(packed).unpadded()
    assert flat.tokens.shape == (1, sum(len(one.ids) for one in examples)) and flat.counted == flat.tokens.numel()
    for number, one in enumerate((one for row in packed for one in row), 1):
        alone, here = to_batch([[one]]), flat.document == number
        for name in ("tokens", "positions", "targets"):
            assert torch.equal(getattr(flat, name)[here][None], getattr(alone, name))


def test_packed_documents_do_not_see_each_other() -> None:
    """The states of a packed row are those of every document alone."""
    from codegen25.model.llama import Packed

    model, one = tiny.model(), batches()
    batch = only(one, 1)
    assert int(batch.document.max()) > 1, "nothing is packed, the test would hold for any mask"
    with torch.no_grad():
        packed_BTD = model.hidden(batch.tokens, batch.positions, Packed(batch.document))
        seeing_BTD = model.hidden(batch.tokens, batch.positions)
        for b in range(len(batch.tokens)):
            for n in range(1, int(batch.document[b].max()) + 1):
                here = batch.document[b] == n
                alone_TD = model.hidden(batch.tokens[b, here][None])[0]
                torch.testing.assert_close(packed_BTD[b, here], alone_TD, atol=1e-5, rtol=1e-5)
                if n > 1:
                    assert not torch.allclose(packed_BTD[b, here], seeing_BTD[b, here], atol=1e-2)


def test_padding_changes_nothing_and_stays_finite() -> None:
    from codegen25.model.llama import Packed

    rng, model = random.Random(0), tiny.model()
    made = [Example([rng.randrange(1, 250) for _ in range(n)], [True] * n) for n in (30, 3)]
    batch = to_batch([[one] for one in made])
    with torch.no_grad():
        x_BTD = model.hidden(batch.tokens, batch.positions, Packed(batch.document))
    assert torch.isfinite(x_BTD).all()
    assert batch.targets[1, 2:].tolist() == [-1] * 28


def test_empty_documents() -> None:
    """They have nothing to learn: left out beside others, and no pass when alone."""
    mixed = only(batches(corrupted(["", "x = 1\n", ""]), documents_per_step=3), 0)
    assert len(rows(mixed)) == 1
    assert batches(corrupted([""]), documents_per_step=2).batch(0) == []
    nothing = empty_batch()
    assert nothing.counted == 1 and nothing.targets.tolist() == [[-1]]


def test_fingerprint_is_of_texts_and_order() -> None:
    assert corrupted().fingerprint() == corrupted().fingerprint()
    others = [["ab", "c"], ["a", "bc"], ["c", "ab"], ["ab", "c", ""]]
    assert len({ListedTexts(texts).fingerprint() for texts in others}) == len(others)
    how = [corrupted(), corrupted(fill=100), corrupted(infill_rate=0.1)]
    assert len({one.fingerprint() for one in how}) == len(how)


@pytest.mark.parametrize("changes", [{"window": 63}, {"documents_per_step": 0}])
def test_settings_that_cannot_work(changes: dict[str, Any]) -> None:
    with pytest.raises(CodegenError, match=str(next(iter(changes.values())))):
        batches(**changes)


BAD = {
    "no JSON": '{"content": "a"}\n{"content":',
    "no content": '{"content": "a"}\n{"text": "a"}\n',
    "content is null": '{"content": "a"}\n{"content": null}\n',
    "no object": '{"content": "a"}\n["content"]\n',
    "a lone surrogate": '{"content": "a"}\n{"content": "\\ud800"}\n',
    "an empty line": '{"content": "a"}\n\n',
}


@pytest.mark.parametrize("lines", BAD.values(), ids=BAD.keys())
def test_bad_files_of_documents(lines: str, tmp_path: Path) -> None:
    path = tmp_path / "documents.jsonl"
    path.write_text(lines)
    with pytest.raises(CodegenError) as caught:
        read_texts(path)
    assert str(caught.value).startswith(f"{path}:2: ") and "\n" not in str(caught.value)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("empty", "binary", "none", "."):
        with pytest.raises(CodegenError, match=name):
            read_texts(tmp_path / name)


def test_texts_come_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "documents.jsonl"
    path.write_text(
        '{"content": "a\\r\\n\\u2028\\u00e9", "language": "go"}\n{"x": 1, "content": ""}\n', encoding="utf-8"
    )
    texts = read_texts(path)
    assert len(texts) == 2
    assert [texts.entry(number) for number in range(2)] == [Entry("a\r\n\u2028é", "go"), Entry("")]


# --- long texts ---

LONG = "".join(f"x_{n} = {n} + y_{n}\n" for n in range(200))


def test_a_long_text_comes_up_as_often_as_windows_that_it_fills() -> None:
    texts = ListedTexts(["a = 1\n", LONG, "", "b = 2\n"])
    once, filling = corrupted(["a = 1\n", LONG, "", "b = 2\n"]), corrupted(["a = 1\n", LONG, "", "b = 2\n"], fill=100)
    times = -(-int(texts.sizes[1]) // 100)
    assert times > 5 and (len(once), len(filling)) == (4, 3 + times)
    assert [filling.text(number) for number in range(len(filling))] == [0, *[1] * times, 2, 3]
    rngs = [random.Random(number) for number in range(times)]
    made = [filling.example(number, rng, 100) for number, rng in enumerate(rngs, 1)]
    assert len({tuple(one.ids) for one in made}) == times, "each time another place"


def test_what_is_cut_is_counted() -> None:
    batch = only(batches(corrupted([LONG, "a = 1\n"]), documents_per_step=2), 0)
    assert batch.cut == 1 and len(LONG) > batch.left_out > len(LONG) - 160 * 8
    assert (only(batches(), 0).cut, only(batches(), 0).left_out) == (0, 0)
