"""Prompts for infilling in the formats of other models, as one text: for servers that know no `suffix`.

Each is the format that its publisher documents; the server has to read the control tokens in a prompt as such.
"""

from __future__ import annotations

from dataclasses import dataclass

from codegen25 import infill


@dataclass(frozen=True)
class Template:
    """`before` prefix `between` suffix `behind`, and the strings that end an answer."""

    before: str
    between: str
    behind: str
    stops: tuple[str, ...]

    def prompt(self, prefix: str, suffix: str, anchor_lines: int | None) -> str:
        """The prompt for a hole. The last lines of the prefix are handed back behind it, as in `infill`; 0 for none."""
        head, tail = infill.split_tail(prefix, anchor_lines)
        return f"{self.before}{head}{self.between}{suffix}{self.behind}{tail}"


TEMPLATES = {
    "starcoder": Template("<fim_prefix>", "<fim_suffix>", "<fim_middle>", ("<|endoftext|>", "<file_sep>")),
    "qwen": Template(
        "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", ("<|endoftext|>", "<|fim_pad|>", "<|file_sep|>")
    ),
    "deepseek": Template("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", ("<｜end▁of▁sentence｜>",)),  # noqa: RUF001
    "codellama": Template("<PRE> ", " <SUF>", " <MID>", ("<EOT>",)),
    "codegen25": Template("", "<mask_1>", "<|endoftext|><sep><mask_1>", ("<eom>", "<|endoftext|>", "<mask_")),
}
