"""A model's weight files quantized one after the other: each may come from afar, and may go when its turn is over.

Every weight goes to its nearest level, in the native kernel, so that the peak is one tensor, what it becomes, and one
file of what is written. A file of what is written stands for a file of the source and says so in its header: a
conversion that was stopped goes on behind the last whole one. No PyTorch, but for `.bin` files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from codegen25.config import ModelConfig
from codegen25.data.plain import first_line
from codegen25.errors import CodegenError
from codegen25.model.folder import AGAIN, checked, stored_name
from codegen25.model.plan import Packing, check_shape, packing_of
from codegen25.model.weights import FLOATS, Plain, read_weights, same, tensor_names

Show = Callable[[str, int, int], None]  # (a file's name, its tensors that are done, all of them)


@dataclass(frozen=True)
class WeightFile:
    """A file of the source. `get` brings it here, `release` says that it is no longer needed."""

    name: str
    mark: str  # what tells its content, kept in the header of what is made of it
    get: Callable[[], Path]
    release: Callable[[Path], None] = field(default=lambda path: None)


@dataclass(frozen=True)
class _Done:
    """A tensor of a file that was converted already: its shape is all that is looked at."""

    shape: tuple[int, ...]


def convert(
    files: Sequence[WeightFile],
    config: ModelConfig,
    plan: Mapping[str, Packing],
    out: Path,
    origin: Path | str,
    show: Show = lambda file, done, total: None,
) -> None:
    """Write the quantized weights of `files` into the folder `out`, as one safetensors file or shards and an index.

    Raises `CodegenError` for damaged files, where they and the config disagree, and for numbers that cannot be stored.
    """
    _Conversion(files, config, plan, out, origin, show).run()


def rounded(weight: Plain, packing: Packing, key: str) -> tuple[NDArray[Any], NDArray[np.float16]]:
    """A matrix [N, K] at its nearest levels: q and scales as they are stored.

    Raises `CodegenError`, which names `key`, for a matrix without whole groups, and numbers not finite or too large.
    """
    try:
        from codegen25 import _native
    except ImportError as error:
        raise CodegenError(f"the native engine is not installed ({error}); `pip install` codegen25 again") from error
    check_shape(weight.shape, packing, key)
    values = weight.values.view(np.uint16) if weight.dtype == "float16" else weight.values
    try:
        values = np.require(values, requirements=["C", "A"])
        matrix = _native.Matrix.quantized(values, packing.bits, weight.dtype, len(os.sched_getaffinity(0)))
    except ValueError as error:
        raise CodegenError(f"{key} {' '.join(str(error).split())}; {AGAIN}") from error
    q, scales = matrix.stored()
    return (q.view(np.int8) if packing.bits == 8 else q), scales.view(np.float16)


class _Conversion:
    def __init__(
        self,
        files: Sequence[WeightFile],
        config: ModelConfig,
        plan: Mapping[str, Packing],
        out: Path,
        origin: Path | str,
        show: Show,
    ) -> None:
        self.files, self.config, self.plan, self.out, self.origin = files, config, plan, out, origin
        self.show = show
        self.converting = False
        self.packed: dict[str, NDArray[Any]] = {}
        self.shapes: dict[str, list[int]] = {}  # as stored in the source file that is being read

    def run(self) -> None:
        for name, weight in checked(self._stored, self.config, Path(self.origin), _same):
            if isinstance(weight, Plain):
                self._add(stored_name(name), weight)
            del weight
        if len(self.files) == 1:
            self._written(0).replace(self.out / "model.safetensors")
            return
        weight_map: dict[str, str] = {}
        total = 0
        for number in range(len(self.files)):
            path = self._written(number)
            with safe_open(path, framework="numpy") as handle:
                weight_map |= dict.fromkeys(handle.keys(), path.name)
            total += path.stat().st_size
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        text = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
        (self.out / "model.safetensors.index.json").write_text(text, encoding="utf-8")

    def _written(self, number: int) -> Path:
        return self.out / f"model-{number + 1:05}-of-{len(self.files):05}.safetensors"

    def _stored(self) -> Iterator[tuple[str, Plain | _Done]]:
        """Tensors by the names they have in the source; of files that are done, their shapes alone.

        Called again meanwhile, to compare a tied head with the embedding, it only reads.
        """
        if self.converting:
            for file in self.files:
                yield from read_weights(file.get())
            return
        self.converting = True
        for number, file in enumerate(self.files):
            done = self._done(number)
            if done is not None:
                yield from ((name, _Done(tuple(shape))) for name, shape in done.items())
                continue
            self.shapes = {}
            path = file.get()
            total = len(tensor_names(path))
            for name, weight in read_weights(path):
                if weight.dtype not in FLOATS:
                    raise CodegenError(
                        f"{self.origin}: tensor {name} is {weight.dtype}, not floating point; use an unquantized model"
                    )
                self.shapes[name] = list(weight.shape)
                yield name, weight
                del weight
                self.show(file.name, len(self.shapes), total)
            self._flush(number)
            file.release(path)

    def _done(self, number: int) -> dict[str, list[int]] | None:
        """Name and shape of every tensor of a source file that was converted already."""
        path = self._written(number)
        if not path.is_file() or self.config.tied:  # a head is compared with the embedding itself
            return None
        with safe_open(path, framework="numpy") as handle:
            said: dict[str, str] = handle.metadata() or {}
        if said.get("source") != self.files[number].mark:
            return None
        shapes: dict[str, list[int]] = json.loads(said["tensors"])
        return shapes

    def _add(self, key: str, weight: Plain) -> None:
        what = f"{self.origin}: tensor {key}"
        packing = packing_of(self.plan, key)
        if packing is None:
            self.packed[key] = np.array(weight.widened())
            if not np.isfinite(self.packed[key]).all():
                raise CodegenError(f"{what} holds NaN or infinity; {AGAIN}")
            return
        self.packed[f"{key}.q"], self.packed[f"{key}.scale"] = rounded(weight, packing, what)

    def _flush(self, number: int) -> None:
        path = self._written(number)
        aside = path.with_suffix(".partial")
        said = {"format": "pt", "source": self.files[number].mark, "tensors": json.dumps(self.shapes)}
        try:
            save_file(self.packed, aside, metadata=said)
            aside.chmod(self.out.stat().st_mode & 0o666)
            aside.replace(path)
        except (OSError, SafetensorError) as error:
            raise CodegenError(f"{self.out}: cannot be written ({first_line(error)}); free some space") from error
        self.packed.clear()


def _same(one: Plain | _Done, other: Plain | _Done) -> bool:
    """Whether a tied head is the embedding."""
    return isinstance(one, Plain) and isinstance(other, Plain) and same(one, other)
