"""Options that commands share, each written once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

ANCHOR = "8"  # `ANCHOR_LINES` of complete.py, which is too slow to import for a help text


def flags(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, in the order they are to be shown."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


json_option = click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
model_option = click.option(
    "--model", default="nano", help="A model folder, a GGUF file, a hub id (OWNER/MODEL), or a built-in name."
)
# What servers say of the texts they give out; those of `complete` are in `cli`.
attribution_options = flags(
    click.option(
        "--index", type=click.Path(path_type=Path), metavar="DIR", help="Say where text stands in this corpus."
    ),
    click.option("--policy", help="With --index: licences that may be repeated; `permissive`, or a TOML file."),
)
# The names are those of the arguments of `load`.
loading = flags(
    click.option("--device", default="cpu", help="cpu, or a GPU by PyTorch's name (cuda, mps)."),
    click.option("--threads", type=int, show_default="all", help="Cores to use on a CPU."),
    click.option("--bits", type=click.Choice([4, 8]), show_default="8", help="On a CPU: of weights not yet quantized."),
)
