"""Origins, the endpoint policy, and which address a connection goes to."""

from __future__ import annotations

import logging
import socket

import pytest

from slurper import endpoints, errors
from slurper.endpoints import EndpointPolicy, refusal
from slurper.http import resolver
from slurper.http.dialer import Dialer, Origin
from slurper.http.resolver import Address
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
    with pytest.raises(errors.EndpointRefused) as caught:
        await client.send(get())
    assert host in str(caught.value)
    assert server.connections == 0
    assert client.statistics.retries == 0
    assert caught.value.blocks_job


async def test_a_refusal_tells_the_address_of_a_name_to_the_log_alone(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(errors.EndpointRefused) as caught:
        await connect("http://localhost:81", trusted=False).send(get())
    assert str(caught.value) == "localhost:81 has an address that the endpoint policy forbids"
    assert "127.0.0.1" in caplog.text or "::1" in caplog.text
    with pytest.raises(errors.EndpointRefused, match=r"127\.0\.0\.1:81 is a loopback address that"):
        await connect("http://127.0.0.1:81", trusted=False).send(get())


@pytest.mark.parametrize("how", ["trusted", "allowed"])
async def test_private_addresses_by_permission(serve: Serve, connect: Connect, how: str) -> None:
    server = await serve(answering(answer()))
    client = connect(server, trusted=how == "trusted", allow_private_endpoints=how == "allowed")
    assert (await client.send(get())).status == 200


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let name servers give these answers in turn; returns the log of questions."""
    asked: list[str] = []

    def look_up(host: str) -> list[Address]:
        asked.append(host)
        addresses = answers[min(len(asked), len(answers)) - 1]
        return [Address(socket.AF_INET, (address, 0)) for address in addresses]

    monkeypatch.setattr(resolver, "_look_up", look_up)
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
        Origin.parse("http://mixed.test"),
        tls=None,
        connect_timeout_seconds=5,
        policy=EndpointPolicy(),
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


async def test_an_error_tells_why_no_address_can_be_connected_to_but_no_address(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    resolving(monkeypatch, ["127.0.0.2", "127.0.0.1"])
    with pytest.raises(errors.TransportError) as caught:
        await connect(f"http://two.test:{port}").send(get())
    assert str(caught.value) == f"two.test:{port}: not connected (connect): Connection refused"


# What the operator lists

GUARDED = [
    "100.100.100.200",
    "168.63.129.16",
    "169.254.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "192.0.0.192",
    "::169.254.169.254",
    "::ffff:169.254.169.254",
    "::ffff:0:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "fd00:42::42",
    "fd00:c1::a9fe:a9fe",
    "fd00:ec2::23",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "fe80::a9fe:a9fe",
    "fe80::1%eth0",
    "febf::1",
]


def policy(listed: str = "", *, allow_private: bool = False) -> EndpointPolicy:
    return EndpointPolicy(allow_private=allow_private, listed=endpoints.parse(listed))


def allows(listed: str, address: str, *, host: str = "a.test", port: int = 443) -> bool:
    return policy(listed).refusal(host, address, port) is None


@pytest.mark.parametrize("address", GUARDED)
def test_metadata_and_link_local_addresses_are_refused_unless_they_are_listed_by_themselves(
    address: str,
) -> None:
    everything = "0.0.0.0/0, ::/0, a.test, *.test"
    for rules in (policy(), policy(allow_private=True), policy(everything, allow_private=True)):
        assert rules.refusal("a.test", address, 80) is not None
    assert EndpointPolicy(trusted=True).refusal("a.test", address, 80) is None


@pytest.mark.parametrize(
    ("listed", "address"),
    [
        ("169.254.169.254", "169.254.169.254"),
        ("169.254.169.254/32", "::ffff:169.254.169.254"),
        ("[fd00:ec2::254]:443", "fd00:ec2::254"),
        ("fe80::1", "fe80::1"),
    ],
)
def test_an_address_that_is_listed_by_itself_is_allowed(listed: str, address: str) -> None:
    assert allows(listed, address)
    assert not allows(listed, "169.254.169.253")


@pytest.mark.parametrize("address", [*REFUSED, *ALLOWED])
def test_every_other_address_is_allowed_where_private_ones_are(address: str) -> None:
    refused = policy(allow_private=True).refusal("a.test", address, 443)
    assert (refused is not None) is (address in GUARDED)


@pytest.mark.parametrize(
    "host", ["metadata.google.internal", "Metadata.Google.internal.", "metadata"]
)
def test_names_of_metadata_services_are_refused_whatever_their_address(host: str) -> None:
    assert policy(allow_private=True).refusal(host, "10.0.0.1", 80) is not None
    assert policy().refusal(host, "8.8.8.8", 80) is not None
    assert allows(f"10.0.0.1, {host.lower()}", "10.0.0.1", host=host)
    assert not allows(host, "169.254.169.254", host=host)


@pytest.mark.parametrize(
    ("listed", "host", "address", "port"),
    [
        ("10.0.0.0/8", "a.test", "10.255.0.1", 443),
        ("10.0.0.0/8", "a.test", "::ffff:10.0.0.1", 443),
        (" 10.0.0.0/8:9000 ,", "a.test", "10.0.0.1", 9000),
        ("fd00:1::/64", "a.test", "fd00:1::9", 1),
        ("[fd00:1::/64]:9000", "a.test", "fd00:1::9", 9000),
        ("[::1]", "localhost", "::1", 80),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1", 80),
        ("MinIO.internal:9000", "minio.internal", "192.168.1.1", 9000),
        ("minio.internal", "minio.internal.", "192.168.1.1", 9000),
        ("*.internal", "a.b.internal", "127.0.0.1", 80),
    ],
)
def test_what_is_listed_is_allowed(listed: str, host: str, address: str, port: int) -> None:
    assert allows(listed, address, host=host, port=port)
    assert not allows("", address, host=host, port=port)


@pytest.mark.parametrize(
    ("listed", "host", "address", "port"),
    [
        ("10.0.0.0/8", "a.test", "172.31.0.1", 443),
        ("10.0.0.0/9", "a.test", "10.200.0.1", 443),
        ("10.0.0.0/8:9000", "a.test", "10.0.0.1", 9001),
        ("fd00:1::/64", "a.test", "fd00:2::9", 1),
        ("minio.internal:9000", "minio.internal", "192.168.1.1", 22),
        ("minio.internal", "evil.minio.internal", "192.168.1.1", 80),
        ("minio.internal", "minio.internal.evil", "192.168.1.1", 80),
        ("*.internal", "internal", "127.0.0.1", 80),
        ("*.internal", "evilinternal", "127.0.0.1", 80),
    ],
)
def test_what_is_not_listed_is_refused(listed: str, host: str, address: str, port: int) -> None:
    assert not allows(listed, address, host=host, port=port)


@pytest.mark.parametrize("address", ALLOWED)
def test_a_list_takes_no_public_address_away(address: str) -> None:
    assert allows("10.0.0.0/8, minio.internal", address)


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.1/8",
        "10.0.0.0/33",
        "10.0.0.0/8:0",
        "10.0.0.0/8:65536",
        "10.0.0.0/8:",
        "fd00::/129",
        "[fd00::1]9000",
        "[minio.internal]",
        "https://minio.internal",
        "minio internal",
        "*",
        "*.*.internal",
        "a.*.internal",
        "10.0.0",
        "0x7f.1",
        "me@minio.internal",
        "minio.internal/photos",
    ],
)
def test_an_entry_that_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        endpoints.parse(f"10.0.0.0/8, {text}")
    assert str(caught.value).startswith(text)


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
