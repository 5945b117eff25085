"""Origins, the endpoint policy, and which address a connection goes to."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from slurper import errors
from slurper.http.dialer import Dialer, Origin, refusal
from tests.unit.http.conftest import Connect, Serve, get
from tests.unit.http.scripted import answer, answering

REFUSED = [
    "0.0.0.0",  # noqa: S104 - an address to refuse
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a9fe:a9fe",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:808:808::1",
    "3fff::1",
    "4000::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
ALLOWED = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", REFUSED)
def test_addresses_that_are_not_global_are_refused(address: str) -> None:
    assert refusal(address) is not None


@pytest.mark.parametrize("address", ALLOWED)
def test_global_addresses_are_allowed(address: str) -> None:
    assert refusal(address) is None


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.1", "0x7f.1", "2130706433", "0", "[::ffff:127.0.0.1]"]
)
async def test_every_spelling_of_this_machine_is_refused(
    serve: Serve, connect: Connect, host: str
) -> None:
    server = await serve(answering(answer()))
    client = connect(f"http://{host}:{server.port}", trusted=False, request_retries=5)
    with pytest.raises(errors.EndpointRefused, match="SLURPER_ALLOW_PRIVATE_ENDPOINTS") as caught:
        await client.send(get())
    assert host in str(caught.value)
    assert server.connections == 0
    assert client.statistics.retries == 0
    assert caught.value.blocks_job


async def test_refusal_names_host_and_address(connect: Connect) -> None:
    with pytest.raises(errors.EndpointRefused) as caught:
        await connect("http://localhost:81", trusted=False).send(get())
    assert "localhost:81 is at " in str(caught.value)
    assert "a loopback address" in str(caught.value)


@pytest.mark.parametrize("how", ["trusted", "allowed"])
async def test_private_addresses_by_permission(serve: Serve, connect: Connect, how: str) -> None:
    server = await serve(answering(answer()))
    client = connect(server, trusted=how == "trusted", allow_private_endpoints=how == "allowed")
    assert (await client.send(get())).status == 200


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let this loop's name server give these answers in turn; returns the log of questions."""
    loop = asyncio.get_running_loop()
    asked: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:  # noqa: ANN401
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        if host[0].isdecimal():  # a loop may pass what it connects to through here once more
            return [(*kind, (host, port))]
        asked.append(host)
        addresses = answers[min(len(asked), len(answers)) - 1]
        return [(*kind, (address, port)) for address in addresses]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    return asked


async def test_name_is_resolved_once_so_rebinding_cannot_pass(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await serve(answering(answer()))
    asked = resolving(monkeypatch, ["127.0.0.1"], ["127.0.0.99"])
    response = await connect(f"http://rebind.test:{server.port}").send(get())
    assert response.status == 200
    assert asked.count("rebind.test") == 1
    assert server.requests[0].head.split(b"\r\n")[1] == f"host: rebind.test:{server.port}".encode()


async def test_only_global_addresses_of_a_name_are_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolving(monkeypatch, ["127.0.0.1", "192.168.0.1"], ["10.0.0.1", "8.8.8.8", "1.1.1.1"])
    dialer = Dialer(
        Origin.parse("http://mixed.test"), tls=None, connect_timeout_seconds=1, any_address=False
    )
    with pytest.raises(errors.EndpointRefused):
        await dialer._resolve()
    assert [address.ip for address in await dialer._resolve()] == ["8.8.8.8", "1.1.1.1"]


async def test_addresses_are_tried_in_order(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await serve(answering(answer()))
    resolving(monkeypatch, ["127.0.0.2", "127.0.0.1"])
    client = connect(f"http://two.test:{server.port}")
    assert (await client.send(get())).status == 200


async def test_error_names_every_address_tried(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    resolving(monkeypatch, ["127.0.0.2", "127.0.0.1"])
    with pytest.raises(
        errors.TransportError, match=r"127\.0\.0\.2 Connection refused, 127\.0\.0\.1 "
    ):
        await connect(f"http://two.test:{port}").send(get())


@pytest.mark.parametrize(
    ("text", "authority", "peer"),
    [
        ("http://Store.Example", "store.example", "store.example:80"),
        ("https://store.example/", "store.example", "store.example:443"),
        ("https://store.example:443", "store.example", "store.example:443"),
        ("https://my_bucket.s3.test:9000", "my_bucket.s3.test:9000", "my_bucket.s3.test:9000"),
        ("http://[::1]:9000", "[::1]:9000", "[::1]:9000"),
        ("https://[2001:db8::1]", "[2001:db8::1]", "[2001:db8::1]:443"),
    ],
)
def test_origins(text: str, authority: str, peer: str) -> None:
    origin = Origin.parse(text)
    assert (origin.authority, origin.peer) == (authority, peer)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "store.example",
        "ftp://store.example",
        "http://",
        "http://store.example/bucket",
        "http://store.example?x",
        "http://store.example#x",
        "http://user:secret@store.example",
        "http://store.example:port",
        "http://store.example:99999",
        "http://store example",
        "http://store.example\r\nx: y",
        "http://-store.example",
        "http://[::1",
        "http://b\u00fccket.example",
        "http://store.example%00.evil",
    ],
)
def test_what_is_no_origin_is_refused(connect: Connect, text: str) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        connect(text)
    assert "secret" not in str(caught.value)
