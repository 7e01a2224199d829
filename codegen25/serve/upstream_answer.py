"""One answer by an upstream: the request in its words, and its tokens as the pieces that the engine would give.

Text is made of the tokens here, by the same rules as for a model of our own (`engine.answer`): stop strings, deadlines,
half characters and guards are ours, and what an upstream does of it only saves it work. Of one that does not say its
tokens, the text is encoded again.

The end of a prompt is healed (`engine.healing`) by asking for its first token alone: by `allowed_token_ids` where the
upstream heeds it, else as the likeliest of five that will do. Where none does, the prompt stays as it was written.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen25.engine.answer import Answer, Piece, Request
from codegen25.errors import CodegenError
from codegen25.serve import upstream_wire as wire
from codegen25.serve.upstream import Failed, Upstream
from codegen25.serve.upstream_tokens import Names
from codegen25.serve.upstream_wire import Chunk
from codegen25.tokenizer import Tokenizer

# Servers take so many stop strings of OpenAI's clients.
_STOPS = 4
# Ids that are sent to choose from before it is tried without; half a vocabulary may begin with a blank.
_ALLOWED = 1024
_LIKELY = 5
# Text that is encoded by parts may have more tokens than its author wrote: so many for each end it whatever he says.
_PER_TOKEN = 8

Allowed = Callable[[bytes], NDArray[np.int64]]


class UpstreamAnswer:
    """An answer under way: what of it has come, from whichever upstream. It can go on with another one.

    `has_logprobs`: the log-probability of each token is wanted.
    """

    def __init__(
        self, ticket: int, request: Request, tokenizer: Tokenizer, allowed: Allowed, names: Names, *, has_logprobs: bool
    ) -> None:
        self.ids = list(request.prompt)
        self._request, self._tokenizer, self._allowed, self._names = request, tokenizer, allowed, names
        self._answer = Answer(ticket, request, tokenizer, allowed)
        self._has_logprobs = has_logprobs
        self._is_span = tokenizer.eom in request.stop_ids
        self._is_counted = False

    async def pieces(self, http: wire.Client, upstream: Upstream) -> AsyncGenerator[Piece, None]:
        """The rest of the answer. Raises what `upstream_wire` does; then it may be called again, for another one."""
        self._answer.request = self._request
        while self._answer.required:
            yield self._take(*await self._first(http, upstream))
            if self._answer.finish:
                return
        last: Piece | None = None
        async with aclosing(wire.stream(http, upstream, self._body())) as chunks:
            async for chunk in chunks:
                self._count(chunk)
                if last is None:
                    for piece in self._read(chunk):
                        if piece.finish:
                            last = piece
                        else:
                            yield piece
                if last and not chunk.finish and not _is_usage(chunk):
                    break  # by a rule of ours: the upstream would go on
        if last:
            yield last

    def _count(self, chunk: Chunk) -> None:
        """What was in a cache when the answer began; later requests find what the first one has put there."""
        if chunk.reused is not None and not self._is_counted:
            self._answer.counts.reused = chunk.reused
            self._is_counted = True

    def _read(self, chunk: Chunk) -> list[Piece]:
        pieces = []
        for token, logprob in self._tokens(chunk):
            pieces.append(self._take(token, logprob))
            if self._answer.finish:
                return pieces
        if chunk.finish == "length":
            pieces.append(self._answer.close("length"))
        elif chunk.finish == "content_filter":
            pieces.append(self._answer.close("content_filter"))
        elif chunk.finish == "stop":
            pieces.append(self._answer.close("stop", self._stop_id(chunk)))
        elif chunk.finish is not None:
            raise Failed(f"ended its answer by {chunk.finish[:40]!r}")
        return pieces

    def _tokens(self, chunk: Chunk) -> list[tuple[int, float]]:
        ids = chunk.ids
        if ids is None:
            ids = self._encoded(chunk.text)
        logprobs = chunk.logprobs if chunk.logprobs and len(chunk.logprobs) == len(ids) else (0.0,) * len(ids)
        return list(zip(ids, logprobs, strict=True))

    def _encoded(self, text: str) -> tuple[int, ...]:
        """The ids of text by itself; names of control tokens are taken for these, which some upstreams write out."""
        if self._answer.request is self._request:
            self._answer.request = replace(self._request, max_tokens=_PER_TOKEN * self._request.max_tokens)
        try:
            return tuple(self._tokenizer.encode(text, allow_control=True))
        except CodegenError as error:
            raise Failed(f"answered with what is no text ({error})", is_hard=True) from error

    def _take(self, token: int, logprob: float) -> Piece:
        vocabulary = self._request.vocabulary
        if not 0 <= token < len(vocabulary):
            raise Failed(f"answered with token {token}, of a vocabulary of {len(vocabulary)}", is_hard=True)
        if token not in self._request.stop_ids:
            if not self._answer.required and not vocabulary[token]:
                return self._answer.close("stop", token)  # no text, so that the text ends here
            self.ids.append(token)
        return self._answer.accept(token, logprob, time.monotonic())

    def _stop_id(self, chunk: Chunk) -> int | None:
        """The token that ended an answer; None for a stop string. Who does not say is taken to have closed the hole."""
        if isinstance(chunk.stop, str):
            return None
        if isinstance(chunk.stop, int):
            return chunk.stop
        return self._tokenizer.eom if self._is_span else self._tokenizer.eot

    # ---------------------------------------------------------------------------------------------------- what is asked

    def _chosen(self) -> dict[str, Any]:
        """The prompt, and how tokens are chosen behind it. What is beyond OpenAI's fields is vLLM's; who does not know
        it leaves it out."""
        request, chosen = self._request, self._request.sampling
        body: dict[str, Any] = {"prompt": self.ids, "temperature": chosen.temperature, "return_token_ids": True}
        if chosen.temperature > 0:
            body |= {"seed": (chosen.seed + request.index) % (1 << 62), "top_p": chosen.top_p}
            body |= {"top_k": chosen.top_k} if chosen.top_k else {}
            body |= {"min_p": chosen.min_p} if chosen.min_p else {}
        if chosen.repetition_penalty != 1.0:
            body["repetition_penalty"] = chosen.repetition_penalty
        return body

    def _body(self) -> dict[str, Any]:
        """All that is left to be answered."""
        request = self._request
        body = self._chosen() | {"max_tokens": max(1, self._answer.left), "stop_token_ids": sorted(request.stop_ids)}
        if request.stop:
            body["stop"] = list(request.stop[:_STOPS])
        if banned := self._names.banned(request.vocabulary):
            body["logit_bias"] = dict.fromkeys(map(str, banned), -100)
        return body | self._scored()

    def _scored(self) -> dict[str, Any]:
        return {"logprobs": 0} if self._has_logprobs else {}

    # -------------------------------------------------------------------------------------------------------- healing

    async def _first(self, http: wire.Client, upstream: Upstream) -> tuple[int, float]:
        """The next token, which has to spell bytes that are required, and its log-probability where it is wanted."""
        allowed = [int(id) for id in self._allowed(self._answer.required)]
        if len(allowed) == 1:
            return allowed[0], 0.0
        body = self._chosen() | {"max_tokens": 1} | self._scored()
        if not upstream.constrains:
            body |= {"logprobs": _LIKELY, "return_tokens_as_token_ids": True}
            answer = await wire.once(http, upstream, "/completions", body)
            self._count(wire.read_chunk(answer))
            likely = self._names.likely(answer)
            token = max(set(allowed) & set(likely), key=lambda id: likely[id], default=self._as_written(allowed))
            return token, likely.get(token, 0.0)
        if len(allowed) > _ALLOWED:
            token, logprob = await self._one(http, upstream, body)
            if token in allowed:
                return token, logprob
        token, logprob = await self._one(http, upstream, body | {"allowed_token_ids": allowed})
        if token not in allowed:
            raise Failed("left allowed_token_ids out, which it knew before")
        return token, logprob

    async def _one(self, http: wire.Client, upstream: Upstream, body: Mapping[str, Any]) -> tuple[int, float]:
        chunk = wire.read_chunk(await wire.once(http, upstream, "/completions", body))
        self._count(chunk)
        tokens = self._tokens(chunk) if chunk.ids else []
        if not tokens and chunk.finish == "stop":  # by a token that is not told
            return self._tokenizer.eot, 0.0
        if not tokens:
            raise Failed("gave no token where one was asked for")
        return tokens[0]

    def _as_written(self, allowed: Sequence[int]) -> int:
        """The token that a tokenizer would write."""
        required = self._answer.required.decode("utf-8", errors="replace")
        first = self._tokenizer.encode(required)[0]
        return first if first in allowed else allowed[0]


def _is_usage(chunk: Chunk) -> bool:
    return not chunk.text and chunk.ids == ()
