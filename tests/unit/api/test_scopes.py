"""Every operation has a scope, and nothing else but a known few needs no token."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper.api.routes import SlurperRoute, router
from slurper.job.access import Scope
from tests.unit.api.conftest import Api

OPEN = {"/healthz", "/metrics", "/openapi.json", "/docs", "/docs/oauth2-redirect"}


async def operations(api: Api) -> dict[tuple[str, str], dict[str, Any]]:
    document = (await api.client.get("/openapi.json")).json()
    return {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


async def test_what_only_looks_reads_and_all_else_writes(api: Api) -> None:
    scopes = {place: one["x-scope"] for place, one in (await operations(api)).items()}
    assert len(scopes) == 14
    for (method, path), scope in scopes.items():
        assert scope == ("read" if method == "get" else "write"), path


def test_an_operation_without_a_scope_cannot_be_added() -> None:
    with pytest.raises(KeyError, match="x-scope"):
        SlurperRoute("/accounts/{account_id}/slurper/new", lambda: None)
    with pytest.raises(ValueError, match="'all'"):
        SlurperRoute("/x", lambda: None, openapi_extra={"x-scope": "all"})


async def test_every_path_that_is_no_operation_is_known_to_be_open(api: Api) -> None:
    paths = {path for _, path in await operations(api)}
    assert {getattr(route, "path", None) for route in router.routes} == paths
    assert all(isinstance(route, SlurperRoute) for route in router.routes)
    own = {getattr(route, "path", None) for route in api.app.routes} - {None}
    prefixed = {base + path for base in ("/client/v4", "") for path in paths}
    assert own - prefixed <= OPEN


@given(st.sampled_from(list(Scope)), st.sampled_from(list(Scope)), st.sampled_from(list(Scope)))
def test_scopes_are_in_one_order(first: Scope, second: Scope, third: Scope) -> None:
    assert first.includes(first)
    assert Scope.ADMIN.includes(first)
    assert first.includes(Scope.READ)
    if first.includes(second) and second.includes(third):
        assert first.includes(third)
    if first != second:
        assert first.includes(second) != second.includes(first)


def test_that_order_is_the_documented_one() -> None:
    assert [scope.value for scope in Scope] == ["read", "write", "admin"]
