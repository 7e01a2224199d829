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
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from codegen25.config import ModelConfig, read_config
from codegen25.errors import CodegenError, UsageError
from codegen25.model import packed
from codegen25.model.llama import Llama
from codegen25.model.publisher import repair
from codegen25.tokenizer import Tokenizer

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
MAPPED_BYTES = 256 << 20
BUILT_IN = Path(__file__).parent.parent / "models"
AGAIN = "copy, download or export the folder again"

# Buffers that old versions of transformers wrote; they follow from the config.
IGNORED = re.compile(r"(model\.layers\.\d+\.self_attn|model)\.rotary_emb\.inv_freq")


def print_notice(line: str) -> None:
    print(line, file=sys.stderr)


def resolve(name: str) -> Path:
    """The folder that `name` means: an existing folder, a built-in model, or a hub id in the local Hugging Face cache.

    Nothing is downloaded. Raises `CodegenError` when there is no such model.
    """
    if (folder := Path(name)).is_dir():
        return folder
    if re.fullmatch(r"[\w-][\w.-]*", name) and (BUILT_IN / name).is_dir():
        return BUILT_IN / name
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        raise CodegenError(
            f"{name}: no such folder or built-in model; name a model folder, a hub id (owner/model) or nano"
        )
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError as error:
        raise CodegenError(
            f"{name}: no such folder, and hub ids need huggingface_hub; pip install huggingface_hub, or name a folder"
        ) from error
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError) as error:
        raise CodegenError(
            f"{name}: no such folder, and not in the local Hugging Face cache; run `hf download {name}`"
        ) from error


def _index(path: Path) -> list[Path]:
    """The shards that an index names, in its order."""
    try:
        names = dict.fromkeys(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CodegenError(f"{path}: not a shard index; {AGAIN}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CodegenError(f"{path}: names the shard {name!r}, which is outside the folder; {AGAIN}")
        if not (path.parent / name).is_file():
            raise CodegenError(f"{path.parent / name}: this shard is missing; {AGAIN}")
    return [path.parent / name for name in names]


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights of `folder`. Raises `CodegenError` when there are none or a shard is missing."""
    for stem in ("model.safetensors", "pytorch_model.bin"):
        if (folder / f"{stem}.index.json").is_file():
            return _index(folder / f"{stem}.index.json")
        if (folder / stem).is_file():
            return [folder / stem]
    raise CodegenError(f"{folder}: no model.safetensors or pytorch_model.bin, so there are no weights; {AGAIN}")


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


def _read(path: Path) -> Iterator[tuple[str, Tensor]]:
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
    plan = packed.from_json(read_config(folder)[1].get("quantization_config"), f"{folder}/config.json")
    stored = (pair for path in weight_files(folder) for pair in _read(path))
    yield from packed.dequantized(stored, plan, str(folder)) if plan else stored


class _NoInit(TorchFunctionMode):
    """Leaves out `torch.nn.init`: on the meta device it does nothing but import 75 MB of torch for a second or two."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def expected_model(config: ModelConfig, folder: Path) -> Llama:
    """A `Llama` without memory: its parameters are the names and shapes that the files must hold."""
    size = sum(path.stat().st_size for path in weight_files(folder))
    if config.parameters > 4 * size:  # not even at 2 bits a weight; also keeps a hostile `layers` from being built
        raise CodegenError(
            f"{folder}: config.json describes {config.parameters:,} parameters, "
            f"the weight files have {size:,} bytes; {AGAIN}"
        )
    with torch.device("meta"), _NoInit():
        return Llama(config)


def _check(folder: Path, name: str, tensor: Tensor, expected: Tensor) -> None:
    if tensor.shape != expected.shape:
        raise CodegenError(
            f"{folder}: tensor {name} has shape {list(tensor.shape)}, "
            f"config.json asks for {list(expected.shape)}; {AGAIN}"
        )
    if not tensor.is_floating_point():
        raise CodegenError(f"{folder}: tensor {name} is {tensor.dtype}, not floating point; use an unquantized folder")


def _check_tied(folder: Path, head: Tensor) -> None:
    for name, tensor in tensors(folder):
        if name == "model.embed_tokens.weight" and not torch.equal(tensor, head):
            raise CodegenError(f"{folder}: config.json ties lm_head.weight to the embedding, the files differ; {AGAIN}")


def checked_tensors(folder: Path, model: Llama) -> Iterator[tuple[str, Tensor]]:
    """The tensors of `folder` under the parameter names of `model` (whose values are not looked at), each once.

    A tied model's `lm_head.weight`, which some folders hold beside the embedding, is compared with it and left out.
    Raises `CodegenError` for an unknown, repeated or missing tensor, a wrong shape, and two different tied heads.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    missing = set(parameters)
    for name, tensor in tensors(folder):
        if IGNORED.fullmatch(name):
            continue
        ours = name.removeprefix("model.")
        if ours not in parameters or (ours == name) != (name == "lm_head.weight"):
            raise CodegenError(f"{folder}: tensor {name} is not part of the model in config.json; {AGAIN}")
        if ours not in missing:
            raise CodegenError(f"{folder}: tensor {name} is there twice; {AGAIN}")
        _check(folder, name, tensor, parameters[ours])
        missing.remove(ours)
        if model.config.tied and ours == "lm_head.weight":
            _check_tied(folder, tensor)
        else:
            yield ours, tensor
        del tensor
    if model.config.tied:
        missing.discard("lm_head.weight")
    if missing:
        first = min(missing)
        name = first if first == "lm_head.weight" else f"model.{first}"
        shape = list(parameters[first].shape)
        raise CodegenError(f"{folder}: tensor {name} {shape} is missing, with {len(missing) - 1} others; {AGAIN}")


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise UsageError(f"dtype {name!r}: choose one of {', '.join(DTYPES)}")
    return DTYPES[name]


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device {name!r}: choose cpu, cuda, cuda:0, …, or mps") from None
    missing = {"cuda": not torch.cuda.is_available(), "mps": not torch.backends.mps.is_available()}
    if missing.get(device.type):
        raise CodegenError(f"device {name}: this PyTorch finds none on this machine; use cpu, or install its GPU build")
    return device


def load_llama(
    folder: Path, *, dtype: str = "bfloat16", device: str = "cpu", notice: Callable[[str], None] = print_notice
) -> Llama:
    """The model in `folder`, in `dtype` on `device`. What was repaired on the way is said through `notice`.

    Raises `CodegenError` for a folder that is no model, for damaged files, and where config and tensors disagree.
    """
    wanted, place = _dtype(dtype), _device(device)
    config, hf = read_config(folder)
    repair(hf, folder, notice)
    model = expected_model(config, folder)
    for name, tensor in checked_tensors(folder, model):
        owner, _, leaf = name.rpartition(".")
        # `to` gives back the mapped view itself where dtype and device already fit.
        setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor.to(device=place, dtype=wanted)))
        del tensor
    if config.tied:
        model.lm_head.weight = model.embed_tokens.weight
    return model


def check_vocab(config: ModelConfig, tokenizer: Tokenizer, folder: Path) -> None:
    """Raise `CodegenError` when the tokenizer has ids without an embedding row. Rows without an id are padding."""
    if tokenizer.n_vocab > config.vocab_size:
        raise CodegenError(
            f"{folder}: the tokenizer has {tokenizer.n_vocab} ids, the model {config.vocab_size} embedding rows; "
            "put the tokenizer the model was trained with into the folder"
        )


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
    wanted = _dtype(dtype)
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
        key = name if name == "lm_head.weight" else f"model.{name}"
        shard[key] = tensor.detach().to(device="cpu", dtype=wanted).contiguous()
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
