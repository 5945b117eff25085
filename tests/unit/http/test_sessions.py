"""TLS sessions: who resumes which, and what is never accepted because of one."""

from __future__ import annotations

import itertools
import ssl
from datetime import UTC, datetime, timedelta

import pytest

from slurper import errors
from slurper.http import sessions
from slurper.http.openssl import OpensslContext
from slurper.http.sessions import KEPT_SECONDS, KeptSession, SessionCache
from slurper.http.tls import shared_context
from tests.unit.http.conftest import Authority, Connect, Serve, get
from tests.unit.http.scripted import Peer, Script, ScriptedServer, answer

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
HANDSHAKE_FAILURE = bytes.fromhex("15 0303 0002 02 28")
"""A fatal alert."""


class Witness:
    """Answers one request on each connection, and notes whether its session was resumed."""

    def __init__(self) -> None:
        self.resumed: list[bool] = []

    async def __call__(self, peer: Peer) -> None:
        self.resumed.append(peer.writer.get_extra_info("ssl_object").session_reused)
        await peer.request()
        await peer.send(answer(b"private"))


def of_version(
    authority: Authority, version: ssl.TLSVersion, name: str, *, until: datetime | None = None
) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = context.maximum_version = version
    authority.ca.issue_cert(name, not_after=until).configure_cert(context)
    return context


def https(server: ScriptedServer, host: str = "localhost") -> str:
    return f"https://{host}:{server.port}"


@pytest.mark.parametrize("version", VERSIONS)
async def test_each_later_connection_resumes(
    serve: Serve, connect: Connect, authority: Authority, version: ssl.TLSVersion
) -> None:
    witness = Witness()
    server = await serve(witness, tls=of_version(authority, version, "localhost"))
    for client in (connect(https(server), ca_file=authority.file) for _ in range(2)):
        for _ in range(2):
            response = await client.send(get())
            assert b"".join(response.body) == b"private"
    assert witness.resumed == [False, True, True, True]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_connection_that_broke_leaves_its_session(
    serve: Serve, connect: Connect, authority: Authority, version: ssl.TLSVersion
) -> None:
    witness = Witness()

    async def reset(peer: Peer) -> None:
        await witness(peer)
        await peer.request()
        peer.reset()

    server = await serve(reset, witness, tls=of_version(authority, version, "localhost"))
    client = connect(https(server), ca_file=authority.file)
    for _ in range(2):
        assert (await client.send(get())).status == 200
    assert witness.resumed == [False, True]


async def resumed_at(
    serve: Serve, connect: Connect, authority: Authority, context: ssl.SSLContext
) -> list[bool]:
    """Whether each of three connections, one after the other, resumes a session."""
    witness = Witness()
    client = connect(https(await serve(witness, tls=context)), ca_file=authority.file)
    for _ in range(3):
        assert (await client.send(get())).status == 200
    return witness.resumed


async def test_a_server_without_tickets(
    serve: Serve, connect: Connect, authority: Authority
) -> None:
    context = of_version(authority, ssl.TLSVersion.TLSv1_3, "localhost")
    context.num_tickets = 0
    assert await resumed_at(serve, connect, authority, context) == [False, False, False]


async def test_sessions_that_the_server_keeps_itself(
    serve: Serve, connect: Connect, authority: Authority
) -> None:
    context = of_version(authority, ssl.TLSVersion.TLSv1_3, "localhost")
    context.options |= ssl.OP_NO_TICKET  # each of its sessions can be resumed once
    assert await resumed_at(serve, connect, authority, context) == [False, True, True]


async def replaced(
    serve: Serve, server: ScriptedServer, script: Script, tls: ssl.SSLContext | None
) -> ScriptedServer:
    """Put another server, which knows no session of the first, in its place."""
    await server.stop()
    return await serve(script, tls=tls, port=server.port)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_server_that_does_not_know_the_session(
    serve: Serve, connect: Connect, authority: Authority, version: ssl.TLSVersion
) -> None:
    witness = Witness()
    server = await serve(witness, tls=of_version(authority, version, "localhost"))
    client = connect(https(server), ca_file=authority.file)
    await client.send(get())
    await replaced(serve, server, witness, of_version(authority, version, "localhost"))
    for _ in range(2):
        assert (await client.send(get())).status == 200
    assert witness.resumed == [False, False, True]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_server_of_another_version_of_tls(
    serve: Serve, connect: Connect, authority: Authority, version: ssl.TLSVersion
) -> None:
    witness = Witness()
    server = await serve(witness, tls=of_version(authority, version, "localhost"))
    client = connect(https(server), ca_file=authority.file)
    await client.send(get())
    (other,) = set(VERSIONS) - {version}
    await replaced(serve, server, witness, of_version(authority, other, "localhost"))
    for _ in range(2):
        assert (await client.send(get())).status == 200
    assert witness.resumed == [False, False, True]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("name", "days"), [("localhost", -1), ("other.example", 30)])
async def test_a_session_excuses_no_certificate(
    serve: Serve,
    connect: Connect,
    authority: Authority,
    version: ssl.TLSVersion,
    name: str,
    days: int,
) -> None:
    witness = Witness()
    server = await serve(witness, tls=of_version(authority, version, "localhost"))
    client = connect(https(server), ca_file=authority.file, request_retries=5)
    await client.send(get())
    until = datetime.now(UTC) + timedelta(days=days)
    await replaced(serve, server, witness, of_version(authority, version, name, until=until))
    with pytest.raises(errors.TlsRefused, match="certificate not accepted"):
        await client.send(get())
    assert client.statistics.retries == 0


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_session_is_for_one_name(
    serve: Serve, connect: Connect, authority: Authority, version: ssl.TLSVersion
) -> None:
    witness = Witness()
    server = await serve(witness, tls=of_version(authority, version, "localhost"))
    await connect(https(server), ca_file=authority.file).send(get())
    with pytest.raises(errors.TlsRefused, match=r"not valid for 127\.0\.0\.1"):
        await connect(https(server, "127.0.0.1"), ca_file=authority.file).send(get())
    assert len(server.requests) == 1


async def test_a_session_is_for_those_who_trust_the_same_authorities(
    serve: Serve, connect: Connect, authority: Authority
) -> None:
    server = await serve(Witness(), tls=authority.server("localhost"))
    await connect(https(server), ca_file=authority.file).send(get())
    with pytest.raises(errors.TlsRefused, match="certificate not accepted"):
        await connect(https(server)).send(get())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("valid_seconds", "kept_seconds"), [(2 * KEPT_SECONDS, KEPT_SECONDS), (600, 600)]
)
async def test_the_certificate_is_checked_again_in_time(
    serve: Serve,
    connect: Connect,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    version: ssl.TLSVersion,
    valid_seconds: float,
    kept_seconds: float,
) -> None:
    witness, now = Witness(), datetime.now(UTC)
    until = now + timedelta(seconds=valid_seconds)
    server = await serve(witness, tls=of_version(authority, version, "localhost", until=until))
    client = connect(https(server), ca_file=authority.file)
    context = shared_context(authority.file)
    assert isinstance(context, OpensslContext)
    cache = context.sessions
    for passed in (0, kept_seconds / 2, kept_seconds - 2, kept_seconds):
        monkeypatch.setattr(cache, "clock", itertools.repeat(now.timestamp() + passed).__next__)
        await client.send(get())
    assert witness.resumed == [False, True, True, False]


async def test_a_session_that_breaks_the_handshake_is_offered_once(
    serve: Serve, connect: Connect, authority: Authority
) -> None:
    server = await serve(Witness(), tls=authority.server("localhost"))
    client = connect(https(server), ca_file=authority.file)
    await client.send(get())

    async def refuse(peer: Peer) -> None:
        await peer.send(HANDSHAKE_FAILURE)
        await peer.wait_for_end()

    await replaced(serve, server, refuse, None)
    with pytest.raises(errors.TransportError, match="handshake failed") as caught:
        await client.send(get())
    assert caught.value.retryable
    with pytest.raises(errors.TlsRefused, match="no common TLS"):
        await client.send(get())


async def test_where_a_session_broke_the_handshake_none_is_offered_again(
    serve: Serve, connect: Connect, authority: Authority
) -> None:
    witness = Witness()
    tls = of_version(authority, ssl.TLSVersion.TLSv1_2, "localhost")
    server = await serve(witness, tls=tls)
    client = connect(https(server), ca_file=authority.file, request_retries=1)
    await client.send(get())

    async def refuse(peer: Peer) -> None:
        await peer.send(HANDSHAKE_FAILURE)
        await peer.wait_for_end()

    broken = await replaced(serve, server, refuse, None)
    with pytest.raises(errors.TransportError):
        await client.send(get())
    await replaced(serve, broken, witness, tls)
    for _ in range(3):
        await client.send(get())
    assert witness.resumed == [False] * 4


def test_a_peer_is_distrusted_for_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_MAX_PEERS", 2)
    cache, session = SessionCache(), KeptSession(b"secret", float("inf"))
    now = [0.0]
    cache.clock = lambda: now[0]
    for host in ("a", "b", "c"):
        cache.distrust((host, 443))
        cache.keep((host, 443), session)
    assert [cache.find((host, 443)) for host in "abc"] == [None] * 3
    now[0] = KEPT_SECONDS
    cache.keep(("c", 443), session)
    assert cache.find(("c", 443)) is session
    assert len(cache._distrusted) == 2


def test_the_number_of_sessions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_MAX_PEERS", 2)
    cache, session = SessionCache(), KeptSession(b"secret", float("inf"))
    for host in ("a", "b", "a", "c"):
        cache.keep((host, 443), session)
    assert [cache.find((host, 443)) for host in "abc"] == [session, None, session]
    assert cache.find(("a", 444)) is None
    assert "secret" not in repr(session)
