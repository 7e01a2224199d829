"""What one client may take from the others. What is over a limit is refused in a line; nothing waits for ever."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """`body` bytes of a request, `answers` of one request, `queue` answers under way for all, `tokens` of an answer.

    Seconds: `body_seconds` to send a body, `answer_seconds` to answer, `drain_seconds` for the last answers when the
    server ends, `stall_seconds` after which a reader that takes nothing is given up. `connections` at once.
    """

    body: int = 8 << 20
    answers: int = 128
    prompts: int = 512
    queue: int = 512
    tokens: int = 1024
    stop: int = 64
    body_seconds: float = 30.0
    answer_seconds: float = 300.0
    drain_seconds: float = 30.0
    stall_seconds: float = 60.0
    connections: int = 2000
