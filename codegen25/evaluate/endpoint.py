"""Other people's servers: completions and infilling over the API that OpenAI's clients speak.

Only `/completions` of it is used, without streaming, and `/models` to learn a name. A hole is asked for by `suffix`, or
by a prompt in the model's own format (`fim.py`), as servers differ in which of the two they know. The standard
library's client is enough for that: one POST of JSON with a timeout, in a few threads.
"""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from codegen25.complete import Completion
from codegen25.engine.sampling import Sampling
from codegen25.errors import CodegenError, UsageError
from codegen25.evaluate.endings import before_stops
from codegen25.evaluate.fim import Template

# Servers take so many stop strings; the others are looked for here.
MOST_STOPS = 4
# Of an answer, in bytes: what is longer is not one.
LARGEST_ANSWER = 16 << 20
GO_ON = "then run the same command again to go on"


class Unanswered(CodegenError):
    """A server has given no answer, however often it was asked; another one of the same model may give it."""


@dataclass(frozen=True)
class Endpoint:
    """A server under `url` (with its `/v1`, if it has one) and the name of a model there. An `Engine`.

    `concurrency` requests at a time. One that fails in a way that may pass is repeated up to `attempts` times, after
    `backoff` seconds, then twice as many, and so on, or after what the server asks for. `timeout` is in seconds.
    """

    url: str
    model: str
    template: Template | None = None
    api_key: str | None = field(default=None, repr=False)
    concurrency: int = 8
    timeout: float = 120.0
    attempts: int = 5
    backoff: float = 1.0

    def complete_batch(
        self, prompts: Sequence[str], *, max_tokens: int, sampling: Sampling, stop: Sequence[str]
    ) -> list[Completion]:
        """One answer for each prompt. Raises CodegenError when the server gives none."""
        return self._all([{"prompt": prompt} for prompt in prompts], max_tokens, sampling, tuple(stop))

    def infill_batch(
        self, pairs: Sequence[tuple[str, str]], *, anchor: int | None, max_tokens: int, sampling: Sampling
    ) -> list[Completion]:
        """As `complete_batch`, for (prefix, suffix). Raises UsageError for an anchor without a template."""
        if self.template is None:
            if anchor != 0:
                raise UsageError(
                    "an anchored hole is asked for in the model's own format; add --template, or use served"
                )
            return self._all([{"prompt": p, "suffix": s} for p, s in pairs], max_tokens, sampling, ())
        # Control tokens end the answer as text, too, where a server would hide them.
        asks = [{"prompt": self.template.prompt(p, s, anchor), "skip_special_tokens": False} for p, s in pairs]
        return self._all(asks, max_tokens, sampling, self.template.stops)

    def check_suffix(self) -> None:
        """Ask whether the server heeds `suffix`. Raises CodegenError when it counts the same prompt with it as without.

        Some servers leave out what they do not know; their infilling would be completion under another name. One that
        does not count tokens is believed.
        """
        ask = {"prompt": "def f(x):\n", "model": self.model, "max_tokens": 1, "temperature": 0.0}
        counts = [self._completion(ask | more, ()).prompt_tokens for more in ({}, {"suffix": "    return x\n" * 8})]
        if counts[0] and counts[0] == counts[1]:
            raise CodegenError(f"{self.url}: leaves `suffix` out and does not say so; ask by --template")

    def _all(
        self, asks: Sequence[dict[str, Any]], max_tokens: int, sampling: Sampling, stops: tuple[str, ...]
    ) -> list[Completion]:
        shared = {"model": self.model, "max_tokens": max_tokens, "temperature": sampling.temperature}
        if sampling.temperature > 0:
            shared |= {"top_p": sampling.top_p}
        if stops:
            shared |= {"stop": list(stops[:MOST_STOPS])}
        # Equal questions are samples of one: each has a seed of its own.
        seen: Counter[str] = Counter()
        bodies = []
        for ask in asks:
            key = json.dumps(ask)
            bodies.append(shared | ask | {"seed": sampling.seed + seen[key]})
            seen[key] += 1
        pool, over = ThreadPoolExecutor(self.concurrency), threading.Event()
        try:
            futures = [pool.submit(self._completion, body, stops, over) for body in bodies]
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
            return [future.result() for future in futures]
        finally:
            # When one failed, or the person gave up, the others are neither waited for nor tried again.
            over.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _completion(
        self, body: dict[str, Any], stops: tuple[str, ...], over: threading.Event | None = None
    ) -> Completion:
        answer = self._asked("/completions", body, over or threading.Event())
        try:
            choice = answer["choices"][0]
            text, finish = choice["text"], choice.get("finish_reason")
            if not isinstance(text, str):
                raise TypeError("text is none")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            shown = json.dumps(answer)[:200]
            raise CodegenError(f"{self.url}: answered without a completion ({shown}); check its API") from error
        kept = before_stops(text, stops)
        ended = "stop" if len(kept) < len(text) or finish != "length" else "length"
        usage = answer.get("usage") or {}
        return Completion(kept, "length" if ended == "length" else "stop", (), (), int(usage.get("prompt_tokens") or 0))

    def _asked(self, path: str, body: dict[str, Any] | None, over: threading.Event) -> dict[str, Any]:
        """A JSON object. What may pass is tried again until `over`: no connection, no time, a cut answer, 5xx …"""
        seconds, why = self.backoff, ""
        for attempt in range(self.attempts):
            if attempt:
                if over.wait(seconds):
                    break
                seconds *= 2
            try:
                return self._once(path, body)
            except urllib.error.HTTPError as error:
                said = _message(error)
                if error.code not in (408, 429) and error.code < 500:
                    raise CodegenError(f"{self.url}: answered {error.code}: {said}{_hint(said, body)}") from error
                why = f"answered {error.code}: {said}{_hint(said, body)}"
                asked = error.headers.get("Retry-After", "")
                seconds = max(seconds, min(60.0, float(asked))) if asked.isdigit() else seconds
            except TimeoutError:
                why = f"gave no answer within {self.timeout:g} s (--request-timeout)"
            except urllib.error.URLError as error:
                # A connection that is not made in time is one of these, too.
                why = f"cannot be reached ({error.reason})"
            except (OSError, http.client.HTTPException) as error:
                why = f"broke off ({type(error).__name__}: {error})"
            except ValueError as error:
                why = f"answered with what is no JSON object, or a part of one ({error})"
        tried = f"tried {self.attempts} times" if self.attempts > 1 else "tried once"
        raise Unanswered(f"{self.url}: {why}, {tried}; see to the server, {GO_ON}")

    def _once(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=self.timeout) as response:
            raw = response.read(LARGEST_ANSWER + 1)
        if len(raw) > LARGEST_ANSWER:
            raise ValueError(f"more than {LARGEST_ANSWER} bytes")
        answer = json.loads(raw)
        if not isinstance(answer, dict):
            raise ValueError(f"a {type(answer).__name__}")
        return answer


def connect(url: str, model: str | None, **settings: Any) -> Endpoint:
    """The server under `url`, to which `/v1` is added where it has no path; without `model` the first it names.

    Raises UsageError for what is no address, CodegenError when the server does not say what it serves.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--endpoint {url}: not an address; give one like http://127.0.0.1:8012/v1")
    url = url.rstrip("/") if parts.path.strip("/") else f"{url.rstrip('/')}/v1"
    if model is not None:
        return Endpoint(url, model, **settings)
    answer = Endpoint(url, "", **settings)._asked("/models", None, threading.Event())
    try:
        return Endpoint(url, str(answer["data"][0]["id"]), **settings)
    except (KeyError, IndexError, TypeError) as error:
        raise CodegenError(f"{url}: names no model; give its name by --model") from error


def _message(error: urllib.error.HTTPError) -> str:
    """What a server says of an error, in one line."""
    try:
        raw = error.read(1 << 16).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return str(error.reason)
    try:
        said = json.loads(raw)
        said = said.get("error", said.get("message", raw)) if isinstance(said, dict) else raw
        raw = str(said.get("message", raw) if isinstance(said, dict) else said)
    except ValueError:
        pass
    return " ".join(raw.split())[:300] or str(error.reason)


def _hint(said: str, body: dict[str, Any] | None) -> str:
    """Many servers know no `suffix`, and say so in their own ways."""
    return "; ask in the model's format by --template" if body and "suffix" in body and "suffix" in said else ""
