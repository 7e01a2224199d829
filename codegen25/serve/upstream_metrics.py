"""What Prometheus may ask about upstreams, read when it asks."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from codegen25.serve.upstream_pool import Pool


class UpstreamFigures(Collector):
    """The figures of a pool, by the address of each upstream."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("codegen25_upstream_up", "Whether an upstream is in.", labels=["upstream"])
        busy = GaugeMetricFamily("codegen25_upstream_under_way", "Answers under way there.", labels=["upstream"])
        requests = CounterMetricFamily(
            "codegen25_upstream_requests", "Requests to an upstream, by how they ended.", labels=["upstream", "outcome"]
        )
        first = SummaryMetricFamily(
            "codegen25_upstream_first_token_seconds", "Until the first token of an answer.", labels=["upstream"]
        )
        for one in self._pool.all:
            up.add_metric([one.url], float(one.is_up))
            busy.add_metric([one.url], one.under_way)
            first.add_metric([one.url], one.first_tokens, one.first_seconds)
            for outcome, number in one.outcomes.items():
                requests.add_metric([one.url, outcome], number)
        yield from (up, busy, requests, first)
        yield _counter("retries", "Requests that were tried at another upstream, or again.", self._pool.retries)
        yield _counter("affine", "Requests that went where the beginning of their prompt had run.", self._pool.affine)


def _counter(name: str, what: str, value: int) -> CounterMetricFamily:
    return CounterMetricFamily(f"codegen25_upstream_{name}", what, value=value)
