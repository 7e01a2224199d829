"""Hugging Face model folders, read into a `Llama` and written from one.

Reading never holds two copies of a model. The `Llama` is built on the meta device, then its tensors are assigned one by
one from memory-mapped files. A tensor that already has the wanted dtype stays a view of the file (copy on write: the
model may be trained, the file never changes); any other is cast, and the mapping it came from is let go after at most
`MAPPED_BYTES`. Writing casts one shard at a time. A folder appears whole or not at all: written aside, then renamed.

Formats: `model.safetensors`, `pytorch_model.bin` (only ever with `weights_only`), and both with a shard index. Where a
folder has several, safetensors wins.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from codegen25.config import ModelConfig, read_config
from codegen25.errors import CodegenError, UsageError, say
from codegen25.model.folder import AGAIN, check_size, checked, stored_name, weight_files
from codegen25.model.llama import Llama
from codegen25.model.packed import dequantized, dtype_name
from codegen25.model.plan import from_json
from codegen25.model.publisher import repair
from codegen25.tokenizer import Tokenizer

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
MAPPED_BYTES = 256 << 20


def _open(path: Path) -> tuple[list[str], Callable[[str], Tensor]]:
    """The tensor names in a file, and a function that maps one; the mapping lives as long as what comes of it."""
    try:
        if path.suffix == ".safetensors":
            handle: Any = safe_open(path, framework="pt")
            return list(handle.keys()), handle.get_tensor
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise CodegenError(f"{path}: truncated, corrupted or not a weight file; {AGAIN}") from error
    except OSError as error:
        raise CodegenError(f"{path}: cannot be read ({error.strerror or error}); {AGAIN}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CodegenError(f"{path}: holds something else than named tensors; {AGAIN}")
    return list(state), state.__getitem__


def tensor_names(path: Path) -> list[str]:
    """The tensors that a file holds. Raises `CodegenError` when it is damaged or holds anything else."""
    return _open(path)[0]


def read_file(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of one file, views of it. Raises `CodegenError` when it is damaged or holds anything else."""
    names, get = _open(path)
    mapped = 0
    for name in names:
        if mapped > MAPPED_BYTES:
            # Pages that were read count as ours while their mapping lives: a new mapping gives them back.
            _, get = _open(path)
            mapped = 0
        tensor = get(name)
        mapped += tensor.nbytes
        yield name, tensor
        del tensor


def tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every named tensor of `folder`, under its name there: a view of a memory-mapped file, or multiplied out to fp32.

    Loading and export read weights through here alone, so this is where other storage formats come in.
    """
    plan = from_json(read_config(folder)[1].get("quantization_config"), f"{folder}/config.json")
    stored = (pair for path in weight_files(folder) for pair in read_file(path))
    yield from dequantized(stored, plan, str(folder))


def read_bin(path: Path) -> Iterator[tuple[str, str, NDArray[Any]]]:
    """The tensors of a `.bin` file for readers without PyTorch: name, dtype, values (of bfloat16, the bits)."""
    for name, tensor in read_file(path):
        dtype = dtype_name(tensor)
        yield name, dtype, tensor.view(torch.int16).numpy().view(np.uint16) if dtype == "bfloat16" else tensor.numpy()


class NoInit(TorchFunctionMode):
    """Leaves out `torch.nn.init`: on the meta device it does nothing but import 75 MB of torch for a second or two."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def expected_model(config: ModelConfig, folder: Path) -> Llama:
    """A `Llama` without memory, to be filled from the files of `folder`."""
    check_size(config, weight_files(folder), folder)
    with torch.device("meta"), NoInit():
        return Llama(config)


def checked_tensors(folder: Path, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """The tensors of `folder` under the parameter names of `Llama`, each once, without the head of a tied model.

    Raises `CodegenError` where the files and the config disagree; see `folder.checked`.
    """
    check_size(config, weight_files(folder), folder)
    for name, tensor in checked(lambda: tensors(folder), config, folder, torch.equal):
        if not tensor.is_floating_point():
            raise CodegenError(
                f"{folder}: tensor {stored_name(name)} is {dtype_name(tensor)}, not floating point; "
                "use an unquantized folder"
            )
        yield name, tensor
        del tensor


def as_dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise UsageError(f"dtype {name!r}: choose one of {', '.join(DTYPES)}")
    return DTYPES[name]


def as_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device {name!r}: choose cpu, cuda, cuda:0, …, or mps") from None
    missing = {"cuda": not torch.cuda.is_available(), "mps": not torch.backends.mps.is_available()}
    if missing.get(device.type):
        raise CodegenError(f"device {name}: this PyTorch finds none on this machine; use cpu, or install its GPU build")
    return device


def load_llama(
    folder: Path, *, dtype: str = "bfloat16", device: str = "cpu", notice: Callable[[str], None] = say
) -> Llama:
    """The model in `folder`, in `dtype` on `device`. What was repaired on the way is said through `notice`.

    Raises `CodegenError` for a folder that is no model, for damaged files, and where config and tensors disagree.
    """
    wanted, place = as_dtype(dtype), as_device(device)
    config, hf = read_config(folder)
    repair(hf, folder, notice)
    model = expected_model(config, folder)
    for name, tensor in checked_tensors(folder, config):
        owner, _, leaf = name.rpartition(".")
        # `to` gives back the mapped view itself where dtype and device already fit.
        setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor.to(device=place, dtype=wanted)))
        del tensor
    if config.tied:
        model.lm_head.weight = model.embed_tokens.weight
    return model


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `folder` when the block ends well and is removed when it does not.

    Raises `CodegenError` when `folder` exists and is not empty, and when the disk refuses.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise CodegenError(f"{folder}: exists already; remove it or name another folder")
    folder = folder.absolute()
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        try:
            aside.mkdir(parents=True)
            yield aside
            aside.replace(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        raise CodegenError(f"{folder}: cannot be written ({why}); free some space or name another folder") from error


def write_safetensors(named: dict[str, Tensor], path: Path) -> None:
    """`save_file`, readable by whoever may read the folder: on its own it writes files for their owner alone."""
    save_file(named, path, metadata={"format": "pt"})
    path.chmod(path.parent.stat().st_mode & 0o666)


def write_weights(
    named: Iterable[tuple[str, Tensor]], folder: Path, *, dtype: str = "bfloat16", shard_bytes: int = 5 << 30
) -> None:
    """Write tensors, named as in `Llama`, as `model.safetensors` or as shards of at most `shard_bytes` and an index.

    A shard is held in memory at a time; a tensor larger than `shard_bytes` is a shard of its own.
    """
    wanted = as_dtype(dtype)
    shards: list[list[str]] = []
    shard: dict[str, Tensor] = {}
    held = total = 0

    def flush() -> None:
        nonlocal held
        write_safetensors(shard, folder / f"{len(shards)}.shard")
        shards.append(list(shard))
        shard.clear()
        held = 0

    for name, tensor in named:
        size = tensor.numel() * wanted.itemsize
        if shard and held + size > shard_bytes:
            flush()
        shard[stored_name(name)] = tensor.detach().to(device="cpu", dtype=wanted).contiguous()
        held, total = held + size, total + size
    flush()
    if len(shards) == 1:
        (folder / "0.shard").rename(folder / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for i, names in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        (folder / f"{i}.shard").rename(folder / file)
        weight_map |= dict.fromkeys(names, file)
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_config(
    config: ModelConfig, folder: Path, *, dtype: str, ids: Mapping[str, Any], extra: Mapping[str, Any]
) -> None:
    """`config.json` and `generation_config.json`; `ids` are bos_, eos_ and pad_token_id, which stand in both."""
    # Two names for one thing: transformers 4 reads torch_dtype, transformers 5 dtype.
    write_json(folder / "config.json", {**config.to_hf(), "dtype": dtype, "torch_dtype": dtype, **ids, **extra})
    write_json(folder / "generation_config.json", ids)


def token_ids(tokenizer: Tokenizer | None) -> dict[str, int]:
    """The family begins, ends and pads with one token, `<|endoftext|>`."""
    return dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eot) if tokenizer else {}


def save_llama(
    model: Llama,
    folder: Path,
    *,
    dtype: str = "bfloat16",
    shard_bytes: int = 5 << 30,
    extra_config: Mapping[str, Any] | None = None,
    tokenizer: Tokenizer | None = None,
) -> None:
    """Write `model` as a Hugging Face folder: config, generation config and safetensors. The tokenizer files are not.

    Raises `CodegenError` when `folder` exists and is not empty, or cannot be written; nothing is left behind then.
    """
    with new_folder(folder) as aside:
        write_weights(model.named_parameters(), aside, dtype=dtype, shard_bytes=shard_bytes)
        write_config(model.config, aside, dtype=dtype, ids=token_ids(tokenizer), extra=extra_config or {})
