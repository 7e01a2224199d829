"""Files of ours that are read where they lie: a header (`docs/formats.md`), then arrays, mapped into memory."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from codegen25.errors import CodegenError


class Fields(Protocol):
    """What a header says: which version its format has, and how long its file is."""

    @property
    def version(self) -> int: ...

    @property
    def file_bytes(self) -> int: ...


H = TypeVar("H", bound=Fields)


@dataclass(frozen=True)
class Format(Generic[H]):
    """A kind of file. Its header holds `fields`, of which the first is `magic`, and the SHA-256 of what stands behind
    the header followed by these fields.

    `name` is for people, such as "shard of tokens", and `remedy` what they should do about a file that is none.
    """

    name: str
    remedy: str
    magic: bytes
    version: int
    header_bytes: int
    fields: struct.Struct
    make: Callable[..., H]

    def wrong(self, path: Path, what: str) -> CodegenError:
        return CodegenError(f"{path}: {what}; {self.remedy}")

    def open(self, path: Path) -> tuple[Any, H]:
        """The bytes of a file, mapped, and its header. Raises CodegenError when it is no whole file of this format."""
        try:
            mapped = np.memmap(path, np.uint8, mode="r")
        except (OSError, ValueError) as error:
            said = getattr(error, "strerror", None) or error
            raise self.wrong(path, f"cannot be read as a {self.name} ({said})") from None
        if mapped.size < self.header_bytes or mapped[: len(self.magic)].tobytes() != self.magic:
            raise self.wrong(path, f"is no {self.name}")
        header = self.make(*self.fields.unpack(mapped[: self.fields.size].tobytes()))
        if header.version != self.version:
            raise self.wrong(path, f"has format {header.version}, and {self.version} is known here")
        if mapped.size != header.file_bytes:
            raise self.wrong(path, f"has {mapped.size} bytes instead of {header.file_bytes}")
        return mapped, header

    def verify(self, path: Path, mapped: Any) -> None:
        """Read every byte. Raises CodegenError when one is not what was written."""
        digest = hashlib.sha256(mapped.data[self.header_bytes :])
        digest.update(mapped[: self.fields.size].tobytes())
        written = mapped[self.fields.size : self.header_bytes].tobytes()
        if written != digest.digest().ljust(len(written), b"\0"):
            raise self.wrong(path, "is damaged (its checksum is another)")
