"""A line must delay and bound what passes over it, and change none of it."""

from __future__ import annotations

import random
import select
import socket
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest
from benchmarks import companion
from benchmarks.datasets import Dataset, write
from benchmarks.lines import LARGEST_PIECE_BYTES, SMALLEST_PIECE_BYTES, Line, Way
from benchmarks.listing import Listing
from hypothesis import given
from hypothesis import strategies as st

if not hasattr(select, "epoll"):
    pytest.skip("the forwarder needs Linux", allow_module_level=True)

from benchmarks.delay import WINDOW_BYTES, distant

ENDLESS_SECONDS = 10_000.0
PATIENCE_SECONDS = 60.0
A_MOMENT_SECONDS = 0.4

pieces = st.lists(
    st.tuples(st.floats(0, 10), st.integers(0, LARGEST_PIECE_BYTES)), min_size=1, max_size=40
)
"""Seconds since the piece before, and bytes."""
rates = st.floats(1e3, 1e10)
round_trips = st.floats(0, 2)


def _arrivals(line: Line, gaps: list[tuple[float, int]]) -> list[tuple[float, float, int]]:
    """When each piece was taken in, when it arrived, and its bytes."""
    way = Way(line)
    times = accumulate(gap for gap, _ in gaps)
    return [(now, way.take(now, size), size) for now, (_, size) in zip(times, gaps, strict=True)]


@given(pieces, round_trips)
def test_an_unlimited_way_only_delays(gaps: list[tuple[float, int]], round_trip: float) -> None:
    for now, arrives, _ in _arrivals(Line(round_trip), gaps):
        assert arrives == now + round_trip / 2


@given(pieces, round_trips, rates)
def test_no_span_of_time_brings_more_than_the_bandwidth(
    gaps: list[tuple[float, int]], round_trip: float, rate: float
) -> None:
    passed = _arrivals(Line(round_trip, rate), gaps)
    for first in range(len(passed)):
        sizes = accumulate(size for _, _, size in passed[first + 1 :])
        for (_, arrives, _), size in zip(passed[first + 1 :], sizes, strict=True):
            assert (arrives - passed[first][1]) * rate >= size - 1e-3 - 1e-9 * arrives * rate


@given(pieces, round_trips, rates)
def test_a_way_carries_whenever_there_is_something_to_carry(
    gaps: list[tuple[float, int]], round_trip: float, rate: float
) -> None:
    free_at = 0.0
    for now, arrives, size in _arrivals(Line(round_trip, rate), gaps):
        free_at = max(now, free_at) + size / rate
        assert arrives == pytest.approx(free_at + round_trip / 2)


@given(st.none() | rates)
def test_a_piece_is_neither_less_than_a_packet_nor_more_than_a_buffer(rate: float | None) -> None:
    assert SMALLEST_PIECE_BYTES <= Line(0, rate).piece_bytes <= LARGEST_PIECE_BYTES


@contextmanager
def _echo() -> Iterator[str]:
    """A server that sends back what it is sent, and then says that nothing follows."""

    def answer(end: socket.socket) -> None:
        with end:
            while heard := end.recv(1 << 16):
                end.sendall(heard)
            end.shutdown(socket.SHUT_WR)

    def serve() -> None:
        while True:
            try:
                end, _ = listener.accept()
            except OSError:  # closed
                return
            pool.submit(answer, end)

    with ThreadPoolExecutor(8) as pool, socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _connect(url: str, patience_seconds: float = PATIENCE_SECONDS) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=patience_seconds)


def _echoed(url: str, sent: bytes, *, slowly: bool = False) -> bytes:
    def send() -> None:
        end.sendall(sent)
        end.shutdown(socket.SHUT_WR)

    heard = bytearray()
    with _connect(url) as end:
        if slowly:  # the less it takes at once, the more often the forwarder must wait for it
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        thread = Thread(target=send)
        thread.start()
        while chunk := end.recv(1 << 16):
            heard += chunk
        thread.join()
    return bytes(heard)


@pytest.mark.parametrize(
    "line",
    [Line(0), Line(0.05), Line(0.001, 40e6), Line(0.03, 20e6)],
    ids=["nothing", "delay", "narrow", "both"],
)
def test_what_passes_over_a_line_arrives_intact(line: Line) -> None:
    sizes = (0, 1, 1_000, WINDOW_BYTES + 7, 2 * WINDOW_BYTES)
    sent = [random.Random(size).randbytes(size) for size in sizes]  # noqa: S311 - only bytes
    with _echo() as url, distant([url], line) as (far,), ThreadPoolExecutor(len(sent)) as pool:
        assert list(pool.map(lambda each: _echoed(far, each), sent)) == sent


def test_a_slow_receiver_gets_everything() -> None:
    sent = random.Random(1).randbytes(4 * WINDOW_BYTES)  # noqa: S311 - only bytes
    with _echo() as url, distant([url], Line(0.001)) as (far,):
        assert _echoed(far, sent, slowly=True) == sent


def test_a_receiver_that_takes_nothing_stops_the_sender() -> None:
    too_much = bytes(256 << 20)  # far above the window and what sockets hold
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with (
            distant([url], Line(0)) as (far,),
            _connect(far, 5 * A_MOMENT_SECONDS) as end,
            pytest.raises(TimeoutError),
        ):
            end.sendall(too_much)


def test_each_endpoint_has_its_own_address(tmp_path: Path) -> None:
    folder = write(Dataset(25, 10), tmp_path)
    with companion.serve(tmp_path / "data") as server, _echo() as url:
        urls = [url, f"http://127.0.0.1:{server.server_port}"]
        with distant(urls, Line(0.01)) as (echo, listing):
            assert _echoed(echo, b"hello") == b"hello"
            with urllib.request.urlopen(f"{listing}/{folder.name}?list-type=2", timeout=10) as page:  # noqa: S310
                assert page.read() == Listing(folder).page({})


@pytest.mark.parametrize(
    "line", [Line(ENDLESS_SECONDS), Line(0, 1e-3)], ids=["endless", "next to no bandwidth"]
)
def test_nothing_arrives_before_the_line_has_carried_it(line: Line) -> None:
    with _echo() as url, distant([url], line) as (far,), _connect(far, A_MOMENT_SECONDS) as end:
        for _ in range(3):  # each one wakes the forwarder, which may pass on what came before
            end.sendall(b"hello")
            with pytest.raises(TimeoutError):
                end.recv(1)


def test_a_new_connection_takes_a_round_trip_longer() -> None:
    with _echo() as url, distant([url], Line(1.0)) as (far,), _connect(far) as old:
        old.sendall(b"a")
        assert old.recv(1) == b"a"
        with _connect(far) as new:
            new.sendall(b"b")
            old.sendall(b"c")
            assert select.select([old, new], [], [], PATIENCE_SECONDS)[0] == [old]
            assert new.recv(1) == b"b"


def test_an_endpoint_that_is_down_closes_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with distant([url], Line(0.01)) as (far,), _connect(far) as end:
        assert not end.recv(1)
