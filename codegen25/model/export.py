"""Any model folder as one that Hugging Face's `AutoTokenizer` and `AutoModelForCausalLM` load with no custom code.

The publisher's layout, the built-in models and quantized folders all come out the same: safetensors in one dtype, a
`tokenizer.json` whose ids are ours, and begin, end and pad ids that are right. A shard is in memory at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from codegen25.config import read_config
from codegen25.errors import say
from codegen25.model.checkpoint import checked_tensors, new_folder, token_ids, write_config, write_weights
from codegen25.model.folder import check_vocab
from codegen25.model.hf_tokenizer import write_tokenizer
from codegen25.model.publisher import repair
from codegen25.tokenizer import from_folder

# The model card and its terms go where the weights go.
PAPERS = ("README*", "LICENSE*", "NOTICE*")


def export_hf(
    source: Path,
    out: Path,
    notice: Callable[[str], None] = say,
    *,
    dtype: str = "bfloat16",
    shard_bytes: int = 5 << 30,
) -> None:
    """Write the model in `source` to `out`, weights in `dtype` (quantized ones are multiplied out).

    Raises `CodegenError` when `source` is no sound model, and when `out` is not empty or cannot be written.
    """
    config, hf = read_config(source)
    hf = repair(hf, source, notice)
    tokenizer = from_folder(source)
    check_vocab(config, tokenizer, source)
    ids = {key: id if (id := hf.get(key)) is not None else eot for key, eot in token_ids(tokenizer).items()}
    with new_folder(out) as aside:
        write_weights(checked_tensors(source, config), aside, dtype=dtype, shard_bytes=shard_bytes)
        write_config(config, aside, dtype=dtype, ids=ids, extra={})
        write_tokenizer(aside, tokenizer)
        for paper in (file for pattern in PAPERS for file in source.glob(pattern)):
            shutil.copyfile(paper, aside / paper.name)
