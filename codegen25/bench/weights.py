"""The models that benchmarks run: GGUF files in the cache, the same file for every engine.

`nano` is the real one; where there is none (other shapes, other bits), weights are random, of a size that keeps
activations as large as a trained model's. Speed does not depend on them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen25.bench.figures import Options
from codegen25.bench.peer import GIB, check_disk
from codegen25.config import SHAPES, ModelConfig
from codegen25.engine.machine import available_memory
from codegen25.errors import CodegenError, UsageError
from codegen25.model import gguf_write
from codegen25.model.gguf_write import BLOCK, KINDS, GGUFTensor
from codegen25.tokenizer import Tokenizer, family, from_folder

VERSION = 1  # of the random weights: a new number makes new files
WINDOW = 1024  # tokens that engines are given room for
MATRICES = {4: "Q4_0", 8: "Q8_0"}
BUILT_IN = Path(__file__).parent.parent / "models" / "nano"
SPREAD = {"Q4_0": 4.61, "Q8_0": 73.6}  # standard deviation of evenly distributed integers


def model(shape: str, bits: int, options: Options) -> Path:
    """The file of a shape (`SHAPES`) in 4 or 8 bits, written when it is not there.

    Raises `CodegenError` when disk or memory are too small for it.
    """
    if shape not in SHAPES:
        raise UsageError(f"--shape {shape}: choose one of {', '.join(SHAPES)}")
    tensors = random_tensors(SHAPES[shape], bits)
    size = sum(tensor.nbytes for tensor in tensors)
    _check_memory(shape, size)
    if shape == "nano" and bits == 4:
        return _real_nano(options)
    path = options.cache / "models" / f"{shape}-random-int{bits}-{VERSION}.gguf"
    if not path.exists():
        check_disk(path.parent, size + GIB // 4, f"{path.name}")
        options.say(f"writing {path}, {size / GIB:.1f} GiB of random weights")
        write(path, shape, SHAPES[shape], tokenizer_of(shape), tensors)
    return path


def _real_nano(options: Options) -> Path:
    from codegen25.model.gguf_export import export_gguf

    path = options.cache / "models" / "nano.gguf"
    check_disk(path.parent, GIB // 4, path.name)
    aside = path.with_name(f".nano.{os.getpid()}.gguf")
    try:
        export_gguf(BUILT_IN, aside, options.say)
        aside.replace(path)  # which may be of another version
    finally:
        aside.unlink(missing_ok=True)
    return path


def tokenizer_of(shape: str) -> Tokenizer:
    return from_folder(BUILT_IN) if shape == "nano" else family()


def write(path: Path, name: str, config: ModelConfig, tokenizer: Tokenizer, tensors: list[GGUFTensor]) -> None:
    """Write a model of these tensors."""
    metadata = gguf_write.model_metadata(config, tokenizer, tensors[1].kind, name=f"random {name}")
    gguf_write.write_gguf(path, metadata, tensors)


def random_tensors(config: ModelConfig, bits: int) -> list[GGUFTensor]:
    """Matrices in `bits`, embedding and head in 8, norms of ones; each is made when it is written."""
    tensors = []
    for seed, (_, name, shape) in enumerate(gguf_write.tensor_names(config)):
        if len(shape) == 1:
            tensors.append(GGUFTensor(name, "F32", shape, lambda shape=shape: np.ones(shape, dtype="<f4")))  # type: ignore[misc]
            continue
        kind = "Q8_0" if name in ("token_embd.weight", "output.weight") else MATRICES[bits]
        # Outputs as large as inputs; what goes back into the residual stream is small, so that 2 · layers of it add up.
        deviation = shape[1] ** -0.5
        if name.endswith(("attn_output.weight", "ffn_down.weight")):
            deviation /= (2 * config.layers) ** 0.5
        tensors.append(GGUFTensor(name, kind, shape, _random(kind, shape, deviation, seed)))
    return tensors


def _random(kind: str, shape: tuple[int, ...], deviation: float, seed: int) -> Callable[[], NDArray[Any]]:
    def make() -> NDArray[Any]:
        rng = np.random.default_rng(seed)
        size = KINDS[kind][2]
        blocks = np.frombuffer(rng.bytes(shape[0] * shape[1] // BLOCK * size), dtype=np.uint8)
        blocks = blocks.reshape(-1, size).copy()
        # Evenly distributed 4-bit integers have the mean -1/2: signs at random take it out.
        signs = np.where(blocks[:, 0] & 1, 1.0, -1.0)
        scales = (signs * deviation / SPREAD[kind]).astype("<f2")
        blocks[:, :2] = scales.view(np.uint8).reshape(-1, 2)
        return blocks

    return make


def _check_memory(shape: str, size: int) -> None:
    """Two engines hold the weights at once, each in an order of its own."""
    needed, free = 2 * size + 2 * GIB, available_memory()
    if free < needed:
        raise CodegenError(
            f"--shape {shape}: needs {needed / GIB:.1f} GiB of memory for two engines side by side, "
            f"{free / GIB:.1f} are free; take a smaller shape"
        )


def bytes_per_token(path: Path, config: ModelConfig) -> int:
    """What a step of decoding reads: all of the file but the embedding, of which it needs a row where it is no head."""
    embedding = config.vocab_size * config.hidden_size // BLOCK * KINDS["Q8_0"][2]
    return path.stat().st_size - (0 if config.tied else embedding)
