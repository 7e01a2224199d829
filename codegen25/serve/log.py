"""The log: a JSON object a line on standard error. It has no code in it unless the server was told so."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any


def log(event: str, **members: Any) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    print(json.dumps({"time": now, "event": event} | members, ensure_ascii=False), file=sys.stderr, flush=True)
