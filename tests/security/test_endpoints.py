"""What a tenant may reach, and what it learns of what it may not."""

from __future__ import annotations

import ipaddress
import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import program
from tests.e2e.program import Service
from tests.security.endpoints import answering, check, names

SECRET = "AKIA-of-the-machine"
FORBIDS = "that the endpoint policy forbids"
NO_ENDPOINT = "400"
"""The text is no endpoint at all."""

ADDRESSES = [
    "127.0.0.1",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.254",
    "192.0.0.192",
]


def forms(address: str) -> list[str]:
    """Ways to write an IPv4 address, or an IPv6 address that leads to it, as a host."""
    number = int(ipaddress.IPv4Address(address))
    a, b, c, d = number.to_bytes(4)
    last = f"{number >> 16:x}:{number & 0xFFFF:x}"
    return [
        address,
        str(number),
        f"0x{number:x}",
        f"0{number:o}",
        f"0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        f"{a}.{b}.{c * 256 + d}",
        f"{a}.{number & 0xFFFFFF}",
        f"{a}.{b}.{c}.0x{d:x}",
        f"[::ffff:{address}]",
        f"[::ffff:{last}]",
        f"[0:0:0:0:0:ffff:{last}]",
        f"[::{address}]",
        f"[::ffff:0:{address}]",
        f"[64:ff9b::{last}]",
        f"[64:ff9b::{address}]",
        f"[64:ff9b:1::{last}]",
        f"[2002:{last}::1]",
    ]


FORMS = [form for address in ADDRESSES for form in forms(address)]


@pytest.fixture(scope="module")
def knows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return names(tmp_path_factory.mktemp("names") / "known")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, knows: dict[str, str]) -> Iterator[Service]:
    """A service whose operator allows nothing."""
    env = {**knows, "SLURPER_ALLOW_PRIVATE_ENDPOINTS": "", "SLURPER_MAX_CONCURRENT_CHECKS": "32"}
    data = tmp_path_factory.mktemp("strict") / "data"
    with program.serving(data, env=env, anew=True) as running:
        yield running


@pytest.fixture(scope="module")
def open_service(
    tmp_path_factory: pytest.TempPathFactory, knows: dict[str, str]
) -> Iterator[Service]:
    """A service whose operator allows all private endpoints."""
    data = tmp_path_factory.mktemp("open") / "data"
    with program.serving(data, env=knows, anew=True) as running:
        yield running


def reasons(service: Service, endpoint: str, side: str = "source") -> str:
    """What the service says of an endpoint that it cannot use."""
    answer = check(service, endpoint, side=side)
    if answer.status_code == 400:
        return f"{NO_ENDPOINT}: {answer.text}"
    result: dict[str, Any] = answer.json()["result"]
    assert result["connectivityStatus"] == "error", answer.text
    return json.dumps(result, ensure_ascii=False)


def test_no_form_of_a_forbidden_address_is_connected_to(service: Service) -> None:
    assert len(FORMS) == 144
    with answering(SECRET.encode()) as inside, ThreadPoolExecutor(8) as pool:
        endpoints = [f"http://{form}:{inside.port}" for form in FORMS]
        told = list(pool.map(lambda endpoint: reasons(service, endpoint), endpoints))
        assert inside.connections == []
    for form, text in zip(FORMS, told, strict=True):
        assert FORBIDS in text or text.startswith(NO_ENDPOINT), (form, text)
        assert SECRET not in text
    assert sum(FORBIDS in text for text in told) > 100


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_name_of_a_forbidden_address_does_not_tell_the_address(
    service: Service, side: str
) -> None:
    with answering(SECRET.encode()) as inside:
        answer = check(service, f"http://inside.test:{inside.port}", side=side)
        assert inside.connections == []
    assert f"inside.test:{inside.port} has an address {FORBIDS}" in answer.text
    assert "127.0.0" not in answer.text


def test_metadata_is_refused_where_all_private_endpoints_are_allowed(
    open_service: Service,
) -> None:
    metadata = [
        *forms("169.254.169.254"),
        *forms("169.254.170.2"),
        *forms("100.100.100.200"),
        *forms("168.63.129.16"),
        *forms("192.0.0.192"),
        "[fd00:ec2::254]",
        "[fe80::a9fe:a9fe]",
    ]
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda host: reasons(open_service, f"http://{host}"), metadata))
    for host, text in zip(metadata, told, strict=True):
        assert FORBIDS in text or text.startswith(NO_ENDPOINT), (host, text)
    assert sum(FORBIDS in text for text in told) > 70
    with answering(SECRET.encode()) as here:
        assert "text of 19 bytes" in reasons(open_service, f"http://127.0.0.1:{here.port}")
        assert here.connections


def test_a_name_that_changes_its_address_is_judged_at_each_connection(
    tmp_path: Path, knows: dict[str, str]
) -> None:
    env = {
        **knows,
        "SLURPER_ALLOW_PRIVATE_ENDPOINTS": "",
        # The name is 127.0.0.2 and 127.0.0.1 by turns. Only the first is allowed.
        "SLURPER_ALLOWED_ENDPOINTS": "127.0.0.2",
        "SLURPER_REQUEST_RETRIES": "0",
    }
    with (
        answering(SECRET.encode()) as inside,
        program.serving(tmp_path / "data", env=env, anew=True) as running,
    ):
        told = [reasons(running, f"http://rebind.test:{inside.port}") for _ in range(8)]
        assert inside.connections == []
    assert any(FORBIDS in text for text in told)
    assert any("not connected (connect)" in text for text in told)
    assert not any(SECRET in text for text in told)


STATUSES = [
    "301 Moved Permanently",
    "302 Found",
    "303 See Other",
    "307 Temporary Redirect",
    "308 Permanent Redirect",
]


def test_no_redirect_is_followed_and_its_path_is_not_told(
    tmp_path: Path, knows: dict[str, str]
) -> None:
    with ExitStack() as programs:
        inside = programs.enter_context(answering(SECRET.encode()))
        to = f"location: http://127.0.0.1:{inside.port}/{SECRET}?{SECRET}"
        outside = [
            programs.enter_context(answering(SECRET.encode(), to, status=status))
            for status in STATUSES
        ]
        listed = ",".join(f"outside.test:{each.port}" for each in outside)
        env = {**knows, "SLURPER_ALLOW_PRIVATE_ENDPOINTS": "", "SLURPER_ALLOWED_ENDPOINTS": listed}
        running = programs.enter_context(program.serving(tmp_path / "data", env=env, anew=True))
        for each in outside:
            for side in ("source", "target"):
                text = reasons(running, f"http://outside.test:{each.port}", side)
                assert "no redirect is followed" in text
                assert SECRET not in text
            assert each.requests
            assert FORBIDS in reasons(running, f"http://127.0.0.1:{each.port}"), "only the name is"
        assert inside.connections == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"AccessKeyId": "%s", "Token": "%s"}', "200 OK"),
        (b'{"message": "%s", "reason": "%s"}', "403 Forbidden"),
        (b"%s", "200 OK"),
        (b"%s", "500 Internal Server Error"),
        (b"<html><title>%s</title><body>%s</body></html>", "200 OK"),
        (b"<html><title>%s</title><body>%s</body></html>", "404 Not Found"),
        (b"<%s><Message>%s</Message></%s>", "200 OK"),
        (b"<Credentials><Code>%s</Code><Message>%s</Message></Credentials>", "403 Forbidden"),
        (b"\xff\xfe%s", "200 OK"),
    ],
)
def test_what_another_program_says_is_not_told(
    open_service: Service, body: bytes, status: str
) -> None:
    with answering(body.replace(b"%s", SECRET.encode()), status=status) as inside:
        for side in ("source", "target"):
            answer = check(open_service, f"http://127.0.0.1:{inside.port}", side=side)
            assert answer.json()["result"]["connectivityStatus"] == "error"
            assert SECRET not in answer.text
        assert inside.requests


def test_no_program_answers_in_another_language(open_service: Service) -> None:
    greeting = f"220 {SECRET} ready\r\n{SECRET}\r\n{SECRET}: {SECRET}\r\n\r\n".encode()
    with answering() as inside:
        inside.answer = greeting
        assert SECRET not in reasons(open_service, f"http://127.0.0.1:{inside.port}")


def test_a_closed_port_does_not_tell_the_address_of_its_name(open_service: Service) -> None:
    with answering() as gone:
        port = gone.port
    text = reasons(open_service, f"http://inside.test:{port}")
    assert "not connected (connect): Connection refused" in text
    assert "127.0.0" not in text


def test_the_log_of_the_service_tells_what_its_users_are_not_told(
    tmp_path: Path, knows: dict[str, str]
) -> None:
    hostile = f"\x1b]0;title\x07\x1b[2J {SECRET} \u202e\n\r" + "x" * 50_000
    with (
        answering(hostile.encode()) as inside,
        program.serving(tmp_path / "data", env=knows, anew=True) as running,
    ):
        assert SECRET not in reasons(running, f"http://127.0.0.1:{inside.port}")
        running.process.send_signal(signal.SIGTERM)
        ended = program.end(running.process)
    lines = [line for line in ended.err.splitlines() if SECRET in line]
    assert lines
    for line in lines:
        for code in ("\x1b", "u001b", "\u202e", "u202e"):  # as it is, and as JSON has it
            assert code not in line
        assert len(line) < 1_000


def test_the_command_line_refuses_metadata_too(tmp_path: Path) -> None:
    ended = program.run(
        "precheck",
        "s3://photos",
        "s3://copies",
        "--source-endpoint",
        "http://169.254.169.254",
        "--target-endpoint",
        "http://169.254.169.254",
        env={
            "SLURPER_DATA_DIR": str(tmp_path),
            **{
                f"SLURPER_{side}_{name}": "hunter2hunter2"
                for side in ("SOURCE", "TARGET")
                for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
            },
        },
    )
    assert ended.code == 2
    said = " ".join(ended.err.split())
    assert FORBIDS in said
    assert "SLURPER_ALLOWED_ENDPOINTS" in said


def test_a_list_that_cannot_be_read_is_refused_at_the_start(tmp_path: Path) -> None:
    ended = program.run(
        "serve",
        "--data-dir",
        str(tmp_path),
        env={"SLURPER_ALLOWED_ENDPOINTS": "10.0.0.0/8, 10.1.2.3/16"},
    )
    assert ended.code == 2
    said = " ".join(ended.err.split())
    assert "SLURPER_ALLOWED_ENDPOINTS: 10.1.2.3/16: " in said
    assert "write a network such as 10.0.0.0/8" in said
