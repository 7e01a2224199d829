"""Known accelerators: peak dense bf16 arithmetic and memory, as their makers say; and what `256xH100` means."""

from __future__ import annotations

import re
from dataclasses import dataclass

from codegen25.errors import UsageError


@dataclass(frozen=True)
class Accelerator:
    """A device: `peak` in FLOP/s of dense bf16 products summed in fp32, `memory` in bytes, `source` that says both."""

    name: str
    peak: float
    memory: float
    source: str


@dataclass(frozen=True)
class Cluster:
    """So many devices of one kind."""

    devices: int
    accelerator: Accelerator

    def __str__(self) -> str:
        return f"{self.devices}x{self.accelerator.name}"


_KNOWN = (
    Accelerator("A100", 312e12, 80e9, "https://www.nvidia.com/en-us/data-center/a100/"),
    Accelerator("H100", 989e12, 80e9, "https://www.nvidia.com/en-us/data-center/h100/"),
    Accelerator("H200", 989e12, 141e9, "https://www.nvidia.com/en-us/data-center/h200/"),
    Accelerator("B200", 2250e12, 180e9, "https://www.nvidia.com/en-us/data-center/dgx-b200/"),
    Accelerator("L40S", 362e12, 48e9, "https://www.nvidia.com/en-us/data-center/l40s/"),
    Accelerator("RTX4090", 165e12, 24e9, "https://www.nvidia.com/en-us/geforce/graphics-cards/40-series/rtx-4090/"),
    Accelerator("MI300X", 1307e12, 192e9, "https://www.amd.com/en/products/accelerators/instinct/mi300/mi300x.html"),
)
ACCELERATORS = {one.name: one for one in _KNOWN}
CPU = "cpu"


def parse_cluster(text: str) -> tuple[int, str]:
    """`256xH100` as a number and a name of `ACCELERATORS` or `cpu`. Raises `UsageError` for anything else."""
    found = re.fullmatch(r"([0-9]{1,7})x(\S+)", text)
    names = {name.lower(): name for name in (*ACCELERATORS, CPU)}
    if not found or not int(found[1]) or found[2].lower() not in names:
        raise UsageError(
            f"--gpus {text}: give a number and a device, such as 8xH100; known: {', '.join(names.values())}"
        )
    return int(found[1]), names[found[2].lower()]
