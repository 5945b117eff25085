"""Kept connections: reuse, replacement, fairness, cancellation, closing."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import pytest

from slurper import errors
from slurper.http import client as http_client
from slurper.http import pool as http_pool
from slurper.http.connection import Connection
from tests.unit.http.conftest import Connect, Serve, get, put
from tests.unit.http.scripted import Peer, Script, answer, answering, once, silent


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the pool tells nobody; tests alone want to know
            await asyncio.sleep(0.001)


async def test_connection_used_last_is_used_first(serve: Serve, connect: Connect) -> None:
    """So that those not needed grow old and can be closed."""
    seen: list[int] = []

    def named(name: int) -> Script:
        async def script(peer: Peer) -> None:
            while True:
                await peer.request()
                seen.append(name)
                await peer.send(answer())

        return script

    server = await serve(named(1), named(2))
    client = connect(server)
    await asyncio.gather(client.send(get()), client.send(get()))
    last = seen[-1]
    for _ in range(3):
        await client.send(get())
    assert server.connections == 2
    assert len(set(seen[2:])) == 1
    assert seen[-1] in (1, 2)
    assert last in (1, 2)


async def test_idle_connection_that_the_server_closed_is_not_used(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(once(answer(b"first")), answering(answer(b"second")))
    client = connect(server)
    await client.send(get())
    await until(lambda: not client._pool._idle)
    response = await client.send(put(b"x", idempotent=False))
    assert b"".join(response.body) == b"second"
    assert [received.line for received in server.requests] == [
        b"GET /b/k HTTP/1.1",
        b"PUT /b/k HTTP/1.1",
    ]


async def test_idle_connection_keeps_no_body(serve: Serve, connect: Connect) -> None:
    """Else as much again as is under way could be held by connections that wait."""
    server = await serve(answering(answer(bytes(300_000))))
    client = connect(server)
    response = await client.send(get())
    (idle,) = client._pool._idle
    assert idle.exchange.response.body is not response.body
    for chunk in response.body:
        assert [holder for holder in gc.get_referrers(chunk) if holder is not response.body] == []


def dying(*, reset: bool) -> Script:
    """Answer once, keep the connection, and end it on the next request without a word."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"first"))
        await peer.head()
        if reset:
            peer.reset()

    return script


@pytest.mark.parametrize("reset", [True, False])
async def test_kept_connection_found_dead_is_replaced_once_uncounted(
    serve: Serve, connect: Connect, reset: bool
) -> None:
    server = await serve(dying(reset=reset), answering(answer(b"second")))
    client = connect(server, request_retries=0)
    await client.send(get())
    response = await client.send(get())
    assert (b"".join(response.body), response.retries) == (b"second", 0)
    assert client.statistics.retries == 0
    assert client.statistics.requests == 2


async def test_replacement_that_fails_too_is_an_error(serve: Serve, connect: Connect) -> None:
    server = await serve(dying(reset=True), once(b""))
    client = connect(server)
    await client.send(get())
    with pytest.raises(errors.TransportError):
        await client.send(get())
    assert server.connections == 2


async def test_replacement_does_not_use_another_kept_connection(
    serve: Serve, connect: Connect
) -> None:
    """When one kept connection is dead the others very likely are as well."""
    together = asyncio.Barrier(2)

    async def script(peer: Peer) -> None:
        await peer.request()
        await together.wait()
        await peer.send(answer(b"first"))
        await peer.head()
        peer.reset()

    server = await serve(script, script, answering(answer(b"second")))
    client = connect(server, max_connections=2)
    await asyncio.gather(client.send(get()), client.send(get()))
    assert b"".join((await client.send(get())).body) == b"second"
    assert server.connections == 3


async def test_request_that_must_not_be_repeated_gets_a_new_connection(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(dying(reset=True), answering(answer(b"second")))
    client = connect(server, max_connections=1)
    await client.send(get())
    response = await client.send(put(b"x", idempotent=False))
    assert b"".join(response.body) == b"second"
    assert len(server.requests) == 2


async def test_limit_of_connections(serve: Serve, connect: Connect) -> None:
    server = await serve(answering(answer()))
    client = connect(server, max_connections=2)
    targets = [f"/b/{number}" for number in range(20)]
    await asyncio.gather(*[client.send(get(target)) for target in targets])
    assert server.connections == 2
    assert {received.line.split()[1].decode() for received in server.requests} == set(targets)


async def test_new_callers_do_not_overtake_those_who_wait(serve: Serve, connect: Connect) -> None:
    server = await serve(answering(answer()))
    client = connect(server, max_connections=1)
    finished: list[str] = []

    async def caller(name: str) -> None:
        for number in range(3):
            await client.send(get(f"/{name}/{number}"))
            finished.append(name)

    await asyncio.gather(caller("a"), caller("b"), caller("c"))
    assert finished == ["a", "b", "c"] * 3


async def test_slot_is_passed_on_when_a_connection_ends(serve: Serve, connect: Connect) -> None:
    server = await serve(once(answer(b"x", "Connection: close")))
    client = connect(server, max_connections=1)
    responses = await asyncio.gather(*[client.send(get()) for _ in range(5)])
    assert [response.status for response in responses] == [200] * 5
    assert server.connections == 5


async def test_slot_is_passed_on_when_connecting_fails(connect: Connect) -> None:
    client = connect("http://no-such-host.invalid", max_connections=1)
    outcomes = await asyncio.gather(*[client.send(get()) for _ in range(3)], return_exceptions=True)
    assert all(isinstance(outcome, errors.TransportError) for outcome in outcomes)


async def test_cancelled_request_takes_its_connection_along(serve: Serve, connect: Connect) -> None:
    reached = asyncio.Event()
    ended = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        reached.set()
        await peer.wait_for_end()
        ended.set()

    server = await serve(script, answering(answer(b"second")))
    client = connect(server, max_connections=1)
    task = asyncio.create_task(client.send(get()))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ended.wait()
    assert b"".join((await client.send(get())).body) == b"second"
    assert server.connections == 2


async def test_cancelled_upload_takes_its_connection_along(serve: Serve, connect: Connect) -> None:
    reached = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        reached.set()
        await asyncio.sleep(3600)

    server = await serve(script, answering(answer(b"second")))
    client = connect(server, max_connections=1)
    task = asyncio.create_task(client.send(put(*[bytes(1 << 20)] * 32)))
    await reached.wait()
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert b"".join((await client.send(get())).body) == b"second"


async def test_cancelled_while_connecting_gives_the_slot_back(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(answering(answer()))
    client = connect(server, max_connections=1)
    for _ in range(3):
        task = asyncio.create_task(client.send(get()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (await client.send(get())).status == 200


async def test_cancelled_waiter_does_not_swallow_a_connection(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(answering(answer()))
    client = connect(server, max_connections=1)
    first = asyncio.create_task(client.send(get("/first")))
    second = asyncio.create_task(client.send(get("/second")))
    third = asyncio.create_task(client.send(get("/third")))
    # Cancelled in the very turn in which the first hands its connection over.
    first.add_done_callback(lambda _: second.cancel())
    assert (await first).status == 200
    assert (await third).status == 200
    assert second.cancelled() or (await second).status == 200
    waiting = [asyncio.create_task(client.send(get(f"/{number}"))) for number in range(4)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(outcomes[1], asyncio.CancelledError)
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 3


async def test_close_ends_requests_under_way_and_those_that_wait(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(silent)
    client = connect(server, max_connections=1, request_retries=5)
    tasks = [asyncio.create_task(client.send(get())) for _ in range(3)]
    await until(lambda: bool(client._pool._open))
    await client.close()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all("the client was closed" in str(outcome) for outcome in outcomes)
    with pytest.raises(errors.TransportError, match="the client was closed"):
        await client.send(get())
    await client.close()


async def test_close_while_connecting(serve: Serve, connect: Connect) -> None:
    client = connect(await serve(silent), request_retries=5)
    task = asyncio.create_task(client.send(get()))
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(errors.TransportError, match="the client was closed"):
        await task


async def test_connections_nobody_needs_are_closed(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_pool, "KEEP_SECONDS", 0.2)
    ended = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer())
        await peer.wait_for_end()
        ended.set()

    server = await serve(script, answering(answer(b"second")))
    client = connect(server, idle_timeout_seconds=0.2)
    await client.send(get())
    await ended.wait()
    await until(lambda: not client._pool._idle)
    assert client._pool._timer is None or not client._pool._open
    assert b"".join((await client.send(get())).body) == b"second"


async def far(peer: Peer) -> None:
    """Answer later than a server that is near."""
    while True:
        await peer.request()
        await asyncio.sleep(3 * http_client.FAR_SECONDS)  # timers may be early
        await peer.send(answer(b"far"))


async def test_connections_to_a_far_server_are_opened_before_they_are_needed(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(far)
    client = connect(server, connections_ahead=5)
    await client.send(get())
    await until(lambda: len(client._pool._idle) == 5)
    await asyncio.gather(*(client.send(get()) for _ in range(5)))
    await client.send(get())
    assert server.connections == 5


async def test_no_more_are_opened_ahead_than_may_be_lent(serve: Serve, connect: Connect) -> None:
    server = await serve(far)
    client = connect(server, connections_ahead=5, max_connections=3)
    await client.send(get())
    await until(lambda: len(client._pool._idle) == server.connections == 3)
    await until(lambda: not client._pool._ahead)
    assert client._pool._free_slots == 0


async def test_connections_ahead_that_fail_disturb_nobody(serve: Serve, connect: Connect) -> None:
    server = await serve(far)
    client = connect(server, connections_ahead=5, max_connections=5)
    asked = asyncio.create_task(client.send(get()))
    await until(lambda: bool(server.requests))
    server._server.close()  # it listens no more, and goes on with the connection that it has
    await asked
    await until(lambda: not client._pool._ahead)
    assert (client._pool._lent, client._pool._free_slots) == (0, 4)
    assert b"".join((await client.send(get())).body) == b"far"


async def test_a_connection_that_was_opened_ahead_and_died_is_replaced_once_uncounted(
    serve: Serve, connect: Connect
) -> None:
    async def close_when_asked(peer: Peer) -> None:
        await peer.head()

    server = await serve(far, close_when_asked, far)
    client = connect(server, connections_ahead=2, request_retries=0)
    await client.send(get())
    await until(lambda: len(client._pool._idle) == server.connections == 2)
    first, second = await asyncio.gather(client.send(get()), client.send(get()))
    assert (first.status, second.status) == (200, 200)
    assert client.statistics.retries == 0
    assert server.connections == 3


async def test_a_server_that_serves_one_connection_at_a_time_is_not_given_another(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(far, silent)
    client = connect(server, connections_ahead=3)
    await client.send(get())
    await until(lambda: len(client._pool._idle) == server.connections == 3)
    for _ in range(3):
        assert (await client.send(get())).status == 200


async def test_close_fails_those_who_wait_before_it_ends_what_is_opened_ahead(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await serve(far)
    client = connect(server, connections_ahead=3, max_connections=3)
    await client.send(get())
    await until(lambda: not client._pool._ahead)
    idle = client._pool.take()
    assert idle is not None
    client._pool.discard(idle)
    missing = (
        3 - client._pool._open_count
    )  # one, unless the machine was too busy to open the others
    dialled: list[object] = []
    dial = client._pool._dialer.dial

    async def slow_dial(on_lost: Callable[[Connection], None]) -> Connection:
        dialled.append(on_lost)
        await asyncio.sleep(60)
        return await dial(on_lost)

    monkeypatch.setattr(client._pool._dialer, "dial", slow_dial)
    client._pool.open_ahead(3)
    waiting = [asyncio.create_task(client.send(get())) for _ in range(4)]
    await until(lambda: bool(client._pool._waiting) and bool(dialled))
    async with asyncio.timeout(10):
        await client.close()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert len(dialled) == missing
    assert any(isinstance(one, http_pool.PoolClosed) for one in ended)
    client._pool.open_ahead(3)
    assert not client._pool._ahead


async def test_close_ends_connections_that_are_opened_ahead(serve: Serve, connect: Connect) -> None:
    server = await serve(far)
    client = connect(server, connections_ahead=5)
    await client.send(get())
    assert client._pool._ahead
    await client.close()
    assert not client._pool._ahead
    assert not client._pool._open


async def test_clients_that_share_their_pools_use_each_others_connections(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(answering(*(answer(b"x") for _ in range(3))))
    pools = http_pool.Pools()
    one, other = (connect(server, pools=pools) for _ in range(2))
    await one.send(get())
    await other.send(get())
    await one.close()
    await other.send(get())
    assert server.connections == 1
    await pools.close()
    assert not other._pool._open


async def test_clients_of_another_policy_share_no_connections(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(answering(answer(b"x")))
    pools = http_pool.Pools()
    await connect(server, pools=pools).send(get())
    with pytest.raises(errors.EndpointRefused):
        await connect(server, pools=pools, trusted=False).send(get())
    await pools.close()
