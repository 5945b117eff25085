"""Whatever is sent, the answer is in the envelope and is never a fault of the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.api import bodies
from tests.unit.api.conftest import ACCOUNT, JOBS, running, settings_in

TEXT = st.text(st.characters(), max_size=20) | st.sampled_from(["s3", "r2", "\ud800", "\0", "/"])
SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
ANYTHING = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)
VALID = [
    bodies.create(options={"contentTypes": {"include": ["a/b"]}, "maxObjectSize": 5}),
    bodies.from_r2(keys=["a", "b"], pathPrefix="", jurisdiction="eu"),
    bodies.from_gcs(),
    bodies.create(target=bodies.s3_source(region="auto")),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:  # noqa: ANN401 - any JSON
    """The paths of all members and elements of `value`."""
    found = [path] if path else []
    if isinstance(value, dict | list):
        members = dict(enumerate(value)) if isinstance(value, list) else value
        for step, inner in members.items():
            found += places(inner, (*path, step))
    return found


@st.composite
def nearly_valid(draw: st.DrawFn) -> bodies.Json:
    """A valid body with one to three members replaced or joined by anything."""
    body: Any = json.loads(json.dumps(draw(st.sampled_from(VALID))))
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(places(body)))
        holder = body
        for step in way:
            holder = holder[step]
        name = draw(st.just(last) | TEXT) if isinstance(holder, dict) else last
        holder[name] = draw(ANYTHING)
    return dict(body)


def check(answer: httpx.Response) -> None:
    body = answer.json()
    assert body.keys() == {"success", "errors", "messages", "result"}
    assert answer.status_code in {200, 201, 400, 404}
    assert body["success"] is (answer.status_code < 300)
    assert (body["result"] is None) is bool(body["errors"]) is not body["success"]
    for item in body["errors"]:
        assert item["code"] >= 1000
        assert item["message"]


class Loop:
    """One application for all examples, in a loop of its own."""

    def __init__(self, directory: Path) -> None:
        self._runner = asyncio.Runner()
        self._context = running(settings_in(directory))
        self.api = self.run(self._context.__aenter__())

        async def create(*_: object, **__: object) -> str:
            return "0" * 64

        # What is fuzzed is this side of the service; no example shall knock at anyone's door.
        self.api.app.state.backend.service.create = create

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - as the work returns
        return self._runner.run(work)

    def close(self) -> None:
        self.run(self._context.__aexit__(None, None, None))
        self._runner.close()


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Any:  # noqa: ANN401 - a generator fixture
    loop = Loop(tmp_path_factory.mktemp("fuzz"))
    yield loop
    loop.close()


FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@FUZZ
@given(body=nearly_valid())
def test_nearly_valid_bodies(loop: Loop, body: bodies.Json) -> None:
    content = json.dumps(body)
    headers = {"content-type": "application/json"}
    check(loop.run(loop.api.client.post(JOBS, content=content, headers=headers)))


@FUZZ
@given(content=st.binary(max_size=60) | ANYTHING.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_bodies(loop: Loop, content: bytes) -> None:
    headers = {"content-type": "application/json"}
    check(loop.run(loop.api.client.post(JOBS, content=content, headers=headers)))


@FUZZ
@given(content=st.binary(max_size=60) | ANYTHING.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_optional_bodies(loop: Loop, content: bytes) -> None:
    headers = {"content-type": "application/json"}
    for operation in ("resume", "retryFailed"):
        path = f"{JOBS}/{'0' * 64}/{operation}"
        check(loop.run(loop.api.client.put(path, content=content, headers=headers)))


@FUZZ
@given(
    job_id=st.text(st.characters(codec="utf-8"), min_size=1, max_size=70),
    query=st.text(st.characters(codec="utf-8"), max_size=20),
)
def test_arbitrary_ids_and_queries(loop: Loop, job_id: str, query: str) -> None:
    path = f"/accounts/{ACCOUNT}/slurper/jobs/{quote(job_id, safe='')}/logs"
    check(loop.run(loop.api.client.get(f"{path}?{quote(query, safe='=&')}")))
    check(loop.run(loop.api.client.get(f"{JOBS}?limit={quote(query, safe='')}")))
