"""Which routes of the sandbox can be taken on this machine."""

from __future__ import annotations

from functools import cache

import pytest

from codegen25.errors import CodegenError
from codegen25.evaluate.judge import Route, available_route

ROUTES: tuple[Route, ...] = ("namespaces", "bubblewrap")


@cache
def why_not(route: Route) -> str:
    try:
        available_route(route)
    except CodegenError as error:
        return str(error)
    return ""


def skip_unless(route: Route) -> None:
    if reason := why_not(route):
        pytest.skip(reason)
