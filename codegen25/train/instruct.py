"""The stage `instruct`: prompts and responses in the template of `chat`, of which only the responses are learned."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from codegen25 import chat, infill
from codegen25.chat import Message
from codegen25.errors import CodegenError, UsageError
from codegen25.tokenizer import Tokenizer
from codegen25.train.objective import Example

# About how many bytes a token has.
_BYTES_PER_TOKEN = 3


@dataclass(frozen=True)
class Instruction:
    """What stands before a response, rendered, and the response."""

    prompt: str
    response: str
    task: str = ""
    """What kind it is of, where the file says so."""


@dataclass(frozen=True)
class Instructions:
    """Instructions as what is learned from (`examples.Examples`): every response of a conversation is one example."""

    instructions: Sequence[Instruction]
    tokenizer: Tokenizer

    def __len__(self) -> int:
        return len(self.instructions)

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(b"instruct")
        for one in self.instructions:
            for text in (one.prompt, one.response):
                data = text.encode()
                digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """The SHA-256 of the instructions in their order, in hexadecimal."""
        return self._fingerprint

    def size(self, document: int) -> int:
        """About how many ids the example has without a window."""
        one = self.instructions[document]
        return (len(one.prompt) + len(one.response)) // _BYTES_PER_TOKEN + 1

    def example(self, document: int, rng: random.Random, window: int) -> Example:
        """The prompt, the response and `<|endoftext|>`, of which the last two are learned; `rng` decides nothing.

        What is over the window is taken from the beginning of the prompt at line starts, its header aside, and where
        the prompt gives no more, from the end of the response, which then has no end. `left_out` counts it.
        """
        del rng
        one, tokenizer = self.instructions[document], self.tokenizer
        prompt, response = tokenizer.encode(one.prompt), tokenizer.encode(one.response)
        if len(prompt) + len(response) < window:
            ids, learned = [*prompt, *response, tokenizer.eot], [False] * len(prompt) + [True] * (len(response) + 1)
            return Example(ids, learned, "instruct", "instruct")
        prompt = self._shortened(one.prompt, max(window // 4, window - len(response) - 1))
        whole = len(prompt) + len(response) < window
        kept = response if whole else infill.trim_right(tokenizer, one.response, window - len(prompt), response)
        ids, learned = prompt + kept + [tokenizer.eot] * whole, [False] * len(prompt) + [True] * (len(kept) + whole)
        shown = tokenizer.decode_bytes(prompt + kept).decode(errors="ignore")
        return Example(ids, learned, "instruct", "instruct", len(one.prompt) + len(one.response) - len(shown))

    def _shortened(self, text: str, budget: int) -> list[int]:
        """The end of a prompt, below the header that it stood below: `budget` ids, or what the headers alone need."""
        encode, decode = self.tokenizer.encode, self.tokenizer.decode_bytes
        opening = f"{chat.HEADERS['assistant']}\n"
        said = text.removesuffix(opening)
        room, least = budget, max(len(encode(header)) for header in chat.HEADERS.values())  # no header is cut
        while True:
            kept = infill.trim_left(self.tokenizer, said, room) if room > least else []
            end = decode(kept).decode(errors="ignore")
            header = "" if chat.begins_with_header(end) else chat.header_before(text, len(said) - len(end))
            ids = encode(header + end + opening)
            if len(ids) <= budget or not kept:
                return ids
            room -= len(ids) - budget


def of_messages(messages: Sequence[Message], task: str = "") -> list[Instruction]:
    """One instruction for every response, what was said before it being its prompt.

    Raises UsageError when there is no response, or one is empty or does not follow upon the user's words.
    """
    found = [
        Instruction(chat.render(messages[:number]), chat.content(one.content), task)
        for number, one in enumerate(messages)
        if one.role == "assistant"
    ]
    if not found:
        raise UsageError("messages: none is the assistant's; add the response to learn")
    if not all(one.response.strip() for one in found):
        raise UsageError("a response is empty")
    return found


def read_instructions(path: Path) -> list[Instruction]:
    """The instructions of a JSONL file: `{"prompt": …, "response": …}` or `{"messages": […]}`, and a `task`.

    Raises CodegenError naming the line that is neither, or whose response is empty.
    """
    if not path.is_file():
        raise CodegenError(f"{path}: no such file; write it with `codegen25 data instruct`")
    found: list[Instruction] = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line.decode())
                found += of_messages(_conversation(record), str(record.get("task", "")))
            except (ValueError, UsageError) as error:
                raise CodegenError(f"{path}:{number}: no instruction ({error}); correct or remove the line") from error
    if not found:
        raise CodegenError(f"{path}: holds no instructions; write it with `codegen25 data instruct`")
    return found


def _conversation(record: Any) -> list[Message]:
    if isinstance(record, dict) and "messages" in record:
        return chat.messages_of(record["messages"])
    if not isinstance(record, dict) or not {"prompt", "response"} <= record.keys():
        raise UsageError("it has neither messages nor a prompt and a response")
    return chat.messages_of(
        [{"role": "user", "content": record["prompt"]}, {"role": "assistant", "content": record["response"]}]
    )
