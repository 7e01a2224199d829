"""The forms of answers, for the OpenAPI page: by path what comes with 200, and by dialect what comes with an error.

Objects may have members that are not named here. Of a stream only its media type is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]
TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
ANY: Schema = {"type": "object"}
_ID: Schema = {"type": "integer", "minimum": 0}


def listed(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def either(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def nullable(schema: Schema) -> Schema:
    return {**schema, "nullable": True}


def having(maybe: Mapping[str, Schema] | None = None, **always: Schema) -> Schema:
    """An object with these members, and perhaps those of `maybe`."""
    return {"type": "object", "required": sorted(always), "properties": {**always, **(maybe or {})}}


_SOURCE = having(
    source=TEXT, version=TEXT, path=TEXT, first_line=COUNT, last_line=COUNT, license=TEXT, evidence_kind=TEXT,
    evidence_file=TEXT, copyright=listed(TEXT),
)  # fmt: skip
# Where an answer stands in the corpus of an index.
ATTRIBUTION = {"attribution": listed(having(start=COUNT, end=COUNT, kind=TEXT, count=COUNT, sources=listed(_SOURCE)))}

# ------------------------------------------------------------------------------------------------- OpenAI, Continue

_FINISH: Schema = {"type": "string", "enum": ["stop", "length", "content_filter"]}
_LOGPROBS = having(
    tokens=listed(TEXT), token_logprobs=listed(nullable(NUMBER)), text_offset=listed(COUNT),
    top_logprobs=listed({"type": "object", "additionalProperties": NUMBER, "nullable": True}),
)  # fmt: skip
_USAGE = having(prompt_tokens=COUNT, completion_tokens=COUNT, total_tokens=COUNT, prompt_tokens_details=ANY)
_CHOICE = having(
    {"hole": COUNT, "token_ids": listed(_ID), **ATTRIBUTION},
    text=TEXT, index=COUNT, logprobs=nullable(_LOGPROBS), finish_reason=_FINISH,
)  # fmt: skip
_SAID = having(
    {"logprobs": nullable(ANY), **ATTRIBUTION},
    index=COUNT, message=having(role=TEXT, content=TEXT), finish_reason=_FINISH,
)  # fmt: skip


def _around(choice: Schema) -> Schema:
    return having(id=TEXT, object=TEXT, created=COUNT, model=TEXT, choices=listed(choice), usage=_USAGE)


_TABBY = having(id=TEXT, choices=listed(having(ATTRIBUTION, index=COUNT, text=TEXT)))
_MODELS = having(object=TEXT, data=listed(having(id=TEXT, object=TEXT, created=COUNT, owned_by=TEXT, meta=ANY)))

# -------------------------------------------------------------------------------------------------- llama.cpp, Ollama

# With `response_fields` there are only these.
_RESULT: Schema = {
    "type": "object",
    "properties": {
        "index": COUNT, "content": TEXT, "tokens": listed(_ID), "stop": FLAG, "model": TEXT, "tokens_predicted": COUNT,
        "tokens_evaluated": COUNT, "generation_settings": ANY, "truncated": FLAG, "tokens_cached": COUNT,
        "stop_type": {"type": "string", "enum": ["eos", "word", "limit", "content_filter"]}, "timings": ANY,
        **ATTRIBUTION,
    },
}  # fmt: skip
_RESULTS = either(_RESULT, listed(_RESULT))
_TOKENS = having({"count": COUNT}, tokens=listed(either(_ID, having(id=_ID, piece=TEXT))))
_OLLAMA = having(
    {"total_duration": COUNT, "prompt_eval_count": COUNT, "eval_count": COUNT, **ATTRIBUTION},
    model=TEXT, created_at=TEXT, response=TEXT, done={"type": "boolean", "enum": [True]},
    done_reason={"type": "string", "enum": ["stop", "length", "load", "content_filter"]},
)  # fmt: skip

ANSWERS: Mapping[str, Schema] = {
    "/v1/completions": either(_around(_CHOICE), _TABBY),
    "/v1/chat/completions": _around(_SAID),
    "/v1/models": _MODELS,
    "/infill": _RESULTS,
    "/completion": _RESULTS,
    "/completions": _RESULTS,
    "/tokenize": _TOKENS,
    "/detokenize": having(content=TEXT, prompt=TEXT),
    "/tokenizer_info": having(eos_token=TEXT),
    "/health": having(status=TEXT),
    "/props": having(default_generation_settings=having(n_ctx=COUNT), n_ctx=COUNT, total_slots=COUNT),
    "/slots": listed(having(id=COUNT, n_ctx=COUNT, is_processing=FLAG)),
    "/api/generate": _OLLAMA,
    "/api/show": having(template=TEXT, details=ANY, model_info=ANY, capabilities=listed(TEXT)),
    "/api/tags": having(models=listed(having(name=TEXT, model=TEXT, modified_at=TEXT, size=COUNT, details=ANY))),
    "/api/version": having(version=TEXT),
    "/v1/health": having(model=TEXT, device=TEXT, version=having(git_describe=TEXT)),
    "/v1/events": ANY,
    "/v1beta/server_setting": having(disable_client_side_telemetry=FLAG),
    "/fim/completions": _around(_SAID),
    "/v1/fim/completions": _around(_SAID),
}
# Answers that may come in parts, and as what.
STREAMS: Mapping[str, str] = {
    **dict.fromkeys(
        ["/v1/completions", "/v1/chat/completions", "/infill", "/completion", "/completions", "/fim/completions",
         "/v1/fim/completions"], "text/event-stream",
    ),
    "/api/generate": "application/x-ndjson",
}  # fmt: skip

# ------------------------------------------------------------------------------------------------------------- errors

_OPENAI_ERROR = having(error=having({"code": nullable(TEXT), "param": nullable(TEXT)}, message=TEXT, type=TEXT))
_LLAMA_ERROR = having(error=having(code=COUNT, message=TEXT, type=TEXT))
_TOLD = having(error=TEXT)


def error_of(path: str) -> Schema:
    """The form of an error. Whoever may not ask at all is told so in OpenAI's, whatever the path."""
    if path.startswith("/api/") or path in ("/v1/health", "/v1/events", "/v1beta/server_setting"):
        return either(_OPENAI_ERROR, _TOLD)
    if path.startswith("/v1/") or path == "/fim/completions":
        return _OPENAI_ERROR
    return either(_OPENAI_ERROR, _LLAMA_ERROR)
