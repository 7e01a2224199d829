"""A model's weight files quantized one after the other: each may come from afar, and may go when its turn is over.

Every weight goes to its nearest level, strips of rows at a time, so that the peak is one tensor and one file of what is
written. A file of what is written stands for a file of the source and says so in its header: a conversion that was
stopped goes on behind the last whole one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from codegen25.config import ModelConfig
from codegen25.errors import CodegenError
from codegen25.model.checkpoint import read_file, tensor_names, write_json
from codegen25.model.folder import checked, stored_name
from codegen25.model.packed import pack
from codegen25.model.plan import Packing, check_shape, packing_of
from codegen25.model.rounding import round_to_nearest

STRIP_BYTES = 4 << 20  # of fp32: what a rounding's many passes find in the cache
Show = Callable[[str, int, int], None]  # (a file's name, its tensors that are done, all of them)
TOO_LARGE = "is too large for fp16 scales; use the model as it is"


@dataclass(frozen=True)
class WeightFile:
    """A file of the source. `get` brings it here, `release` says that it is no longer needed."""

    name: str
    mark: str  # what tells its content, kept in the header of what is made of it
    get: Callable[[], Path]
    release: Callable[[Path], None] = field(default=lambda path: None)


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


def quantized(tensor: Tensor, packing: Packing, key: str) -> tuple[Tensor, Tensor]:
    """A matrix [N, K] of any float dtype at its nearest levels: q and scales as they are stored.

    Raises `CodegenError`, which names `key`, for numbers that are not finite or too large.
    """
    check_shape(tensor.shape, packing, key)
    packed, scales = [], []
    for strip in tensor.split(max(1, STRIP_BYTES // (4 * tensor.shape[1]))):
        weight_NK = strip.float()
        check_finite(weight_NK, key)
        integers, scale = round_to_nearest(weight_NK, packing)
        if not bool(scale.isfinite().all()):
            raise CodegenError(f"{key} {TOO_LARGE}")
        packed.append(pack(integers, packing))
        scales.append(scale)
    return torch.cat(packed), torch.cat(scales)


def check_finite(tensor: Tensor, key: str) -> None:
    if not bool(tensor.isfinite().all()):
        raise CodegenError(f"{key} holds NaN or infinity; train or export the model again")


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
        self.show = show
        self.files, self.config, self.plan, self.out, self.origin = files, config, plan, out, origin
        self.packed: dict[str, Tensor] = {}
        self.shapes: dict[str, list[int]] = {}  # as stored in the source file that is being read

    def run(self) -> None:
        for name, tensor in checked(self._stored, self.config, Path(self.origin), torch.equal):
            if not tensor.is_meta:
                self._add(stored_name(name), tensor)
            del tensor
        if len(self.files) == 1:
            self._written(0).replace(self.out / "model.safetensors")
            return
        weight_map: dict[str, str] = {}
        total = 0
        for number in range(len(self.files)):
            path = self._written(number)
            with safe_open(path, framework="pt") as handle:
                weight_map |= dict.fromkeys(handle.keys(), path.name)
            total += path.stat().st_size
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_json(self.out / "model.safetensors.index.json", index)

    def _written(self, number: int) -> Path:
        return self.out / f"model-{number + 1:05}-of-{len(self.files):05}.safetensors"

    def _stored(self) -> Iterator[tuple[str, Tensor]]:
        """Tensors by the names they have in the source; of files that are done, their shapes alone."""
        for number, file in enumerate(self.files):
            done = self._done(number)
            if done is not None:
                for name, shape in done.items():
                    yield name, torch.empty(shape, device="meta")
                continue
            self.shapes = {}
            path = file.get()
            names = tensor_names(path)
            for done_tensors, (name, tensor) in enumerate(read_file(path)):
                self.show(file.name, done_tensors, len(names))
                if not tensor.is_floating_point():
                    raise CodegenError(f"{self.origin}: tensor {name} is not floating point; use an unquantized model")
                self.shapes[name] = list(tensor.shape)
                yield name, tensor
                del tensor
            self._flush(number)
            file.release(path)

    def _done(self, number: int) -> dict[str, list[int]] | None:
        """Name and shape of every tensor of a source file that was converted already."""
        path = self._written(number)
        if not path.is_file():
            return None
        with safe_open(path, framework="pt") as handle:
            said: dict[str, str] = handle.metadata() or {}
        if said.get("source") != self.files[number].mark:
            return None
        shapes: dict[str, list[int]] = json.loads(said["tensors"])
        return shapes

    def _add(self, key: str, tensor: Tensor) -> None:
        what = f"{self.origin}: tensor {key}"
        packing = packing_of(self.plan, key)
        if packing is None:
            check_finite(tensor, what)
            self.packed[key] = tensor.float().clone()
            return
        self.packed[f"{key}.q"], self.packed[f"{key}.scale"] = quantized(tensor, packing, what)

    def _flush(self, number: int) -> None:
        path = self._written(number)
        aside = path.with_suffix(".partial")
        said = {"format": "pt", "source": self.files[number].mark, "tensors": json.dumps(self.shapes)}
        save_file(self.packed, aside, metadata=said)
        aside.chmod(self.out.stat().st_mode & 0o666)
        aside.replace(path)
        self.packed.clear()
