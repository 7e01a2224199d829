"""Quantize a model folder: `python -m codegen25.model.quantize SOURCE --bits 4 --out DIR [--calibrate FILE.jsonl]`.

Without calibration every weight goes to its nearest level. With it, four-bit matrices are rounded by GPTQ (Frantar et
al., 2022): columns one after the other, each error made good by the columns still to come, as far as the inputs that
the matrix really sees allow. Those inputs come through the layers before it as they are after quantization. The layout
of what is written: `packed.py`.

A layer is in memory at a time; the source stays mapped and only the result is held. Without calibration not even that
(`convert.py`).

Shapes: B texts, T tokens, D hidden, N outputs, K inputs, G groups along the inputs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codegen25 import infill
from codegen25.config import ModelConfig, read_config
from codegen25.errors import CodegenError, UsageError, say
from codegen25.model.checkpoint import checked_tensors, new_folder, write_config, write_safetensors
from codegen25.model.convert import WeightFile, convert
from codegen25.model.folder import check_size, stored_name, weight_files
from codegen25.model.llama import Block, causal, rotary
from codegen25.model.packed import dequantize, pack
from codegen25.model.plan import GROUPS, PLANS, Packing, check_shape, packing_of, to_json
from codegen25.model.publisher import repair
from codegen25.model.rounding import fit_scales, nearest, round_to_nearest
from codegen25.tokenizer import Tokenizer, from_folder

DAMPING = 0.01  # of the mean of the Hessian's diagonal (Frantar et al., 2022, section 3.3)
BESIDE = ("tokenizer*", "README*", "LICENSE*", "NOTICE*")
Notice = Callable[[str], None]


def gptq(weight_NK: Tensor, hessian_KK: Tensor, packing: Packing, block: int = 128) -> tuple[Tensor, Tensor]:
    """Integers [N, K] and scales, fp16 [N, G], that keep `weight · x` for inputs x with `hessian = Σ x xᵀ`.

    Columns go in the order of their inputs' energy, so that those that matter most are rounded while most others can
    still make good for them; the scales are settled before. Raises `CodegenError` for inputs that are not finite.
    """
    energy_K = hessian_KK.diagonal()
    damping = DAMPING * energy_K.mean() + 1e-12  # inputs that are all zero leave the weights as they are
    scale_NG = fit_scales(weight_NK, packing, energy_K + damping)
    order = energy_K.argsort(descending=True)
    damped = hessian_KK[order][:, order]
    damped.diagonal().add_(damping)
    lower, failed = torch.linalg.cholesky_ex(damped)
    if failed or not bool(damped.isfinite().all()):
        raise CodegenError("the model's activations on the calibration texts are not finite: check its weights")
    # Row j of this factor holds how column j's error spreads over the columns after it (section 3.3, step 3).
    spread_KK = torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)

    scale_KN = scale_NG.float().repeat_interleave(packing.group_size, dim=1).T[order]
    left_KN = weight_NK.T[order].contiguous()
    integers_KN = torch.empty_like(left_KN)
    for start in range(0, len(left_KN), block):
        columns = slice(start, start + block)
        within, error_KN = spread_KK[columns, columns], torch.empty_like(left_KN[columns])
        now_KN = left_KN[columns]
        for j in range(len(now_KN)):
            integers_KN[start + j] = nearest(now_KN[j], scale_KN[start + j], packing.bits)
            error_KN[j] = (now_KN[j] - integers_KN[start + j] * scale_KN[start + j]) / within[j, j]
            now_KN[j:] -= within[j, j:, None] * error_KN[j]
        left_KN[start + block :] -= spread_KK[columns, start + block :].T @ error_KN
    integers_NK = torch.empty_like(weight_NK)
    integers_NK[:, order] = integers_KN.T
    return integers_NK, scale_NG


SHARED = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}


class Inputs:
    """Adds up `Σ x xᵀ` of what goes into each matrix of a block; matrices that share an input share the sum."""

    def __init__(self, block: nn.Module) -> None:
        self._sums: dict[str, Tensor] = {}
        for path, module in block.named_modules():
            name = path.rpartition(".")[2]
            if isinstance(module, nn.Linear) and name not in SHARED:
                self._sums[name] = torch.zeros(module.in_features, module.in_features)
                module.register_forward_pre_hook(self._hook(name))

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def add(module: nn.Module, inputs: tuple[Tensor]) -> None:
            x_TK = inputs[0].flatten(0, -2)
            self._sums[name].addmm_(x_TK.T, x_TK)

        return add

    def hessian(self, name: str) -> Tensor:
        """fp32 [K, K], for the last name of a matrix's path."""
        return self._sums[SHARED.get(name, name)]


class Quantizer:
    """Packs tensor by tensor into `packed`, which is named as the file will be."""

    def __init__(self, source: Mapping[str, Tensor], plan: Mapping[str, Packing], origin: Path) -> None:
        self.source, self.plan, self.origin = source, plan, origin
        self.packed: dict[str, Tensor] = {}
        self.done: set[str] = set()
        for name, tensor in source.items():
            if packing := packing_of(plan, name):
                check_shape(tensor.shape, packing, f"{origin}: tensor {name}")

    def add(self, name: str, hessian_KK: Tensor | None = None) -> Tensor:
        """Quantize one tensor and give back what it is now, fp32. Norms stay as they are."""
        key = stored_name(name)
        tensor, packing = self.source[name].float(), packing_of(self.plan, name)
        what = f"{self.origin}: tensor {key}"
        if not bool(tensor.isfinite().all()):
            raise CodegenError(f"{what} holds NaN or infinity; train or export the model again")
        self.done.add(name)
        if packing is None:
            self.packed[key] = tensor.clone()
            return tensor
        # At 8 bits the nearest level is as good as any.
        if hessian_KK is None or packing.bits == 8:
            integers, scale = round_to_nearest(tensor, packing)
        else:
            integers, scale = gptq(tensor, hessian_KK, packing)
        if not bool(scale.isfinite().all()):
            raise CodegenError(f"{what} is too large for fp16 scales; use the model as it is")
        self.packed[f"{key}.q"], self.packed[f"{key}.scale"] = pack(integers, packing), scale
        return dequantize(self.packed[f"{key}.q"], scale, packing)

    @torch.no_grad()
    def calibrate(self, config: ModelConfig, texts: Sequence[Sequence[int]], notice: Notice) -> None:
        """Quantize block by block, each on the states that the quantized ones before it make of the texts."""
        embedding_VD = self.add("embed_tokens.weight")
        states = [embedding_VD[torch.tensor(text)][None] for text in texts]
        del embedding_VD
        ropes = [rotary(torch.arange(len(text))[None], config.head_dim, config.rope_theta) for text in texts]
        for layer in range(config.layers):
            with torch.device("meta"):
                block = Block(config, layer)
            names = [name for name, _ in block.named_parameters()]
            block.load_state_dict({name: self.source[f"layers.{layer}.{name}"].float() for name in names}, assign=True)
            inputs = Inputs(block)
            for state, rope in zip(states, ropes, strict=True):
                block(state, rope, causal)
            rounded = {}
            for name in names:
                is_norm = name.endswith("norm.weight")
                hessian = None if is_norm else inputs.hessian(name.split(".")[-2])
                rounded[name] = self.add(f"layers.{layer}.{name}", hessian)
            with torch.device("meta"):
                block = Block(config, layer)
            block.load_state_dict(rounded, assign=True)
            states = [block(state, rope, causal) for state, rope in zip(states, ropes, strict=True)]
            notice(f"layer {layer + 1} of {config.layers}")


def quantize(
    source: Path,
    out: Path,
    *,
    bits: int,
    calibration: Sequence[Sequence[int]] | None = None,
    notice: Notice = say,
) -> None:
    """Write the model in `source` to `out`, matrices in `bits` (4 or 8; see `PLANS`) and norms in fp32.

    `calibration`: token ids of texts like those the model will meet; without them weights go to their nearest levels.
    Raises `CodegenError` when `source` is no sound model or does not divide into groups, and when `out` is not empty
    or cannot be written.
    """
    if bits not in PLANS:
        raise UsageError(f"{bits} bits: choose 4 or 8")
    config, hf = read_config(source)
    if hf.get("quantization_config"):
        raise CodegenError(f"{source}: is quantized already; quantize the model that it was made from")
    hf = repair(hf, source, notice)
    check_size(config, weight_files(source), source)
    with new_folder(out) as aside:
        if calibration is None:
            files = [WeightFile(path.name, path.name, partial(Path, path)) for path in weight_files(source)]
            convert(files, config, PLANS[bits], aside, source)
        else:
            _write_calibrated(source, config, PLANS[bits], calibration, aside, notice)
        ids: dict[str, Any] = {key: hf[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in hf}
        extra = {"quantization_config": to_json(PLANS[bits])}
        write_config(config, aside, dtype="float32", ids=ids, extra=extra)
        for file in {file for pattern in BESIDE for file in source.glob(pattern)}:
            shutil.copyfile(file, aside / file.name)
    size = sum(path.stat().st_size for path in weight_files(out))
    notice(f"{out}: {size:,} bytes, {bits} bits in groups of {GROUPS[bits]}")


def _write_calibrated(
    source: Path,
    config: ModelConfig,
    plan: Mapping[str, Packing],
    calibration: Sequence[Sequence[int]],
    out: Path,
    notice: Notice,
) -> None:
    texts = [text[: config.max_positions] for text in calibration if text]
    if not texts:
        raise CodegenError("the calibration texts are empty; give texts like those the model will meet")
    tensors = dict(checked_tensors(source, config))
    quantizer = Quantizer(tensors, plan, source)
    quantizer.calibrate(config, texts, notice)
    for name in tensors.keys() - quantizer.done:
        quantizer.add(name)
    write_safetensors(quantizer.packed, out / "model.safetensors")


def calibration_ids(file: Path, tokenizer: Tokenizer, documents: int, tokens: int = 256) -> list[list[int]]:
    """The first `documents` texts (`content` of a JSON line), cut at `tokens`.

    Every other one has its middle as a hole, so that the matrices meet completions and infills alike.
    """
    ids: list[list[int]] = []
    try:
        with file.open(encoding="utf-8") as lines:
            for line, _ in zip(lines, range(documents), strict=False):
                text = tokenizer.encode(str(json.loads(line)["content"]))[:tokens]
                third = len(text) // 3
                context = infill.context(tokenizer, [text[:third], text[2 * third :]])
                holed = context + infill.answer(tokenizer, [text[third : 2 * third]])
                ids.append(holed if len(ids) % 2 else text)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CodegenError(f"{file}: not lines of JSON with `content` ({error}); build the corpus first") from error
    return ids


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m codegen25.model.quantize", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("source", type=Path, help="a model folder")
    parser.add_argument("--bits", type=int, choices=sorted(PLANS), default=4)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--calibrate", type=Path, metavar="FILE.jsonl", help="texts like those the model will meet")
    parser.add_argument("--calibration-documents", type=int, default=128)
    return parser


def main() -> None:
    args = _parser().parse_args()
    try:
        texts = None
        if args.calibrate:
            texts = calibration_ids(args.calibrate, from_folder(args.source), args.calibration_documents)
        quantize(args.source, args.out, bits=args.bits, calibration=texts)
    except CodegenError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
