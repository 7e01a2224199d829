"""What the OpenAPI page says is so: schemathesis makes requests from it, right and wrong, and reads the answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from attributed import tracer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving import Running, serving

from codegen25.attribute.inline import beside
from codegen25.serve.limits import Limits
from codegen25.serve.openapi_answers import ANSWERS

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 15


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """With an index, so that answers have all that they can have."""
    folder = tmp_path_factory.mktemp("corpus")
    tracer(folder)
    limits = Limits(tokens=4, answers=8, body=200_000)
    with serving(limits=limits, attribute=beside(folder / "index", "permissive")) as running:
        yield running


@pytest.fixture(scope="module")
def page(server: Running) -> Any:
    return schemathesis.openapi.from_dict(server.ask("/openapi.json").json)


def cases(operation: Any) -> st.SearchStrategy[Case[Any]]:
    """Requests as the page has them, and others."""
    right, wrong = (operation.as_strategy(mode) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE))
    return st.one_of(right, wrong) if operation.body else right


@pytest.mark.parametrize("path", [*ANSWERS, "/metrics"])
def test_answers_are_as_the_page_says(server: Running, page: Any, path: str) -> None:
    for method in page[path]:

        @settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
        @given(case=cases(page[path][method]))
        def check(case: Case[Any]) -> None:
            case.call_and_validate(base_url=server.url, checks=CHECKS)

        check()


def test_the_page_describes_every_answer(page: Any) -> None:
    assert {*ANSWERS, "/metrics"} == set(page)
