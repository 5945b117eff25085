"""The proxy of the documentation, in front of a running service: the text of the page is run."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from benchmarks.targets import NGINX

from slurper.job import rules
from tests.e2e import program
from tests.security import served
from tests.security.served import Served
from tests.security.test_wire import Files

PAGE = Path(__file__).parents[2] / "docs" / "operations" / "README.md"

_AROUND = """
daemon off; pid {root}/nginx.pid; error_log {root}/error.log; {user}
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi; uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;
    {text}
}}
"""


@dataclass(frozen=True)
class Proxied:
    """A service behind nginx."""

    service: Served
    url: str
    context: ssl.SSLContext

    def ask(self, method: str, path: str, **more: object) -> httpx.Response:
        with httpx.Client(verify=self.context, timeout=program.SECONDS) as client:
            return client.request(method, self.url + path, **more)  # type: ignore[arg-type]


def _text_of_the_page(service: Served, files: Files, port: int) -> str:
    (text,) = re.findall(r"```nginx\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for shown, here in (
        ("127.0.0.1:8080", f"127.0.0.1:{service.port}"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/ssl/slurper/fullchain.pem", str(files.certificate)),
        ("/etc/ssl/slurper/privkey.pem", str(files.key)),
    ):
        assert text.count(shown) == 1, shown
        text = text.replace(shown, here)
    return str(text)


@contextmanager
def _nginx(root: Path, text: str, port: int) -> Iterator[None]:
    assert NGINX is not None
    config = root / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(_AROUND.format(root=root, user=user, text=text))
    command = [NGINX, "-e", str(root / "error.log"), "-p", str(root), "-c", str(config)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as running:
        try:
            program.wait_until(lambda: _listens(port), "nginx")
            yield
        finally:
            running.send_signal(signal.SIGTERM)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    if NGINX is None:
        pytest.skip("nginx is not installed")
    root = tmp_path_factory.mktemp("proxied")
    files = Files(root)
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        served.serving(root / "data", "--behind-proxy", "127.0.0.1") as service,
        _nginx(root, _text_of_the_page(service, files, port), port),
    ):
        yield Proxied(service, f"https://127.0.0.1:{port}", files.context)


def test_it_answers_by_tls_and_says_so(proxied: Proxied) -> None:
    answer = proxied.ask("GET", "/healthz")
    assert answer.status_code == 200
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert proxied.ask("GET", "/metrics").status_code == 404


def test_the_longest_body_passes(proxied: Proxied) -> None:
    """As many keys as a job may have, as long and as much escaped as they may be."""
    key = "ü" * (rules.MAX_KEY_BYTES // 2 - 4)
    keys = [f"{number:08d}{key}" for number in range(rules.MAX_KEYS)]
    secret = {"accessKeyId": "k", "secretAccessKey": "s"}
    side = {"vendor": "s3", "bucket": "photos", "endpoint": "https://127.0.0.1:9", "secret": secret}
    body = json.dumps({"source": {**side, "keys": keys}, "target": {**side, "bucket": "other"}})
    assert len(body) > 30_000_000
    headers = {
        "authorization": f"Bearer {proxied.service.token}",
        "content-type": "application/json",
    }
    answer = proxied.ask("POST", served.JOBS, content=body.encode(), headers=headers)
    assert answer.status_code == 403, answer.text  # the whole of it was understood
    assert "endpoint policy" in answer.text


def test_what_a_client_says_of_itself_does_not_count(proxied: Proxied) -> None:
    """The address in the audit log is the one that nginx has seen."""
    forged = {"x-forwarded-for": "192.0.2.66", "authorization": "Bearer forged"}
    assert proxied.ask("GET", served.JOBS, headers=forged).status_code == 401

    def lines() -> list[str]:
        return [line for line in proxied.service.log if "slurper.audit" in line and "401" in line]

    program.wait_until(lambda: bool(lines()), "the line of the audit log")
    assert "127.0.0.1" in lines()[-1]
    assert "192.0.2.66" not in "".join(proxied.service.log)
