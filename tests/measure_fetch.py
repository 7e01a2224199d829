"""What fetching a model of full size takes: `python tests/measure_fetch.py --shape 7b --bits 4 --folder DIR`.

Makes the publisher's layout with random weights (three fp32 shards; 27.6 GB for 7b, and as much again of a shard and
the result), serves it from a hub of this machine, and reports the seconds and the peak memory of `codegen25 fetch`, and
of the first completion from the cache, twice. Everything is deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from model_hub import ModelHub
from publisher_folder import CONFIG, TOKENIZER_CONFIG

from codegen25.config import SHAPES, ModelConfig
from codegen25.model.folder import shapes, stored_name

NAME = "Salesforce/codegen25-7b-mono_P"
BLOCK = np.random.default_rng(0).normal(0, 0.02, 1 << 22).astype("<f4")


def write_shard(path: Path, tensors: Mapping[str, tuple[int, ...]]) -> None:
    """A safetensors file of random fp32 weights, written in pieces; norms are ones."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    said = json.dumps(header).encode()
    said += b" " * (-len(said) % 8)
    with path.open("wb") as file:
        file.write(len(said).to_bytes(8, "little") + said)
        for number, shape in enumerate(tensors.values()):
            left = int(np.prod(shape))
            if len(shape) == 1:
                file.write(np.ones(left, "<f4").data)
                continue
            begin = number * 7919 % len(BLOCK)  # no two tensors begin alike
            while left:
                piece = BLOCK[begin : begin + left]
                file.write(piece.data)
                left, begin = left - len(piece), 0


def write_folder(folder: Path, config: ModelConfig) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config.to_hf()))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nRandom weights.\n")
    named = {stored_name(name): shape for name, shape in shapes(config).items()}
    total = sum(int(np.prod(shape)) for shape in named.values())
    shards: list[dict[str, tuple[int, ...]]] = [{}, {}, {}]
    done = 0
    for name, shape in named.items():
        shards[min(done * 3 // total, 2)][name] = shape
        done += int(np.prod(shape))
    weight_map: dict[str, str] = {}
    for number, tensors in enumerate(shards, 1):
        file = f"model-{number:05}-of-00003.safetensors"
        write_shard(folder / file, tensors)
        weight_map |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def measured(hub: ModelHub, cache: Path, *arguments: str) -> dict[str, float]:
    """Seconds, seconds of processors, and the peak of resident memory, in GB, of a command."""
    before = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "codegen25", *arguments],
        env=hub.environment(cache) | {"OMP_NUM_THREADS": str(os.cpu_count())},
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"codegen25 {' '.join(arguments)} failed")
    found = {
        "seconds": round(time.monotonic() - before, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 2),
    }
    print(arguments[0], found, file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), default="7b")
    parser.add_argument("--bits", choices=["4", "8"], default="4")
    parser.add_argument("--folder", type=Path, required=True, help="a new folder; deleted afterwards")
    args = parser.parse_args()
    config = SHAPES[args.shape]
    try:
        write_folder(args.folder / "published", config)
        hub = ModelHub(args.folder / "published", NAME)
        size = sum((args.folder / "published" / name).stat().st_size for name in hub.hashes)
        with hub.running():
            cache = args.folder / "cache"
            found: dict[str, Any] = {"shape": args.shape, "bits": int(args.bits), "fetched_gb": round(size / 1e9, 1)}
            found["fetch"] = measured(hub, cache, "fetch", NAME, "--bits", args.bits)
            kept = cache / "codegen25" / "hub"
            found["kept_gb"] = round(sum(p.stat().st_size for p in kept.rglob("*") if p.is_file()) / 1e9, 2)
            complete = ("complete", "def is_prime(n):", "--model", NAME, "--max-tokens", "16")
            found["completions"] = [measured(hub, cache, *complete) for _ in range(2)]
        print(json.dumps(found))
    finally:
        shutil.rmtree(args.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
