"""What a request can get instead of an answer; every dialect has its own form for it."""

from __future__ import annotations

from codegen25.errors import CodegenError


class Refusal(CodegenError):
    """One line for the client, with the HTTP status that goes with it.

    `kind` and `field` are what OpenAI calls `type` and `param`. `retry_after`: seconds after which it may go better.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        field: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.code, self.field, self.retry_after = status, kind, code, field, retry_after


def too_large(message: str) -> Refusal:
    return Refusal(413, message, code="request_too_large")


def busy(message: str, retry_after: int = 1) -> Refusal:
    return Refusal(429, message, kind="rate_limit_error", code="too_many_requests", retry_after=retry_after)


def loading() -> Refusal:
    return Refusal(
        503, "the model is being loaded; try again soon", kind="unavailable_error", code="loading", retry_after=1
    )


def unknown_model(name: str, served: str) -> Refusal:
    return Refusal(
        404, f"model {name[:100]!r} is not served here; ask for {served!r}, or leave `model` out",
        code="model_not_found", field="model",
    )  # fmt: skip
