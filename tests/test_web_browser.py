"""What people do with the page at `/`, in Chromium and with real servers; `editors/web/test/browser.ts` does it."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest
from attributed import function, tracer
from serving import serving
from web import needs_node, npm

from codegen25 import load
from codegen25.attribute.inline import beside
from codegen25.bench.overfitted import Overfitted
from codegen25.complete import Model
from codegen25.serve.app import Access
from codegen25.tokenizer import family

CHROMIUM = shutil.which("chromium")
KEY = "a key for the page's tests"
FROM_ALPHA = function(("alpha", 0, 0))


def by_heart() -> Model:
    """Knows one function of the small corpus, and goes on with it."""
    T = family()
    return Model(Overfitted([[T.eot, *T.encode(FROM_ALPHA), T.eot]], T.n_vocab), T)


@pytest.mark.slow
@needs_node
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium in PATH")
def test_in_a_browser(tmp_path: Path) -> None:
    """With nano; with a server that wants a key; with one that has an index and repeats what is in it."""
    tracer(tmp_path)
    with (
        serving(load=partial(load, "nano")) as nano,
        serving(access=Access(keys=(KEY.encode(),))) as keyed,
        serving(load=by_heart, attribute=beside(tmp_path / "index", None)) as sourced,
    ):
        npm(
            "run", "browser", PAGE=nano.url, KEYED=keyed.url, KEY=KEY, SOURCED=sourced.url,
            START=FROM_ALPHA.partition("\n")[0] + "\n", CHROMIUM=str(CHROMIUM),
        )  # fmt: skip
