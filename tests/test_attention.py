"""Attention by document against the masked one, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tiny
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from codegen25.model.llama import Attend, Packed
from codegen25.train.attention import ByDocument, blockwise


def numbered(rows: list[list[int]]) -> Tensor:
    """`document_BT` of rows of documents' lengths, padded."""
    T = max(map(sum, rows))
    numbers = [[n for n, length in enumerate(row, 1) for _ in range(length)] for row in rows]
    return torch.tensor([row + [0] * (T - len(row)) for row in numbers])


def both_ways(attend: Attend, document_BT: Tensor, seed: int) -> list[Tensor]:
    """The output and the gradients of queries, keys and values."""
    generator, (B, T) = torch.Generator().manual_seed(seed), document_BT.shape
    # As projections give them: heads behind tokens in memory.
    q, k, v = (torch.randn(B, T, heads, 8, generator=generator).transpose(1, 2).requires_grad_() for heads in (4, 2, 2))
    out = attend(0, q, k, v)
    here = document_BT[:, None, :, None] > 0
    (out * torch.randn(out.shape, generator=generator)).where(here, 0.0).sum().backward()  # type: ignore[no-untyped-call]
    assert q.grad is not None and k.grad is not None and v.grad is not None
    return [out.where(here, 0.0), q.grad, k.grad, v.grad]


@given(
    rows=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=4), seed=st.integers(0, 9)
)
def test_both_ways_are_equal(rows: list[list[int]], seed: int) -> None:
    document_BT = numbered(rows)
    found = both_ways(ByDocument(document_BT), document_BT, seed)
    for a, b in zip(found, both_ways(Packed(document_BT), document_BT, seed), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rows", [[[128], [129]], [[1, 300, 7]], [[255, 1, 130]]])
def test_documents_of_several_blocks(rows: list[list[int]]) -> None:
    document_BT = numbered(rows)
    found = both_ways(ByDocument(document_BT), document_BT, 0)
    for a, b in zip(found, both_ways(Packed(document_BT), document_BT, 0), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-5)


def test_bfloat16_is_as_near_to_the_truth_as_pytorch() -> None:
    generator = torch.Generator().manual_seed(0)
    true = [torch.randn(heads, 300, 64, generator=generator) for heads in (9, 3, 3)]
    weights = torch.randn(9, 300, 64, generator=generator)

    def errors(attend: Callable[..., Tensor], dtype: torch.dtype) -> list[Tensor]:
        inputs = [x.to(dtype).detach().requires_grad_() for x in true]
        out = attend(*inputs)
        (out * weights.to(dtype)).sum().backward()  # type: ignore[no-untyped-call]
        return [out, *(x.grad for x in inputs if x.grad is not None)]

    def pytorch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True, enable_gqa=True)[0]

    exact = errors(pytorch, torch.float32)
    for ours, theirs, truth in zip(
        errors(blockwise, torch.bfloat16), errors(pytorch, torch.bfloat16), exact, strict=True
    ):
        distance = [
            ((x.detach().float() - truth.detach()).norm() / truth.detach().norm()).item() for x in (ours, theirs)
        ]
        assert distance[0] < 3 * distance[1], distance


def test_equal_numbers_in_two_rows_are_two_documents() -> None:
    assert ByDocument(numbered([[3], [3]])).lengths == [[3], [3]]
    assert ByDocument(numbered([[2, 3], [1]])).lengths == [[2, 3], [1, 4]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_the_model(dtype: torch.dtype) -> None:
    document_BT = numbered([[7, 5, 4], [9, 3]])
    tokens = torch.randint(256, document_BT.shape, generator=torch.Generator().manual_seed(0))
    model = tiny.model(dtype)
    with torch.no_grad():
        a, b = (model.hidden(tokens, attend=attend(document_BT)) for attend in (ByDocument, Packed))
    here = document_BT > 0
    torch.testing.assert_close(a[here], b[here], atol=1e-5 if dtype == torch.float32 else 0.1, rtol=1e-2)
