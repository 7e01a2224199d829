"""Attention by document against the masked one, forward and backward."""

from __future__ import annotations

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from codegen25.model.llama import Attend, Packed
from codegen25.train.attention import ByDocument


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


def test_equal_numbers_in_two_rows_are_two_documents() -> None:
    assert ByDocument(numbered([[3], [3]])).lengths == [3, 3]
    assert ByDocument(numbered([[2, 3], [1]])).lengths == [2, 3, 1, 4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_the_model(dtype: torch.dtype) -> None:
    document_BT = numbered([[7, 5, 4], [9, 3]])
    tokens = torch.randint(256, document_BT.shape, generator=torch.Generator().manual_seed(0))
    model = tiny.model(dtype)
    with torch.no_grad():
        a, b = (model.hidden(tokens, attend=attend(document_BT)) for attend in (ByDocument, Packed))
    here = document_BT > 0
    torch.testing.assert_close(a[here], b[here], atol=1e-5 if dtype == torch.float32 else 0.1, rtol=1e-2)
