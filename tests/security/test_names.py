"""Name servers that never answer, and checks that never end, hold up their own account alone."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from slurper.demo.servers import S3Server
from slurper.http.resolver import MOST, OF_ACCOUNT, OF_TOKEN
from tests.e2e import program
from tests.e2e.program import Service, wait_until
from tests.security.endpoints import answering, check, names

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

OTHER = "b" * 32
MOST_OF_ONE = OF_ACCOUNT.places


Make = Callable[[S3Server], str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def service(tmp_path: Path, folder: Path) -> Iterator[Service]:
    """A service in which some names are never found out."""
    env = {
        **names(tmp_path / "names"),
        "SLURPER_CONNECT_TIMEOUT_SECONDS": "1",
        "SLURPER_REQUEST_RETRIES": "0",
        "SLURPER_MAX_CONCURRENT_CHECKS": "4",
        "SLURPER_STOP_GRACE_SECONDS": "1",
    }
    with program.serving(folder, env=env, anew=True) as running:
        yield running


@pytest.fixture
def filled(
    ministack: S3Server,
    make_bucket: Callable[[S3Server], str],
    boto: Callable[[S3Server], S3Client],
) -> str:
    """A bucket with one object."""
    bucket = make_bucket(ministack)
    boto(ministack).put_object(Bucket=bucket, Key="k", Body=b"x")
    return bucket


def named(server: S3Server, name: str) -> S3Server:
    """The same server under a name of the test."""
    return replace(server, endpoint=f"http://{name}.test:{urlsplit(server.endpoint).port}")


def status_of(service: Service, job_id: str) -> str:
    found: str = service.call("GET", f"/{job_id}").json()["result"]["status"]
    return found


def test_names_that_are_never_found_out_hold_up_no_other_account(
    service: Service, ministack: S3Server, filled: str, make_bucket: Callable[[S3Server], str]
) -> None:
    endpoints = [f"http://dead-{number}.test" for number in range(3 * MOST_OF_ONE)]
    with ThreadPoolExecutor(len(endpoints)) as pool:
        answers = list(pool.map(lambda endpoint: check(service, endpoint), endpoints))
    assert {answer.status_code for answer in answers} <= {200, 429}
    assert any("resolving the host name" in answer.text for answer in answers)
    # Their look-ups never end. This account has used up its own, and the other one has all of its.
    held = check(service, "http://fine.test").text
    assert "resolving the host name" in held
    other = replace(service, account=OTHER)
    job_id = other.create_job(named(ministack, "fine"), filled, make_bucket(ministack))
    wait_until(lambda: status_of(other, job_id) == "completed", "the other account's job")
    program.interrupt(service.process, signal.SIGTERM)
    assert program.end(service.process).code == 0, "a look-up under way keeps no process alive"


def test_a_token_for_every_account_leaves_others_their_look_ups_and_checks(
    service: Service, folder: Path, ministack: S3Server, filled: str, make_bucket: Make
) -> None:
    """It makes up an account for every few names. None of their look-ups ever ends."""
    made_up = [(f"http://dead-{number}.test", f"{number // 4:032x}") for number in range(MOST)]
    with ThreadPoolExecutor(OF_TOKEN.places) as pool:
        answers = list(pool.map(lambda each: check(service, each[0], account=each[1]), made_up))
    assert {answer.status_code for answer in answers} <= {200, 429}
    assert "resolving the host name" in check(service, "http://fine.test", account="c" * 32).text
    made = program.run("token", "create", "own", "--account", OTHER, "--data-dir", str(folder))
    other = replace(service, account=OTHER, token=made.out.strip())
    job_id = other.create_job(named(ministack, "fine"), filled, make_bucket(ministack))
    wait_until(lambda: status_of(other, job_id) == "completed", "the job of the other token")


def test_names_that_workers_never_find_out_hold_up_no_other_account(
    service: Service, ministack: S3Server, filled: str, make_bucket: Callable[[S3Server], str]
) -> None:
    stuck = [
        service.create_job(named(ministack, f"dies-{number}"), filled, make_bucket(ministack))
        for number in range(MOST_OF_ONE + 2)
    ]
    wait_until(lambda: all(status_of(service, one) == "paused" for one in stuck), "their pause")
    logs = service.call("GET", f"/{stuck[0]}/logs").text
    assert "resolving the host name" in logs
    other = replace(service, account=OTHER)
    job_id = other.create_job(named(ministack, "fine"), filled, make_bucket(ministack))
    wait_until(lambda: status_of(other, job_id) == "completed", "the other account's job")


def test_checks_at_once_are_limited_for_each_account(service: Service, ministack: S3Server) -> None:
    with answering(status="") as silent, ThreadPoolExecutor(60) as pool:
        endpoint = f"http://127.0.0.1:{silent.port}"
        flood = [pool.submit(check, service, endpoint) for _ in range(60)]
        wait_until(lambda: len(silent.connections) >= 4, "checks under way")
        other = check(service, named(ministack, "fine").endpoint, account=OTHER)
        assert other.status_code == 200, "another account has places of its own"
        answers = [one.result() for one in flood]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.status_code for answer in answers} == {200, 429}
    for answer in refused:
        assert answer.headers["retry-after"] == "5", "the SDKs wait, and try again"
        assert answer.json()["errors"][0]["code"] == 10058
    # Those who may not even wait are told at once: the others are at most 4 and 16 that wait.
    assert len(refused) >= 60 - 4 * (1 + 4) - 4
