"""What Prometheus may ask: counts, sizes and times, and never any text."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from codegen25.serve.answering import Usage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The figures of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"codegen25_{name}", what, labels, registry=self.registry)

        def histogram(name: str, what: str) -> Histogram:
            return Histogram(f"codegen25_{name}", what, registry=self.registry, buckets=_SECONDS)

        self.requests = counter("requests", "Requests that have ended.", "dialect", "status")
        self.gone = counter("disconnects", "Requests whose client went away first.")
        self.refused = counter("refusals", "Requests that were refused before they reached a handler.", "reason")
        self.prompt = counter("prompt_tokens", "Tokens of prompts.")
        self.reused = counter("reused_tokens", "Tokens of prompts that the cache had.")
        self.answered = counter("answered_tokens", "Tokens of answers.")
        self.drafted = counter("drafted_tokens", "Tokens that were drafted.")
        self.accepted = counter("accepted_tokens", "Drafted tokens that were right.")
        self.known = counter("typed_along", "Suggestions that were given without the model.")
        self.attributed = counter("attributed_answers", "Answers that hold text of the index's corpus.")
        self.filtered = counter("filtered_answers", "Answers that the policy ended.")
        self.forbidden = counter("forbidden_tokens", "Tokens that the policy refused.")
        self.until_first = histogram("first_token_seconds", "From a request to the first token of its answer.")
        self.whole = histogram("request_seconds", "From a request to the end of its answer.")

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """A gauge that is read when somebody asks."""
        Gauge(f"codegen25_{name}", what, registry=self.registry).set_function(value)

    def add(self, usage: Usage, seconds: float) -> None:
        self.prompt.inc(usage.prompt)
        self.reused.inc(usage.reused)
        self.answered.inc(usage.answered)
        self.drafted.inc(usage.drafted)
        self.accepted.inc(usage.accepted)
        self.known.inc(usage.is_known)
        self.attributed.inc(usage.attributed)
        self.filtered.inc(usage.filtered)
        self.forbidden.inc(usage.refused)
        if usage.answered:
            self.until_first.observe(usage.prompt_seconds)
            self.whole.observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)
