"""Prompts in other models' infilling formats: editors write them when they are told that the model is one of those.

Only a whole pattern in a raw prompt is read so, the last of each token counting, since the file itself may hold such
names. What stands in front of a pattern is text from elsewhere. In fields of their own (a suffix, say) these are text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from codegen25.serve.ask import Extra


@dataclass(frozen=True)
class Infilling:
    """What a pattern holds: text from elsewhere, and the text on both sides of the hole."""

    context: str
    prefix: str
    suffix: str

    @property
    def parts(self) -> tuple[str, str]:
        return self.prefix, self.suffix

    @property
    def extra(self) -> tuple[Extra, ...]:
        return (Extra(self.context),) if self.context.strip() else ()


# Each: what opens the prefix, what the suffix, and what ends the prompt; the suffix comes first where it says so.
_PREFIX_FIRST = (
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen, CodeGemma
    ("<\uff5cfim▁begin\uff5c>", "<\uff5cfim▁hole\uff5c>", "<\uff5cfim▁end\uff5c>"),  # DeepSeek
    ("<PRE>", "<SUF>", "<MID>"),  # CodeLlama
    ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),  # GLM, Granite
)
_CODESTRAL = re.compile(r"(?s)\A(?P<context>.*?)\[SUFFIX\](?P<suffix>.*)\[PREFIX\](?P<prefix>.*)\Z")
_OURS = re.compile(r"(?s)\A(?P<prefix>.*)<mask_1>(?P<suffix>.*)<\|endoftext\|><sep><mask_1>\Z")
_FILE = re.compile(r"<file_sep>|<\|file_sep\|>|<filename>|<\|repo_name\|>|<reponame>|<repo_name>")


def read(prompt: str) -> Infilling | None:
    """What a raw prompt means in one of the formats; None when it is in none."""
    if found := _OURS.match(prompt):
        return Infilling("", found["prefix"], found["suffix"])
    for opening, between, ending in _PREFIX_FIRST:
        if not prompt.rstrip().endswith(ending):
            continue
        body = prompt.rstrip()[: -len(ending)]
        context, has_opening, rest = body.partition(opening)
        prefix, has_between, suffix = rest.rpartition(between)
        if has_opening and has_between:
            if opening == "<PRE>":  # which has a blank behind each of its tokens
                prefix, suffix = prefix.removeprefix(" ").removesuffix(" "), suffix.removesuffix(" ")
            return Infilling(_FILE.sub("", context), prefix, suffix)
    if found := _CODESTRAL.match(prompt):
        return Infilling(found["context"], found["prefix"], found["suffix"])
    return None
