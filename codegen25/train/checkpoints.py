"""Checkpoints of a run: written aside, renamed when whole, read by any number of ranks.

`OUT/checkpoint` holds the tensors as safetensors, a file a rank, in the layout of PyTorch's distributed checkpoints
(`HuggingFaceStorageWriter`), and `progress.json`, which is written last and names every file with its bytes.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from codegen25.errors import CodegenError
from codegen25.train.parallel import World

PROGRESS = "progress.json"


class Checkpoints:
    """The checkpoint of a run: the newest state, exact."""

    def __init__(self, out: Path, world: World) -> None:
        self.current = out / "checkpoint"
        # The one being written, and the one before it while the two change places.
        self._fresh, self._old = out / "checkpoint.new", out / "checkpoint.old"
        self._world = world
        if world.rank == 0:
            self._finish_renames()
        world.barrier()

    @property
    def exists(self) -> bool:
        return self.current.exists()

    def _finish_renames(self) -> None:
        """Do what a process that ended inside `save` left undone.

        The old checkpoint is put away only when the new one is whole, so without a current one the new one counts.
        """
        if self._old.exists() and not self.current.exists():
            (self._fresh if self._fresh.exists() else self._old).rename(self.current)
        shutil.rmtree(self._old, ignore_errors=True)
        shutil.rmtree(self._fresh, ignore_errors=True)

    def save(self, state: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Write the state aside and put it in the place of the old one; a crash leaves one of the two whole.

        Raises `CodegenError`, the old checkpoint as it was, when the disk refuses.
        """
        failure = self._write(state)
        if self._world.rank == 0 and not failure:
            failure = self._finish(progress)
        if failed := self._failed(failure):
            if self._world.rank == 0:
                shutil.rmtree(self._fresh, ignore_errors=True)
            raise CodegenError(
                f"{self._fresh}: cannot be written ({failed}); free some space and run again, it goes on from "
                f"{self.current}"
            )

    def _write(self, state: dict[str, Tensor]) -> str:
        """The tensors, aside; why that failed, or nothing."""
        failure = ""
        if self._world.rank == 0:
            try:
                shutil.rmtree(self._old, ignore_errors=True)
                shutil.rmtree(self._fresh, ignore_errors=True)
                self._fresh.mkdir()
            except OSError as error:
                failure = _why(error)
        if failed := self._failed(failure):
            return failed
        try:
            writer = HuggingFaceStorageWriter(str(self._fresh), save_distributed=True)
            with _without_advice():
                save(state, storage_writer=writer, no_dist=self._world.size == 1)
        except (OSError, SafetensorError, CheckpointException) as error:
            return _why(error)
        return ""

    def _finish(self, progress: dict[str, Any]) -> str:
        try:
            files = {path.name: path.stat().st_size for path in sorted(self._fresh.iterdir())}
            (self._fresh / PROGRESS).write_text(json.dumps({**progress, "files": files}), encoding="utf-8")
            if self.current.exists():
                self.current.rename(self._old)
            self._fresh.rename(self.current)
            shutil.rmtree(self._old, ignore_errors=True)
        except OSError as error:
            return _why(error)
        return ""

    def _failed(self, failure: str) -> str:
        """Whether any rank failed; every rank must ask. Of the others' failures only that there were some."""
        (failed,) = self._world.maxima([float(bool(failure))])
        return failure or ("another rank failed" if failed else "")

    def load(self, state: dict[str, Tensor]) -> dict[str, Any]:
        """Read into the tensors of `state`, which decides what is read and how it is sharded; the progress.

        Raises `CodegenError` when the checkpoint is not whole, or belongs to a model of another shape.
        """
        folder = self.current
        try:
            progress: dict[str, Any] = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
            for name, size in progress["files"].items():
                if (found := (folder / name).stat().st_size) != size:
                    raise CodegenError(f"{folder / name}: cut short, {found} of {size} bytes; {_AGAIN}")
            reader = HuggingFaceStorageReader(str(folder))
            written = {name: about.size for name, about in reader.read_metadata().state_dict_metadata.items()}  # type: ignore[union-attr]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise CodegenError(f"{folder}: cannot be read ({error}); {_AGAIN}") from error
        if written != {name: tensor.shape for name, tensor in state.items()}:
            raise CodegenError(
                f"{folder}: belongs to a model of another shape, or to another optimizer; name another --out, or "
                "remove it"
            )
        try:
            with _without_advice():
                load(state, storage_reader=reader, no_dist=self._world.size == 1)
        except (OSError, SafetensorError, CheckpointException) as error:
            raise CodegenError(f"{folder}: cannot be read ({_why(error)}); {_AGAIN}") from error
        return progress


_AGAIN = "remove it to start again"


@contextmanager
def _without_advice() -> Iterator[None]:
    """PyTorch warns of what was asked for: to save in a single process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _why(error: BaseException) -> str:
    """One line. What the distributed checkpoint raises holds the errors of the ranks."""
    if isinstance(error, CheckpointException):
        inner = next(iter(error.failures.values()))[0]
        if not isinstance(inner, OSError | SafetensorError):
            raise inner from error
        error = inner
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]
