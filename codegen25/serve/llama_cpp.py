"""llama.cpp's dialect: `/infill`, `/completion` and what its editor plugins ask beside these.

https://github.com/ggml-org/llama.cpp, tools/server/README.md. `id_slot`, `samplers`, `cache_prompt` and the like are
settings of its engine and have no meaning here. An answer is greedy unless `temperature` is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette.routing import Route

from codegen25.serve import choices, sentinels
from codegen25.serve.answering import Choice, Usage
from codegen25.serve.ask import Ask, Extra
from codegen25.serve.attribution import member
from codegen25.serve.fields import Fields, is_ids
from codegen25.serve.refusal import Refusal
from codegen25.serve.service import Service
from codegen25.serve.wire import Call, Dialect, Frames
from codegen25.tokenizer import Tokenizer


def error(refusal: Refusal) -> dict[str, Any]:
    return {"error": {"code": refusal.status, "message": str(refusal), "type": refusal.kind}}


LLAMA = Dialect("llama.cpp", error)
_STOPS = {"length": "limit", "word": "word", "eos": "eos"}


def routes(service: Service) -> list[Route]:
    async def infill(call: Call) -> Any:
        return await _answer(service, call, read_infill(service, call))

    async def completion(call: Call) -> Any:
        return await _answer(service, call, read_completion(service, call))

    async def health(call: Call) -> Any:
        assert service.served
        return {"status": "ok"}

    async def props(call: Call) -> Any:
        return _props(service)

    async def slots(call: Call) -> Any:
        answering = service.served.answering
        busy, window = answering.runner.busy, answering.model.window
        return [{"id": id, "n_ctx": window, "is_processing": id < busy} for id in range(max(1, busy))]

    async def tokenize(call: Call) -> Any:
        return await _tokenize(service, call.fields)

    async def detokenize(call: Call) -> Any:
        text = service.served.answering.model.tokenizer.decode(call.fields.ids("tokens"))
        return {"content": text, "prompt": text}

    async def info(call: Call) -> Any:
        end = _end_token(service.served.answering.model.tokenizer)
        return {"eos_token": end, "bos_token": None, "pad_token": None}

    def route(path: str, handler: Any, method: str) -> Route:
        return Route(path, service.endpoint(LLAMA, handler), methods=[method])

    return [
        route("/infill", infill, "POST"),
        route("/completion", completion, "POST"),
        route("/completions", completion, "POST"),
        route("/health", health, "GET"),
        route("/props", props, "GET"),
        route("/slots", slots, "GET"),
        route("/tokenize", tokenize, "POST"),
        route("/detokenize", detokenize, "POST"),
        route("/tokenizer_info", info, "GET"),
    ]


# ------------------------------------------------------------------------------------------------------------- reading


def read_infill(service: Service, call: Call) -> Ask:
    """`prompt` is the cursor's line as far as the cursor; `n_predict` 0 asks to fill the cache."""
    fields = call.fields
    extra = tuple(Extra(one.text("text"), one.text("filename")) for one in fields.objects("input_extra"))
    prefix = fields.text("input_prefix") + fields.text("prompt")
    return _ask(
        service, call, parts=(prefix, fields.text("input_suffix")), extra=extra, tidy=True, is_typing=True,
        lines=choices.lines(fields, "auto"), warm=fields.members.get("n_predict") == 0,
    )  # fmt: skip


def read_completion(service: Service, call: Call) -> Ask:
    fields = call.fields
    value = fields.members.get("prompt")
    if is_ids(value) and value:
        return _ask(service, call, ids=fields.ids("prompt"))
    text = fields.text("prompt")
    if found := sentinels.read(text):
        return _ask(
            service, call, parts=found.parts, extra=found.extra, tidy=True, is_typing=True,
            lines=choices.lines(fields, "any"),
        )  # fmt: skip
    return _ask(service, call, parts=(text,))


def _ask(service: Service, call: Call, **more: Any) -> Ask:
    fields, limits = call.fields, service.limits
    service.check_model(call)
    for name in ("grammar", "json_schema"):
        if fields.members.get(name):
            raise fields.refuse(name, "is not supported; leave it out")
    n = fields.whole("n_cmpl", 1, 1, limits.answers)
    stream = fields.flag("stream")
    if stream and n > 1:
        raise fields.refuse("n_cmpl", "several answers are not streamed here; use /v1/completions, or leave one out")
    wanted = fields.whole("n_predict", -1, -1)
    patience = fields.number("t_max_predict_ms", 0.0)
    return Ask(
        max_tokens=limits.tokens if wanted < 0 else min(wanted, limits.tokens),
        sampling=choices.sampling(fields, 0.0 if n == 1 else 0.8, "repeat_penalty"), stop=fields.stop(limits.stop),
        n=n, best_of=n, stream=stream, least_indent=fields.whole("n_indent", 0), client=call.client,
        patience=patience / 1000 if patience > 0 else None, anchor=choices.anchor(fields), **more,
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- answering


async def _answer(service: Service, call: Call, ask: Ask) -> Any:
    wanted = call.fields.texts("response_fields", 100)
    if ask.warm:
        await service.warm(call, ask)
        return _only(_result(service, ask, Choice("", (), "length"), 0, call.usage), wanted)
    if ask.stream:
        return Frames(_frames(service, call, ask, wanted))
    found = await service.whole(call, ask)
    results = [_only(_result(service, ask, one, n, call.usage), wanted) for n, one in enumerate(found)]
    return results if ask.n > 1 else results[0]


async def _frames(service: Service, call: Call, ask: Ask, wanted: tuple[str, ...]) -> AsyncGenerator[Any, None]:
    async for news in service.news(call, ask):
        tokens = [token.id for token in news.tokens]
        if news.text:
            yield {"index": 0, "content": news.text, "tokens": tokens, "stop": False, "id_slot": -1}
        if news.finish:
            last = Choice("", (), news.finish, stopped_by=news.stopped_by, attribution=news.attribution)
    yield _only(_result(service, ask, last, 0, call.usage), wanted)


def _result(service: Service, ask: Ask, choice: Choice, index: int, usage: Usage) -> dict[str, Any]:
    sampling = ask.sampling
    settings = {
        "n_predict": ask.max_tokens, "temperature": sampling.temperature, "top_k": sampling.top_k,
        "top_p": sampling.top_p, "min_p": sampling.min_p, "seed": sampling.seed, "stop": list(ask.stop),
        "n_ctx": service.served.answering.model.window,
    }  # fmt: skip
    return {
        "index": index, "content": choice.text, "tokens": [token.id for token in choice.tokens], "id_slot": -1,
        "stop": True, "model": service.name, "tokens_predicted": usage.answered, "tokens_evaluated": usage.prompt,
        "generation_settings": settings, "prompt": "", "has_new_line": "\n" in choice.text, "truncated": usage.trimmed,
        "stop_type": _stop_type(choice),
        "stopping_word": "", "tokens_cached": usage.prompt + usage.answered, "timings": _timings(usage),
        **member(choice.attribution),
    }  # fmt: skip


def _stop_type(choice: Choice) -> str:
    """llama.cpp knows no policy, so what one has ended has a name of ours."""
    if choice.finish == "content_filter":
        return choice.finish
    return _STOPS["length" if choice.finish == "length" else choice.stopped_by or "word"]


def _timings(usage: Usage) -> dict[str, Any]:
    computed = usage.prompt - usage.reused
    made: dict[str, Any] = {"cache_n": usage.reused, "truncated": usage.trimmed}
    for name, tokens, seconds in (
        ("prompt", computed, usage.prompt_seconds),
        ("predicted", usage.answered, usage.answer_seconds),
    ):
        made |= {
            f"{name}_n": tokens,
            f"{name}_ms": round(1000 * seconds, 3),
            f"{name}_per_token_ms": round(1000 * seconds / max(1, tokens), 3),
            f"{name}_per_second": round(tokens / seconds, 3) if seconds else 0.0,
        }
    return made


def _only(result: Mapping[str, Any], wanted: tuple[str, ...]) -> dict[str, Any]:
    """The fields that are wanted, all without any; `a/b` is the field b of a, by that name."""
    if not wanted:
        return dict(result)
    made = {}
    for path in wanted:
        value: Any = result
        for name in path.split("/"):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None:
            made[path] = value
    return made


async def _tokenize(service: Service, fields: Fields) -> dict[str, Any]:
    """`content`, or `prompt` as vLLM has it. Control strings become control tokens where `parse_special` is true.

    lm-eval asks with `prompt` for the id of the token that `/tokenizer_info` names, which is its beginning of a text.
    """
    text = fields.text("content") or fields.text("prompt")
    model = service.served.answering.model
    special = fields.flag("parse_special") or ("prompt" in fields and text == _end_token(model.tokenizer))
    # Long texts take a while, and others are waiting.
    ids = await asyncio.to_thread(model.tokenizer.encode, text, allow_control=special)
    if fields.flag("with_pieces"):
        pieces = [model.tokenizer.token_bytes(id).decode(errors="replace") for id in ids]
        return {"tokens": [{"id": id, "piece": piece} for id, piece in zip(ids, pieces, strict=True)]}
    return {"tokens": ids, "count": len(ids), "max_model_len": model.window}


def _end_token(tokenizer: Tokenizer) -> str:
    return tokenizer.token_bytes(tokenizer.eot).decode()


def _props(service: Service) -> dict[str, Any]:
    served = service.served
    window = served.answering.model.window
    return {
        "default_generation_settings": {"n_ctx": window, "n_predict": -1, "temperature": 0.0}, "n_ctx": window,
        "total_slots": service.limits.queue, "model_path": served.name, "model_alias": served.name,
        "chat_template": "", "build_info": "codegen25",
    }  # fmt: skip
