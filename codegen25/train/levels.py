"""Training for the levels that weights are rounded to (quantization-aware training).

The model computes with its four-bit matrices rounded, their masters take the gradients as if they had not been: the
straight-through estimator (Bengio et al., 2013; Jacob et al., 2018). Scales are settled when a run begins, by the file
that it begins from where that is quantized already, so such a model begins exactly as it is. Matrices of eight bits,
whose rounding costs next to nothing, are rounded when the file is written.

Shapes: N outputs, K inputs, G groups along the inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor
from torch.distributed.tensor import DTensor

from codegen25.config import ModelConfig, read_config
from codegen25.errors import CodegenError
from codegen25.model.checkpoint import read_file, token_ids, write_config, write_safetensors
from codegen25.model.folder import stored_name, weight_files
from codegen25.model.hf_tokenizer import write_tokenizer
from codegen25.model.llama import Llama
from codegen25.model.packed import pack
from codegen25.model.plan import PLANS, Packing, check_shape, from_json, packing_of, paired, to_json
from codegen25.model.rounding import fit_scales, nearest, round_to_nearest
from codegen25.tokenizer import Tokenizer
from codegen25.train.folders import replaced
from codegen25.train.parallel import rows_before


class Levels:
    """The plan of `bits`, and for each four-bit matrix of a model its scales, fp32 [N, G, 1].

    `folder` is the one that the model was read from, None where there is none. Raises `CodegenError` when a matrix does
    not divide into groups.
    """

    def __init__(self, model: Llama, bits: int, folder: Path | None = None) -> None:
        self.plan = PLANS[bits]
        stored = stored_scales(folder, self.plan) if folder else {}
        self._scales: dict[str, Tensor] = {}
        for name, parameter in model.named_parameters():
            if packing := packing_of(self.plan, name):
                check_shape(parameter.shape, packing, name)
                if packing.bits == 4:
                    scale = stored.get(name)
                    scale = fit_scales(parameter.detach().float(), packing) if scale is None else scale
                    self._scales[name] = scale.float()[..., None].to(parameter.device)

    def rounded(self, name: str, master: Tensor) -> Tensor:
        """`master`, fp32 [N, K], at the nearest levels; one that has none as it is. Of a sharded one, the rows here."""
        here, first = master, 0
        if isinstance(master, DTensor):
            here, first = master.to_local(), rows_before(master)
        if (scale := self._scales.get(name)) is None:
            return here
        scale = scale[first : first + len(here)]
        return _integers(here, scale).mul_(scale).view_as(here)

    def packed(self, named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
        """Weights, fp32 and whole, as a quantized folder holds them (`docs/formats.md`)."""
        found: dict[str, Tensor] = {}
        for name, tensor in named:
            key, packing, weight = stored_name(name), packing_of(self.plan, name), tensor.detach().float().cpu()
            if packing is None:
                found[key] = weight.contiguous()
                continue
            if (known := self._scales.get(name)) is None:
                integers, scale = round_to_nearest(weight, packing)
            else:
                known = known.cpu()
                integers, scale = _integers(weight, known).view_as(weight), known[..., 0].half()
            found[f"{key}.q"], found[f"{key}.scale"] = pack(integers, packing), scale
        return found


def _integers(weight_NK: Tensor, scale_NG1: Tensor) -> Tensor:
    """[N, G, group], of four bits."""
    return nearest(weight_NK.view(len(weight_NK), scale_NG1.shape[1], -1), scale_NG1, bits=4)


def stored_scales(folder: Path, plan: Mapping[str, Packing]) -> dict[str, Tensor]:
    """The scales, fp16 [N, G], of the matrices that `folder` holds as `plan` would; none where it is not quantized."""
    origin = str(folder)
    theirs = from_json(read_config(folder)[1].get("quantization_config"), origin)
    if not theirs:
        return {}
    stored = (pair for path in weight_files(folder) for pair in read_file(path))
    return {
        name.removeprefix("model."): rest[0]
        for name, _, rest in paired(stored, theirs, origin)
        if rest and rest[1] == packing_of(plan, name)
    }


def write_packed(
    named: Iterable[tuple[str, Tensor]], levels: Levels, config: ModelConfig, tokenizer: Tokenizer, folder: Path
) -> None:
    """Write a quantized folder in the place of the one that an earlier end of the run left.

    Raises `CodegenError` when the disk refuses; the earlier one is whole then.
    """
    held = levels.packed(named)
    if not all(bool(tensor.isfinite().all()) for key, tensor in held.items() if key.endswith(".scale")):
        raise CodegenError(f"{folder}: a scale is too large for fp16; train without --bits")
    with replaced(folder) as aside:
        write_safetensors(held, aside / "model.safetensors")
        extra = {"quantization_config": to_json(levels.plan)}
        write_config(config, aside, dtype="float32", ids=token_ids(tokenizer), extra=extra)
        write_tokenizer(aside, tokenizer)
