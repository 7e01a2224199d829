"""OpenAI's `/v1/chat/completions`, for models that were trained on instructions (`chat.py` has their template)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from starlette.routing import Route

from codegen25 import chat
from codegen25.serve import choices
from codegen25.serve.ask import Ask
from codegen25.serve.attribution import member
from codegen25.serve.fields import Fields
from codegen25.serve.openai import DONE, OPENAI, Head
from codegen25.serve.service import Service
from codegen25.serve.wire import Call, Dialect, Frames

CHAT = Dialect("openai chat", OPENAI.error)
MAX_TOKENS = 256


def routes(service: Service) -> list[Route]:
    async def completions(call: Call) -> Any:
        return await _completions(service, call)

    return [Route("/v1/chat/completions", service.endpoint(CHAT, completions), methods=["POST"])]


async def _completions(service: Service, call: Call) -> Any:
    fields, limits = call.fields, service.limits
    service.check_model(call)
    messages = [_plain(message) for message in fields.objects("messages")]
    n = fields.whole("n", 1, 1, limits.answers)
    most = fields.whole("max_tokens", MAX_TOKENS)
    ask = Ask(
        parts=(chat.render(chat.messages_of(messages)),),
        max_tokens=min(fields.whole("max_completion_tokens", most), limits.tokens),
        sampling=choices.sampling(fields, 0.0 if n == 1 else 1.0), stop=(chat.STOP, *fields.stop(limits.stop)), n=n,
        best_of=n, stream=fields.flag("stream"), client=call.client,
    )  # fmt: skip
    if ask.stream:
        head = Head.new(service.served.name, "chat.completion.chunk", "chatcmpl")
        include = fields.within("stream_options").flag("include_usage")
        return Frames(_frames(service, call, ask, head, include), end=DONE)
    rows = [
        {"index": index, "message": {"role": "assistant", "content": choice.text}, "logprobs": None,
         "finish_reason": choice.finish, **member(choice.attribution)}
        for index, choice in enumerate(await service.whole(call, ask))
    ]  # fmt: skip
    return Head.new(service.served.name, "chat.completion", "chatcmpl").around(rows, call.usage)


def _plain(message: Fields) -> dict[str, Any]:
    """Content may come in parts, of which those that are text are joined."""
    content = message.members.get("content")
    if isinstance(content, list):
        content = "".join(part.text("text") for part in message.objects("content"))
    return {"role": message.members.get("role"), "content": content}


async def _frames(
    service: Service, call: Call, ask: Ask, head: Head, include_usage: bool
) -> AsyncGenerator[dict[str, Any], None]:
    usage: dict[str, Any] = {"usage": None} if include_usage else {}
    begun: set[int] = set()
    async for news in service.news(call, ask):
        if not (news.text or news.finish):
            continue
        delta = {"content": news.text} | ({} if news.choice in begun else {"role": "assistant"})
        begun.add(news.choice)
        row = {"index": news.choice, "delta": delta, "finish_reason": news.finish} | member(news.attribution)
        yield head.around([row]) | usage
    if include_usage:
        yield head.around([], call.usage)
