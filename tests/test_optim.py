"""Masters, AdamW and Muon, held against PyTorch's own optimizer and against slow arithmetic; the schedule."""

from __future__ import annotations

import math

import pytest
import tiny
import torch
from torch import Tensor, nn

from codegen25.train.optim import MasterOptimizer, Schedule


def step(optimizer: MasterOptimizer, rate: float, clip: float = 1.0) -> float:
    """One step from the gradients that the model holds; their norm."""
    optimizer.accumulate()
    norm = optimizer.norm()
    optimizer.step(rate, clip, norm)
    return norm


def with_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype) * 0.1


def test_masters_step_as_adamw_on_the_model_itself() -> None:
    ours, theirs = tiny.model(), tiny.model()
    optimizer = MasterOptimizer(ours, weight_decay=0.1)
    groups = [
        {"params": [p for p in theirs.parameters() if p.dim() == 2], "weight_decay": 0.1},
        {"params": [p for p in theirs.parameters() if p.dim() == 1], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), eps=1e-8)
    for number in range(5):
        for model in (ours, theirs):
            with_gradients(model, number)
        rate = 1e-2 / (number + 1)
        norm = step(optimizer, rate)
        assert norm == pytest.approx(float(nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)), rel=1e-5)
        for group in reference.param_groups:
            group["lr"] = rate
        reference.step()
        for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5, msg=name)
            assert a.grad is None


def test_new_rows_step_farther_by_the_factor() -> None:
    plain, eager = tiny.model(), tiny.model()
    before = plain.embed_tokens.weight.detach().clone()
    optimizers = MasterOptimizer(plain), MasterOptimizer(eager, new_rows=264, new_rows_factor=5.0)
    for model, optimizer in zip((plain, eager), optimizers, strict=True):
        with_gradients(model, 1)
        step(optimizer, 1e-2)
    a, b = plain.embed_tokens.weight.detach(), eager.embed_tokens.weight.detach()
    assert torch.equal(a[:264], b[:264])
    assert torch.equal(b[264:], before[264:] + (a[264:] - before[264:]) * 5.0)
    assert (a[264:] != before[264:]).all()
    for name, parameter in eager.named_parameters():
        assert name == "embed_tokens.weight" or torch.equal(parameter, dict(plain.named_parameters())[name])


def test_small_steps_add_up_in_the_masters() -> None:
    """A step under half a unit in the last place of bfloat16 is lost in the weights, and kept in the masters."""
    model = tiny.model(torch.bfloat16)
    optimizer, start = MasterOptimizer(model, weight_decay=0.0), model.norm.weight.detach().clone()
    for _ in range(60):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        step(optimizer, 1e-4)
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, optimizer.masters[name].bfloat16())
    assert (model.norm.weight < start).all()
    assert optimizer.masters["norm.weight"].mean().item() == pytest.approx(1.0 - 60e-4, abs=1e-4)


def test_what_is_discarded_changes_nothing() -> None:
    model = tiny.model()
    optimizer = MasterOptimizer(model)
    before = {name: tensor.clone() for name, tensor in optimizer.state().items()}
    with_gradients(model, 0)
    assert model.norm.weight.grad is not None
    model.norm.weight.grad[0] = math.inf
    optimizer.accumulate()
    assert optimizer.norm() == math.inf
    optimizer.discard()
    assert all(torch.equal(tensor, before[name]) for name, tensor in optimizer.state().items())
    with_gradients(model, 1)
    optimizer.accumulate()
    assert math.isfinite(optimizer.norm())


def test_passes_add_up_in_fp32() -> None:
    """In bfloat16 the sum of 1 and many times 1/1024 is 1."""
    model = tiny.model(torch.bfloat16)
    optimizer = MasterOptimizer(model)
    for value in [1.0] + [2**-10] * 64:
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, value)
        optimizer.accumulate()
    assert all(
        torch.equal(m.grad, torch.full_like(m, 1.0625)) for m in optimizer.masters.values() if m.grad is not None
    )


def test_only_what_asks_for_gradients_is_trained() -> None:
    model = tiny.model()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("mlp" in name)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = MasterOptimizer(model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    step(optimizer, 1e-2)
    assert all(torch.equal(p, before[name]) != p.requires_grad for name, p in model.named_parameters())
    assert all("mlp" in name for name in optimizer.state())


# --- Muon ---


def slow_muon(weight: Tensor, gradients: list[Tensor], rate: float, decay: float) -> Tensor:
    """With the exact polar factor by singular values, in double precision, where Muon iterates in bfloat16."""
    weight, momentum = weight.double(), torch.zeros_like(weight).double()
    for gradient in gradients:
        momentum = 0.95 * momentum + 0.05 * gradient.double()
        u, _, v = torch.linalg.svd(0.05 * gradient.double() + 0.95 * momentum, full_matrices=False)
        weight = weight * (1 - rate * decay) - rate * 0.2 * max(weight.shape) ** 0.5 * (u @ v)
    return weight


@pytest.mark.parametrize("rows, columns", [(16, 24), (24, 16), (32, 32)])
def test_muon_steps_along_the_polar_factor(rows: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    linear = torch.nn.Linear(columns, rows, bias=False)
    before = linear.weight.detach().clone()
    gradients = [torch.randn(rows, columns, generator=generator) for _ in range(3)]
    optimizer = MasterOptimizer(linear, kind="muon", weight_decay=0.1)
    for gradient in gradients:
        linear.weight.grad = gradient.clone()
        step(optimizer, 1e-2, clip=1e9)
    moved = linear.weight.detach().double() - before.double()
    expected = slow_muon(before, gradients, 1e-2, 0.1) - before.double()
    # Newton-Schulz leaves singular values between about 0.7 and 1.2 where the polar factor has ones.
    cosine = float((moved * expected).sum() / moved.norm() / expected.norm())
    assert cosine > 0.97 and 0.75 < float(moved.norm() / expected.norm()) < 1.25


def test_muon_moves_as_far_as_adamw() -> None:
    """At the same rate: the root mean square of an update of AdamW is about 0.2 to 1 of the rate, Muon's 0.2."""
    model = tiny.model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with_gradients(model, 3)
    step(MasterOptimizer(model, kind="muon", weight_decay=0.0), 1e-2)
    for name, p in model.named_parameters():
        rms = float((p.detach() - before[name]).square().mean().sqrt()) / 1e-2
        is_hidden = p.dim() == 2 and name != "embed_tokens.weight"
        assert (0.1 < rms < 0.3) if is_hidden else (0.9 < rms < 1.1), name


def test_muon_has_its_own_state() -> None:
    model = tiny.model()
    optimizer = MasterOptimizer(model, kind="muon")
    names = set(optimizer.state())
    assert "momentum_buffer.layers.0.mlp.up_proj.weight" in names and "exp_avg.embed_tokens.weight" in names
    assert "exp_avg.layers.0.mlp.up_proj.weight" not in names
    with_gradients(model, 0)
    step(optimizer, 1e-3)
    assert set(optimizer.state()) == names, "a checkpoint from before the first step has the same tensors"
    other_model = tiny.model(seed=9)
    other = MasterOptimizer(other_model, kind="muon")
    other.load_state({name: tensor.clone() for name, tensor in optimizer.state().items()})
    for one, its in ((model, optimizer), (other_model, other)):
        with_gradients(one, 1)
        step(its, 1e-3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other_model.parameters(), strict=True))


def test_the_schedule() -> None:
    schedule = Schedule(rate=2.0, warmup=4, steps=20, decay=5)
    assert [schedule.at(step) for step in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert {schedule.at(step) for step in range(4, 16)} == {2.0}
    assert [schedule.at(step) for step in range(15, 21)] == pytest.approx([2.0, 1.6, 1.2, 0.8, 0.4, 0.0])
    assert schedule.at(25) == 0.0
    assert Schedule(2.0, warmup=0, steps=3, decay=0).at(0) == 2.0
    crowded = Schedule(1.0, warmup=8, steps=8, decay=8)  # both at once: the lower of the two
    assert [crowded.at(step) for step in (0, 3, 4, 7)] == [0.125, 0.5, 0.5, 0.125]
