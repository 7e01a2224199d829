"""With an index beside an upstream: the same spans as of a model here, and a policy that ends what it cannot change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from routing import wait_until
from serving import Running, serving
from test_serve_attribution import FREE, GPL, NAMES, asked, dialects, index, overfitted

from codegen25.attribute.inline import beside
from codegen25.serve.attribution import Attribution
from codegen25.serve.upstream import address
from codegen25.serve.upstream_model import UpstreamModel
from codegen25.serve.upstream_pool import Pool
from codegen25.tokenizer import family

__all__ = ["index"]


@contextmanager
def routed(upstream: Running, attribute: Callable[..., Attribution]) -> Iterator[Running]:
    pool = Pool([address(upstream.url)])
    model = UpstreamModel(family(), upstream.service.served.answering.model.config, pool)
    with serving(load=lambda: model, attribute=attribute) as running:
        wait_until(lambda: pool.all[0].is_up)
        yield running


@pytest.fixture(scope="module")
def upstream() -> Iterator[Running]:
    """Without an index: it knows nothing of sources."""
    with serving(load=overfitted) as running:
        yield running


def test_the_same_spans_as_of_a_model_here(upstream: Running, index: Path) -> None:
    with (
        serving(load=overfitted, attribute=beside(index, None)) as here,
        routed(upstream, beside(index, None)) as there,
    ):
        for name in NAMES:
            path, body = dialects(FREE)[name]
            for stream in (False, True) if name != "tabby" else (False,):
                found: Any = asked(there, path, body, stream)
                assert found == asked(here, path, body, stream)
                assert found[1], "it stands in the corpus"


@pytest.mark.parametrize("stream", [False, True])
def test_a_policy_ends_what_it_cannot_change(stream: bool, upstream: Running, index: Path) -> None:
    """With a model here another token would come in the place of one that is refused."""
    with routed(upstream, beside(index, None)) as open_to_all, routed(upstream, beside(index, "permissive")) as strict:
        path, body = dialects(GPL)["openai"]
        whole, spans, _ = asked(open_to_all, path, body, stream)
        assert spans
        text, _, end = asked(strict, path, body, stream)
        assert end == "content_filter" and whole.startswith(text) and len(text) < len(whole)
        path, body = dialects(FREE)["openai"]
        assert asked(strict, path, body, stream)[0] == asked(open_to_all, path, body, stream)[0]
