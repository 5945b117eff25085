"""TLS: who is trusted, for which name, and what a refusal says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from slurper import errors
from slurper.settings import TlsLibrary
from tests.servers import certificates
from tests.unit.http.conftest import Authority, Connect, Serve, get, put
from tests.unit.http.scripted import Peer, ScriptedServer, answer, answering, silent


def https(server: ScriptedServer, host: str = "localhost") -> str:
    return f"https://{host}:{server.port}"


async def test_trusted_authority_and_name(
    serve: Serve, connect: Connect, authority: Authority
) -> None:
    context = authority.server("localhost")
    asked: list[str | None] = []
    context.sni_callback = lambda _, name, __: asked.append(name)
    protocols: list[str | None] = []

    async def script(peer: Peer) -> None:
        protocols.append(peer.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await answering(answer(b"private"))(peer)

    server = await serve(script, tls=context)
    client = connect(https(server), ca_file=authority.file)
    for _ in range(3):
        assert b"".join((await client.send(get())).body) == b"private"
    assert asked == ["localhost"]
    assert protocols == ["http/1.1"]
    assert server.connections == 1


async def test_address_as_name(serve: Serve, connect: Connect, authority: Authority) -> None:
    server = await serve(answering(answer(b"private")), tls=authority.server("127.0.0.1"))
    response = await connect(https(server, "127.0.0.1"), ca_file=authority.file).send(get())
    assert response.status == 200


async def test_large_bodies_both_ways(serve: Serve, connect: Connect, authority: Authority) -> None:
    async def echo(peer: Peer) -> None:
        while True:
            received = await peer.request()
            await peer.send(answer(received.body))

    server = await serve(echo, tls=authority.server("localhost"))
    client = connect(https(server), ca_file=authority.file)
    body = bytes(range(256)) * 12_000
    for chunks in ([body], [body[start : start + 9_999] for start in range(0, len(body), 9_999)]):
        response = await client.send(put(*chunks))
        assert b"".join(response.body) == body
    assert server.connections == 1


async def test_wrong_name_is_refused(serve: Serve, connect: Connect, authority: Authority) -> None:
    server = await serve(answering(answer()), tls=authority.server("other.example"))
    client = connect(https(server), ca_file=authority.file, request_retries=5)
    with pytest.raises(errors.TlsRefused, match=r"certificate not accepted.*localhost") as caught:
        await client.send(get())
    assert f"localhost:{server.port}" in str(caught.value)
    assert caught.value.blocks_job
    assert not caught.value.retryable
    assert client.statistics.retries == 0
    assert server.requests == []


@pytest.mark.parametrize("alternative", [None, "other.example"])
@pytest.mark.parametrize("common", ["localhost", "*"])
async def test_a_common_name_does_not_count(
    serve: Serve, connect: Connect, tmp_path: Path, common: str, alternative: str | None
) -> None:
    """Authorities check alternative names. Anything may be in a common name."""
    ca, context = certificates.server_of(common, alternative, tmp_path)
    server = await serve(answering(answer()), tls=context)
    client = connect(https(server), ca_file=ca)
    with pytest.raises(errors.TlsRefused, match="not valid for localhost"):
        await client.send(get())
    assert server.requests == []


async def test_the_certificates_of_that_test_are_good_otherwise(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    ca, context = certificates.server_of("other.example", "localhost", tmp_path)
    server = await serve(answering(answer()), tls=context)
    assert (await connect(https(server), ca_file=ca).send(get())).status == 200


async def test_wrong_address_is_refused(
    serve: Serve, connect: Connect, authority: Authority
) -> None:
    server = await serve(answering(answer()), tls=authority.server("127.0.0.2", "localhost"))
    with pytest.raises(errors.TlsRefused, match=r"not valid for 127\.0\.0\.1"):
        await connect(https(server, "127.0.0.1"), ca_file=authority.file).send(get())
    assert server.requests == []


async def test_expired_certificate_is_refused(
    serve: Serve, connect: Connect, authority: Authority
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    authority.ca.issue_cert("localhost", not_after=yesterday).configure_cert(context)
    server = await serve(answering(answer()), tls=context)
    with pytest.raises(errors.TlsRefused, match="certificate has expired"):
        await connect(https(server), ca_file=authority.file).send(get())
    assert server.requests == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_cheaper_cipher_is_preferred(
    serve: Serve,
    connect: Connect,
    authority: Authority,
    library: TlsLibrary,
    version: ssl.TLSVersion,
) -> None:
    context = authority.server("localhost")
    context.minimum_version = context.maximum_version = version
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    agreed: list[str] = []

    async def script(peer: Peer) -> None:
        agreed.append(peer.writer.get_extra_info("cipher")[0])
        await answering(answer(b"private"))(peer)

    server = await serve(script, tls=context)
    body = (await connect(https(server), ca_file=authority.file).send(get())).body
    assert b"".join(body) == b"private"
    cheap = ("TLS_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256")
    assert agreed[0] in cheap or library == "stdlib"  # whose order is Python's own


async def test_unknown_authority_is_refused_with_the_setting_that_helps(
    serve: Serve, connect: Connect, authority: Authority
) -> None:
    server = await serve(answering(answer()), tls=authority.server("localhost"))
    with pytest.raises(errors.TlsRefused, match="SLURPER_CA_FILE"):
        await connect(https(server)).send(get())
    assert server.requests == []


async def test_trust_in_a_ca_file_does_not_end_trust_in_the_system(
    serve: Serve,
    connect: Connect,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system = Authority(trustme.CA(), tmp_path / "system.pem")
    system.ca.cert_pem.write_to_path(system.file)
    monkeypatch.setenv("SSL_CERT_FILE", str(system.file))
    for issuer in (authority, system):
        server = await serve(answering(answer()), tls=issuer.server("localhost"))
        response = await connect(https(server), ca_file=authority.file).send(get())
        assert response.status == 200
    server = await serve(answering(answer()), tls=authority.server("localhost"))
    with pytest.raises(errors.TlsRefused, match="certificate not accepted"):
        await connect(https(server)).send(get())


@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_ca_file_that_cannot_be_used(connect: Connect, tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(errors.ConfigurationError, match=r"ca\.pem"):
        connect("https://store.example", ca_file=file)


async def test_server_without_tls_is_refused_with_a_hint(serve: Serve, connect: Connect) -> None:
    async def plain(peer: Peer) -> None:
        await peer.reader.read(100)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    server = await serve(plain)
    with pytest.raises(errors.TlsRefused, match="is this an https port"):
        await connect(https(server), request_retries=5).send(get())


async def test_old_tls_is_refused(connect: Connect, authority: Authority) -> None:
    context = authority.server("localhost")
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1

    def accept(listener: socket.socket) -> None:
        """A blocking server, because the asynchronous ones drop the alert that says why."""
        peer, _ = listener.accept()
        with contextlib.suppress(ssl.SSLError, ConnectionError), peer:
            context.wrap_socket(peer, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = asyncio.create_task(asyncio.to_thread(accept, listener))
        client = connect(f"https://localhost:{listener.getsockname()[1]}", ca_file=authority.file)
        with pytest.raises(errors.TlsRefused, match="no common TLS"):
            await client.send(get())
        await accepting


async def test_server_that_offers_nothing_in_common(serve: Serve, connect: Connect) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.send(bytes.fromhex("15 0303 0002 02 28"))  # the alert handshake_failure
        await peer.wait_for_end()

    client = connect(https(await serve(refuse)), request_retries=5)
    with pytest.raises(errors.TlsRefused, match="no common TLS"):
        await client.send(get())
    assert client.statistics.retries == 0


async def test_handshake_that_never_ends_is_given_up(serve: Serve, connect: Connect) -> None:
    client = connect(https(await serve(silent)), connect_timeout_seconds=0.2)
    with pytest.raises(errors.TransportError, match=r"within 0\.2 s \(connect, TLS handshake\)"):
        await client.send(get())


async def test_server_that_hangs_up_in_the_handshake(serve: Serve, connect: Connect) -> None:
    async def hangs_up(peer: Peer) -> None:
        await peer.reader.read(10)
        peer.reset()

    client = connect(https(await serve(hangs_up)), request_retries=1)
    with pytest.raises(errors.TransportError, match=r"\(tls\)") as caught:
        await client.send(get())
    assert caught.value.retryable
    assert client.statistics.retries == 1


@pytest.mark.asyncio(loop_factories=["uvloop"])
@pytest.mark.parametrize("polite", [True, False])
async def test_only_close_notify_ends_a_body_without_length(
    serve: Serve, connect: Connect, authority: Authority, polite: bool
) -> None:
    """Otherwise an attacker who can cut the wire could shorten the object unnoticed."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        if not polite:
            await asyncio.sleep(0.05)
            peer.writer.transport.abort()

    server = await serve(script, tls=authority.server("localhost"))
    client = connect(https(server), ca_file=authority.file)
    if polite:
        assert b"".join((await client.send(get())).body) == b"all of it"
    else:
        with pytest.raises(errors.TransportError, match="after 9 body bytes"):
            await client.send(get())


async def test_early_answer(serve: Serve, connect: Connect, authority: Authority) -> None:
    async def refuses(peer: Peer) -> None:
        await peer.head()
        await peer.send(answer(b"no", status="403 Forbidden"))
        await asyncio.sleep(3600)

    server = await serve(refuses, answering(answer(b"next")), tls=authority.server("localhost"))
    client = connect(https(server), ca_file=authority.file)
    response = await client.send(put(*[bytes(1 << 20)] * 16))
    assert (response.status, b"".join(response.body)) == (403, b"no")
    assert (await client.send(get())).status == 200


async def test_stalled_peer_and_cancellation(
    serve: Serve, connect: Connect, authority: Authority
) -> None:
    server = await serve(silent, tls=authority.server("localhost"))
    client = connect(https(server), ca_file=authority.file, idle_timeout_seconds=0.2)
    with pytest.raises(errors.TransportError, match="nothing moved"):
        await client.send(get())
    task = asyncio.create_task(client.send(get()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
