"""The native backend: quantized weights in the kernel's own order, on a CPU, without PyTorch.

Weights come matrix by matrix from a folder or a GGUF file (`Source`); what is not quantized there is rounded while
loading. Peak memory is the result and one matrix.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from codegen25.config import ModelConfig
from codegen25.engine.backend import Logits, Row
from codegen25.engine.machine import available_memory, usable_cores
from codegen25.errors import CodegenError, UsageError, say
from codegen25.model.folder import AGAIN, shapes, stored_name
from codegen25.model.gguf import GGUF
from codegen25.model.plan import PLANS, Packing, packing_of
from codegen25.model.weights import Folder, Plain, Source, Weight

if TYPE_CHECKING:
    from codegen25._native import Engine, Matrix

ISA = "CODEGEN25_ISA"
FASTEST = "avx512"
MOST_THREADS = 1024
BITS = 8  # that plain weights are rounded to unless told
TILE, GROUP = 16, 64  # the kernel pads outputs and inputs to multiples of these
_LAYER = (
    "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip


class CpuBackend:
    """`Backend` on the native engine."""

    def __init__(self, engine: Engine, config: ModelConfig) -> None:
        self.engine, self._config = engine, config

    @property
    def config(self) -> ModelConfig:
        return self._config

    @property
    def cache_bytes(self) -> int:
        return self.engine.cache_bytes

    def new(self) -> int:
        return self.engine.new()

    def fork(self, sequence: int) -> int:
        return self.engine.fork(sequence)

    def truncate(self, sequence: int, length: int) -> None:
        self.engine.truncate(sequence, length)

    def length(self, sequence: int) -> int:
        return self.engine.length(sequence)

    def free(self, sequence: int) -> None:
        self.engine.free(sequence)

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        if not rows:
            return []
        counts = [len(tokens) for _, tokens, _ in rows]
        tokens = np.array([id for _, tokens, _ in rows for id in tokens], dtype=np.int32)
        logits_RV = self.engine.forward([row[0] for row in rows], counts, tokens, [row[2] for row in rows])
        wanted = [count if row[2] else 1 for row, count in zip(rows, counts, strict=True)]
        return np.split(logits_RV, np.cumsum(wanted)[:-1])


def open_source(path: Path, notice: Callable[[str], None]) -> Source:
    """A model folder, or a `.gguf` file. Raises `CodegenError` when it is neither."""
    return GGUF(path) if path.suffix == ".gguf" and not path.is_dir() else Folder(path, notice)


def load_cpu(
    path: Path,
    *,
    threads: int | None = None,
    bits: int | None = None,
    window: int | None = None,
    notice: Callable[[str], None] = say,
) -> CpuBackend:
    """The model in a folder or a GGUF file, ready to run; see `build`."""
    return build(open_source(path, notice), threads=threads, bits=bits, window=window, notice=notice)


def build(
    source: Source,
    *,
    threads: int | None = None,
    bits: int | None = None,
    window: int | None = None,
    notice: Callable[[str], None] = say,
) -> CpuBackend:
    """The native engine with the weights of `source`.

    `threads`: by default the cores that this process may use. `bits` (4 or 8): what weights that are not quantized are
    rounded to. `window`: tokens of context that there must be memory for, by default all that the model can see.
    Raises `UsageError` for settings that do not fit, and `CodegenError` for damaged weights or too little memory.
    """
    native = _native()
    isa = _isa(native, notice)
    threads = min(usable_cores(), MOST_THREADS) if threads is None else threads
    if not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"threads is {threads}; it must be 1 to {MOST_THREADS}, or left out for all cores")
    plan = _plan(source, bits, notice)
    _check_memory(source, plan, window)
    try:
        made: dict[str, Any] = {}
        for name, weight in source.weights():
            made[name] = _made(native, source, name, weight, plan.get(name), threads)
            del weight  # before the next one is read
        return CpuBackend(_engine(native, source, made, threads, isa), source.config)
    except MemoryError as error:
        raise CodegenError(f"{source.path}: the memory ran out while loading; use a smaller model") from error


def _native() -> Any:
    try:
        from codegen25 import _native
    except ImportError as error:
        raise CodegenError(
            f"the native engine is not installed ({error}); `pip install` codegen25 again, which builds it"
        ) from error
    return _native


def _isa(native: Any, notice: Callable[[str], None]) -> str:
    """The instruction set that the environment asks for, '' for the fastest."""
    known: list[str] = native.isas()
    wanted = os.environ.get(ISA, "")
    if wanted and wanted not in known:
        raise UsageError(f"{ISA}={wanted}: this machine runs {', '.join(known)}; choose one of these, or unset it")
    if not wanted and FASTEST not in known:
        notice(f"this processor has no AVX-512; the slower {known[0]} path is used")
    return wanted


def _plan(source: Source, bits: int | None, notice: Callable[[str], None]) -> dict[str, Packing]:
    """How each matrix will be held. Raises `UsageError` when `bits` has nothing to say."""
    if bits not in (None, *PLANS):
        raise UsageError(f"bits is {bits}; choose {' or '.join(map(str, PLANS))}")
    plan, rounded = {}, 0
    for name, shape in shapes(source.config).items():
        if len(shape) < 2 or (source.config.tied and name == "lm_head.weight"):
            continue
        stored = source.packing(name)
        packing = stored or packing_of(PLANS[bits or BITS], stored_name(name))
        assert packing, f"no plan for {name}"
        # At 4 bits a byte holds two weights that are half a group apart: larger groups cannot be cut into smaller ones.
        divides = packing.bits == 8 and packing.group_size % GROUP == 0
        if packing.group_size not in (32, GROUP) and not divides:
            raise CodegenError(
                f"{source.path}: {name} has groups of {packing.group_size} weights; the native engine takes 32 or "
                f"multiples of {GROUP}, at 4 bits 32 or {GROUP}; quantize the model again"
            )
        plan[name] = packing
        rounded += stored is None
    if bits and not rounded:
        raise UsageError(f"{source.path}: is quantized already; leave the number of bits out")
    if rounded:
        notice(f"{source.path}: rounded to {bits or BITS} bits while loading; `codegen25 quantize` does it for good")
    return plan


def _check_memory(source: Source, plan: dict[str, Packing], window: int | None) -> None:
    config = source.config
    weights = 0
    for name, packing in plan.items():
        rows, columns = shapes(config)[name]
        padded = -(-rows // TILE) * TILE * (-(-columns // GROUP) * GROUP)
        weights += padded * packing.bits // 8 + padded // min(packing.group_size, GROUP) * 2
    tokens = min(window or config.max_positions, config.max_positions)
    cache = tokens * config.layers * config.kv_heads * config.head_dim * 2 * 2  # keys and values in bfloat16
    available = available_memory()
    if weights + cache > available:
        raise CodegenError(
            f"{source.path}: needs {_gigabytes(weights + cache)} of memory ({_gigabytes(weights)} of weights, and a "
            f"context of {tokens} tokens), {_gigabytes(available)} are available; use fewer bits or a smaller model"
        )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


def _made(
    native: Any, source: Source, name: str, weight: Weight, packing: Packing | None, threads: int
) -> Matrix | NDArray[np.float32]:
    """A matrix in the kernel's order, or a norm in fp32."""
    key = f"{source.path}: tensor {stored_name(name)}"
    try:
        if isinstance(weight, Plain):
            return _rounded(native, key, weight, packing, threads)
        group, scale = weight.packing.group_size, weight.scale
        if group > GROUP:
            group, scale = GROUP, np.repeat(scale, group // GROUP, axis=1)
        matrix: Matrix = native.Matrix.packed(weight.q, scale, weight.packing.bits, group)
        return matrix
    except ValueError as error:
        raise CodegenError(f"{key}: {' '.join(str(error).split())}; {AGAIN}") from error


def _rounded(
    native: Any, key: str, weight: Plain, packing: Packing | None, threads: int
) -> Matrix | NDArray[np.float32]:
    if packing is None:
        norm = np.array(weight.widened())
        if not np.isfinite(norm).all():
            raise CodegenError(f"{key} holds NaN or infinity; {AGAIN}")
        return norm
    values = weight.values.view(np.uint16) if weight.dtype == "float16" else weight.values
    values = np.require(values, requirements=["C", "A"])
    matrix: Matrix = native.Matrix.quantized(values, packing.bits, weight.dtype, threads)
    return matrix


def _engine(native: Any, source: Source, made: dict[str, Any], threads: int, isa: str) -> Engine:
    config = source.config
    layers = [tuple(made[f"layers.{n}.{name}.weight"] for name in _LAYER) for n in range(config.layers)]
    try:
        engine: Engine = native.Engine(
            hidden=config.hidden_size, intermediate=config.intermediate_size, heads=config.heads,
            kv_heads=config.kv_heads, head_dim=config.head_dim, max_positions=config.max_positions,
            rope_theta=config.rope_theta, eps=config.rms_norm_eps, embedding=made["embed_tokens.weight"],
            head=made.get("lm_head.weight"), layers=layers, norm=made["norm.weight"], threads=threads, isa=isa,
        )  # fmt: skip
    except ValueError as error:
        raise CodegenError(f"{source.path}: the native engine cannot run it ({error}); use another model") from error
    return engine
