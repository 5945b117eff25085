"""Which outcomes are tried again, how often, and after how long."""

from __future__ import annotations

import asyncio
import email.utils
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper import errors
from slurper.http import client as http_client
from slurper.http.client import (
    BACKOFF_CAP_SECONDS,
    RETRY_AFTER_CAP_SECONDS,
    TransportOptions,
    backoff_seconds,
    retry_after_seconds,
)
from slurper.http.messages import Request, Response, header_lines
from slurper.settings import Settings
from tests.unit.http.conftest import Connect, Serve, get, put
from tests.unit.http.scripted import Peer, Script, answer, answering, once

FRACTIONS = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_passing_statuses_are_tried_again(
    serve: Serve, connect: Connect, status: int
) -> None:
    bad = answer(b"later", status=f"{status} Later")
    server = await serve(answering(bad, bad, answer(b"done")))
    client = connect(server, request_retries=5)
    response = await client.send(put(b"body"))
    assert (response.status, response.retries) == (200, 2)
    assert [received.body for received in server.requests] == [b"body"] * 3
    assert client.statistics.retries == 2
    assert client.statistics.requests == 1
    assert client.statistics.throttled == (2 if status in (429, 503) else 0)


@pytest.mark.parametrize("status", [200, 206, 301, 307, 400, 403, 404, 409, 412, 416, 501])
async def test_other_statuses_are_answers(serve: Serve, connect: Connect, status: int) -> None:
    location = "Location: http://127.0.0.1:1/elsewhere"
    server = await serve(answering(answer(b"x", location, status=f"{status} X")))
    response = await connect(server, request_retries=5).send(get())
    assert (response.status, response.retries) == (status, 0)
    assert len(server.requests) == 1


async def test_last_answer_is_returned_when_retries_are_used_up(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(answering(answer(b"broken", status="500 Oops")))
    client = connect(server, request_retries=3)
    response = await client.send(get())
    assert (response.status, response.retries, b"".join(response.body)) == (500, 3, b"broken")
    assert len(server.requests) == 4
    assert client.statistics.throttled == 0


async def test_throttling_uses_up_no_retries_and_narrows_the_window(
    serve: Serve, connect: Connect
) -> None:
    refusal = answer(b"", status="503 Slow Down")
    server = await serve(answering(refusal, refusal, refusal, answer()))
    client = connect(server, request_retries=1, max_connections=16)
    response = await client.send(get())
    assert (response.status, response.retries) == (200, 3)
    assert client.statistics.throttled == 3
    assert client._pool.window.size == 2


async def test_throttling_without_end_ends_at_the_deadline(serve: Serve, connect: Connect) -> None:
    server = await serve(answering(answer(b"", status="429 Too Many")))
    client = connect(server, request_retries=1, retry_deadline_seconds=1.0)
    response = await client.send(get())
    assert response.status == 429
    assert response.retries > 1
    assert client._pool.window.size == 1


async def test_no_retry_begins_after_the_retry_deadline(serve: Serve, connect: Connect) -> None:
    server = await serve(
        answering(answer(b"", "Retry-After: 30", status="503 Slow Down"), answer())
    )
    response = await connect(server, request_retries=5, retry_deadline_seconds=10).send(get())
    assert (response.status, response.retries) == (503, 0)


@pytest.mark.parametrize(
    ("status", "again"),
    [(408, True), (429, True), (503, True), (500, False), (502, False), (504, False)],
)
async def test_request_that_must_not_be_repeated_is_only_when_it_was_not_acted_on(
    serve: Serve, connect: Connect, status: int, again: bool
) -> None:
    server = await serve(answering(answer(status=f"{status} X")))
    client = connect(server, request_retries=1, retry_deadline_seconds=0.5)
    await client.send(put(b"x", idempotent=False))
    assert (len(server.requests) > 1) is again


async def test_lost_request_that_must_not_be_repeated_is_an_error(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(once(b""))
    client = connect(server, request_retries=3)
    with pytest.raises(errors.TransportError):
        await client.send(put(b"x", idempotent=False))
    assert len(server.requests) == 1


async def test_request_that_was_surely_not_sent_is_tried_again(connect: Connect) -> None:
    client = connect("http://no-such-host.invalid", request_retries=2)
    with pytest.raises(errors.TransportError, match="gave up after 2 retries"):
        await client.send(put(b"x", idempotent=False))
    assert client.statistics.retries == 2


async def test_dialect_adds_its_own_passing_answers(serve: Serve, connect: Connect) -> None:
    def should_retry(response: Response) -> bool:
        return b"RequestTimeout" in b"".join(response.body)

    server = await serve(
        answering(answer(b"<Code>RequestTimeout</Code>", status="400 Bad Request"), answer(b"done"))
    )
    client = connect(server, should_retry=should_retry, request_retries=1)
    response = await client.send(get())
    assert (response.status, response.retries) == (200, 1)


class Others:
    """Whether a server serves other requests, as a test says."""

    def __init__(self, *, served: bool) -> None:
        self.served = served
        self.asked = 0

    async def __call__(self, request: Request, since: float, retries: int) -> bool:
        assert request.target == "/b/bad"
        assert since <= time.monotonic()
        assert retries >= http_client.LASTING_RETRIES
        self.asked += 1
        return self.served


BROKEN = answer(b"<Code>InternalError</Code>", status="500 Oops")


async def test_a_lasting_error_is_given_up_sooner_when_all_else_is_served_and_done(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(answering(BROKEN))
    others = Others(served=True)
    client = connect(server, serves_others=others, request_retries=5)
    response = await client.send(get("/b/bad"))
    assert (response.status, response.retries) == (500, http_client.LASTING_RETRIES)
    assert others.asked == 1


def slows_down(response: Response) -> bool:
    return b"SlowDown" in b"".join(response.body)


UNAVAILABLE = answer(b"<Code>ServiceUnavailable</Code>", status="503 Service Unavailable")
SLOW_DOWN = answer(b"<Code>SlowDown</Code>", status="503 Slow Down")


@pytest.mark.parametrize("lasting", [UNAVAILABLE, answer(b"", status="408 Timeout")])
async def test_so_is_any_answer_that_does_not_ask_to_slow_down(
    serve: Serve, connect: Connect, lasting: bytes
) -> None:
    server = await serve(answering(lasting))
    others = Others(served=True)
    client = connect(server, asks_to_slow_down=slows_down, serves_others=others, request_retries=9)
    assert (await client.send(get("/b/bad"))).retries == http_client.LASTING_RETRIES
    assert others.asked == 1


async def reset(peer: Peer) -> None:
    await peer.request()
    await peer.send(answer(b"12345")[:-2])
    peer.reset()


@pytest.mark.parametrize(
    "scripts",
    [
        [once(answer(b"12345")[:-2])],
        [reset],
        [once(b"")],
        [once(answer(b"12345")[:-2]), once(b""), once(answer(b"12345")[:-4])],
    ],
    ids=["cut", "reset", "silent", "each way"],
)
async def test_so_is_an_answer_that_always_breaks_off(
    serve: Serve, connect: Connect, scripts: list[Script]
) -> None:
    server = await serve(*scripts)
    others = Others(served=True)
    client = connect(server, serves_others=others, request_retries=9)
    with pytest.raises(errors.TransportError, match="gave up after 2 retries"):
        await client.send(get("/b/bad"))
    assert len(server.requests) == 1 + http_client.LASTING_RETRIES
    assert others.asked == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_an_answer_that_asks_to_slow_down_is_obeyed_until_the_deadline(
    serve: Serve, connect: Connect, status: int
) -> None:
    server = await serve(answering(answer(b"<Code>SlowDown</Code>", status=f"{status} Slow")))
    others = Others(served=True)
    client = connect(
        server,
        asks_to_slow_down=slows_down,
        serves_others=others,
        request_retries=1,
        retry_deadline_seconds=1.0,
    )
    response = await client.send(get("/b/bad"))
    assert response.status == status
    assert response.retries > http_client.LASTING_RETRIES
    assert others.asked == 0


async def test_a_server_that_is_unavailable_to_all_is_waited_for_until_the_deadline(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(answering(UNAVAILABLE))
    client = connect(
        server,
        asks_to_slow_down=slows_down,
        serves_others=Others(served=False),
        request_retries=1,
        retry_deadline_seconds=1.0,
    )
    assert (await client.send(get("/b/bad"))).retries > http_client.LASTING_RETRIES


async def test_a_connection_that_does_not_come_about_is_no_fault_of_the_request(
    connect: Connect,
) -> None:
    others = Others(served=True)
    client = connect("http://no-such-host.invalid", serves_others=others, request_retries=4)
    with pytest.raises(errors.TransportError, match="gave up after 4 retries"):
        await client.send(get("/b/bad"))
    assert others.asked == 0


UNREADABLE = b"HTTP/1.1 200 OK\r\nX-Amz-Meta-Q: a\x0bb\r\nContent-Length: 0\r\n\r\n"


async def test_so_is_an_answer_with_a_header_that_no_parser_takes(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(answering(UNREADABLE))
    others = Others(served=True)
    client = connect(server, serves_others=others, request_retries=5)
    with pytest.raises(errors.MalformedAnswer, match=r"X-Amz-Meta-Q.+ 2 retries"):
        await client.send(get("/b/bad"))
    assert others.asked == 1


async def test_a_server_that_serves_nobody_gets_all_retries(serve: Serve, connect: Connect) -> None:
    server = await serve(answering(BROKEN))
    others = Others(served=False)
    client = connect(server, serves_others=others, request_retries=5)
    assert (await client.send(get("/b/bad"))).retries == 5
    assert others.asked >= 1


@pytest.mark.parametrize(
    "answers",
    [
        [SLOW_DOWN] * 4 + [answer()],
        [UNAVAILABLE, SLOW_DOWN] * 2 + [answer()],
        [answer(status="500 A"), answer(status="502 B")] * 2 + [answer()],
        [BROKEN, BROKEN, answer()],
    ],
)
async def test_what_is_not_the_same_error_again_and_again_is_waited_for(
    serve: Serve, connect: Connect, answers: list[bytes]
) -> None:
    server = await serve(answering(*answers))
    others = Others(served=True)
    client = connect(server, asks_to_slow_down=slows_down, serves_others=others, request_retries=5)
    response = await client.send(get("/b/bad"))
    assert (response.status, response.retries) == (200, len(answers) - 1)


async def test_while_others_are_under_way_a_lasting_error_gets_all_retries(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "BACKOFF_BASE_SECONDS", 0.02)
    monkeypatch.setattr(http_client, "QUIET_SECONDS", 30.0)  # a busy machine answers late

    async def by_path(peer: Peer) -> None:
        while True:
            request = await peer.request()
            await peer.send(BROKEN if b"/b/bad" in request.line else answer(b"fine"))

    server = await serve(by_path)
    others = Others(served=True)
    client = connect(server, serves_others=others, request_retries=5)
    bad = asyncio.ensure_future(client.send(get("/b/bad")))
    while not bad.done():
        await client.send(get("/b/good"))
        await asyncio.sleep(0)
    assert ((await bad).retries, others.asked) == (5, 0)


async def test_every_send_is_signed_anew(serve: Serve, connect: Connect) -> None:
    sends = 0

    def sign(_: Request) -> str:
        nonlocal sends
        sends += 1
        return header_lines({"authorization": f"send {sends}"})

    server = await serve(answering(answer(status="500 X"), answer(status="500 X"), answer()))
    request = get()
    await connect(server, sign=sign, request_retries=5).send(request)
    assert [received.head.split(b"authorization: ")[1][:6] for received in server.requests] == [
        b"send 1",
        b"send 2",
        b"send 3",
    ]
    assert request.headers == {}


async def test_mixed_failures_share_one_budget(serve: Serve, connect: Connect) -> None:
    server = await serve(once(b""), once(answer(status="500 X")), once(b"HTTP/1.1 2"))
    client = connect(server, request_retries=2)
    with pytest.raises(errors.TransportError, match="gave up after 2 retries"):
        await client.send(get())
    assert len(server.requests) == 3


@given(st.integers(1, 10_000), FRACTIONS)
def test_backoff_stays_below_the_cap(retry: int, fraction: float) -> None:
    assert 0 <= backoff_seconds(retry, fraction) < BACKOFF_CAP_SECONDS


@given(st.integers(1, 10_000), FRACTIONS)
def test_backoff_never_shrinks_with_retries(retry: int, fraction: float) -> None:
    assert backoff_seconds(retry, fraction) <= backoff_seconds(retry + 1, fraction)


@given(st.integers(1, 100), FRACTIONS, FRACTIONS)
def test_backoff_is_spread_over_its_whole_range(retry: int, low: float, high: float) -> None:
    low, high = sorted((low, high))
    assert backoff_seconds(retry, 0) == 0
    assert backoff_seconds(retry, low) <= backoff_seconds(retry, high)


def http_date(moment: datetime) -> str:
    return email.utils.format_datetime(moment, usegmt=True)


NOON = datetime(2030, 6, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "3600"}, RETRY_AFTER_CAP_SECONDS),
        ({"retry-after": "9" * 5000}, RETRY_AFTER_CAP_SECONDS),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "1.5"}, None),
        ({"retry-after": "²"}, None),
        ({"retry-after": "soon"}, None),
        (
            {
                "retry-after": http_date(NOON + timedelta(seconds=9)),
                "date": http_date(NOON),
            },
            9,
        ),
        ({"retry-after": http_date(NOON), "date": http_date(NOON + timedelta(hours=1))}, 0),
        ({"retry-after": "Sat, 01 Jan 2000 00:00:00 GMT"}, 0),
        ({"retry-after": "Sat, 01 Jan 2000 00:00:00 -0000"}, 0),
        ({"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT"}, RETRY_AFTER_CAP_SECONDS),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers) == seconds


@given(st.text())
def test_retry_after_bears_anything(value: str) -> None:
    seconds = retry_after_seconds({"retry-after": value, "date": value})
    assert seconds is None or 0 <= seconds <= RETRY_AFTER_CAP_SECONDS


def test_pause_is_at_least_what_the_server_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "BACKOFF_BASE_SECONDS", 1.0)
    asked = Response(503, {"retry-after": "4"}, [], 0)
    pauses = [http_client._pause_seconds(2, asked) for _ in range(50)]
    assert all(4 <= pause < 6 for pause in pauses)
    assert len(set(pauses)) > 1
    assert http_client._pause_seconds(1, Response(503, {}, [], 0)) < 1
    assert http_client._pause_seconds(1, errors.TransportError("reset")) < 1


def test_options_come_from_the_settings() -> None:
    settings = Settings(in_flight_requests=7, idle_timeout_seconds=3.0, request_retries=1)
    options = TransportOptions.from_settings(settings)
    assert options.max_connections == 7
    assert options.idle_timeout_seconds == 3.0
    assert options.request_retries == 1
    assert options.allow_private_endpoints is False
