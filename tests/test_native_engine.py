"""The native engine against PyTorch with the same weights, and against itself in other batches."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_model import bf16_cache, matrix, round_activations, twins
from numpy.typing import NDArray

from codegen25 import _native
from codegen25.config import ModelConfig
from codegen25.engine.cpu import load_cpu
from codegen25.model.checkpoint import load_llama
from codegen25.model.folder import resolve
from codegen25.model.llama import Llama
from codegen25.tokenizer import from_folder

ISAS = _native.isas()
SMALL = ModelConfig(97, 64, 96, 2, 6, 2, 16, 1024)
# What int8 activations and a bf16 cache may change per layer of random weights, as a share of the logits' root mean
# square; trained weights forgive more.
ROUNDING = 0.04
# With activations rounded alike only the order of sums differs, until one that lies between two integers is rounded the
# other way: then layers of random weights make much of it.
ORDER, FLIPPED = 1e-5, 0.06

Array = NDArray[np.float32]


def ids(n: int, vocabulary: int = 97, seed: int = 0) -> list[int]:
    return [int(id) for id in np.random.default_rng(seed).integers(0, vocabulary, n)]


def run(engine: _native.Engine, sequence: int, tokens: Sequence[int], all_logits: bool = True) -> Array:
    return engine.forward([sequence], [len(tokens)], np.array(tokens, dtype=np.int32), [all_logits])


@torch.inference_mode()
def reference(model: Llama, tokens: Sequence[int]) -> Array:
    logits: Array = model(torch.tensor([tokens]), attend=bf16_cache)[0].numpy()
    return logits


def distance(ours: Array, exact: Array) -> float:
    return float(np.sqrt(np.square(ours - exact).mean() / np.square(exact).mean()))


def best(ours: Array, exact: Array) -> float:
    """The distance of the token where it is least."""
    return min(distance(one, other) for one, other in zip(ours, exact, strict=True))


configs = st.builds(
    lambda vocab, hidden, inner, layers, kv, shared, half, tied: ModelConfig(
        vocab, hidden, inner, layers, kv * shared, kv, 2 * half, 512, 10000.0, 1e-5, tied=tied
    ),
    st.integers(1, 100), st.integers(1, 130), st.integers(1, 150), st.integers(1, 3), st.integers(1, 4),
    st.integers(1, 9), st.integers(1, 40), st.booleans(),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(configs, st.integers(1, 40), st.sampled_from([4, 8]), st.integers(0, 99), st.sampled_from(ISAS))
def test_logits_are_those_of_pytorch(config: ModelConfig, n: int, bits: int, seed: int, isa: str) -> None:
    """With activations rounded alike: any shape, odd ones too."""
    engine, model = twins(config, bits=bits, seed=seed, isa=isa)
    round_activations(model)
    tokens = ids(n, config.vocab_size, seed)
    ours, exact = run(engine, engine.new(), tokens), reference(model, tokens)
    assert ours.shape == exact.shape
    assert best(ours, exact) < ORDER or distance(ours, exact) < FLIPPED


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bits", [4, 8])
def test_every_depth_within_the_stated_bounds(isa: str, bits: int) -> None:
    config = ModelConfig(500, 192, 320, 4, 6, 2, 32, 512)
    tokens = ids(300, 500)
    for layers in range(1, 5):
        engine, model = twins(config, bits=bits, isa=isa, layers=layers)
        ours = run(engine, engine.new(), tokens)
        assert distance(ours, reference(model, tokens)) < ROUNDING * layers
        round_activations(model)
        exact = reference(model, tokens)
        assert distance(ours, exact) < FLIPPED
        assert best(ours, exact) < ORDER


def test_a_long_past_is_attended_to_in_chunks() -> None:
    """More tokens than a chunk of attention, a pass through the layers, and a page."""
    engine, model = twins(SMALL)
    tokens = ids(1000)
    assert distance(run(engine, engine.new(), tokens), reference(model, tokens)) < ROUNDING * SMALL.layers


def test_nano_on_code() -> None:
    """Trained weights on text like theirs: what int8 activations and a bf16 cache cost in all."""
    folder = resolve("nano")
    tokens = from_folder(folder).encode((Path(__file__).parent / "native_model.py").read_text()[:2500])
    engine, model = load_cpu(folder), load_llama(folder, dtype="float32")
    (ours,) = engine.forward([(engine.new(), tokens, True)])
    with torch.inference_mode():
        exact_log = model(torch.tensor([tokens]))[0].log_softmax(-1)
    ours_log = torch.from_numpy(ours).log_softmax(-1)
    divergence = (exact_log.exp() * (exact_log - ours_log)).sum(-1)  # nats a token
    assert float(divergence.mean()) < 0.02
    likelihoods = [
        float(log[:-1].gather(-1, torch.tensor(tokens[1:])[:, None]).mean()) for log in (ours_log, exact_log)
    ]
    assert likelihoods[0] == pytest.approx(likelihoods[1], rel=0.01)


@pytest.mark.parametrize("isa", ISAS)
def test_logits_do_not_depend_on_the_batch(isa: str) -> None:
    """To the bit: in pieces of any size, beside others, on any number of threads, last row or all."""
    lengths = (700, 1, 40, 260)
    texts = [ids(n, seed=n) for n in lengths]
    engine, _ = twins(SMALL, bits=4, isa=isa)
    alone = [run(engine, engine.new(), text) for text in texts]
    for threads, cuts in ((1, [1, 2, 5, 13]), (3, [200, 513]), (2, [40])):
        engine, _ = twins(SMALL, bits=4, isa=isa, threads=threads)
        sequences, done = [engine.new() for _ in texts], [0] * len(texts)
        turn = 0
        while any(at < n for at, n in zip(done, lengths, strict=True)):
            step = cuts[turn % len(cuts)] * (1 if turn < 40 else 50)
            rows = [(i, texts[i][done[i] : done[i] + step + i]) for i in range(len(texts)) if done[i] < lengths[i]]
            every = [(turn + i) % 3 > 0 for i, _ in rows]
            flat = np.array([id for _, part in rows for id in part], dtype=np.int32)
            logits = engine.forward([sequences[i] for i, _ in rows], [len(part) for _, part in rows], flat, every)
            at = 0
            for (i, part), all_logits in zip(rows, every, strict=True):
                wanted = len(part) if all_logits else 1
                end = done[i] + len(part)
                np.testing.assert_array_equal(logits[at : at + wanted], alone[i][end - wanted : end])
                at += wanted
                done[i] = end
            assert at == len(logits)
            turn += 1


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_order_of_operations(data: st.DataObject) -> None:
    """A list of tokens per sequence is all there is to a cache, however its pages are shared."""
    engine, _ = twins(SMALL, bits=4)
    held: dict[int, list[int]] = {}
    for _ in range(data.draw(st.integers(1, 14))):
        action = data.draw(st.sampled_from(["new", "forward", "forward", "forward", "fork", "truncate", "free"]))
        if action == "new" or not held:
            held[engine.new()] = []
            continue
        sequence = data.draw(st.sampled_from(sorted(held)))
        if action == "fork":
            held[engine.fork(sequence)] = list(held[sequence])
        elif action == "truncate":
            length = data.draw(st.integers(0, len(held[sequence])))
            engine.truncate(sequence, length)
            held[sequence] = held[sequence][:length]
        elif action == "free":
            engine.free(sequence)
            del held[sequence]
        else:
            chosen = data.draw(st.lists(st.sampled_from(sorted(held)), min_size=1, unique=True))
            new = [ids(data.draw(st.integers(1, 40)), seed=data.draw(st.integers(0, 9))) for _ in chosen]
            flat = np.array([id for part in new for id in part], dtype=np.int32)
            logits = engine.forward(chosen, [len(part) for part in new], flat, [False] * len(new))
            for s, part, row in zip(chosen, new, logits, strict=True):
                held[s] += part
                fresh = engine.new()
                np.testing.assert_array_equal(run(engine, fresh, held[s], False)[0], row)
                engine.free(fresh)
        assert {s: engine.length(s) for s in held} == {s: len(tokens) for s, tokens in held.items()}
    for sequence in held:
        engine.free(sequence)
    assert engine.cache_bytes == 0


def test_pages_that_are_shared_count_once() -> None:
    engine, _ = twins(SMALL)
    page = engine.page_bytes
    assert page == 16 * SMALL.layers * SMALL.kv_heads * SMALL.head_dim * 2 * 2
    first = engine.new()
    run(engine, first, ids(40))
    assert engine.cache_bytes == 3 * page
    second = engine.fork(first)
    assert engine.cache_bytes == 3 * page
    run(engine, second, ids(1))  # the half full page is copied
    assert engine.cache_bytes == 4 * page
    engine.free(first)
    assert engine.cache_bytes == 3 * page
    engine.truncate(second, 16)
    assert engine.cache_bytes == page
    engine.free(second)
    assert engine.cache_bytes == 0


def test_a_full_cache_changes_nothing() -> None:
    page = twins(SMALL)[0].page_bytes
    engine, _ = twins(SMALL, cache_limit=5 * page)
    first, second = engine.new(), engine.new()
    run(engine, first, ids(20))
    run(engine, second, ids(20))
    with pytest.raises(MemoryError):
        engine.forward([first, second], [20, 40], np.array(ids(60), dtype=np.int32), [False, False])
    assert (engine.length(first), engine.length(second), engine.cache_bytes) == (20, 20, 4 * page)
    fork = engine.fork(first)
    run(engine, fork, [1])  # the fifth page, for the copy
    with pytest.raises(MemoryError):
        run(engine, engine.fork(first), [1])
    engine.free(second)
    unlimited, _ = twins(SMALL)
    np.testing.assert_array_equal(run(engine, first, ids(9)), run(unlimited, unlimited.new(), ids(20) + ids(9))[20:])


def test_callers_on_several_threads_take_turns() -> None:
    engine, _ = twins(SMALL, threads=2)
    texts = [ids(90, seed=n) for n in range(4)]
    alone = [run(engine, engine.new(), text) for text in texts]
    results: list[Array | None] = [None] * len(texts)

    def work(n: int) -> None:
        sequence = engine.new()
        results[n] = np.concatenate([run(engine, sequence, texts[n][at : at + 3]) for at in range(0, 90, 3)])

    workers = [threading.Thread(target=work, args=(n,)) for n in range(len(texts))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for ours, expected in zip(results, alone, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_more_threads_than_cores_still_finish() -> None:
    engine, _ = twins(SMALL, threads=16)
    once, _ = twins(SMALL)
    np.testing.assert_array_equal(run(engine, engine.new(), ids(50)), run(once, once.new(), ids(50)))


def test_rows_that_cannot_be_are_refused_and_leave_all_as_it_was() -> None:
    engine, _ = twins(SMALL)
    sequence, freed = engine.new(), engine.new()
    engine.free(freed)
    run(engine, sequence, [1, 2])
    one = np.array([3], dtype=np.int32)
    refused: list[tuple[list[int], list[int], Any, list[bool]]] = [
        ([sequence], [1], np.array([97], dtype=np.int32), [False]),
        ([sequence], [1], np.array([-1], dtype=np.int32), [False]),
        ([sequence], [0], one[:0], [False]),
        ([sequence], [-1], one, [False]),
        ([sequence], [2], one, [False]),
        ([sequence], [1], np.array([3, 4], dtype=np.int32), [False]),
        ([sequence, freed], [1, 1], np.array([3, 4], dtype=np.int32), [False, False]),
        ([sequence, sequence], [1, 1], np.array([3, 4], dtype=np.int32), [False, False]),
        ([sequence], [1, 1], one, [False]),
        ([sequence], [1], one, []),
        ([sequence], [1023], np.zeros(1023, dtype=np.int32), [False]),
        ([sequence], [2**62], one, [False]),
    ]
    for sequences, counts, tokens, every in refused:
        with pytest.raises(ValueError, match=r"\w"):
            engine.forward(sequences, counts, tokens, every)
    for call in (engine.fork, engine.length, engine.free):
        with pytest.raises(ValueError, match="no sequence"):
            call(freed)
    for length in (-1, 3, 2**40):
        with pytest.raises(ValueError, match="holds 2 tokens"):
            engine.truncate(sequence, length)
    assert engine.length(sequence) == 2
    assert engine.forward([], [], one[:0], []).shape == (0, 97)
    other = engine.new()
    np.testing.assert_array_equal(run(engine, sequence, [5]), run(engine, other, [1, 2, 5])[2:])


def test_models_that_do_not_fit_together_are_refused() -> None:
    square = matrix(torch.ones(64, 64), 8)
    norm = np.ones(64, dtype=np.float32)
    fits: dict[str, Any] = {
        "hidden": 64, "intermediate": 64, "heads": 4, "kv_heads": 4, "head_dim": 16, "max_positions": 32,
        "rope_theta": 1e4, "eps": 1e-5, "embedding": square, "head": None, "norm": norm, "threads": 1,
        "layers": [(norm, square, square, square, square, norm, square, square, square)],
    }  # fmt: skip
    _native.Engine(**fits)
    wrong: list[dict[str, Any]] = [
        {"hidden": 0}, {"hidden": 2**40}, {"heads": 3}, {"kv_heads": 2}, {"head_dim": 15}, {"max_positions": 0},
        {"rope_theta": 0.0}, {"rope_theta": float("nan")}, {"eps": float("inf")}, {"layers": []}, {"threads": 0},
        {"threads": -1}, {"isa": "sse9"}, {"norm": norm[:63].copy()}, {"norm": norm * np.float32(np.nan)},
        {"head": matrix(torch.ones(63, 64), 8)}, {"embedding": None}, {"head": 5}, {"norm": None},
        {"layers": [(norm, square, square, square, square, norm, square, square, matrix(torch.ones(64, 65), 8))]},
        {"layers": [(norm, square, None, square, square, norm, square, square, square)]},
        {"layers": [(norm, square)]},
    ]  # fmt: skip
    for change in wrong:
        with pytest.raises((ValueError, TypeError), match=r"\w"):
            _native.Engine(**fits | change)
