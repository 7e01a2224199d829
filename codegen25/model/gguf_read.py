"""The container of a GGUF file: its metadata, and where its tensors lie.

Versions 2 and 3, little-endian (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Every length is checked
against the file before it is believed. Tensors are mapped one by one and nothing of them stays mapped.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen25.errors import CodegenError
from codegen25.model.gguf_write import KINDS
from codegen25.model.weights import map_bytes

# ggml's types by number: name, weights in a block, bytes of a block. Others are looked up in the gguf package.
TYPES = {number: (name, block, size) for name, (number, block, size, _) in KINDS.items()} | {3: ("Q4_1", 32, 20)}
# Metadata types by number; strings are 8, arrays 9.
_NUMBERS = ["<u1", "<i1", "<u2", "<i2", "<u4", "<i4", "<f4", "|b1", "", "", "<u8", "<i8", "<f8"]
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_MOST_DIMENSIONS = 4


@dataclass(frozen=True)
class Entry:
    """A tensor in the file: `kind` as ggml calls it, `shape` outermost first, `size` bytes from `begin` on."""

    name: str
    number: int
    kind: str
    shape: tuple[int, ...]
    begin: int
    size: int


class Container:
    """An open file. Raises `CodegenError` when it is no GGUF file, or a cut one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                self.metadata, self.entries = _parse(data)
        except CodegenError as error:
            raise CodegenError(f"{path}: {error}") from None
        except (ValueError, struct.error, OverflowError) as error:
            raise CodegenError(f"{path}: not a GGUF file, or a truncated one ({error}); download it again") from None
        except OSError as error:
            raise CodegenError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None

    def arrays(self) -> Iterator[tuple[Entry, NDArray[np.uint8]]]:
        """Every tensor's bytes, read-only: [rows, bytes of a row]; one row for a vector."""
        with self.path.open("rb") as file:
            for entry in self.entries:
                yield entry, map_bytes(file, entry.begin, entry.size).reshape(prod(entry.shape[:-1]), -1)


class _Cursor:
    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> int:
        """Where the next `size` bytes begin."""
        if size > len(self.data) - self.at:
            raise ValueError(f"{size} bytes at {self.at} are not there")
        self.at += size
        return self.at - size

    def number(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self.data, self.take(struct.calcsize(form)))
        return int(value)

    def string(self) -> str:
        size = self.number("<Q")
        start = self.take(size)
        return self.data[start : start + size].decode()

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            kind, count = self.number("<I"), self.number("<Q")
            if kind == _ARRAY:
                raise ValueError("an array of arrays")
            return [self.string() for _ in range(count)] if kind == _STRING else self._numbers(kind, count)
        return self._numbers(kind, 1)[0]

    def _numbers(self, kind: int, count: int) -> list[Any]:
        if kind >= len(_NUMBERS) or not _NUMBERS[kind]:
            raise ValueError(f"a value of type {kind}")
        dtype = np.dtype(_NUMBERS[kind])
        start = self.take(count * dtype.itemsize)
        found: list[Any] = np.frombuffer(self.data[start : self.at], dtype).tolist()
        return found


def _parse(data: mmap.mmap) -> tuple[dict[str, Any], list[Entry]]:
    cursor = _Cursor(data)
    if data[:4] != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    cursor.take(4)
    if (version := cursor.number("<I")) not in _VERSIONS:
        raise ValueError(f"version {version}")
    tensors, pairs = cursor.number("<Q"), cursor.number("<Q")
    metadata = {}
    for _ in range(pairs):
        key = cursor.string()
        metadata[key] = cursor.value(cursor.number("<I"))
    described = [_described(cursor) for _ in range(tensors)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(f"an alignment of {alignment!r}")
    start = -(-cursor.at // alignment) * alignment
    entries = [_entry(*tensor, start) for tensor in described]
    for entry in entries:
        if entry.begin + entry.size > len(data):
            raise ValueError(f"tensor {entry.name!r} ends behind the file")
    return metadata, entries


def _described(cursor: _Cursor) -> tuple[str, int, tuple[int, ...], int]:
    """Name, number of the type, shape, and where it begins in the data."""
    name, dimensions = cursor.string(), cursor.number("<I")
    if not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise ValueError(f"tensor {name!r} has {dimensions} dimensions")
    shape = tuple(cursor.number("<Q") for _ in range(dimensions))[::-1]
    return name, cursor.number("<I"), shape, cursor.number("<Q")


def _entry(name: str, number: int, shape: tuple[int, ...], offset: int, start: int) -> Entry:
    kind, block, size = TYPES.get(number) or _uncommon(number)
    if shape[-1] % block or 0 in shape:
        raise ValueError(f"tensor {name!r} of shape {list(shape)} in blocks of {block}")
    return Entry(name, number, kind, shape, start + offset, prod(shape) // block * size)


def _uncommon(number: int) -> tuple[str, int, int]:
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    except ImportError:
        raise CodegenError(
            f"a tensor is of ggml's type {number}; `pip install 'codegen25[gguf]'` to read it, or convert it to Q8_0"
        ) from None
    kind = GGMLQuantizationType(number)
    return (kind.name, *GGML_QUANT_SIZES[kind])
