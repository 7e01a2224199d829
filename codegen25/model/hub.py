"""Models of the Hugging Face Hub, fetched: downloaded shard by shard, checked, quantized on the way, kept in the cache.

A shard is on the disk at a time, and goes when it is quantized. Whatever stops a fetch, the next one goes on: at the
byte where a download was cut off, behind the last shard that was quantized. What is kept is a model folder of ours, in
which the known faults of the publisher's are repaired (`publisher.py`).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from codegen25.config import ModelConfig, read_config
from codegen25.data.alone import alone
from codegen25.data.plain import short
from codegen25.errors import CodegenError, UsageError, say
from codegen25.model.cached import HUB_ID, ORIGIN, WHOLE, cache_folder, fetched, origin, place
from codegen25.model.convert import WeightFile, convert
from codegen25.model.folder import check_vocab, resolve, shapes, stored_name, whole_here
from codegen25.model.hf_tokenizer import write_tokenizer
from codegen25.model.older import MODEL_TYPE, is_older, read_shape
from codegen25.model.plan import PLANS, check_shape, packing_of, to_json
from codegen25.model.publisher import repair
from codegen25.model.repository import RemoteFile, Repository, look_up
from codegen25.model.resume import progress_bar
from codegen25.model.terms import agree, terms_text
from codegen25.tokenizer import from_folder

Notice = Callable[[str], None]
KEPT_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
PAPERS = ("README*", "LICENSE*", "NOTICE*")


def runnable(name: str, bits: int | None, default: int, notice: Notice = say) -> Path:
    """The folder or file of what `name` means, for the native engine: a hub id that is not here yet is fetched.

    `bits`: what was asked for; `default` is taken where nothing was and nothing is here. Raises `CodegenError`.
    """
    if not HUB_ID.fullmatch(name) or Path(name).exists():
        return resolve(name)
    if (kept := fetched(name, bits)) or (kept := whole_here(name)):
        return kept
    return fetch(name, bits or default, notice=notice)


def whole(name: str, notice: Notice = say) -> Path:
    """The same for PyTorch: the weights as they were published."""
    if not HUB_ID.fullmatch(name) or Path(name).exists():
        return resolve(name)
    return whole_here(name) or fetch_whole(name, notice=notice)


def fetch(name: str, bits: int, *, accept: bool = False, notice: Notice = say) -> Path:
    """The newest commit of the hub id `name`, in `bits` (4 or 8) or `WHOLE`, as CodeGen2 always is: its folder.

    `accept`: its licence, where that is not an open one (`terms.py`). Raises `CodegenError` when it cannot be had, is
    not what the hub lists, is no model that can be run, or finds no room; what had arrived is kept for the next time.
    """
    _check(name)
    repository = look_up(name)
    if bits and repository.model_type == MODEL_TYPE:
        notice(f"{name}: is a CodeGen2, which runs in PyTorch; it is kept as published")
        bits = WHOLE
    kept = place(name, bits)
    if origin(kept).get("commit") == repository.commit:
        return kept
    with _alone(kept.parent):
        staging = kept.with_name(f".{kept.name}-{repository.commit[:12]}.partial")
        try:
            _make(repository, bits, staging, accept, notice)
        except CodegenError as error:
            raise CodegenError(re.sub(rf"{re.escape(str(staging))}/\w+", name, str(error))) from error
        _put(staging / "model", kept)
        for left in kept.parent.glob(f".{kept.name}-*.partial"):
            shutil.rmtree(left)
    notice(f"{name}: kept in {kept}")
    return kept


def fetch_whole(name: str, *, accept: bool = False, notice: Notice = say) -> Path:
    """The same as it was published, every file checked: for PyTorch, export and training."""
    return fetch(name, WHOLE, accept=accept, notice=notice)


def _check(name: str) -> None:
    if not HUB_ID.fullmatch(name):
        raise UsageError(f"{name}: not a hub id; write OWNER/MODEL")


def _make(repository: Repository, bits: int, staging: Path, accept: bool, notice: Notice) -> None:
    """The model in `staging/model`; what is quantized comes by way of `staging/source`."""
    made = staging / "model"
    source = staging / "source" if bits else made
    for folder in (source, made):
        folder.mkdir(parents=True, exist_ok=True)
    for file in repository.beside():
        repository.download(file, source)
    config, hf = (read_shape(source).config, {}) if is_older(source) else read_config(source)
    terms = agree(repository.name, repository.license, terms_text(source), accept, notice)
    weights = repository.weights(source)
    _check_model(repository, config, hf, bits, source, weights)
    total = sum(file.size for file in weights)
    # A tied head may be compared with an embedding that came long before.
    at_once = total if config.tied or not bits else max(file.size for file in weights)
    _check_room(repository.name, staging, at_once + config.parameters * bits // 8 * 5 // 4)
    what = f"round to {bits} bits" if bits else "check"
    notice(f"{repository.name}: {short(total, 'B')} to fetch and {what}; if it is stopped, it can go on")
    if bits:
        _convert(repository, config, weights, bits, source, made)
        _write_beside(repository, config, hf, bits, source, made, notice)
    else:
        for weight in weights:
            repository.download(weight.name, made)
    _write_origin(repository, terms, made)


def _check_model(
    repository: Repository,
    config: ModelConfig,
    hf: dict[str, Any],
    bits: int,
    source: Path,
    weights: Sequence[RemoteFile],
) -> None:
    """Raise `CodegenError` for what cannot be run, before its weights are fetched."""
    check_vocab(config, from_folder(source), source)
    size = sum(file.size for file in weights)
    if config.parameters > size:
        raise CodegenError(
            f"{repository.name}: its config describes {config.parameters:,} parameters, "
            f"its weights have {size:,} bytes; name another model"
        )
    if not bits:
        return
    if hf.get("quantization_config"):
        raise CodegenError(f"{repository.name}: is quantized already, by another method; fetch the model it comes from")
    for tensor, shape in shapes(config).items():
        if packing := packing_of(PLANS[bits], stored_name(tensor)):
            check_shape(shape, packing, f"{repository.name}: tensor {stored_name(tensor)}")


def _convert(
    repository: Repository, config: ModelConfig, weights: Sequence[RemoteFile], bits: int, source: Path, made: Path
) -> None:
    release = (lambda path: None) if config.tied else Path.unlink
    files = [
        WeightFile(file.name, file.hash, partial(repository.download, file.name, source), release) for file in weights
    ]
    with _bar() as show:
        convert(files, config, PLANS[bits], made, repository.name, show)


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar like those of the downloads: on a terminal alone."""
    bar: Any = None
    shown = ""

    def show(file: str, done: int, total: int) -> None:
        nonlocal bar, shown
        if file != shown:
            if bar is not None:
                bar.close()
            bar, shown = progress_bar(total=total, desc=f"{file}, rounded", unit=" tensors"), file
        bar.update(done - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()


def _write_beside(
    repository: Repository,
    config: ModelConfig,
    hf: dict[str, Any],
    bits: int,
    source: Path,
    made: Path,
    notice: Notice,
) -> None:
    """Everything that goes with quantized weights, repaired."""
    fixed = repair(hf, source, lambda line: notice(line.replace(str(source), repository.name)))
    ids = {key: fixed[key] for key in KEPT_IDS if key in fixed}
    extra = {"quantization_config": to_json(PLANS[bits])}
    said = {**config.to_hf(), "dtype": "float32", "torch_dtype": "float32", **ids}
    for file, value in (("config.json", said | extra), ("generation_config.json", ids)):
        (made / file).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    write_tokenizer(made, from_folder(source))
    for paper in (file for pattern in PAPERS for file in source.glob(pattern)):
        shutil.copyfile(paper, made / paper.name)


def _write_origin(repository: Repository, terms: str, made: Path) -> None:
    """What makes a folder of the cache a whole one."""
    said = {
        "repository": repository.name,
        "commit": repository.commit,
        "license": repository.license,
        "license_text_sha256": terms,
        "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": {name: file.hash for name, file in sorted(repository.files.items())},
    }
    (made / ORIGIN).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def _check_room(name: str, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise CodegenError(
            f"{name}: needs {short(needed, 'B')} of disk in {folder}, {short(free, 'B')} are free; free some, or set "
            "XDG_CACHE_HOME"
        )


def _put(made: Path, kept: Path) -> None:
    """`made` in the place of `kept`, which may be an older commit."""
    old = made.with_name("old")
    if kept.exists():
        kept.replace(old)
    made.replace(kept)


def _alone(folder: Path) -> AbstractContextManager[None]:
    """One fetch of a model at a time. Raises `CodegenError` when another is at work, or the cache cannot be written."""
    busy = "another process is fetching this model; wait for it"
    return alone(folder, busy, root=cache_folder(), remedy="set XDG_CACHE_HOME")
