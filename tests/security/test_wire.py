"""TLS, proxies, headers and metrics of a running service."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest
import trustme

from tests.e2e import program
from tests.security import served
from tests.security.served import ALLOWED, Growth, Served

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


class Files:
    """The PEM files of a service, issued by an authority that its clients trust."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self.certificate, self.key = folder / "cert.pem", folder / "key.pem"
        self.context = ssl.create_default_context()
        self._authority.configure_trust(self.context)
        self.issue()

    def issue(self) -> None:
        """Write a new certificate, and its key."""
        issued = self._authority.issue_cert("127.0.0.1")
        self.key.write_bytes(issued.private_key_pem.bytes())
        chain = issued.cert_chain_pems
        self.certificate.write_bytes(b"".join(pem.bytes() for pem in chain))

    @property
    def options(self) -> tuple[str, ...]:
        return "--tls-cert", str(self.certificate), "--tls-key", str(self.key)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("encrypted")
    files = Files(folder)
    with served.serving(folder / "data", *files.options, context=files.context) as running:
        yield running


@pytest.fixture
def fresh(files: Files, tmp_path: Path) -> Iterator[Served]:
    """A service that has no memory left from an earlier flood."""
    with served.serving(tmp_path / "data", *files.options, context=files.context) as running:
        yield running


def _serial(client: socket.socket) -> str:
    assert isinstance(client, ssl.SSLSocket)
    found = client.getpeercert()
    assert found is not None
    return str(found["serialNumber"])


def _is_answered(client: socket.socket) -> bool:
    client.sendall(REQUEST)
    return served.read_answer(client).startswith(b"HTTP/1.1 200 ")


def test_sighup_takes_a_new_certificate_and_keeps_connections(files: Files, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with served.serving(data_dir, *files.options, context=files.context) as service:
        with service.connect() as old:
            before = _serial(old)
            assert _is_answered(old)
            files.issue()
            service.process.send_signal(signal.SIGHUP)
            program.wait_until(lambda: _next_serial(service) != before, "the new certificate")
            assert _is_answered(old)
        renewed = _next_serial(service)
        files.key.write_text("no key")
        service.process.send_signal(signal.SIGHUP)
        program.wait_until(lambda: _tells(service, "was not reloaded"), "the log's word on it")
        assert _next_serial(service) == renewed
        assert service.answers()


def test_sighup_without_tls_ends_nothing(tmp_path: Path) -> None:
    with served.serving(tmp_path / "data") as service:
        main = psutil.Process(service.process.pid)
        program.wait_until(lambda: len(main.children(recursive=True)) == 2, "template and worker")
        processes = [main, *main.children(recursive=True)]
        for process in processes:  # as a service manager sends it to all of a unit
            process.send_signal(signal.SIGHUP)
        program.wait_until(lambda: _tells(service, "nothing to reload"), "the log's word on it")
        assert service.answers()
        assert processes == [main, *main.children(recursive=True)]


def test_a_key_that_everybody_may_read_is_told(files: Files, tmp_path: Path) -> None:
    files.key.chmod(0o644)
    with served.serving(tmp_path / "data", *files.options, context=files.context) as service:
        program.wait_until(lambda: _tells(service, "is not private"), "a warning")
        assert service.answers()


def _tells(service: Served, text: str) -> bool:
    return any(text in line for line in service.log)


def _next_serial(service: Served) -> str:
    with service.connect() as client:
        return _serial(client)


def test_with_tls_an_answer_tells_clients_to_keep_to_it(encrypted: Served) -> None:
    answer = encrypted.get("/healthz")
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


def test_old_tls_is_refused(encrypted: Served) -> None:
    old = ssl.create_default_context()
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with encrypted.connect_raw() as raw, pytest.raises((ssl.SSLError, ConnectionError)):
        old.wrap_socket(raw, server_hostname="127.0.0.1")


def test_plain_requests_to_tls_get_nothing(encrypted: Served) -> None:
    with encrypted.connect_raw() as raw:
        raw.sendall(REQUEST)
        assert not served.read_all(raw).startswith(b"HTTP")
    assert encrypted.answers()


def test_half_handshakes_do_not_keep_others_out(fresh: Served) -> None:
    hello = bytes.fromhex("160301010001")  # the first bytes of a handshake that is longer
    with Growth(fresh) as growth, served.many(fresh, 1_150) as clients:
        for client in clients:
            served.try_send(client, hello)
        assert fresh.answers()
        assert fresh.descriptors() < 512 + 128
    assert growth.bytes < ALLOWED


@pytest.mark.slow
def test_half_handshakes_are_closed(encrypted: Served) -> None:
    with encrypted.connect_raw() as client:
        client.sendall(bytes.fromhex("160301010001"))
        assert served.is_closed_within(client, 60)


def test_long_heads_on_many_tls_connections_stay_in_their_memory(fresh: Served) -> None:
    almost = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 64_000
    clients = []
    with Growth(fresh) as growth:
        for _ in range(700):
            clients.append(fresh.connect())
            served.try_send(clients[-1], almost)
        assert fresh.answers()
    for client in clients:
        client.close()
    assert growth.bytes < ALLOWED


def test_endless_heads_by_tls_are_ended(encrypted: Served) -> None:
    with Growth(encrypted) as growth:
        for _ in range(8):
            with encrypted.connect() as client:
                client.sendall(b"GET /healthz HTTP/1.1\r\nX-Long: ")
                served.send_until_closed(client, b"a" * 65_536)
    assert growth.bytes < ALLOWED


def test_an_answer_that_is_long_arrives_by_tls(encrypted: Served) -> None:
    """Its bytes are more than the buffers take at once."""
    assert encrypted.get("/openapi.json").json()["openapi"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104 - they are refused
def test_without_tls_only_this_machine_is_served(tmp_path: Path, host: str) -> None:
    if host == "::" and not socket.has_ipv6:
        pytest.skip("there is no IPv6 here")
    ended = program.run("serve", "--host", host, "--port", "0", "--data-dir", str(tmp_path))
    assert ended.code == 2
    for option in (f"--host {host}", "--tls-cert", "--tls-key", "--behind-proxy"):
        assert option in " ".join(ended.err.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tls-cert", "{cert}"), "--tls-key is missing"),
        (("--tls-key", "{key}"), "--tls-cert is missing"),
        (("--tls-cert", "{cert}", "--tls-key", "{none}"), "--tls-key {none}: No such file"),
        (("--tls-cert", "{none}", "--tls-key", "{key}"), "--tls-cert {none}: No such file"),
        (("--tls-cert", "{key}", "--tls-key", "{key}"), "both must be PEM files"),
        (("--tls-cert", "{cert}", "--tls-key", "{other}"), "the key is not that of the"),
        (("--behind-proxy", "proxy.example"), "--behind-proxy proxy.example: give addresses"),
        (("--behind-proxy", "10.0.0.1/8"), "--behind-proxy 10.0.0.1/8: give addresses"),
        (("--behind-proxy", "0.0.0.0/0"), "these are all addresses"),
        (("--behind-proxy", "*"), "--behind-proxy *: give addresses"),
    ],
)
def test_options_that_cannot_work_are_clear_errors(
    files: Files, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    other = tmp_path / "other.pem"
    shutil.copy(files.key, other)
    files.issue()
    paths = {
        "cert": str(files.certificate),
        "key": str(files.key),
        "other": str(other),
        "none": str(tmp_path / "none.pem"),
    }
    given = [each.format(**paths) for each in arguments]
    ended = program.run("serve", *given, "--port", "0", "--data-dir", str(tmp_path / "data"))
    assert ended.code == 2
    assert said.format(**paths) in " ".join(ended.err.split())


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ((), "127.0.0.1"),
        (("--behind-proxy", "10.9.8.7"), "127.0.0.1"),
        (("--behind-proxy", "127.0.0.1"), "192.0.2.7"),
        (("--behind-proxy", "127.0.0.0/8, 203.0.113.0/24"), "192.0.2.7"),
    ],
)
def test_only_a_trusted_proxy_says_where_a_request_comes_from(
    tmp_path: Path, options: tuple[str, ...], seen: str
) -> None:
    """The last address that is no proxy's counts. What clients put before it does not."""
    with served.serving(tmp_path, "--verbose", *options) as service:
        forwarded = {"x-forwarded-for": "198.51.100.1, 192.0.2.7", "x-forwarded-proto": "https"}
        httpx.get(f"http://127.0.0.1:{service.port}/forwarded", headers=forwarded)
        program.wait_until(lambda: _tells(service, "/forwarded"), "the line of the access log")
        line = next(line for line in service.log if "/forwarded" in line)
    assert json.loads(line)["message"].startswith(f"{seen}:")


def test_every_answer_has_the_headers_of_security(tmp_path: Path) -> None:
    wanted = {
        "cache-control": "no-store",
        "content-security-policy": "frame-ancestors 'none'",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }
    with served.serving(tmp_path) as service:
        for path in ("/healthz", "/metrics", "/docs", "/nothing", served.JOBS):
            answer = httpx.get(f"http://127.0.0.1:{service.port}{path}")
            assert {name: answer.headers[name] for name in wanted} == wanted
            assert "strict-transport-security" not in answer.headers
            assert "server" not in answer.headers


def test_metrics_may_have_a_port_of_their_own(tmp_path: Path) -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {"SLURPER_METRICS_TOKEN": "of-the-metrics"}
    with served.serving(tmp_path, "--metrics-port", str(port), env=env) as service:
        assert service.process.stdout.readline().endswith(f"127.0.0.1:{port}/metrics\n")
        metrics = f"http://127.0.0.1:{port}/metrics"
        assert httpx.get(metrics).status_code == 401
        token = {"authorization": "Bearer of-the-metrics"}
        assert "slurper_jobs_running" in httpx.get(metrics, headers=token).text
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 404
        beside = httpx.get(f"http://127.0.0.1:{service.port}/metrics", headers=token)
        assert beside.status_code == 404
