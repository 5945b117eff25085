"""Large bodies claim memory before it is used, and all of it is given back."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given

from slurper import errors
from slurper.api import body_memory
from slurper.api.body_memory import (
    BYTES_FOR_A_BYTE,
    FREE_BYTES,
    MOST_BYTES,
    VALUES_BYTES,
    BodyMemory,
)
from slurper.api.envelope import Code, Refusal
from slurper.api.json_reader import MAX_ENTRIES, JsonReader
from slurper.api.request_body import MAX_BODY_BYTES
from slurper.http.places import Owner
from slurper.job import rules
from slurper.settings import SMALLEST_REQUEST_MEMORY
from tests.unit.api import bodies
from tests.unit.api.conftest import ACCOUNT, JOBS, Api, running, settings_in
from tests.unit.api.test_json_reader import VALUE

MIB = 1 << 20
PIECE = 16 << 10
OWNER = Owner(ACCOUNT, "static")
JSON = {"content-type": "application/json"}


def read(text: str) -> JsonReader:
    reader = JsonReader()
    for begin in range(0, len(text), PIECE):
        reader.feed(text[begin : begin + PIECE])
    return reader


def largest(key: str) -> str:
    """A body with as many keys as there may be."""
    return json.dumps({"keys": [key] * MAX_ENTRIES}, ensure_ascii=False)


HOSTILE = {
    "keys of four bytes a character": largest("x" * 1_020 + "\U0001f600"),
    "keys of two bytes a character": largest("\u017e" * 512),
    "plain keys": largest("x" * 1_024),
    "short keys": largest("ab"),
    "escaped keys": json.dumps({"keys": ["\u017e" * 512] * MAX_ENTRIES}),
    "empty objects": json.dumps([{}] * MAX_ENTRIES),
    "empty lists": json.dumps([[]] * MAX_ENTRIES),
    "objects of one member": json.dumps([{"ab": {}}] * 5_900),
    "lists of one value": json.dumps([[[]]] * 5_900),
    "long numbers": json.dumps([10**999] * MAX_ENTRIES),
    "floats": json.dumps([1.5] * MAX_ENTRIES),
    "one long text": json.dumps(["x" * 100_000 + "\U0001f600"] * 300, ensure_ascii=False),
    "a text without end": '["\U0001f600' + "x" * 130_000,
    "objects of many members": json.dumps([{f"{n:03}": 1.5 for n in range(100)}] * 100),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_a_body_takes_is_known_and_no_more_than_it_claims(text: str) -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        reader = read(text)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken <= reader.held_bytes + 4_096, "the reader itself takes some"
    assert reader.held_bytes <= BYTES_FOR_A_BYTE * len(text.encode()) + VALUES_BYTES


@given(value=VALUE)
def test_no_body_takes_more_than_it_claims(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False).replace("Infinity", "1e400")
    assert read(text).held_bytes <= 4 * len(text.encode("utf-8", "surrogatepass")) + VALUES_BYTES


def test_no_valid_body_takes_more_than_there_may_be() -> None:
    """A key of 1,024 bytes takes most if one of its characters is beyond the first 65,536."""
    assert MAX_ENTRIES * (76 + 4 * (rules.MAX_KEY_BYTES - 3)) + VALUES_BYTES <= MOST_BYTES
    assert read(HOSTILE["keys of four bytes a character"]).held_bytes <= MOST_BYTES
    assert MOST_BYTES <= SMALLEST_REQUEST_MEMORY, "else such a body would never have room"


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> BodyMemory:
    """There is room for the largest body, and for a small one beside it."""
    monkeypatch.setattr(body_memory, "WAIT_SECONDS", 0.02)
    return BodyMemory(SMALLEST_REQUEST_MEMORY)


async def test_a_claim_is_given_back_in_part_and_in_the_end(memory: BodyMemory) -> None:
    with memory.claim(Owner("a")) as first, memory.claim(Owner("b")) as second:
        await first.grow(FREE_BYTES, length=MAX_BODY_BYTES)
        await second.grow(FREE_BYTES + 1, length=MAX_BODY_BYTES)
        await second.grow(MOST_BYTES, length=MAX_BODY_BYTES)
        with pytest.raises(Refusal) as refused:
            await first.grow(FREE_BYTES + 1, length=MAX_BODY_BYTES)
        assert refused.value.status == 429
        second.keep(MIB)
        await first.grow(FREE_BYTES + 1, length=MAX_BODY_BYTES)
    with memory.claim(Owner("c")) as third:
        await third.grow(MOST_BYTES, length=MAX_BODY_BYTES)
        with pytest.raises(Refusal, match="than any valid request"):
            await third.grow(MOST_BYTES + 1, length=MAX_BODY_BYTES)


async def test_one_account_or_token_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_memory, "WAIT_SECONDS", 0.02)
    memory = BodyMemory(4 * MOST_BYTES)
    claims = [memory.claim(Owner(account, "all")) for account in "aabc"]
    one, same, another, third = [claim.__enter__() for claim in claims]
    await one.grow(MOST_BYTES, length=MAX_BODY_BYTES)
    with pytest.raises(Refusal):
        await same.grow(MOST_BYTES, length=MAX_BODY_BYTES)
    await another.grow(MOST_BYTES, length=MAX_BODY_BYTES)
    with pytest.raises(Refusal):
        await third.grow(MOST_BYTES, length=MAX_BODY_BYTES)
    with memory.claim(Owner("c", "own")) as other:
        await other.grow(MOST_BYTES, length=MAX_BODY_BYTES)
    for claim in claims:
        claim.__exit__(None, None, None)


@pytest.fixture
async def tight(
    tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Api]:
    """An application with room for one body of the largest kind."""
    monkeypatch.setattr(body_memory, "WAIT_SECONDS", 0.2)
    shutil.copy(empty_database, tmp_path)
    settings = settings_in(tmp_path)
    smallest = {"request_memory_bytes": SMALLEST_REQUEST_MEMORY}
    async with running(settings.model_copy(update=smallest)) as api:
        yield api


def memory_of(api: Api) -> BodyMemory:
    found: BodyMemory = api.app.state.body_memory
    return found


async def all_is_given_back(api: Api) -> bool:
    """Whether the largest body and a smaller one have room."""
    with (
        memory_of(api).claim(Owner("one")) as one,
        memory_of(api).claim(Owner("another")) as another,
    ):
        await one.grow(MOST_BYTES, length=MAX_BODY_BYTES)
        await another.grow(MIB, length=(12 * MIB) // BYTES_FOR_A_BYTE)
    return True


def keys(count: int = 10_000) -> dict[str, Any]:
    return bodies.from_s3(keys=[f"{number:05}" + "x" * 100 for number in range(count)])


async def test_without_room_large_bodies_are_told_when_to_try_again(tight: Api) -> None:
    with memory_of(tight).claim(OWNER) as claim:
        await claim.grow(MOST_BYTES, length=MAX_BODY_BYTES)
        answer = await tight.client.post(JOBS, json=keys())
        assert answer.status_code == 429
        (error,) = answer.json()["errors"]
        assert error["code"] == Code.TOO_MANY_REQUESTS
        assert answer.headers["retry-after"] == "5"
        assert "x-should-retry" not in answer.headers, "the SDKs send it again by themselves"
        assert (await tight.client.post(JOBS, json=bodies.create())).status_code == 403
    assert (await tight.client.post(JOBS, json=keys())).status_code == 403, "nothing listens there"
    assert await all_is_given_back(tight)


async def test_a_body_of_unknown_length_claims_when_it_grows(tight: Api) -> None:
    whole = json.dumps(keys()).encode()

    async def body() -> AsyncIterator[bytes]:
        for begin in range(0, len(whole), PIECE):
            yield whole[begin : begin + PIECE]

    with memory_of(tight).claim(OWNER) as claim:
        await claim.grow(MOST_BYTES, length=MAX_BODY_BYTES)
        assert (await tight.client.post(JOBS, content=body(), headers=JSON)).status_code == 429
    assert (await tight.client.post(JOBS, content=body(), headers=JSON)).status_code == 403
    assert await all_is_given_back(tight)


async def test_a_short_body_of_many_values_claims_as_well(tight: Api) -> None:
    many = b"[" + b"{}," * 9_000
    assert len(many) < FREE_BYTES
    with memory_of(tight).claim(OWNER) as claim:
        await claim.grow(MOST_BYTES, length=MAX_BODY_BYTES)
        assert (await tight.client.post(JOBS, content=many, headers=JSON)).status_code == 429


async def test_who_waits_goes_on_when_there_is_room(
    tight: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_memory, "WAIT_SECONDS", 60.0)
    with memory_of(tight).claim(OWNER) as claim:
        await claim.grow(MOST_BYTES, length=MAX_BODY_BYTES)
        waiting = asyncio.ensure_future(tight.client.post(JOBS, json=keys()))
        await asyncio.sleep(0.2)
        assert not waiting.done()
    assert (await waiting).status_code == 403


async def test_keys_count_while_stores_are_checked(
    tight: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    checking, end = asyncio.Event(), asyncio.Event()

    async def slow(*_: object, **__: object) -> None:
        checking.set()
        await end.wait()
        raise errors.TooManyChecks("too many")

    monkeypatch.setattr(tight.app.state.backend.service, "create", slow)
    largest_keys = [f"{number:05}" + "x" * 1_000 for number in range(10_000)]
    held = asyncio.ensure_future(tight.client.post(JOBS, json=bodies.from_s3(keys=largest_keys)))
    await checking.wait()
    with memory_of(tight).claim(OWNER) as claim:
        with pytest.raises(Refusal):
            await claim.grow(MOST_BYTES, length=MAX_BODY_BYTES)
        await claim.grow(MIB, length=MIB)  # what it did not need was given back
    end.set()
    assert (await held).status_code == 429
    assert await all_is_given_back(tight)


@pytest.mark.parametrize(
    "content",
    [
        b"{" + b" " * 100_000 + b"!}",
        b'{"a":"' + b"x" * 100_000 + b'\xff"}',
        json.dumps(keys()).encode()[:-1],
        json.dumps(bodies.from_s3(keys=[""] * 10_000)).encode(),
    ],
    ids=["no JSON", "no UTF-8", "half of it", "wrong keys"],
)
async def test_a_refused_body_gives_all_back(tight: Api, content: bytes) -> None:
    for _ in range(3):
        assert (await tight.client.post(JOBS, content=content, headers=JSON)).status_code == 400
    assert await all_is_given_back(tight)


@pytest.mark.parametrize("last", ["", "k"], ids=["a wrong key", "a store that does not answer"])
async def test_nothing_of_a_refused_body_stays_in_memory(tight: Api, last: str) -> None:
    """Not even until Python looks for circles of objects."""
    body = json.dumps(bodies.from_s3(keys=[f"{number}" for number in range(9_999)] + [last]))

    def lists_of_keys() -> int:
        return sum(type(one) in (list, tuple) and len(one) == 10_000 for one in gc.get_objects())

    gc.collect()
    before = lists_of_keys()
    gc.disable()
    try:
        answer = await tight.client.post(JOBS, content=body, headers=JSON)
        assert answer.status_code == (403 if last else 400)
        for _ in range(100):  # a thread lets go of its work a moment after that has ended
            if lists_of_keys() == before:
                break
            await asyncio.sleep(0.05)
        assert lists_of_keys() == before
    finally:
        gc.enable()


async def test_a_client_that_goes_gives_all_back(tight: Api) -> None:
    coming: list[dict[str, Any]] = [
        {"type": "http.request", "body": b'{"a":"' + b"x" * 100_000, "more_body": True},
        {"type": "http.disconnect"},
    ]
    authorization = tight.client.headers["authorization"].encode()
    scope = {
        "type": "http",
        "method": "POST",
        "path": JOBS,
        "query_string": b"",
        "headers": [(b"authorization", authorization), (b"content-type", b"application/json")],
    }

    async def receive() -> dict[str, Any]:
        return coming.pop(0)

    async def send(_: object) -> None:
        pass

    await tight.app(scope, receive, send)
    assert not coming
    assert await all_is_given_back(tight)


async def test_a_request_that_is_cancelled_gives_all_back(
    tight: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def slow(*_: object, **__: object) -> None:
        begun.set()
        await asyncio.sleep(3_600)

    monkeypatch.setattr(tight.app.state.backend.service, "create", slow)
    under_way = asyncio.ensure_future(tight.client.post(JOBS, json=keys()))
    await begun.wait()
    under_way.cancel()
    with pytest.raises((asyncio.CancelledError, httpx.HTTPError)):
        await under_way
    assert await all_is_given_back(tight)
