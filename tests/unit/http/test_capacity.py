"""What all pools of a process may have together, and what happens when that is too little."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections import Counter

import pytest

from slurper import descriptors, errors
from slurper.http import capacity, dialer
from slurper.http.capacity import Capacity
from slurper.http.client import HttpClient
from tests.unit.http.conftest import Connect, Serve, get, put
from tests.unit.http.scripted import Peer, Script, answer, answering, silent
from tests.unit.http.test_pool import until


class Shelf:
    """A pool as `Capacity` sees it."""

    def __init__(self, capacity: Capacity, *ages: float) -> None:
        self.idle = [time.monotonic() - ago for ago in ages]
        self._capacity = capacity
        capacity.keepers.add(self)
        capacity.taken += len(ages)

    @property
    def idle_since(self) -> float:
        return min(self.idle, default=float("inf"))

    is_busy = False

    def close_oldest(self) -> None:
        self.idle.remove(self.idle_since)
        asyncio.get_running_loop().call_soon(self._capacity.give_back)


def in_time() -> float:
    return asyncio.get_running_loop().time() + 60


async def test_the_oldest_idle_connection_goes_in_whichever_pool_it_is() -> None:
    room = Capacity(8)
    one, other = Shelf(room, 7.0, 3.0, -60.0), Shelf(room, 6.0, 5.0, 4.0, 1.0)
    young, middle = one.idle[1:], other.idle[2:]
    await room.take("peer", in_time())
    assert len(one.idle) + len(other.idle) == 7
    for left in (6, 5, 4):
        await room.take("peer", in_time())
        assert len(one.idle) + len(other.idle) == left
        assert room.taken == room.most == 8
    assert (one.idle, other.idle) == (young, middle)
    for _ in range(3):
        await room.take("peer", in_time())
    soon = asyncio.get_running_loop().time() + 0.001
    with pytest.raises(errors.TooManyOpenFiles):
        await room.take("peer", soon)
    assert one.idle == young[1:], "a pool that is busy has lost a connection"


async def test_a_place_that_is_given_back_goes_to_who_has_waited_longest() -> None:
    room = Capacity(8)
    for _ in range(room.most):
        await room.take("peer", in_time())
    order: list[int] = []

    async def wait(number: int) -> None:
        await room.take("peer", in_time())
        order.append(number)

    waits = [asyncio.create_task(wait(number)) for number in range(4)]
    await asyncio.sleep(0)
    waits[1].cancel()
    room.give_back()
    waits[0].cancel()  # in the turn in which its place came
    room.give_back()
    room.give_back()
    await asyncio.gather(*waits, return_exceptions=True)
    assert order in ([2, 3], [0, 2, 3])
    assert not room.waiting
    assert room.taken == room.most - 3 + len(order)


async def test_who_waits_in_vain_is_told_the_true_cause() -> None:
    room = Capacity(0)
    for _ in range(room.most):
        await room.take("peer", in_time())
    soon = asyncio.get_running_loop().time() + 0.01
    with pytest.raises(errors.TooManyOpenFiles, match=r"host:9000: too many open files") as caught:
        await room.take("host:9000", soon)
    assert "ulimit -n" in caught.value.advice
    assert caught.value.blocks_job
    assert not room.waiting


async def test_the_capacity_follows_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "limit", lambda: 256)
    monkeypatch.setattr(capacity, "_share", 0.75)
    found = capacity.of_process()
    assert (found.most, found.kept) == (192, 192)
    assert capacity.of_process() is found
    assert Capacity(49_152).kept == capacity.MOST_KEPT


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Capacity:
    """The capacity of the process while a test runs: very small."""
    small = Capacity(8)
    monkeypatch.setattr(capacity, "of_process", lambda: small)
    monkeypatch.setattr(capacity, "LOOK_SECONDS", 0.01)
    return small


async def test_pools_used_in_a_row_have_no_more_connections_than_there_may_be(
    serve: Serve, connect: Connect, room: Capacity
) -> None:
    server = await serve(answering(answer()))
    clients = [connect(server) for _ in range(12)]
    for client in clients:
        await asyncio.gather(*(client.send(get()) for _ in range(3)))
        assert room.taken <= room.most
    kept = [len(client._pool._idle) for client in clients]
    assert kept == [0] * 9 + [2, 3, 3]
    assert all(client._pool._free_slots == 64 - len(client._pool._idle) for client in clients)


class Busy:
    """How many connections are served at the same time, and the most there were."""

    def __init__(self) -> None:
        self.now = Counter[str]()
        self.most = 0

    def script(self) -> Script:
        async def serve(peer: Peer) -> None:
            self.now["open"] += 1
            self.most = max(self.most, self.now["open"])
            try:
                while True:
                    await peer.request()
                    await asyncio.sleep(0.002)
                    await peer.send(answer(b"here"))
            finally:
                self.now["open"] -= 1

        return serve


async def test_pools_that_want_more_than_there_is_get_their_shares(
    serve: Serve, connect: Connect, room: Capacity
) -> None:
    """Nobody fails, nobody starves, and they do not close each other's connections all the time."""
    busy = Busy()
    server = await serve(busy.script())
    clients = [connect(server) for _ in range(4)]

    async def use(client: HttpClient) -> None:
        for _ in range(20):
            assert (await client.send(get())).status == 200

    await asyncio.gather(*(use(client) for client in clients for _ in range(6)))
    assert len(server.requests) == 4 * 6 * 20
    assert room.taken <= room.most
    assert busy.most <= room.most + 4  # a server sees the end of a connection a little later
    assert server.connections <= 60, "they close each other's connections all the time"
    assert not room.waiting


async def test_more_pools_than_places_take_turns(
    serve: Serve, connect: Connect, room: Capacity
) -> None:
    busy = Busy()
    server = await serve(busy.script())
    clients = [connect(server) for _ in range(20)]

    async def use(client: HttpClient) -> None:
        for _ in range(5):
            await client.send(get())

    await asyncio.gather(*(use(client) for client in clients for _ in range(3)))
    assert len(server.requests) == 20 * 5 * 3
    assert room.taken <= room.most
    assert not room.waiting


async def test_a_pool_that_came_first_gives_way_to_others(
    serve: Serve, connect: Connect, room: Capacity
) -> None:
    busy = Busy()
    server = await serve(busy.script())
    greedy, late = connect(server), connect(server)
    ended = asyncio.Event()

    async def use_up() -> None:
        while not ended.is_set():
            await greedy.send(get())

    taking = [asyncio.create_task(use_up()) for _ in range(30)]
    await until(lambda: room.taken == room.most)
    await asyncio.gather(*(late.send(get()) for _ in range(20)))
    ended.set()
    await asyncio.gather(*taking)
    assert not room.waiting


async def test_a_request_that_needs_a_new_connection_replaces_one_of_its_pool(
    serve: Serve, connect: Connect, room: Capacity
) -> None:
    server = await serve(answering(answer()))
    first, other = connect(server), connect(server)
    await asyncio.gather(*(first.send(get()) for _ in range(4)))
    await asyncio.gather(*(other.send(get()) for _ in range(4)))
    assert room.taken == room.most
    async with asyncio.timeout(10):
        for _ in range(3):
            await first.send(put(b"x", idempotent=False))
    assert len(first._pool._idle) + len(other._pool._idle) == room.taken <= room.most


@pytest.mark.usefixtures("room")
async def test_nothing_is_opened_ahead_when_places_are_short(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(answering(answer()))
    first, other = connect(server), connect(server, connections_ahead=16)
    await asyncio.gather(*(first.send(get()) for _ in range(8)))
    await other.send(get())
    other._pool.open_ahead(16)
    assert not other._pool._ahead
    assert len(first._pool._idle) == 7


async def test_places_of_what_fails_or_is_cancelled_are_given_back(
    serve: Serve, connect: Connect, room: Capacity
) -> None:
    away = connect("http://127.0.0.1:9")
    for _ in range(20):
        with pytest.raises(errors.TransportError):
            await away.send(get())
    mute = connect(await serve(silent))
    for _ in range(20):
        asking = asyncio.create_task(mute.send(get()))
        await until(lambda: bool(mute._pool._open))
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        begun = asyncio.create_task(mute.send(get()))
        await asyncio.sleep(0)
        begun.cancel()
        await asyncio.gather(begun, return_exceptions=True)
    await until(lambda: room.taken == 0)
    assert not room.keepers


class Refusing:
    """A system without file descriptors, for so many sockets or for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: float, number: int) -> None:
        self.asked = 0
        real = socket.socket

        def refuse(*arguments: int) -> socket.socket:
            self.asked += 1
            if self.asked <= times:
                raise OSError(number, "none left")
            return real(*arguments)

        patched = type("Patched", (), {**vars(socket), "socket": staticmethod(refuse)})
        monkeypatch.setattr(dialer, "socket", patched)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
async def test_a_request_waits_for_a_descriptor_and_idle_connections_make_room(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(capacity, "PAUSE_SECONDS", 0.01)
    server = await serve(answering(answer()))
    idle, client = connect(server), connect(server)
    await asyncio.gather(*(idle.send(get()) for _ in range(3)))
    refusing = Refusing(monkeypatch, 20, number)
    assert (await client.send(get())).status == 200
    assert refusing.asked == 21
    assert client.statistics.retries == 0
    assert not idle._pool._idle


async def test_a_lasting_want_of_descriptors_is_named_and_is_no_fault_of_the_store(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "PAUSE_SECONDS", 0.01)
    Refusing(monkeypatch, float("inf"), errno.EMFILE)
    client = connect(
        await serve(answering(answer())),
        connect_timeout_seconds=0.05,
        request_retries=0,
        retry_deadline_seconds=0.5,
    )
    began = time.monotonic()
    with pytest.raises(errors.TooManyOpenFiles, match=r"too many open files .* gave up after \d+"):
        await client.send(put(b"x", idempotent=False))
    assert time.monotonic() - began >= 0.4, "it has not waited"
    assert client.statistics.retries > 1


async def test_a_name_that_cannot_be_looked_up_for_want_of_descriptors(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "none_left", lambda: True)
    client = connect("http://no-such-host.invalid", connect_timeout_seconds=0.05)
    with pytest.raises(errors.TooManyOpenFiles):
        await client.send_once(get())
