"""The chunked cross entropy against PyTorch's own, value and both gradients."""

from __future__ import annotations

import pytest
import tiny
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from codegen25.model.llama import Llama
from codegen25.train.batches import Batch, to_batch
from codegen25.train.loss import Learner, cross_entropy_sum
from codegen25.train.objective import Example


def batch_loss(model: Llama, batch: Batch) -> Tensor:
    loss: Tensor = Learner(model)(batch)
    return loss / max(1, batch.learned)


def problem(N: int, V: int, seed: int, scale: float = 1.0, D: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x_ND = torch.randn(N, D, generator=generator) * scale
    weight_VD = torch.randn(V, D, generator=generator)
    return x_ND, weight_VD, torch.randint(V, (N,), generator=generator)


def ours(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, chunk: int, factor: float) -> tuple[Tensor, ...]:
    x, weight = (tensor.clone().requires_grad_() for tensor in (x_ND, weight_VD))
    total = cross_entropy_sum(x, weight, targets_N, chunk)
    (total * factor).backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None and weight.grad is not None
    return total.detach(), x.grad, weight.grad


def theirs(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, factor: float) -> tuple[Tensor, ...]:
    """In double precision."""
    x, weight = (tensor.double().requires_grad_() for tensor in (x_ND, weight_VD))
    total = F.cross_entropy(x @ weight.T, targets_N, reduction="sum")
    (total * factor).backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None and weight.grad is not None
    return total.detach(), x.grad, weight.grad


@given(
    N=st.integers(1, 40),
    V=st.integers(1, 70),
    chunk=st.integers(1, 50),
    factor=st.sampled_from([1.0, -2.5, 1 / 37]),
    seed=st.integers(0, 99),
)
def test_value_and_gradients(N: int, V: int, chunk: int, factor: float, seed: int) -> None:
    x_ND, weight_VD, targets_N = problem(N, V, seed)
    found = ours(x_ND, weight_VD, targets_N, chunk, factor)
    for a, b in zip(found, theirs(x_ND, weight_VD, targets_N, factor), strict=True):
        torch.testing.assert_close(a.double(), b, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("chunk", [1, 7, 256])
def test_large_logits_do_not_overflow(chunk: int) -> None:
    x_ND, weight_VD, targets_N = problem(20, 50, 1, scale=100.0)
    found = ours(x_ND, weight_VD, targets_N, chunk, 1.0)
    for a, b in zip(found, theirs(x_ND, weight_VD, targets_N, 1.0), strict=True):
        assert torch.isfinite(a).all()
        assert float((a.double() - b).norm() / b.norm()) < 1e-4


def test_double_precision_inputs() -> None:
    """The logits are taken in fp32 all the same; the gradients have the inputs' dtype."""
    x_ND, weight_VD, targets_N = problem(23, 31, 2)
    found = ours(x_ND.double(), weight_VD.double(), targets_N, 8, 1.0)
    assert [tensor.dtype for tensor in found] == [torch.float32, torch.float64, torch.float64]
    for a, b in zip(found, theirs(x_ND, weight_VD, targets_N, 1.0), strict=True):
        torch.testing.assert_close(a.double(), b, atol=1e-5, rtol=1e-5)


def test_bfloat16_is_as_exact_as_its_inputs() -> None:
    x_ND, weight_VD, targets_N = problem(64, 40, 3)
    x_ND, weight_VD = x_ND.bfloat16(), weight_VD.bfloat16()
    total, grad_x, grad_weight = ours(x_ND, weight_VD, targets_N, 16, 1 / 64)
    expected = theirs(x_ND, weight_VD, targets_N, 1 / 64)
    assert total.dtype == torch.float32 and grad_x.dtype == grad_weight.dtype == torch.bfloat16
    assert float(total) == pytest.approx(float(expected[0]), rel=5e-3)
    for a, b in zip((grad_x, grad_weight), expected[1:], strict=True):
        assert float((a.double() - b).norm() / b.norm()) < 0.02


@pytest.mark.parametrize("frozen", ["x", "weight"])
def test_one_side_may_be_frozen(frozen: str) -> None:
    x_ND, weight_VD, targets_N = problem(9, 5, 4)
    (x_ND if frozen == "weight" else weight_VD).requires_grad_()
    cross_entropy_sum(x_ND, weight_VD, targets_N, 4).backward()  # type: ignore[no-untyped-call]
    assert (x_ND.grad is None, weight_VD.grad is None) == (frozen == "x", frozen == "weight")


def test_without_states_all_is_zero() -> None:
    x_ND, weight_VD, targets_N = problem(0, 5, 0)
    total, grad_x, grad_weight = ours(x_ND, weight_VD, targets_N, 4, 1.0)
    assert float(total) == 0.0 and grad_x.shape == (0, 12) and not grad_weight.any()


def test_a_batch_without_targets_teaches_nothing() -> None:
    model = tiny.model()
    loss = batch_loss(model, to_batch([[Example([5, 6, 7], [False] * 3)]]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_a_batchs_loss_is_the_mean_over_its_targets() -> None:
    """Against logits of every document alone; also the tied head's gradient, which two paths lead to."""
    made = [Example([1, 9, 4, 200, 7], [True, True, False, True, True]), Example([3, 8], [False, True])]
    model = tiny.model()
    loss = batch_loss(model, to_batch([made]))
    loss.backward()  # type: ignore[no-untyped-call]
    grads = {name: p.grad for name, p in model.named_parameters()}
    reference = tiny.model()
    nll = [
        -reference(torch.tensor([one.ids]))[0, place].log_softmax(-1)[one.ids[place + 1]]
        for one in made
        for place in range(len(one.ids) - 1)
        if one.learned[place + 1]
    ]
    assert len(nll) == 4
    expected = torch.stack(nll).mean()
    expected.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(grads[name], parameter.grad, atol=1e-5, rtol=1e-4)
