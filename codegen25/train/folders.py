"""Where a run begins, a model's folder or a shape, and the folder that it leaves."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from codegen25.config import SHAPES, ModelConfig
from codegen25.errors import CodegenError
from codegen25.model.checkpoint import DTYPES, load_llama, new_folder, token_ids, write_config, write_weights
from codegen25.model.folder import check_vocab, resolve
from codegen25.model.hf_tokenizer import write_tokenizer
from codegen25.model.llama import Llama
from codegen25.tokenizer import Tokenizer, family, from_folder

BUILT_IN = "nano"


class Start(NamedTuple):
    """What a run begins with."""

    model: Llama
    tokenizer: Tokenizer


def open_start(init: str | None, shape: str | None, *, dtype: str, device: torch.device, seed: int) -> Start:
    """The model that `init` names, quantized weights multiplied out; or one of a named shape with weights by chance.

    A shape has the family's vocabulary, or nano's where that is its own. Raises `CodegenError` when there is no such
    model, or its files are damaged.
    """
    if init is not None:
        folder = resolve(init)
        if not folder.is_dir():
            raise CodegenError(f"{init}: a GGUF file cannot be trained; export it to a folder (--to hf) first")
        model, tokenizer = load_llama(folder, dtype=dtype, device=str(device)), from_folder(folder)
        check_vocab(model.config, tokenizer, folder)
        return Start(model, tokenizer)
    assert shape is not None, "one of the two is given"
    config = SHAPES[shape]
    tokenizer = family() if config.vocab_size == family().n_vocab else from_folder(resolve(BUILT_IN))
    with torch.device(device):
        model = Llama(config)
    model.init_weights(torch.Generator(device).manual_seed(seed))
    return Start(model.to(DTYPES[dtype]), tokenizer)


def write_model(
    weights: Iterable[tuple[str, Tensor]], config: ModelConfig, tokenizer: Tokenizer, folder: Path, dtype: str
) -> None:
    """Write a model as a Hugging Face folder, in the place of the one that an earlier end of the run left.

    Raises `CodegenError` when the disk refuses; the earlier one is whole then.
    """
    with replaced(folder) as aside:
        write_weights(weights, aside, dtype=dtype)
        write_config(config, aside, dtype=dtype, ids=token_ids(tokenizer), extra={})
        write_tokenizer(aside, tokenizer)


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A folder to write into that takes the place of `folder` when the block ends well.

    Raises `CodegenError` when the disk refuses; what was there before is whole then.
    """
    fresh, old = (folder.with_name(f"{folder.name}.{what}") for what in ("new", "old"))
    shutil.rmtree(fresh, ignore_errors=True)
    with new_folder(fresh) as aside:
        yield aside
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
