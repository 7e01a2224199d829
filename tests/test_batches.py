"""Batches: the same whenever and by whomever they are made, every token once, documents apart."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from codegen25.errors import CodegenError
from codegen25.train.batches import Batch, Batches, pack, read_texts, to_batch
from codegen25.train.objective import Example, Objective

OBJECTIVE = Objective(infill_rate=0.7, context_loss=False)


def batches(**changes: object) -> Batches:
    made = Batches(tiny.documents(), tiny.tokenizer(), OBJECTIVE, seed=3, documents_per_step=5, window=160)
    return replace(made, **changes)  # type: ignore[arg-type]


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
    forward = {step: batches().batch(step) for step in range(14)}  # several epochs of 23 documents
    one, order = batches(), [*range(13, -1, -1), 0, 9, 4]
    assert all(equal(one.batch(step), forward[step]) for step in order)
    assert all(not equal(a, b) for a, b in pairwise(forward.values()))


def test_another_seed_gives_other_batches() -> None:
    assert not equal(batches().batch(0), batches(seed=4).batch(0))


def texts_in_order(one: Batches, first: int, count: int) -> list[str]:
    """Which documents the steps from `first` on take, told by decoding: with no infilling a document is itself."""
    plain = replace(one, objective=replace(OBJECTIVE, infill_rate=0.0), documents_per_step=1, window=512)
    made = [rows(plain.batch(index))[0] for index in range(first, first + count)]
    return [one.tokenizer.decode(ids[:-1]) for ids in made]


def test_each_epoch_is_a_permutation() -> None:
    one = batches()
    epochs = [texts_in_order(one, 23 * epoch, 23) for epoch in range(3)]
    assert all(sorted(epoch) == sorted(one.texts) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_a_document_is_corrupted_differently_in_every_epoch() -> None:
    text = "".join(f"    x.f({n})\n" for n in range(40))
    one = batches(objective=replace(OBJECTIVE, infill_rate=1.0), texts=[text], documents_per_step=1, window=600)
    made = [rows(one.batch(step))[0] for step in range(12)]
    assert len(set(made)) > 9


def test_every_document_of_a_step_is_there() -> None:
    """Also when a step takes its documents from two epochs."""
    one = batches(objective=replace(OBJECTIVE, infill_rate=0.0), window=512)
    decoded = [one.tokenizer.decode(ids[:-1]) for ids in rows(one.batch(4))]  # documents 20 to 24 of 23
    assert sorted(decoded) == sorted(texts_in_order(one, 20, 5))


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


def test_packed_documents_do_not_see_each_other() -> None:
    """The states of a packed row are those of every document alone."""
    from codegen25.model.llama import Packed

    model, one = tiny.model(), batches()
    batch = one.batch(1)
    assert int(batch.document.max()) > 1, "nothing is packed, the test would hold for any mask"
    with torch.no_grad():
        packed_BTD = model.hidden(batch.tokens, batch.positions, Packed(batch.document))
        for b in range(len(batch.tokens)):
            for n in range(1, int(batch.document[b].max()) + 1):
                here = batch.document[b] == n
                alone_TD = model.hidden(batch.tokens[b, here][None])[0]
                torch.testing.assert_close(packed_BTD[b, here], alone_TD, atol=1e-5, rtol=1e-5)
                shifted = model.hidden(batch.tokens[b, here.roll(1)][None])[0]
                assert not torch.allclose(packed_BTD[b, here], shifted, atol=1e-2)


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
    """They have nothing to learn: left out beside others, and a row without targets when alone."""
    mixed = batches(texts=["", "x = 1\n", ""], documents_per_step=3).batch(0)
    assert len(rows(mixed)) == 1
    alone = batches(texts=[""], documents_per_step=2).batch(0)
    assert alone.counted == 1 and alone.targets.tolist() == [[-1]]


def test_fingerprint_is_of_texts_and_order() -> None:
    same = batches(seed=9, window=99)
    assert same.fingerprint() == batches().fingerprint()
    others = [["ab", "c"], ["a", "bc"], ["c", "ab"], ["ab", "c", ""]]
    assert len({batches(texts=texts).fingerprint() for texts in others}) == len(others)


@pytest.mark.parametrize("changes", [{"window": 63}, {"documents_per_step": 0}])
def test_settings_that_cannot_work(changes: dict[str, int]) -> None:
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
    path.write_text('{"content": "a\\r\\n\\u2028\\u00e9"}\n{"x": 1, "content": ""}\n', encoding="utf-8")
    assert read_texts(path) == ["a\r\n\u2028é", ""]
