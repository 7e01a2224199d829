"""OpenAI's dialect: `/v1/completions` and `/v1/models`.

https://platform.openai.com/docs/api-reference/completions. Ours beside it: `parts` (the n + 1 texts around n holes),
`lines`, `top_k`, `min_p`, `repetition_penalty`, and `X-Client-Id`; vLLM's `allowed_token_ids`, and for prompts of ids
its `return_token_ids`. Temperature is 0 for a single answer and 1 for
several unless it is given: editors leave it out, and want the likeliest code.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from starlette.routing import Route

from codegen25.serve import choices, sentinels, tabby
from codegen25.serve.answering import Choice, Usage
from codegen25.serve.ask import Ask
from codegen25.serve.attribution import Spans, member, placed
from codegen25.serve.fields import Fields, is_ids
from codegen25.serve.openai_logprobs import Logprobs
from codegen25.serve.refusal import Refusal, unknown_model
from codegen25.serve.scoring import Scored
from codegen25.serve.service import Service
from codegen25.serve.wire import Call, Dialect, Frames

DONE = b"data: [DONE]\n\n"


def error(refusal: Refusal) -> dict[str, Any]:
    told = {"message": str(refusal), "type": refusal.kind, "param": refusal.field, "code": refusal.code}
    return {"error": told}


OPENAI = Dialect("openai", error)


@dataclass(frozen=True)
class Head:
    """What every frame of an answer repeats."""

    id: str
    created: int
    model: str
    object: str

    @classmethod
    def new(cls, model: str, object: str, prefix: str = "cmpl") -> Head:
        return cls(f"{prefix}-{secrets.token_hex(12)}", int(time.time()), model, object)

    def around(self, found: list[dict[str, Any]], usage: Usage | None = None) -> dict[str, Any]:
        made = {"id": self.id, "object": self.object, "created": self.created, "model": self.model, "choices": found}
        return made | ({"usage": usage_json(usage)} if usage else {})


def usage_json(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.answered,
        "total_tokens": usage.prompt + usage.answered,
        "prompt_tokens_details": {"cached_tokens": usage.reused},
    }


def routes(service: Service) -> list[Route]:
    async def completions(call: Call) -> Any:
        if "segments" in call.fields:
            return await tabby.completion(service, call)
        return await _completions(service, call)

    async def models(call: Call) -> Any:
        return {"object": "list", "data": [model_row(service)]}

    endpoint = service.endpoint(OPENAI, completions)
    return [
        Route("/v1/completions", endpoint, methods=["POST"]),
        Route("/v1/models", service.endpoint(OPENAI, models), methods=["GET"]),
        Route("/v1/models/{name:path}", _One(service), methods=["GET"]),
    ]


class _One:
    """`/v1/models/NAME`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        name = scope["path_params"]["name"]

        async def model(call: Call) -> Any:
            if name not in (self._service.name, self._service.name.rsplit("/", 1)[-1]):
                raise unknown_model(name, self._service.name)
            return model_row(self._service)

        await self._service.endpoint(OPENAI, model)(scope, receive, send)


def model_row(service: Service) -> dict[str, Any]:
    served = service.served
    config, model = served.answering.model.config, served.answering.model
    meta = {"n_vocab": config.vocab_size, "n_ctx_train": config.max_positions, "n_ctx": model.window,
            "n_embd": config.hidden_size, "n_params": config.parameters, "size": served.size}  # fmt: skip
    return {
        "id": served.name, "object": "model", "created": int(served.loaded), "owned_by": "codegen25",
        "max_model_len": model.window, "meta": meta,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- reading


def read(service: Service, call: Call) -> list[Ask]:
    """A request for each prompt."""
    fields, limits = call.fields, service.limits
    service.check_model(call)
    n = fields.whole("n", 1, 1, limits.answers)
    best_of = fields.whole("best_of", n, n, limits.answers)
    stream = fields.flag("stream")
    if stream and best_of > n:
        raise fields.refuse("best_of", "cannot be streamed: the best is known when all have ended; leave one out")
    for name in ("presence_penalty", "frequency_penalty"):
        if fields.number(name, 0.0, -2, 2):
            raise fields.refuse(name, "is not supported; leave it out, or use repetition_penalty")
    common = Ask(
        max_tokens=min(fields.whole("max_tokens", 16), limits.tokens),
        sampling=choices.sampling(fields, 0.0 if best_of == 1 else 1.0),
        stop=fields.stop(limits.stop), n=n, best_of=best_of,
        logprobs=fields.whole("logprobs", 0, 0, 5) if "logprobs" in fields else None,
        echo=fields.flag("echo"), stream=stream, banned=_banned(fields), lines=choices.lines(fields, "any"),
        allowed=frozenset(fields.ids("allowed_token_ids")) if "allowed_token_ids" in fields else None,
        anchor=choices.anchor(fields), client=call.client, is_typing=call.client is not None,
    )  # fmt: skip
    return [_with_prompt(service, common, prompt, fields) for prompt in _prompts(fields, limits.prompts)]


def _banned(fields: Fields) -> frozenset[int]:
    """Of `logit_bias` only the bias that forbids a token is known."""
    banned = set()
    biases = fields.within("logit_bias")
    for name in biases.members:
        bias = biases.number(name, 0.0, -100, 100)
        if bias == 0:
            continue
        if bias > -100 or not (name.isascii() and name.isdigit() and len(name) < 12):
            raise fields.refuse("logit_bias", "only token ids with -100, which forbids them, are supported")
        banned.add(int(name))
    return frozenset(banned)


def _prompts(fields: Fields, most: int) -> list[Any]:
    """What `prompt` and `parts` hold: strings, lists of ids, or the tuple of texts around holes."""
    if "parts" in fields:
        if "prompt" in fields or "suffix" in fields:
            raise fields.refuse("parts", "stands in the place of prompt and suffix; leave these out")
        parts = fields.texts("parts", 65)
        if len(parts) < 2:
            raise fields.refuse("parts", "must be the texts around holes, two at least")
        return [parts]
    value = fields.members.get("prompt")
    if value is None or isinstance(value, str):
        return [fields.text("prompt")]
    if isinstance(value, list) and value and len(value) <= most * 8:
        if is_ids(value):
            return [list(value)]
        if len(value) <= most and all(isinstance(one, str) for one in value):
            return list(fields.texts("prompt", most))
        if len(value) <= most and all(is_ids(one) and one for one in value):
            return value
    raise fields.refuse("prompt", f"must be a string, a list of token ids, or at most {most} of either")


def _with_prompt(service: Service, common: Ask, prompt: Any, fields: Fields) -> Ask:
    if isinstance(prompt, tuple):
        if common.logprobs and len(prompt) > 2:
            raise fields.refuse("logprobs", "of several holes only 0 is supported; ask for one hole, or leave it out")
        if common.best_of > common.n and len(prompt) > 2:
            raise fields.refuse("best_of", "is for one hole; leave it out")
        return replace(common, parts=prompt, tidy=len(prompt) == 2 and common.logprobs is None)
    if isinstance(prompt, list) and "suffix" not in fields:
        return replace(common, ids=tuple(prompt), has_ids=fields.flag("return_token_ids"))
    text = prompt if isinstance(prompt, str) else service.served.answering.model.tokenizer.decode(prompt)
    is_plain = common.logprobs is None and not common.echo
    if "suffix" in fields:
        return replace(common, parts=(text, fields.text("suffix")), tidy=is_plain)
    if is_plain and (found := sentinels.read(text)):
        return replace(common, parts=found.parts, extra=found.extra, tidy=True, is_typing=True)
    return replace(common, parts=(text,))


# ------------------------------------------------------------------------------------------------------------ answering


async def _completions(service: Service, call: Call) -> Any:
    asks = read(service, call)
    head = Head.new(service.served.name, "text_completion")
    if asks[0].stream:
        include = call.fields.within("stream_options").flag("include_usage")
        return Frames(_frames(service, call, asks, head, include), end=DONE)
    found = await choices.together([_whole(service, call, ask) for ask in asks])
    rows = [row for one in found for row in one]
    return head.around([row | {"index": index} for index, row in enumerate(rows)], call.usage)


def _row(
    text: str, index: int, logprobs: Mapping[str, Any] | None, finish: str | None, ask: Ask, hole: int,
    attribution: Spans | None = None,
) -> Any:  # fmt: skip
    row = {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish} | member(attribution)
    return row | ({"hole": hole} if ask.holes > 1 else {})


def _ids(ask: Ask, tokens: Sequence[Scored]) -> dict[str, Any]:
    return {"token_ids": [token.id for token in tokens]} if ask.has_ids else {}


def _behind_echo(spans: Spans | None, echo: str) -> Spans | None:
    """Attribution in the characters of the text that a choice gives, which may begin with the prompt."""
    return placed(spans, len(echo)) if spans and echo else spans


async def _whole(service: Service, call: Call, ask: Ask) -> list[dict[str, Any]]:
    """The choices of one prompt."""
    answers = await service.whole(call, ask)
    logprobs = await _echoed(service, ask)
    text = _echo_text(service, ask)

    def row(choice: Choice) -> Any:
        said = None if logprobs is None else logprobs.copy().more(choice.tokens)
        spans = _behind_echo(choice.attribution, text)
        return _row(text + choice.text, 0, said, choice.finish, ask, choice.hole, spans) | _ids(ask, choice.tokens)

    return [row(choice) for choice in answers]


def _echo_text(service: Service, ask: Ask) -> str:
    if not ask.echo:
        return ""
    return ask.parts[0] if ask.parts else service.served.answering.model.tokenizer.decode(ask.ids)


async def _echoed(service: Service, ask: Ask) -> Logprobs | None:
    """Log-probabilities as far as the echo; None when none are wanted."""
    if ask.logprobs is None:
        return None
    answering = service.served.answering
    made = Logprobs(answering.model.tokenizer)
    if ask.echo and ask.holes < 2:
        tokens = await answering.echoed(ask)
        made.skip_to(len(_echo_text(service, ask)) - len(answering.model.tokenizer.decode(one.id for one in tokens)))
        made.add(tokens)
    return made


async def _frames(
    service: Service, call: Call, asks: list[Ask], head: Head, include_usage: bool
) -> AsyncGenerator[dict[str, Any], None]:
    usage: dict[str, Any] = {"usage": None} if include_usage else {}
    logprobs: dict[tuple[int, int, int], Logprobs] = {}
    for number, ask in enumerate(asks):
        echoed = await _echoed(service, ask)
        for choice, hole in _answers(ask):
            index = _index(asks, number, choice, hole)
            said = None
            if echoed:
                made = logprobs[number, choice, hole] = echoed.copy()
                said = made.taken()
            if ask.echo and hole == 0:
                row = _row(_echo_text(service, ask), index, said, None, ask, hole)
                yield head.around([row | _ids(ask, ())]) | usage
    async for number, news in choices.merged([service.news(call, ask) for ask in asks]):
        said, ask = None, asks[number]
        if (number, news.choice, news.hole) in logprobs:
            said = logprobs[number, news.choice, news.hole].more(news.tokens)
        elif not (news.text or news.finish or ask.has_ids):
            continue
        index = _index(asks, number, news.choice, news.hole)
        spans = _behind_echo(news.attribution, "" if news.hole else _echo_text(service, ask))
        row = _row(news.text, index, said, news.finish, ask, news.hole, spans)
        yield head.around([row | _ids(ask, news.tokens)]) | usage
    if include_usage:
        yield head.around([], call.usage)


def _answers(ask: Ask) -> Iterable[tuple[int, int]]:
    return [(choice, hole) for choice in range(ask.n) for hole in range(max(1, ask.holes))]


def _index(asks: list[Ask], number: int, choice: int, hole: int) -> int:
    holes = max(1, asks[0].holes)
    return (number * asks[0].n + choice) * holes + hole
