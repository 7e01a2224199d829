"""The reference backend: the PyTorch model on a CPU, or on CUDA or MPS by device.

All rows of a call run through the model as one flat row of tokens; only attention looks at each sequence's own cache.
So sequences of any lengths share a step without padding, and batched is the same arithmetic as one by one.

Shapes: L layers, G key/value heads, S capacity in tokens, K head size, N tokens of all rows of a call.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from codegen25.config import ModelConfig
from codegen25.engine.backend import Logits, Row
from codegen25.model.codegen2 import CodeGen2
from codegen25.model.llama import Llama

FIRST_CAPACITY = 256


class _Cache:
    """Keys and values of one sequence, [L, G, S, K]; the capacity doubles when it is full."""

    def __init__(self, config: ModelConfig, like: Tensor) -> None:
        self.length = 0
        shape = (config.layers, config.kv_heads, FIRST_CAPACITY, config.head_dim)
        self.k_LGSK, self.v_LGSK = like.new_empty(shape), like.new_empty(shape)

    def reserve(self, length: int) -> None:
        capacity = self.k_LGSK.shape[2]
        if length > capacity:
            capacity = max(length, 2 * capacity)
            self.k_LGSK, self.v_LGSK = self._grown(self.k_LGSK, capacity), self._grown(self.v_LGSK, capacity)

    def _grown(self, old: Tensor, capacity: int) -> Tensor:
        new = old.new_empty(*old.shape[:2], capacity, old.shape[3])
        new[:, :, : self.length] = old[:, :, : self.length]
        return new

    @property
    def nbytes(self) -> int:
        return self.k_LGSK.nbytes + self.v_LGSK.nbytes

    def copy(self) -> _Cache:
        other = _Cache.__new__(_Cache)
        other.length = self.length
        other.k_LGSK, other.v_LGSK = self.k_LGSK.clone(), self.v_LGSK.clone()
        return other


class _Attend:
    """Attention of one call: each row's queries over its own past and, up to themselves, its new tokens."""

    def __init__(self, rows: Sequence[tuple[_Cache, int]]) -> None:
        self.rows = rows

    def __call__(self, layer: int, q_1HNK: Tensor, k_1GNK: Tensor, v_1GNK: Tensor) -> Tensor:
        out = torch.empty_like(q_1HNK)
        first = 0
        for cache, n in self.rows:
            new, past = slice(first, first + n), cache.length
            cache.k_LGSK[layer, :, past : past + n] = k_1GNK[0, :, new]
            cache.v_LGSK[layer, :, past : past + n] = v_1GNK[0, :, new]
            k, v = cache.k_LGSK[layer, :, : past + n][None], cache.v_LGSK[layer, :, : past + n][None]
            mask = None
            if n > 1 and past > 0:
                mask = torch.ones(n, past + n, dtype=torch.bool, device=k.device).tril(past)
            out[:, :, new] = F.scaled_dot_product_attention(
                q_1HNK[:, :, new], k, v, attn_mask=mask, is_causal=n > 1 and past == 0, enable_gqa=True
            )
            first += n
        return out


class TorchBackend:
    """`Backend` on a `Llama` or a `CodeGen2`, on the device and in the dtype of its weights."""

    def __init__(self, model: Llama | CodeGen2) -> None:
        self.model = model.eval()
        self._caches: dict[int, _Cache] = {}
        self._next = 0

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    @property
    def cache_bytes(self) -> int:
        return sum(cache.nbytes for cache in self._caches.values())

    def _add(self, cache: _Cache) -> int:
        self._next += 1
        self._caches[self._next] = cache
        return self._next

    def new(self) -> int:
        return self._add(_Cache(self.config, self.model.norm.weight))

    def fork(self, sequence: int) -> int:
        return self._add(self._caches[sequence].copy())

    def truncate(self, sequence: int, length: int) -> None:
        cache = self._caches[sequence]
        assert 0 <= length <= cache.length, f"sequence {sequence} holds {cache.length} tokens, not {length}"
        cache.length = length

    def length(self, sequence: int) -> int:
        return self._caches[sequence].length

    def free(self, sequence: int) -> None:
        del self._caches[sequence]

    @torch.inference_mode()
    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        if not rows:
            return []
        if len({sequence for sequence, _, _ in rows}) < len(rows):
            raise ValueError("a sequence may stand in one row of a call only")
        if any(not tokens or sequence not in self._caches for sequence, tokens, _ in rows):
            raise ValueError("every row needs a sequence that exists and at least one token")
        device = self.model.norm.weight.device
        caches = [(self._caches[sequence], len(tokens)) for sequence, tokens, _ in rows]
        for cache, n in caches:
            cache.reserve(cache.length + n)
        tokens_1N = torch.tensor([[id for _, tokens, _ in rows for id in tokens]], device=device)
        positions_1N = torch.cat([torch.arange(c.length, c.length + n) for c, n in caches])[None].to(device)
        x_ND = self.model.hidden(tokens_1N, positions_1N, _Attend(caches))[0]
        for cache, n in caches:
            cache.length += n
        wanted, counts, first = [], [], 0
        for _, tokens, all_logits in rows:
            end = first + len(tokens)
            wanted.append(torch.arange(first if all_logits else end - 1, end))
            counts.append(len(wanted[-1]))
            first = end
        logits_RV = self.model.head(x_ND[torch.cat(wanted).to(device)]).cpu()
        return [part.numpy() for part in torch.split(logits_RV, counts)]
