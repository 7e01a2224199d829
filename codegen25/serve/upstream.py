"""One server behind ours: where it is, whether it answers, and how much it has to do.

Who has failed hard (no connection, no time, garbage) is out at once, who has answered with errors of its own after
FAILURES in a row: a request that no server can answer must not take them all out. Who is out is asked for a token now
and then, and is in again when that comes as it should (`upstream_probe.py`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from codegen25.errors import UsageError
from codegen25.serve.log import log

FAILURES = 4
# Seconds between looks at one that is in, and at one that is out: first, and at most, each twice the one before.
LOOK, FIRST_RETRY, LAST_RETRY = 5.0, 0.25, 8.0


class Failed(Exception):
    """An upstream did not answer as it should; what it says goes to the log and, in part, to clients.

    `is_hard`: it need not be asked again before it has shown that it answers.
    """

    def __init__(self, why: str, *, is_hard: bool = False) -> None:
        super().__init__(why)
        self.is_hard = is_hard


class Busy(Exception):
    """An upstream is well and takes no request now. `retry_after` in seconds."""

    def __init__(self, why: str, retry_after: int = 1) -> None:
        super().__init__(why)
        self.retry_after = retry_after


@dataclass(eq=False)
class Upstream:
    """A server under `url`, with its `/v1`. `model` is its name there.

    `constrains`: it heeds `allowed_token_ids`; `gives_ids`: it says which tokens its text is made of. Both are found
    out by asking, as is all the rest.
    """

    url: str
    model: str = ""
    is_up: bool = False
    why: str = "not asked yet"  # it is out
    constrains: bool = False
    gives_ids: bool = False
    under_way: int = 0
    last_chosen: int = 0  # a number that grows with each choice
    failures: int = 0  # in a row
    retry: float = FIRST_RETRY
    look_at: float = 0.0  # seconds of `time.monotonic`
    outcomes: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("answered", "failed", "busy", "dropped"), 0)
    )
    first_seconds: float = 0.0  # in all, until the first token of each answer
    first_tokens: int = 0

    def came_up(self, model: str, *, constrains: bool, gives_ids: bool) -> None:
        """It has answered as it should."""
        if not self.is_up:
            log("upstream", url=self.url, up=True, model=model)
        self.model, self.constrains, self.gives_ids = model, constrains, gives_ids
        self.is_up, self.why, self.failures, self.retry = True, "", 0, FIRST_RETRY
        self.look_at = time.monotonic() + LOOK

    def answered(self) -> None:
        self.failures = 0
        self.look_at = time.monotonic() + LOOK

    def failed(self, failure: Failed) -> bool:
        """Count a failure. True when it is out for it, and was not before."""
        self.failures += 1
        if not self.is_up:
            self.why = str(failure)
            self.look_at = time.monotonic() + self.retry
            self.retry = min(LAST_RETRY, 2 * self.retry)
            return False
        if not failure.is_hard and self.failures < FAILURES:
            log("upstream", url=self.url, failures=self.failures, why=str(failure))
            return False
        self.is_up, self.why = False, str(failure)
        self.look_at = time.monotonic() + self.retry
        log("upstream", url=self.url, up=False, why=self.why)
        return True

    @contextmanager
    def working(self) -> Iterator[None]:
        """An answer is under way here."""
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1


def address(url: str) -> str:
    """The URL with `/v1` where it has no path. Raises `UsageError` for what is none."""
    parts = urlsplit(url)
    try:
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a port that is none
        is_address = False
    if not is_address or parts.query or parts.fragment or re.search(r"\s", url):
        raise UsageError(f"--upstream {url}: not an address; give one like http://127.0.0.1:8000/v1")
    return url.rstrip("/") if parts.path.strip("/") else f"{url.rstrip('/')}/v1"
