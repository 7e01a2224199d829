"""What makes a folder a model: where it is, which files hold its weights, and which tensors must be in them.

Nothing here knows PyTorch. `weights.py` reads the tensors for the native engine, `checkpoint.py` for PyTorch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from codegen25.config import ModelConfig
from codegen25.errors import CodegenError
from codegen25.model.cached import HUB_ID, WHOLE, fetched
from codegen25.tokenizer import Tokenizer

BUILT_IN = Path(__file__).parent.parent / "models"
AGAIN = "copy, download or export the model again"

# Buffers that old versions of transformers wrote; they follow from the config.
IGNORED = re.compile(r"(model\.layers\.\d+\.self_attn|model)\.rotary_emb\.inv_freq")


class Shaped(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


T = TypeVar("T", bound=Shaped)


def resolve(name: str) -> Path:
    """What `name` means: a folder, a GGUF file, a built-in model, or a hub id that is here already.

    Of a hub id the published weights go before quantized ones. Nothing is downloaded (`hub.py` does). Raises
    `CodegenError` when there is no such model.
    """
    if (path := Path(name)).is_dir() or is_gguf(path):
        return path
    if re.fullmatch(r"[\w-][\w.-]*", name) and (BUILT_IN / name).is_dir():
        return BUILT_IN / name
    if not HUB_ID.fullmatch(name) or name.endswith(".gguf"):
        raise CodegenError(
            f"{name}: no such folder or built-in model; name a folder, a GGUF file, a hub id (owner/model) or nano"
        )
    if found := whole_here(name) or fetched(name):
        return found
    raise CodegenError(f"{name}: no such folder, and not in the cache; run `codegen25 fetch {name}`")


def whole_here(name: str) -> Path | None:
    """The published weights of a hub id, where our cache or the hub's own has them."""
    if kept := fetched(name, WHOLE):
        return kept
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError:
        return None
    try:
        folder = Path(snapshot_download(name, local_files_only=True, allow_patterns=["config.json"]))
        weight_files(folder)
    except (LocalEntryNotFoundError, ValueError, CodegenError):  # of a download that was stopped
        return None
    return folder


def is_gguf(path: Path) -> bool:
    """Whether `path` is a file that is to be read as GGUF."""
    return path.suffix == ".gguf" and path.is_file()


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


def check_size(config: ModelConfig, files: Iterable[Path], origin: Path) -> None:
    """Raise `CodegenError` when the files cannot hold so many parameters, not even at 2 bits each.

    It also keeps a hostile number of layers from being built.
    """
    size = sum(path.stat().st_size for path in files)
    if config.parameters > 4 * size:
        raise CodegenError(
            f"{origin}: config.json describes {config.parameters:,} parameters, "
            f"the weight files have {size:,} bytes; {AGAIN}"
        )


def check_vocab(config: ModelConfig, tokenizer: Tokenizer, folder: Path) -> None:
    """Raise `CodegenError` when the tokenizer has ids without an embedding row. Rows without an id are padding."""
    if tokenizer.n_vocab > config.vocab_size:
        raise CodegenError(
            f"{folder}: the tokenizer has {tokenizer.n_vocab} ids, the model {config.vocab_size} embedding rows; "
            "put the tokenizer the model was trained with into the folder"
        )


# -------------------------------------------------------------------------------------------------------------- tensors


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of the model, by the name that its parameter has in `Llama`; the head also where it is tied."""
    c = config
    block = {
        "input_layernorm": (c.hidden_size,),
        "self_attn.q_proj": (c.heads * c.head_dim, c.hidden_size),
        "self_attn.k_proj": (c.kv_heads * c.head_dim, c.hidden_size),
        "self_attn.v_proj": (c.kv_heads * c.head_dim, c.hidden_size),
        "self_attn.o_proj": (c.hidden_size, c.heads * c.head_dim),
        "post_attention_layernorm": (c.hidden_size,),
        "mlp.gate_proj": (c.intermediate_size, c.hidden_size),
        "mlp.up_proj": (c.intermediate_size, c.hidden_size),
        "mlp.down_proj": (c.hidden_size, c.intermediate_size),
    }
    vocabulary = (c.vocab_size, c.hidden_size)
    layers = {f"layers.{n}.{name}.weight": shape for n in range(c.layers) for name, shape in block.items()}
    return {"embed_tokens.weight": vocabulary, **layers, "norm.weight": (c.hidden_size,), "lm_head.weight": vocabulary}


def stored_name(parameter: str) -> str:
    """The name that a parameter of `Llama` has in a Hugging Face folder."""
    return parameter if parameter == "lm_head.weight" else f"model.{parameter}"


def checked(
    stored: Callable[[], Iterator[tuple[str, T]]], config: ModelConfig, origin: Path, same: Callable[[T, T], bool]
) -> Iterator[tuple[str, T]]:
    """The tensors that `stored` reads, under their names in `Llama`, each once and none missing.

    A tied model's `lm_head.weight`, which some folders hold beside the embedding, is compared with it and left out.
    Raises `CodegenError` for an unknown, repeated or missing tensor, a wrong shape, and two different tied heads.
    """
    wanted = shapes(config)
    missing = set(wanted)
    for name, tensor in stored():
        if IGNORED.fullmatch(name):
            continue
        ours = name.removeprefix("model.")
        if ours not in wanted or name != stored_name(ours):
            raise CodegenError(f"{origin}: tensor {name} is not part of the model that its config describes; {AGAIN}")
        if ours not in missing:
            raise CodegenError(f"{origin}: tensor {name} is there twice; {AGAIN}")
        if tuple(tensor.shape) != wanted[ours]:
            raise CodegenError(
                f"{origin}: tensor {name} has shape {list(tensor.shape)}, "
                f"its config asks for {list(wanted[ours])}; {AGAIN}"
            )
        missing.remove(ours)
        if config.tied and ours == "lm_head.weight":
            _check_tied(stored(), tensor, origin, same)
        else:
            yield ours, tensor
        del tensor  # nothing of a file stays mapped on our account
    if config.tied:
        missing.discard("lm_head.weight")
    if missing:
        first = min(missing)
        raise CodegenError(
            f"{origin}: tensor {stored_name(first)} {list(wanted[first])} is missing, "
            f"with {len(missing) - 1} others; {AGAIN}"
        )


def _check_tied(stored: Iterable[tuple[str, T]], head: T, origin: Path, same: Callable[[T, T], bool]) -> None:
    for name, tensor in stored:
        if name == "model.embed_tokens.weight" and not same(tensor, head):
            raise CodegenError(f"{origin}: config.json ties lm_head.weight to the embedding, the files differ; {AGAIN}")
