"""Matrices of the native kernel: every instruction set of this machine against plain arithmetic, and each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from codegen25 import _native
from codegen25._native import Matrix
from codegen25.model.packed import dequantize, pack
from codegen25.model.plan import LEVELS, Packing
from codegen25.model.rounding import round_to_nearest
from codegen25.model.weights import Quantized

ISAS = _native.isas()
FLOATS = st.floats(-8, 8, width=32)


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def activations(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """8 bits in groups of 64, in float32 as the kernel divides, then exact."""
    groups = np.pad(x, [(0, 0), (0, -x.shape[1] % 64)]).reshape(len(x), -1, 64)
    most = np.abs(groups).max(-1, keepdims=True)
    factor = np.divide(np.float32(127), most, out=np.zeros_like(most), where=most > 0)
    whole = np.rint(groups * factor).astype(np.float64)
    exact: NDArray[np.float64] = (whole * (most / np.float32(127))).reshape(len(x), -1)[:, : x.shape[1]]
    return exact


def test_the_fastest_comes_first_and_the_portable_one_is_always_there() -> None:
    assert [isa for isa in ("avx512", "avx2", "portable") if isa in ISAS] == ISAS and ISAS[-1] == "portable"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bits", [4, 8])
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 19), st.integers(1, 70), st.integers(1, 210), st.integers(0, 99))
def test_products_are_those_of_the_dequantized_weights(isa: str, bits: int, M: int, N: int, K: int, seed: int) -> None:
    matrix = Matrix.quantized(random(N, K, seed=seed), bits, "float32")
    x = random(M, K, seed=seed + 1)
    exact = activations(x) @ matrix.dequantized().astype(np.float64).T
    product = matrix.multiply(x, isa)
    assert product.shape == (M, N) and product.dtype == np.float32
    np.testing.assert_allclose(product, exact, atol=2e-6 * K, rtol=0)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize("isa", ISAS)
def test_every_layout_of_files(bits: int, group: int, isa: str) -> None:
    """Integers at both ends of the levels, where 16-bit sums of pairs are largest."""
    packing, (low, high) = Packing(bits, group), LEVELS[bits]
    rng = np.random.default_rng(1)
    integers = torch.from_numpy(rng.choice([low, low, high, high, 0, 1], size=(37, 192)).astype(np.float32))
    scale = torch.from_numpy(rng.standard_normal((37, 192 // group)).astype(np.float16))
    packed = pack(integers, packing)
    matrix = Matrix.packed(packed.numpy(), scale.numpy(), bits, group)
    assert (matrix.rows, matrix.columns, matrix.bits, matrix.group) == (37, 192, bits, group)
    plain = dequantize(packed, scale, packing).numpy()
    np.testing.assert_array_equal(matrix.dequantized(), plain)
    x = np.where(random(9, 192) > 0, np.float32(3), np.float32(-3))  # every activation is 127 or -127
    np.testing.assert_allclose(
        matrix.multiply(x, isa), activations(x) @ plain.T.astype(np.float64), rtol=2e-5, atol=2e-2
    )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bits", [4, 8])
def test_rows_do_not_depend_on_their_neighbours(isa: str, bits: int) -> None:
    matrix, x = Matrix.quantized(random(83, 200), bits, "float32"), random(37, 200, seed=1)
    together = matrix.multiply(x, isa)
    for size in (1, 2, 3, 5, 8, 11):
        parts = [matrix.multiply(x[i : i + size].copy(), isa) for i in range(0, len(x), size)]
        np.testing.assert_array_equal(np.concatenate(parts), together)
    np.testing.assert_array_equal(matrix.multiply(x, isa, threads=3), together)


@pytest.mark.parametrize("bits", [4, 8])
def test_instruction_sets_with_fused_sums_agree_to_the_bit(bits: int) -> None:
    matrix, x = Matrix.quantized(random(50, 320), bits, "float32"), random(21, 320, seed=1)
    results = [matrix.multiply(x, isa) for isa in ISAS if isa != "portable"]
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


@pytest.mark.parametrize("bits", [4, 8])
def test_rounding_is_that_of_the_quantizer(bits: int) -> None:
    weights = random(33, 256)
    weights[3, :64] = 0
    weights[4, 5] = 40
    integers, scale = round_to_nearest(torch.from_numpy(weights), Packing(bits, 64 if bits == 8 else 32))
    reference = (integers * scale.float().repeat_interleave(256 // scale.shape[1], dim=1)).numpy()
    ours = Matrix.quantized(weights, bits, "float32").dequantized()
    if bits == 8:
        np.testing.assert_array_equal(ours, reference)
    else:  # candidates that are equally good may be taken in another order of sums
        losses = [np.square(weights - rounded).reshape(33, -1, 32).sum(-1) for rounded in (ours, reference)]
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weights(dtype: str) -> None:
    halves = torch.from_numpy(random(20, 100)).to(getattr(torch, dtype))
    ours = Matrix.quantized(halves.view(torch.uint16).numpy(), 8, dtype)
    np.testing.assert_array_equal(
        ours.dequantized(), Matrix.quantized(halves.float().numpy(), 8, "float32").dequantized()
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 0xFFFF), min_size=32, max_size=32))
def test_any_finite_scale_is_read_exactly(bits: list[int]) -> None:
    scale = np.array(bits, dtype=np.uint16).view(np.float16)[:, None]
    q = np.ones((32, 32), dtype=np.int8)
    if np.isfinite(scale).all():
        matrix = Matrix.packed(q, scale, 8, 32)
        np.testing.assert_array_equal(matrix.dequantized()[:, :1], scale.astype(np.float32))
    else:
        with pytest.raises(ValueError, match="not finite"):
            Matrix.packed(q, scale, 8, 32)


Q8, Q4 = np.zeros((3, 64), np.int8), np.zeros((3, 32), np.uint8)
SCALE = np.zeros((3, 2), np.float16)


@pytest.mark.parametrize(
    ("q", "scale", "bits", "group"),
    [
        (Q8, SCALE, 5, 32),
        (Q8, SCALE, 8, 16),
        (Q8, SCALE, 8, 64),
        (Q4, SCALE, 8, 32),
        (Q8, SCALE, 4, 32),
        (Q8, SCALE[:2], 8, 32),
        (Q8[:, :63].copy(), SCALE, 8, 32),
        (Q8[:0], SCALE[:0], 8, 32),
        (Q8, SCALE.astype(np.float32), 8, 32),
        (Q8, SCALE.view(np.uint16), 8, 32),
    ],
)
def test_wrong_layouts_are_refused(q: NDArray[np.int8], scale: NDArray[np.float16], bits: int, group: int) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Matrix.packed(q, scale, bits, group)


def test_weights_that_cannot_be_rounded_are_refused() -> None:
    for bad, why in ((np.nan, "NaN"), (np.inf, "infinity"), (1e30, "too large")):
        weights = random(20, 40)
        weights[17, 3] = bad
        with pytest.raises(ValueError, match=why):
            Matrix.quantized(weights, 8, "float32", threads=2)
    with pytest.raises(ValueError, match="uint16"):
        Matrix.quantized(random(2, 2), 8, "float16")
    with pytest.raises(ValueError, match="dtype"):
        Matrix.quantized(random(2, 2).view(np.int32), 8, "float32")
    with pytest.raises(ValueError, match="threads"):
        Matrix.quantized(random(2, 2), 8, "float32", threads=0)


def test_equal_scales_of_neighbours_become_one() -> None:
    q = np.random.default_rng(0).integers(-127, 128, (20, 192)).astype(np.int8)
    scale = random(20, 3).astype(np.float16)
    matrix = Matrix.packed(q, np.repeat(scale, 2, axis=1), 8, 32)
    assert matrix.group == 64 and matrix.nbytes == Matrix.packed(q, scale, 8, 64).nbytes
    np.testing.assert_array_equal(matrix.dequantized(), Matrix.packed(q, scale, 8, 64).dequantized())


def test_wrong_factors_are_refused() -> None:
    matrix = Matrix.quantized(random(5, 40), 8, "float32")
    with pytest.raises(ValueError, match="39 columns"):
        matrix.multiply(random(2, 39))
    with pytest.raises(ValueError, match="this machine runs"):
        matrix.multiply(random(2, 40), "sse9")
    assert matrix.multiply(random(0, 40)).shape == (0, 5)


def test_memory_is_that_of_the_file() -> None:
    matrix = Matrix.quantized(random(160, 640), 4, "float32")
    assert matrix.nbytes == 160 * 640 // 2 + 160 * 640 // 32 * 2


@pytest.mark.parametrize("bits, group", [(8, 64), (4, 32)])
def test_stored_is_what_packed_takes(bits: int, group: int) -> None:
    matrix = Matrix.quantized(random(37, 192), bits, "float32", threads=2)
    q, scales = matrix.stored()
    q = q.view(np.int8) if bits == 8 else q
    again = Matrix.packed(q, scales.view(np.float16), bits, group)
    np.testing.assert_array_equal(again.dequantized(), matrix.dequantized())
    np.testing.assert_array_equal(
        Quantized(q, scales.view(np.float16), Packing(bits, group)).widened(), again.dequantized()
    )


@pytest.mark.parametrize("value", [1e6, 1e30, 3e38])
def test_numbers_too_large_for_4_bits_are_refused(value: float) -> None:
    weights = random(4, 64)
    weights[2, 5] = value
    with pytest.raises(ValueError, match="too large"):
        Matrix.quantized(weights, 4, "float32")


def test_stored_needs_whole_groups() -> None:
    with pytest.raises(ValueError, match="no whole groups of 64"):
        Matrix.quantized(random(4, 100), 8, "float32").stored()
