"""Answers of an S3 server, written by hand, and what a scripted server was asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from slurper.http.client import TransportOptions
from slurper.objectstore import dialects
from slurper.objectstore.base import ObjectHeaders
from slurper.objectstore.s3.store import S3ObjectStore
from slurper.secrets import S3Credentials
from tests.unit.http.scripted import Peer, Script, ScriptedServer, answer

OPTIONS = TransportOptions(
    connect_timeout_seconds=5, idle_timeout_seconds=5, request_retries=3, max_connections=4
)
PAIR = S3Credentials(access_key_id="AK", secret_access_key="SK-secret", session_token="ST-secret")
PLAIN = replace(dialects.GENERIC, checksum=None)
NO_HEADERS = ObjectHeaders()

Open = Callable[..., Awaitable[tuple[S3ObjectStore, ScriptedServer]]]


def in_turn(*responses: bytes) -> Script:
    """One answer per request, over however many connections they come."""
    left = list(responses)

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(left.pop(0) if len(left) > 1 else left[0])

    return script


def found(body: bytes = b"", *headers: str, status: str = "200 OK") -> bytes:
    known = ('ETag: "e"', "Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT")
    return answer(body, *known, *headers, status=status)


def error(status: str, code: str, *headers: str, more: str = "") -> bytes:
    body = f"<Error><Code>{code}</Code><Message>m</Message>{more}</Error>".encode()
    return answer(body, "Content-Type: application/xml", *headers, status=status)


def listed(*keys: str) -> bytes:
    rows = "".join(f"<Contents><Key>{key}</Key><Size>1</Size></Contents>" for key in keys)
    flag = "<IsTruncated>false</IsTruncated>"
    return answer(f"<ListBucketResult>{flag}{rows}</ListBucketResult>".encode())


def headers_of(server: ScriptedServer, index: int = -1) -> dict[str, str]:
    lines = server.requests[index].head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(": ") for line in lines if line)
    return {name.lower(): value for name, _, value in pairs}


def line_of(server: ScriptedServer, index: int = -1) -> str:
    return server.requests[index].line.decode()
