"""The PyTorch backend: caches, forks and ragged batches against the whole forward pass without any cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from publisher_folder import random_llama

from codegen25.config import ModelConfig
from codegen25.engine.backend import Backend, Logits, Row
from codegen25.engine.torch import FIRST_CAPACITY, TorchBackend
from codegen25.model.llama import Llama

MULTI_HEAD = ModelConfig(97, 32, 48, 2, 4, 4, 8, 1024)
GROUPED = ModelConfig(97, 32, 48, 2, 4, 2, 8, 1024, tied=True)
SINGLE_KEY = ModelConfig(97, 24, 48, 3, 4, 1, 6, 1024, 5000.0, 1e-5)
MODELS = {config: random_llama(config, seed=3, std=0.2) for config in (MULTI_HEAD, GROUPED, SINGLE_KEY)}
GROUPED_MODEL = MODELS[GROUPED]


def tokens(n: int, seed: int = 0) -> list[int]:
    return [int(id) for id in np.random.default_rng(seed).integers(0, 97, n)]


@torch.inference_mode()
def uncached(model: Llama, ids: list[int]) -> Logits:
    logits: Logits = model(torch.tensor([ids]))[0].numpy()
    return logits


def assert_close(ours: Logits, reference: Logits) -> None:
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, reference, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("config", MODELS, ids=["multi-head", "grouped", "one key head"])
@pytest.mark.parametrize("cuts", [[], [1], [5, 6, 7, 20], list(range(1, 40))], ids=str)
def test_chunks_are_the_whole(config: ModelConfig, cuts: list[int]) -> None:
    ids = tokens(40)
    backend: Backend = TorchBackend(MODELS[config])
    sequence = backend.new()
    rows = [
        backend.forward([(sequence, ids[a:b], True)])[0] for a, b in zip([0, *cuts], [*cuts, len(ids)], strict=True)
    ]
    assert [len(row) for row in rows] == np.diff([0, *cuts, 40]).tolist()
    assert_close(np.concatenate(rows), uncached(MODELS[config], ids))
    assert backend.length(sequence) == 40


def test_last_logits_are_the_last_row() -> None:
    backend = TorchBackend(GROUPED_MODEL)
    ids = tokens(9)
    (row,) = backend.forward([(backend.new(), ids, False)])
    assert row.shape == (1, 97)
    assert_close(row, uncached(GROUPED_MODEL, ids)[-1:])


@pytest.mark.parametrize("config", MODELS, ids=["multi-head", "grouped", "one key head"])
def test_ragged_rows_are_one_by_one(config: ModelConfig) -> None:
    backend = TorchBackend(MODELS[config])
    texts = [tokens(n, seed=n) for n in (1, 17, 4, 30)]
    sequences = [backend.new() for _ in texts]
    # Each has another past when the rows run together, one of them none at all.
    for sequence, ids, past in zip(sequences, texts, (0, 9, 3, 29), strict=True):
        if past:
            backend.forward([(sequence, ids[:past], False)])
    rest = [
        (sequence, ids[backend.length(sequence) :], all_logits)
        for sequence, ids, all_logits in zip(sequences, texts, (False, True, False, True), strict=True)
    ]
    rows = backend.forward(rest)
    assert [len(row) for row in rows] == [1, 8, 1, 1]
    for ids, row in zip(texts, rows, strict=True):
        assert_close(row, uncached(MODELS[config], ids)[-len(row) :])


@pytest.mark.parametrize("step", [1, 100, 3 * FIRST_CAPACITY])
def test_a_sequence_grows_past_its_first_capacity(step: int) -> None:
    ids = tokens(3 * FIRST_CAPACITY + 5)
    backend = TorchBackend(GROUPED_MODEL)
    sequence = backend.new()
    start = FIRST_CAPACITY - 2
    rows = backend.forward([(sequence, ids[:start], True)])
    for at in range(start, len(ids), step):
        rows += backend.forward([(sequence, ids[at : at + step], True)])
    assert_close(np.concatenate(rows), uncached(GROUPED_MODEL, ids))


def test_truncated_tokens_are_forgotten() -> None:
    backend = TorchBackend(GROUPED_MODEL)
    sequence = backend.new()
    held = tokens(30)
    backend.forward([(sequence, held, False)])
    for length, more in ((30, tokens(3, 1)), (12, tokens(20, 2)), (0, tokens(5, 3))):
        backend.truncate(sequence, length)
        assert backend.length(sequence) == length
        held = held[:length] + more
        (row,) = backend.forward([(sequence, more, False)])
        assert_close(row, uncached(GROUPED_MODEL, held)[-1:])
    with pytest.raises(AssertionError):
        backend.truncate(sequence, 6)


@settings(max_examples=40)
@given(st.data())
def test_any_order_of_operations(data: st.DataObject) -> None:
    """A list of tokens per sequence is all there is to a cache."""
    backend = TorchBackend(GROUPED_MODEL)
    held: dict[int, list[int]] = {}
    for _ in range(data.draw(st.integers(1, 12))):
        action = data.draw(st.sampled_from(["new", "forward", "forward", "fork", "truncate", "free"]))
        if action == "new" or not held:
            held[backend.new()] = []
            continue
        sequence = data.draw(st.sampled_from(sorted(held)))
        if action == "fork":
            held[backend.fork(sequence)] = list(held[sequence])
        elif action == "truncate":
            length = data.draw(st.integers(0, len(held[sequence])))
            backend.truncate(sequence, length)
            held[sequence] = held[sequence][:length]
        elif action == "free":
            backend.free(sequence)
            del held[sequence]
        else:
            chosen = data.draw(st.lists(st.sampled_from(sorted(held)), min_size=1, unique=True))
            rows = [(s, tokens(data.draw(st.integers(1, 9)), data.draw(st.integers(0, 99))), True) for s in chosen]
            for (s, new, _), row in zip(rows, backend.forward(rows), strict=True):
                held[s] = held[s] + new
                assert_close(row, uncached(GROUPED_MODEL, held[s])[-len(new) :])
        assert {s: backend.length(s) for s in held} == {s: len(ids) for s, ids in held.items()}
    assert set(backend._caches) == set(held)


def test_refused_rows_leave_the_caches_alone() -> None:
    backend = TorchBackend(GROUPED_MODEL)
    sequence, freed = backend.new(), backend.new()
    backend.free(freed)
    backend.forward([(sequence, [1, 2], False)])
    refused: list[list[Row]] = [
        [(sequence, [], False)],
        [(sequence, [3], False), (freed, [3], False)],
        [(sequence, [3], False), (sequence, [4], False)],
    ]
    for rows in refused:
        with pytest.raises(ValueError, match="row"):
            backend.forward(rows)
    with pytest.raises(IndexError):
        backend.forward([(sequence, [97], False)])
    assert backend.length(sequence) == 2
    (row,) = backend.forward([(sequence, [5], False)])
    assert_close(row, uncached(GROUPED_MODEL, [1, 2, 5])[-1:])


def test_no_rows() -> None:
    assert TorchBackend(GROUPED_MODEL).forward([]) == []


def test_bfloat16_weights() -> None:
    """Close to the same weights uncached in their own dtype; logits are fp32 all the same."""
    model = random_llama(GROUPED, seed=3, std=0.2).to(torch.bfloat16)
    backend = TorchBackend(model)
    sequence, ids = backend.new(), tokens(20)
    backend.forward([(sequence, ids[:11], False)])
    (row,) = backend.forward([(sequence, ids[11:], True)])
    assert row.dtype == np.float32
    reference = uncached(model, ids)[11:]
    assert np.abs(row - reference).max() < 0.1 * np.abs(reference).max()
