"""The native kernel (`native/`): LLaMA on a CPU, with quantized weights and int8 activations.

Floats are fp32 where nothing else is said. Wrong shapes, dtypes and numbers raise `ValueError` and change nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

def isas() -> list[str]:
    """The instruction sets that this build and this machine can run, fastest first: avx512, avx2, portable."""

def read_bandwidth(mebibytes: int, threads: int) -> float:
    """Bytes per second that `threads` together read from memory; the best of five rounds over so many MiB."""

class Matrix:
    """[rows, columns] quantized weights in the kernel's own order."""

    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def bits(self) -> int: ...
    @property
    def group(self) -> int:
        """Neighbouring inputs that share a scale."""
    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
    @staticmethod
    def packed(q: NDArray[Any], scale: NDArray[np.float16], bits: int, group: int) -> Matrix:
        """The layout of docs/formats.md: q int8 [N, K] or uint8 [N, K / 2], scale [N, K / group], group 32 or 64."""
    @staticmethod
    def quantized(weights: NDArray[Any], bits: int, dtype: str, threads: int = 1) -> Matrix:
        """Round [N, K] to nearest: float32, or "float16" or "bfloat16" as uint16. Groups of 64 at 8 bits, 32 at 4."""
    def stored(self) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """What `packed` takes, its bits: q [N, K] or [N, K / 2], scales [N, K / group]; K is whole groups."""
    def dequantized(self) -> NDArray[np.float32]:
        """[N, K]."""
    def multiply(self, x: NDArray[np.float32], isa: str = "", threads: int = 1) -> NDArray[np.float32]:
        """x [M, K] to x · Wᵀ [M, N], with x rounded to 8 bits in groups of 64: the arithmetic of `Engine`."""

class Engine:
    """A model and the key/value caches of its sequences. Calls from several threads take turns."""

    def __init__(
        self,
        *,
        hidden: int,
        intermediate: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        max_positions: int,
        rope_theta: float,
        eps: float,
        embedding: Matrix,
        head: Matrix | None,
        layers: Sequence[tuple[NDArray[np.float32] | Matrix, ...]],
        norm: NDArray[np.float32],
        threads: int,
        isa: str = "",
        cache_limit: int = 0,
    ) -> None:
        """Layers are (input norm, q, k, v, o, post norm, gate, up, down); `head` None is tied to the embedding.

        `isa`: one of `isas()`, the fastest by default. `cache_limit`: bytes of all caches together; 0 for no limit.
        """
    def new(self) -> int: ...
    def forward(
        self,
        sequences: Sequence[int],
        counts: Sequence[int],
        tokens: NDArray[np.int32],
        all_logits: Sequence[bool],
    ) -> NDArray[np.float32]:
        """Append `counts[i]` of `tokens`, all rows one after the other, to `sequences[i]`.

        Logits [R, V] of every token of a row, or of its last. A token's logits do not depend on what it is batched
        with, to the bit. Raises `MemoryError` when pages cannot be had; every sequence is then as it was.
        """
    def fork(self, sequence: int) -> int:
        """A sequence with the same past; the pages are shared until one of the two writes to them."""
    def truncate(self, sequence: int, length: int) -> None: ...
    def length(self, sequence: int) -> int: ...
    def free(self, sequence: int) -> None: ...
    @property
    def cache_bytes(self) -> int:
        """Bytes of the pages in use, each counted once."""
    @property
    def page_bytes(self) -> int:
        """Bytes of a page, which holds 16 tokens."""
    @property
    def weight_bytes(self) -> int: ...
    @property
    def threads(self) -> int: ...
    @property
    def isa(self) -> str: ...

def longest_matches(
    ids: NDArray[np.uint16],
    suffixes: NDArray[np.uint32],
    query: NDArray[np.uint16],
    starts: NDArray[np.uint32],
    limit: int,
) -> NDArray[np.int64]:
    """[starts]: how many ids of `query` from each start on stand in a row in `ids`, at most `limit`.

    `suffixes` are places in `ids` in the order of what begins there.
    """

def occurrences(ids: NDArray[np.uint16], suffixes: NDArray[np.uint32], query: NDArray[np.uint16]) -> tuple[int, int]:
    """The ranks of the suffixes that begin with `query`, from and to."""
