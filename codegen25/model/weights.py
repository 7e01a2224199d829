"""The weights of a Hugging Face folder as numpy views of its mapped files, for the native engine.

Each tensor is a mapping of its own and goes with the array, so reading a model tensor by tensor holds none of it.
The safetensors package checks a file before it is mapped (https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from codegen25.config import ModelConfig, read_config
from codegen25.errors import CodegenError
from codegen25.model.folder import AGAIN, check_size, checked, stored_name, weight_files
from codegen25.model.plan import Packing, check_packed, from_json, packing_of, paired
from codegen25.model.publisher import repair
from codegen25.tokenizer import Tokenizer, from_folder

# safetensors' names of what weights are stored in: numpy's dtype (which has no bfloat16: its bits) and the name.
DTYPES = {
    "F32": ("<f4", "float32"),
    "F16": ("<f2", "float16"),
    "BF16": ("<u2", "bfloat16"),
    "I8": ("|i1", "int8"),
    "U8": ("|u1", "uint8"),
}
FLOATS = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Plain:
    """A tensor as it is stored. bfloat16 is uint16 to numpy; `dtype` is what it means."""

    values: NDArray[Any]
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def widened(self) -> NDArray[np.float32]:
        """In fp32, exactly."""
        if self.dtype == "bfloat16":
            return (self.values.astype(np.uint32) << 16).view(np.float32)
        return self.values.astype(np.float32, copy=False)


@dataclass(frozen=True)
class Quantized:
    """A matrix [N, K] as in `docs/formats.md`: q int8 [N, K] or uint8 [N, K / 2], scale float16 [N, K / group]."""

    q: NDArray[Any]
    scale: NDArray[np.float16]
    packing: Packing

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.q), self.q.shape[1] * 8 // self.packing.bits)

    def widened(self) -> NDArray[np.float32]:
        """fp32 [N, K]."""
        rows, group = len(self.q), self.packing.group_size
        if self.packing.bits == 4:
            packed = self.q.reshape(rows, -1, group // 2)
            integers = np.concatenate([packed & 15, packed >> 4], axis=-1).astype(np.int8) - 8
        else:
            integers = self.q.reshape(rows, -1, group)
        return (integers.astype(np.float32) * self.scale.astype(np.float32)[:, :, None]).reshape(rows, -1)


Weight = Plain | Quantized


class Source(Protocol):
    """A model on disk: a folder or a GGUF file."""

    @property
    def path(self) -> Path: ...

    @property
    def config(self) -> ModelConfig: ...

    def packing(self, name: str) -> Packing | None:
        """How the matrix `name` (as in `Llama`) is quantized there; None where it is not."""
        ...

    def weights(self) -> Iterator[tuple[str, Weight]]:
        """Every tensor once, under its name in `Llama`, without the head of a tied model. Values are not looked at.

        Raises `CodegenError` for damaged files, and where config and tensors disagree.
        """
        ...

    def tokenizer(self) -> Tokenizer: ...


def same(a: Weight, b: Weight) -> bool:
    """Whether two tensors hold the same numbers, stored alike or as plain numbers of two kinds."""
    if isinstance(a, Quantized) and isinstance(b, Quantized):
        return a.packing == b.packing and np.array_equal(a.q, b.q) and np.array_equal(a.scale, b.scale)
    if isinstance(a, Plain) and isinstance(b, Plain):
        return np.array_equal(a.values, b.values) if a.dtype == b.dtype else np.array_equal(a.widened(), b.widened())
    return False


class Folder:
    """A model folder as a `Source`.

    Raises `CodegenError` for a folder that is no model; what was repaired on the way is said through `notice`.
    """

    def __init__(self, path: Path, notice: Callable[[str], None]) -> None:
        self.path = path
        self.config, hf = read_config(path)
        repair(hf, path, notice)
        self._plan = from_json(hf.get("quantization_config"), f"{path}/config.json")
        check_size(self.config, weight_files(path), path)

    def packing(self, name: str) -> Packing | None:
        return packing_of(self._plan, stored_name(name))

    def tokenizer(self) -> Tokenizer:
        return from_folder(self.path)

    def weights(self) -> Iterator[tuple[str, Weight]]:
        return checked(self._stored, self.config, self.path, same)

    def _stored(self) -> Iterator[tuple[str, Weight]]:
        plain = (pair for path in weight_files(self.path) for pair in read_weights(path))
        for name, tensor, rest in paired(plain, self._plan, str(self.path)):
            if rest is None:
                if tensor.dtype not in FLOATS:
                    raise CodegenError(
                        f"{self.path}: tensor {name} is {tensor.dtype}, not floating point; use an unquantized folder"
                    )
                yield name, tensor
            else:
                scale, packing = rest
                check_packed(
                    f"{self.path}: tensor {name}", packing, tensor.dtype, tensor.shape, scale.dtype, scale.shape
                )
                yield name, Quantized(tensor.values, scale.values, packing)
            del tensor, rest


def read_weights(path: Path) -> Iterator[tuple[str, Plain]]:
    """The tensors of a file by name, so that the two halves of a matrix are neighbours.

    Raises `CodegenError` when it is damaged or holds anything else, and for a `.bin` without PyTorch.
    """
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    return ((name, Plain(values, dtype)) for name, dtype, values in _checkpoint(path).read_bin(path))


def tensor_names(path: Path) -> list[str]:
    """The tensors that a file holds; errors as of `read_weights`."""
    if path.suffix != ".safetensors":
        names: list[str] = _checkpoint(path).tensor_names(path)
        return names
    try:
        with safe_open(path, framework="numpy") as handle:
            return list(handle.keys())
    except SafetensorError as error:
        raise CodegenError(f"{path}: truncated, corrupted or not a weight file; {AGAIN}") from error


def _checkpoint(path: Path) -> Any:
    """The part that knows PyTorch."""
    try:
        from codegen25.model import checkpoint
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise CodegenError(
            f"{path}: reading this needs PyTorch; pip install 'codegen25[torch]', or use a folder with safetensors"
        ) from error
    return checkpoint


def read_safetensors(path: Path) -> Iterator[tuple[str, Plain]]:
    """Every tensor of a file, in the order of their names. Raises `CodegenError` when it is damaged."""
    try:
        with safe_open(path, framework="numpy"):
            pass  # headers that lie about the file are refused here
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(length))
            header.pop("__metadata__", None)
            for name, entry in sorted(header.items()):
                if not name.isprintable():
                    raise CodegenError(f"{path}: a tensor is called {name!r}; {AGAIN}")
                if entry["dtype"] not in DTYPES:
                    raise CodegenError(
                        f"{path}: tensor {name} is {entry['dtype']}, which cannot be read; export the model as bfloat16"
                    )
                numpy_dtype, dtype = DTYPES[entry["dtype"]]
                begin, end = entry["data_offsets"]
                data = map_bytes(file, 8 + length + begin, end - begin)
                yield name, Plain(data.view(numpy_dtype).reshape(entry["shape"]), dtype)
                del data
    except SafetensorError as error:
        raise CodegenError(f"{path}: truncated, corrupted or not a weight file; {AGAIN}") from error
    except OSError as error:
        raise CodegenError(f"{path}: cannot be read ({error.strerror or error}); {AGAIN}") from error


def map_bytes(file: BinaryIO, begin: int, size: int) -> NDArray[np.uint8]:
    """`size` bytes of a file from `begin` on, read-only."""
    if size == 0:
        return np.empty(0, np.uint8)
    before = begin % mmap.ALLOCATIONGRANULARITY
    view = mmap.mmap(file.fileno(), before + size, access=mmap.ACCESS_READ, offset=begin - before)
    return np.frombuffer(view, np.uint8, size, before)
