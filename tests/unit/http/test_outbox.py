"""Requests leave together at the end of a turn, each over its own connection."""

from __future__ import annotations

import asyncio

import pytest

from slurper.http.connection import Connection
from slurper.http.exchange import StaleConnection
from slurper.http.messages import Request
from slurper.http.outbox import Outbox


class Wire(asyncio.Transport):
    """Keeps what is written, or refuses it."""

    def __init__(self, refusal: Exception | None = None) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self._refusal = refusal

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._refusal is not None:
            raise self._refusal
        self.written.append(bytes(data))

    def abort(self) -> None:
        pass


def connected(wire: Wire) -> Connection:
    connection = Connection("peer:80", lambda _: None)
    connection.connection_made(wire)
    return connection


async def test_requests_of_one_turn_go_together_and_in_order() -> None:
    outbox, first, second = Outbox(), Wire(), Wire()
    for wire, body in ((first, ()), (second, (b"bo", b"dy"))):
        connection = connected(wire)
        connection.begin(Request("PUT", "/", {}), None)
        outbox.put(connection, b"head ", body)
    assert first.written == second.written == []
    await asyncio.sleep(0)
    assert first.written == [b"head "]
    assert second.written == [b"head body"]


async def test_a_connection_that_was_given_up_sends_nothing() -> None:
    outbox, wire = Outbox(), Wire()
    connection = connected(wire)
    connection.begin(Request("GET", "/", {}), None)
    outbox.put(connection, b"head", ())
    connection.abort()
    await asyncio.sleep(0)
    assert wire.written == []


async def test_a_request_whose_caller_is_cancelled_in_the_same_turn_is_not_sent() -> None:
    outbox, wire = Outbox(), Wire()
    connection = connected(wire)
    answer = connection.begin(Request("PUT", "/", {}), None)
    outbox.put(connection, b"head", ())
    answer.cancel()
    await asyncio.sleep(0)
    assert wire.written == []


@pytest.mark.parametrize("early", [b"HTTP/1.1 200 OK\r\n", b"<Error/>"])
async def test_what_comes_before_the_request_answers_something_else(early: bytes) -> None:
    outbox, wire = Outbox(), Wire()
    connection = connected(wire)
    answer = connection.begin(Request("PUT", "/", {}), None)
    outbox.put(connection, b"head", ())
    connection.data_received(early)
    with pytest.raises(StaleConnection):
        await answer
    assert wire.written == []


async def test_what_one_connection_refuses_concerns_its_request_only() -> None:
    outbox, good = Outbox(), Wire()
    refusing, sound = connected(Wire(OSError("no"))), connected(good)
    refused, kept = (
        refusing.begin(Request("GET", "/", {}), None),
        sound.begin(Request("GET", "/", {}), None),
    )
    outbox.put(refusing, b"head", ())
    outbox.put(sound, b"head", ())
    await asyncio.sleep(0)
    with pytest.raises(OSError, match="no"):
        await refused
    assert good.written == [b"head"]
    assert not kept.done()
