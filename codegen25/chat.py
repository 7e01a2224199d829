"""The template of instructions: how messages become the text of a prompt. `docs/instruct.md` shows and explains it.

It is plain text, so it asks nothing of a vocabulary. Each message stands below a header line, which is a heading in
Markdown and a comment in Python; a response ends with `<|endoftext|>`, the token that ends every text. Training and
prompting call the same functions. A line of a message that could be taken for a header is moved to the right by a
space, so no message can pass for another one's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codegen25.errors import UsageError

# By the role that a message has in a conversation.
HEADERS: Mapping[str, str] = {"system": "### System", "user": "### Instruction", "assistant": "### Response"}
# A model that does not end its response begins an instruction of its own; cut there.
STOP = f"\n\n{HEADERS['user']}\n"

_HEADER_LINE = re.compile(rf"(?m)^(?=(?:{'|'.join(map(re.escape, HEADERS.values()))})[^\S\n]*$)")


@dataclass(frozen=True)
class Message:
    """What one side said; `role` is one of HEADERS."""

    role: str
    content: str


def messages_of(conversation: object) -> list[Message]:
    """A conversation as JSON has it, `[{"role": …, "content": …}, …]`, where other keys are ignored.

    Raises UsageError when it is none, naming the message.
    """
    if not isinstance(conversation, Sequence) or isinstance(conversation, str) or not conversation:
        raise UsageError("messages: must be a list of at least one message")
    return [_message(number, one) for number, one in enumerate(conversation, 1)]


def _message(number: int, fields: Any) -> Message:
    role = fields.get("role") if isinstance(fields, Mapping) else None
    content = fields.get("content") if isinstance(fields, Mapping) else None
    if not isinstance(role, str) or role not in HEADERS:
        raise UsageError(f"message {number}: its role must be one of {', '.join(HEADERS)}")
    if not isinstance(content, str):
        raise UsageError(f"message {number}: its content must be text")
    try:
        content.encode()
    except UnicodeEncodeError:
        raise UsageError(f"message {number}: its content holds half a character, a lone surrogate") from None
    return Message(role, content)


def render(messages: Sequence[Message]) -> str:
    """The text of the prompt that asks for the response to `messages`; the last one must be the user's.

    Raises UsageError when it is not.
    """
    if not messages or messages[-1].role != "user":
        raise UsageError("messages: the last one must be the user's; add an instruction to respond to")
    said = "".join(f"{HEADERS[one.role]}\n{content(one.content)}\n\n" for one in messages)
    return f"{said}{HEADERS['assistant']}\n"


def header_before(prompt: str, at: int) -> str:
    """The header line below which character `at` of a rendered prompt stands, with its line feed; '' for none."""
    lines = prompt[:at].split("\n")[:-1]
    return next((f"{line}\n" for line in reversed(lines) if line in HEADERS.values()), "")


def begins_with_header(text: str) -> bool:
    """Whether a piece of a rendered prompt begins with a header line."""
    return text.startswith(tuple(f"{header}\n" for header in HEADERS.values()))


def content(text: str) -> str:
    """A message's text as it stands below its header: without blank lines around it, and no line of it a header."""
    return _HEADER_LINE.sub(" ", text.strip("\r\n"))
