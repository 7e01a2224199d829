"""Whether upstreams answer, and what they can: looked at all the time, one that is in by the way, one that is out by a
token that it has to give.

The token is prescribed by `allowed_token_ids` (vLLM's, and ours). Who gives it heeds that field, and who writes it
otherwise than our tokenizer serves another vocabulary. Who gives another token does not know the field.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from codegen25.serve import upstream_wire as wire
from codegen25.serve.refusal import Refusal
from codegen25.serve.upstream import LAST_RETRY, LOOK, Busy, Failed, Upstream
from codegen25.serve.upstream_pool import Pool
from codegen25.tokenizer import Tokenizer

_TICK = 0.05  # seconds
_PATIENCE = 10.0  # seconds that a look may take


class Prober:
    """Looks after a pool until it is cancelled. `window`: tokens that an upstream has to serve at the least.

    `on_broken` is told of bugs.
    """

    def __init__(
        self, http: wire.Client, pool: Pool, tokenizer: Tokenizer, window: int,
        on_broken: Callable[[BaseException], None],
    ) -> None:  # fmt: skip
        self._http, self._pool, self._tokenizer, self._window = http, pool, tokenizer, window
        self._on_broken = on_broken
        self._prompt = tokenizer.encode("def f(x):\n    return")
        self._token = _unlikely(tokenizer)

    async def run(self) -> None:
        looking: dict[Upstream, asyncio.Task[None]] = {}
        try:
            while True:
                looking = {one: task for one, task in looking.items() if not task.done()}
                for one in self._pool.all:
                    if one not in looking and time.monotonic() >= one.look_at:
                        looking[one] = asyncio.create_task(self._look(one))
                await asyncio.sleep(_TICK)
        finally:
            for task in looking.values():
                task.cancel()
            await asyncio.gather(*looking.values(), return_exceptions=True)

    async def _look(self, upstream: Upstream) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                if upstream.is_up:
                    self._model(await wire.once(self._http, upstream, "/models"))
                    upstream.answered()
                else:
                    await self._try(upstream)
        except Busy as busy:
            upstream.why = "" if upstream.is_up else str(busy)
            upstream.look_at = time.monotonic() + (LOOK if upstream.is_up else upstream.retry)
        except (Failed, Refusal, TimeoutError) as error:
            failure = (
                error if isinstance(error, Failed) else Failed(str(error) or "gave no answer in time", is_hard=True)
            )
            if upstream.failed(failure):
                self._pool.forget(upstream)
        except Exception as error:  # a bug of ours; the others are looked at all the same
            self._on_broken(error)
            upstream.look_at = time.monotonic() + LAST_RETRY

    async def _try(self, upstream: Upstream) -> None:
        """Ask for one token; without an error it is in."""
        upstream.model = self._model(await wire.once(self._http, upstream, "/models"))
        answer = await wire.once(self._http, upstream, "/completions", {
            "prompt": self._prompt, "max_tokens": 1, "temperature": 0, "allowed_token_ids": [self._token],
            "return_token_ids": True,
        })  # fmt: skip
        chunk = wire.read_chunk(answer)
        constrains = chunk.ids == (self._token,)
        spelled = self._tokenizer.token_bytes(self._token).decode()
        if constrains and chunk.text.strip() != spelled.strip():
            raise Failed(
                f"writes token {self._token} {chunk.text!r}, not {spelled!r}; name the model that it serves by --model",
                is_hard=True,
            )
        upstream.came_up(upstream.model, constrains=constrains, gives_ids=chunk.ids is not None)

    def _model(self, answer: Mapping[str, Any]) -> str:
        """The name of the first model. Raises `Failed` when there is none, or its window is smaller than ours."""
        try:
            first = answer["data"][0]
            name, window = first["id"], first.get("max_model_len")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise wire.garbage(answer) from error
        if not isinstance(name, str):
            raise wire.garbage(answer)
        if isinstance(window, int) and window < self._window:
            raise Failed(f"serves {window} tokens, and prompts may have {self._window}; give it a longer window")
        return name


def _unlikely(tokenizer: Tokenizer) -> int:
    """A token of some letters that nobody would go on with; the last, as vocabularies differ at their ends."""
    words = [id for id in tokenizer.tokens_starting_with(b"") if tokenizer.token_bytes(id).strip().isalpha()]
    return max(words)
