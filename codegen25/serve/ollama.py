"""Ollama's dialect: `/api/generate` with `suffix`, `/api/show`, `/api/tags`, `/api/version`.

https://github.com/ollama/ollama, docs/api.md. Answers are NDJSON and streamed unless `stream` is false.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

from starlette.routing import Route

from codegen25 import __version__
from codegen25.serve import choices, sentinels
from codegen25.serve.answering import Usage
from codegen25.serve.ask import Ask, Extra
from codegen25.serve.attribution import member
from codegen25.serve.refusal import Refusal
from codegen25.serve.service import Service
from codegen25.serve.wire import LINES, Call, Dialect, Frames

# Clients take a model for one that fills holes when its template knows a suffix. Ours fills in the layout itself.
TEMPLATE = (
    "{{- if .Suffix }}{{ .Prompt }}<mask_1>{{ .Suffix }}<|endoftext|><sep><mask_1>{{- else }}{{ .Prompt }}{{- end }}"
)
MAX_TOKENS = 128


def error(refusal: Refusal) -> dict[str, Any]:
    return {"error": str(refusal)}


OLLAMA = Dialect("ollama", error)


def routes(service: Service) -> list[Route]:
    async def generate(call: Call) -> Any:
        return await _generate(service, call)

    async def show(call: Call) -> Any:
        service.check_model(call, "model" if "model" in call.fields else "name")
        return _show(service)

    async def tags(call: Call) -> Any:
        return {"models": [_tag(service)]}

    async def version(call: Call) -> Any:
        return {"version": __version__}

    return [
        Route("/api/generate", service.endpoint(OLLAMA, generate), methods=["POST"]),
        Route("/api/show", service.endpoint(OLLAMA, show), methods=["POST"]),
        Route("/api/tags", service.endpoint(OLLAMA, tags), methods=["GET"]),
        Route("/api/version", service.endpoint(OLLAMA, version), methods=["GET"]),
    ]


def read(service: Service, call: Call) -> Ask:
    """`options` hold what OpenAI has at the root. A suffix makes a hole; so may the prompt's own format."""
    fields, limits = call.fields, service.limits
    service.check_model(call)
    options = fields.within("options")
    wanted = options.whole("num_predict", MAX_TOKENS, -2)
    prompt, suffix = fields.text("prompt"), fields.text("suffix")
    parts: tuple[str, ...] = (prompt, suffix) if suffix else (prompt,)
    extra: tuple[Extra, ...] = ()
    if not suffix and (found := sentinels.read(prompt)):
        parts, extra = found.parts, found.extra
    is_hole = len(parts) > 1
    return Ask(
        parts=parts, extra=extra, max_tokens=min(MAX_TOKENS if wanted < 0 else wanted, limits.tokens),
        sampling=choices.sampling(options, 0.0, "repeat_penalty"), stop=options.stop(limits.stop),
        stream=fields.flag("stream", True), lines=choices.lines(fields, "auto" if is_hole else "any"), tidy=is_hole,
        anchor=choices.anchor(fields), is_typing=is_hole, client=call.client,
    )  # fmt: skip


async def _generate(service: Service, call: Call) -> Any:
    ask = read(service, call)
    if not any(ask.parts):  # asks that the model be loaded, which it is
        assert service.served
        return _said(service, "") | {"done": True, "done_reason": "load"}
    if ask.stream:
        return Frames(_frames(service, call, ask), LINES)
    (choice,) = await service.whole(call, ask)
    return _said(service, choice.text) | _end(choice.finish, call.usage) | member(choice.attribution)


async def _frames(service: Service, call: Call, ask: Ask) -> AsyncGenerator[dict[str, Any], None]:
    finish, spans = "stop", None
    async for news in service.news(call, ask):
        finish, spans = news.finish or finish, news.attribution
        if news.text:
            yield _said(service, news.text) | {"done": False}
    yield _said(service, "") | _end(finish, call.usage) | member(spans)


def _said(service: Service, text: str) -> dict[str, Any]:
    return {"model": service.name, "created_at": _iso(datetime.now(UTC)), "response": text}


def _end(finish: str, usage: Usage) -> dict[str, Any]:
    """Durations in nanoseconds."""
    prompt, answer = round(1e9 * usage.prompt_seconds), round(1e9 * usage.answer_seconds)
    return {
        "done": True, "done_reason": finish, "total_duration": prompt + answer, "load_duration": 0,
        "prompt_eval_count": usage.prompt, "prompt_eval_duration": prompt, "eval_count": usage.answered,
        "eval_duration": answer,
    }  # fmt: skip


def _iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _details(service: Service) -> dict[str, Any]:
    size = f"{service.served.answering.model.config.parameters / 1e6:.0f}M"
    return {"parent_model": "", "format": "codegen25", "family": "llama", "families": ["llama"],
            "parameter_size": size, "quantization_level": ""}  # fmt: skip


def _tag(service: Service) -> dict[str, Any]:
    served = service.served
    name = served.name if ":" in served.name else f"{served.name}:latest"
    loaded = _iso(datetime.fromtimestamp(served.loaded, UTC))
    return {"name": name, "model": name, "modified_at": loaded, "size": served.size, "digest": "",
            "details": _details(service)}  # fmt: skip


def _show(service: Service) -> dict[str, Any]:
    config = service.served.answering.model.config
    info = {
        "general.architecture": "llama", "general.parameter_count": config.parameters,
        "llama.context_length": service.served.answering.model.window, "llama.embedding_length": config.hidden_size,
        "llama.block_count": config.layers, "llama.vocab_size": config.vocab_size,
    }  # fmt: skip
    return {
        "license": "", "modelfile": f"FROM {service.name}\nTEMPLATE \"\"\"{TEMPLATE}\"\"\"\n", "parameters": "",
        "template": TEMPLATE, "details": _details(service), "model_info": info,
        "capabilities": ["completion", "insert"],
    }  # fmt: skip
