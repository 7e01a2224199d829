"""The OpenAPI page: every path, its fields and the forms of its errors, as a document and as a page to read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from starlette.routing import BaseRoute, Route

from codegen25 import __version__
from codegen25.serve.ask import MOST_ANCHOR
from codegen25.serve.openapi_answers import ANSWERS, FLAG, STREAMS, TEXT, Schema, error_of

TEXTS: Schema = {"oneOf": [TEXT, {"type": "array", "items": TEXT, "maxItems": 64}], "nullable": True}
IDS: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": 4096}
LINES: Schema = {"type": "string", "enum": ["any", "one", "block", "auto"]}


def whole(least: int, most: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


def number(least: float, most: float) -> Schema:
    return {"type": "number", "minimum": least, "maximum": most}


ANCHOR = whole(0, MOST_ANCHOR)
_SAMPLING = {
    "temperature": number(0, 2), "top_p": number(0, 1), "top_k": whole(-1, 1000), "min_p": number(0, 1),
    "seed": whole(0, 2**53), "lines": LINES, "anchor": ANCHOR,
}  # fmt: skip
_OPENAI = {"model": TEXT, "max_tokens": whole(0, 1024), "stop": TEXTS, "stream": FLAG, "n": whole(1, 128), **_SAMPLING}
_LLAMA = {"n_predict": whole(-1, 1024), "stop": TEXTS, "stream": FLAG, "n_cmpl": whole(1, 16),
          "t_max_predict_ms": whole(0, 10_000), "n_indent": whole(0, 64), "response_fields": TEXTS,
          "repeat_penalty": number(0.5, 2), **_SAMPLING}  # fmt: skip
_PROMPT: Schema = {
    "oneOf": [
        TEXT,
        {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 16},
        IDS,
        {"type": "array", "items": IDS, "minItems": 1, "maxItems": 16},
    ]
}
_MESSAGE = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {"role": {"type": "string", "enum": ["system", "user", "assistant"]}, "content": TEXT},
}
_SEGMENTS = {"type": "object", "properties": {"prefix": TEXT, "suffix": TEXT, "filepath": TEXT}}
_EXTRA = {"type": "array", "items": {"type": "object", "properties": {"text": TEXT, "filename": TEXT}}}

# By path: what it is for, and the fields of its body.
_ABOUT: Mapping[str, tuple[str, Mapping[str, Schema]]] = {
    "/v1/completions": (
        "OpenAI: continue a text, or fill the hole before `suffix`; `parts` for several. With `segments`, Tabby's.",
        {"prompt": _PROMPT, "suffix": TEXT, "parts": {"type": "array", "items": TEXT, "minItems": 2, "maxItems": 8},
         "best_of": whole(1, 128), "logprobs": whole(0, 5), "echo": FLAG, "segments": _SEGMENTS,
         "stream_options": {"type": "object", "properties": {"include_usage": FLAG}}, "logit_bias": {"type": "object"},
         "repetition_penalty": number(0.5, 2), "allowed_token_ids": IDS, "return_token_ids": FLAG, **_OPENAI},
    ),
    "/v1/chat/completions": (
        "OpenAI: respond to messages.", {"messages": {"type": "array", "items": _MESSAGE, "minItems": 1}, **_OPENAI}
    ),
    "/v1/models": ("OpenAI: the model that is served.", {}),
    "/infill": (
        "llama.cpp: fill the hole between `input_prefix` + `prompt` and `input_suffix`.",
        {"input_prefix": TEXT, "input_suffix": TEXT, "prompt": TEXT, "input_extra": _EXTRA, **_LLAMA},
    ),
    "/completion": ("llama.cpp: continue a text.", {"prompt": {"oneOf": [TEXT, IDS]}, **_LLAMA}),
    "/completions": ("llama.cpp: the same.", {"prompt": {"oneOf": [TEXT, IDS]}, **_LLAMA}),
    "/tokenize": ("llama.cpp: the token ids of a text.", {"content": TEXT, "with_pieces": FLAG, "parse_special": FLAG}),
    "/detokenize": ("llama.cpp: the text of token ids.", {"tokens": IDS}),
    "/tokenizer_info": ("lm-eval: the names of control tokens.", {}),
    "/health": ("llama.cpp: whether a model is loaded. Needs no key.", {}),
    "/props": ("llama.cpp: the window, and defaults.", {}),
    "/slots": ("llama.cpp: answers under way.", {}),
    "/api/generate": (
        "Ollama: continue a text, or fill the hole before `suffix`.",
        {"model": TEXT, "prompt": TEXT, "suffix": TEXT, "stream": FLAG, "lines": LINES, "anchor": ANCHOR,
         "options": {"type": "object", "properties": {"num_predict": whole(-2, 1024), **_SAMPLING}}},
    ),
    "/api/show": ("Ollama: about the model.", {"model": TEXT}),
    "/api/tags": ("Ollama: the models that are served.", {}),
    "/api/version": ("Ollama: our version.", {}),
    "/v1/health": ("Tabby: about the server.", {}),
    "/v1/events": ("Tabby: takes reports of what was shown and accepted, and keeps none.", {}),
    "/v1beta/server_setting": ("Tabby: settings of clients.", {}),
    "/fim/completions": (
        "Continue and Mistral: fill the hole between `prompt` and `suffix`.",
        {"prompt": TEXT, "suffix": TEXT, **_OPENAI},
    ),
    "/v1/fim/completions": ("The same.", {"prompt": TEXT, "suffix": TEXT, **_OPENAI}),
    "/metrics": ("Figures for Prometheus.", {}),
}  # fmt: skip
_ERRORS = {
    "400": "What was asked for makes no sense, or cannot be done.", "401": "No valid API key.",
    "403": "A page of another origin.", "404": "No such path or model.", "408": "The body did not come.",
    "409": "Superseded by a newer request of the same client.", "413": "The body is too large.",
    "421": "Another host's name.", "429": "Too many answers are under way; see Retry-After.",
    "502": "An upstream broke off.",
    "503": "The model is being loaded, there is no memory, or no upstream answers; see Retry-After.",
    "504": "No answer in time.",
}  # fmt: skip


def document(routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """OpenAPI 3.0 of the routes that are there. Raises `KeyError` for one that nobody has described."""
    paths: dict[str, Any] = {}
    for route in routes:
        if isinstance(route, Route) and "{" not in route.path:
            methods = sorted((route.methods or set()) - {"HEAD"})
            paths[route.path] = {method.lower(): _operation(route.path, method) for method in methods}
    return {
        "openapi": "3.0.3",
        "info": {"title": "codegen25", "version": __version__, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}],
    }


def _operation(path: str, method: str) -> dict[str, Any]:
    about, fields = _ABOUT[path]
    error = {"application/json": {"schema": error_of(path)}}
    errors = {status: {"description": why, "content": error} for status, why in _ERRORS.items()}
    operation: dict[str, Any] = {"summary": about, "responses": {"200": _answer(path), **errors}}
    if method == "POST":
        schema = {"type": "object", "properties": fields}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _answer(path: str) -> dict[str, Any]:
    if path == "/metrics":
        return {"description": "Figures.", "content": {"text/plain": {"schema": TEXT}}}
    content: dict[str, Any] = {"application/json": {"schema": ANSWERS[path]}}
    if path in STREAMS:
        content[STREAMS[path]] = {}
    return {"description": "The answer; a stream where it was asked for.", "content": content}


def page() -> bytes:
    """All of it to read, without a script."""
    rows = "".join(
        f"<h2><code>{escape(path)}</code></h2><p>{escape(about)}</p>"
        + (f"<p>{', '.join(f'<code>{escape(name)}</code>' for name in fields)}</p>" if fields else "")
        for path, (about, fields) in _ABOUT.items()
    )
    errors = "".join(f"<dt>{status}</dt><dd>{escape(why)}</dd>" for status, why in _ERRORS.items())
    style = "body{font:16px/1.5 sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>codegen25</title><style>{style}</style>"
        f"<h1>codegen25 {escape(__version__)}</h1><p><a href=/openapi.json>openapi.json</a></p>{rows}"
        f"<h2>Errors</h2><dl>{errors}</dl></html>"
    ).encode()
