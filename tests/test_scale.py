"""docs/scale.md says what `codegen25 plan` says. `python tests/test_scale.py` writes its table again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from codegen25.cli import cli

PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
BETWEEN = re.compile(r"(?s)(?<=<!-- plan -->\n).*(?=<!-- /plan -->)")
HEAD = """\
| `codegen25 plan …` | days | cost | memory, GB | receives | token shards | checkpoint |
|---|---|---|---|---|---|---|
"""
ROWS = [
    "--shape nano --tokens 3B --gpus 1xRTX4090 --price-per-hour 0.4",
    "--shape 350m --tokens 7B --gpus 1xRTX4090 --price-per-hour 0.4",
    "--shape 1b --tokens 26B --gpus 8xH100 --price-per-hour 2.5",
    "--shape 3b --tokens 100B --gpus 64xH100 --price-per-hour 2.5",
    "--shape 7b --tokens 140B --gpus 64xH100 --price-per-hour 2.5",
    "--shape 7b --tokens 1.4T --gpus 256xA100 --price-per-hour 1.5",
    "--shape 7b --tokens 1.4T --gpus 256xH100 --price-per-hour 2.5",
    "--shape 7b --tokens 1.4T --gpus 256xH100 --price-per-hour 2.5 --rows 16 --mfu 0.3",
]
THREE, WHOLE, MORE_ROWS = ROWS[3], ROWS[6], ROWS[7]


@cache
def plan(options: str) -> dict[str, Any]:
    """What the command says."""
    result = CliRunner().invoke(cli, ["plan", *options.split(), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def receives(options: str) -> float:
    """GB/s, so that a step need not wait."""
    found = plan(options)
    return float(found["traffic_per_step"] / found["step_seconds"] / 1e9)


def row(options: str) -> str:
    found = plan(options)
    memory = [
        f"{found['memory'][how]['peak'] / 1e9:.1f}{'' if found['fits'][how] else ' (over)'}"
        for how in ("plain", "checkpointing")
    ]
    cells = (
        f"`{options}`", f"{found['days']:.3g}", f"{found['cost']:,.0f}", " / ".join(memory),
        f"{receives(options):.1f} GB/s", size(found["bytes"]["shards"]), size(found["bytes"]["checkpoint"]),
    )  # fmt: skip
    return f"| {' | '.join(cells)} |\n"


def size(number: int) -> str:
    return f"{number / 1e12:.2f} TB" if number >= 1e12 else f"{number / 1e9:.3g} GB"


def table() -> str:
    return HEAD + "".join(map(row, ROWS))


def test_the_table_is_what_the_command_says() -> None:
    found = BETWEEN.search(PAGE.read_text(encoding="utf-8"))
    assert found and found[0] == table(), "python tests/test_scale.py writes it again"


SAID: dict[str, Callable[[], bool]] = {
    "at 4 rows a 400 Gb/s port a GPU (50 GB/s) is just full": lambda: 45 < receives(WHOLE) < 50,
    "16 rows with checkpointing need a fifth": lambda: 4.5 < receives(WHOLE) / receives(MORE_ROWS) < 5.5,
    "for 3b on 64 as for 7b on 256": lambda: abs(receives(THREE) / receives(WHOLE) - 1) < 0.03,
    "which 100 Gb/s a GPU (12.5 GB/s) carry": lambda: receives(MORE_ROWS) < 12.5,
    "a batch of 8 M tokens": lambda: 8e6 < plan(MORE_ROWS)["tokens_per_step"] < 9e6,
    "2.4 M tokens a second are 4.9 MB/s": lambda: round(2 * plan(WHOLE)["tokens_per_second"] / 1e5) == 49,
    "83 GB over 256 devices is 0.3 GB each": lambda: round(plan(WHOLE)["bytes"]["checkpoint"] / 1e9) == 83,
}


@pytest.mark.parametrize("said", SAID)
def test_what_the_text_says_of_it(said: str) -> None:
    assert said.lower() in " ".join(PAGE.read_text(encoding="utf-8").split()).lower() and SAID[said]()


if __name__ == "__main__":
    PAGE.write_text(BETWEEN.sub(lambda _: table(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
