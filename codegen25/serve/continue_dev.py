"""Continue's dialect, which is Mistral's: `/fim/completions`, also below `/v1`.

https://docs.mistral.ai/api, FIM. Chunks carry `choices[0].delta.content`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from starlette.routing import Route

from codegen25.serve import choices
from codegen25.serve.ask import Ask
from codegen25.serve.attribution import member
from codegen25.serve.openai import DONE, OPENAI, Head
from codegen25.serve.service import Service
from codegen25.serve.wire import Call, Dialect, Frames

MAX_TOKENS = 128
CONTINUE = Dialect("continue", OPENAI.error)


def routes(service: Service) -> list[Route]:
    async def fim(call: Call) -> Any:
        return await _fim(service, call)

    endpoint = service.endpoint(CONTINUE, fim)
    return [Route(path, endpoint, methods=["POST"]) for path in ("/fim/completions", "/v1/fim/completions")]


async def _fim(service: Service, call: Call) -> Any:
    fields, limits = call.fields, service.limits
    service.check_model(call)
    ask = Ask(
        parts=(fields.text("prompt"), fields.text("suffix")),
        max_tokens=min(fields.whole("max_tokens", MAX_TOKENS), limits.tokens),
        sampling=choices.sampling(fields, 0.0), stop=fields.stop(limits.stop), stream=fields.flag("stream"),
        lines=choices.lines(fields, "auto"), anchor=choices.anchor(fields), tidy=True, is_typing=True,
        client=call.client,
    )  # fmt: skip
    if ask.stream:
        head = Head.new(service.served.name, "chat.completion.chunk")
        return Frames(_frames(service, call, ask, head), end=DONE)
    (choice,) = await service.whole(call, ask)
    message = {"role": "assistant", "content": choice.text}
    row = {"index": 0, "message": message, "finish_reason": choice.finish} | member(choice.attribution)
    return Head.new(service.served.name, "chat.completion").around([row], call.usage)


async def _frames(service: Service, call: Call, ask: Ask, head: Head) -> AsyncGenerator[dict[str, Any], None]:
    async for news in service.news(call, ask):
        if news.text or news.finish:
            row = {"index": 0, "delta": {"role": "assistant", "content": news.text}, "finish_reason": news.finish}
            yield head.around([row | member(news.attribution)])
