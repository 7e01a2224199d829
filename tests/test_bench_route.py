"""The benchmark of the router, on small servers: what it times is what it says, and its figures can fail."""

from __future__ import annotations

from pathlib import Path

from routing import routing
from serving import serving

from codegen25.bench import route
from codegen25.bench.figures import Options
from codegen25.tokenizer import family


def test_both_ways_are_timed_and_answer_alike(tmp_path: Path) -> None:
    options = Options(tmp_path, 1, 1, (), lambda line: None)
    prompts = [family().encode(f"def f_{n}(x):\n    return ") for n in range(3)]
    with serving() as server, routing([server.url]) as (router, _):
        first, whole = route.stream(router.url, prompts[0])
        assert 0 < first <= whole
        ways = (router.url, server.url)
        figure = route._added("ids", options, ways, prompts, 20, has_bar=True)
        assert figure.unit == "ms" and figure.peer == [route.ADDED] and len(figure.ours) == 1
        told = figure.more["first_token_p50_p95"]
        assert abs(told["routed"][1] - told["direct"][1] - figure.ours[0]) < 0.02
        assert route.answered(router.url, prompts[1]) == route.answered(server.url, prompts[1]) is not None
    assert route.answered(server.url, prompts[1]) is None
