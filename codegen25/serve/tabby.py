"""Tabby's dialect: `/v1/completions` with `segments`, `/v1/health`, `/v1/events`, `/v1beta/server_setting`.

https://github.com/TabbyML/tabby, crates/tabby/src/routes and its OpenAPI page. Its completions come by the path of
OpenAI's and are told from those by `segments`.
"""

from __future__ import annotations

import platform
import secrets
from collections.abc import Iterator
from typing import Any

from starlette.routing import Route

from codegen25 import __version__
from codegen25.engine.machine import usable_cores
from codegen25.serve import choices
from codegen25.serve.ask import Ask, Extra
from codegen25.serve.attribution import member
from codegen25.serve.fields import Fields
from codegen25.serve.refusal import Refusal
from codegen25.serve.service import Service
from codegen25.serve.wire import Call, Dialect

MAX_TOKENS = 96


def error(refusal: Refusal) -> dict[str, Any]:
    return {"error": str(refusal)}


TABBY = Dialect("tabby", error)


def routes(service: Service) -> list[Route]:
    async def health(call: Call) -> Any:
        return _health(service)

    async def events(call: Call) -> Any:
        return {}

    async def setting(call: Call) -> Any:
        return {"disable_client_side_telemetry": True}

    return [
        Route("/v1/health", service.endpoint(TABBY, health), methods=["GET", "POST"]),
        Route("/v1/events", service.endpoint(TABBY, events), methods=["POST"]),
        Route("/v1beta/server_setting", service.endpoint(TABBY, setting), methods=["GET"]),
    ]


async def completion(service: Service, call: Call) -> Any:
    fields = call.fields
    segments = fields.within("segments")
    ask = Ask(
        parts=(segments.text("prefix"), segments.text("suffix")), max_tokens=MAX_TOKENS,
        sampling=choices.sampling(fields, 0.0), extra=tuple(_extra(segments)), lines=choices.lines(fields, "auto"),
        anchor=choices.anchor(fields), tidy=True, is_typing=True, client=call.client,
    )  # fmt: skip
    (choice,) = await service.whole(call, ask)
    row = {"index": 0, "text": choice.text} | member(choice.attribution)
    return {"id": f"cmpl-{secrets.token_hex(12)}", "choices": [row]}


def _extra(segments: Fields) -> Iterator[Extra]:
    """Declarations, snippets of files that were changed or opened lately, and the clipboard: the last weighs most."""
    if "clipboard" in segments:
        yield Extra(segments.text("clipboard"))
    for name in (
        "relevant_snippets_from_recently_opened_files",
        "relevant_snippets_from_changed_files",
        "declarations",
    ):
        for one in segments.objects(name):
            yield Extra(one.text("body"), one.text("filepath"))


def _health(service: Service) -> dict[str, Any]:
    cores = usable_cores()
    return {
        "model": service.served.name, "chat_model": None, "device": "cpu", "arch": platform.machine(),
        "cpu_info": platform.processor() or platform.machine(), "cpu_count": cores, "cuda_devices": [],
        "version": {"build_date": "", "build_timestamp": "", "git_sha": "", "git_describe": f"v{__version__}"},
    }  # fmt: skip
