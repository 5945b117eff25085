"""`slurper serve`, `slurper jobs` and `slurper token` as an operator runs them."""

from __future__ import annotations

import re
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from slurper.demo.servers import S3Server
from tests.chaos import proxy
from tests.e2e import program
from tests.e2e.conftest import COUNT
from tests.e2e.program import ACCOUNT, Service

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Boto = Callable[[S3Server], "S3Client"]
MakeBucket = Callable[[S3Server], str]

FEW_AT_ONCE = {"SLURPER_IN_FLIGHT_REQUESTS": "2"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with program.serving(tmp_path_factory.mktemp("serve"), env=FEW_AT_ONCE) as running:
        yield running


@pytest.fixture
def service(running: Service) -> Service:
    """A service where nobody else has this account."""
    return replace(running, account=secrets.token_hex(16))


def _jobs(service: Service, *arguments: str, anew: bool = False) -> program.Ended:
    return program.run("jobs", *arguments, env=service.env, anew=anew)


def test_sigterm_ends_an_idle_service_with_0(tmp_path: Path) -> None:
    with program.serving(tmp_path / "data", anew=True) as service:
        children = program.descendants(service.process)
        service.process.send_signal(signal.SIGTERM)
        ended = program.end(service.process)
    assert ended.code == 0, ended.err
    assert psutil.wait_procs(children, timeout=5)[1] == []


def test_a_job_outlives_its_service(
    slow: S3Server, ministack: S3Server, buckets: tuple[str, str], boto: Boto, tmp_path: Path
) -> None:
    with program.serving(tmp_path, env=FEW_AT_ONCE, anew=True) as first:
        job_id = first.create_job(slow, *buckets)
        listing = boto(ministack).list_objects_v2
        program.wait_until(lambda: listing(Bucket=buckets[1])["KeyCount"] > 0, "the first object")
        first.process.send_signal(signal.SIGTERM)
        assert program.end(first.process).code == 0
    copied = listing(Bucket=buckets[1])["KeyCount"]
    assert copied < COUNT
    with program.serving(tmp_path) as second:
        before = _jobs(second, "show", job_id, "--json").json["progress"]
        assert before["transferredObjects"] >= copied, "what was under way was not committed"
        ended = _jobs(second, "watch", job_id, "--json")
    assert ended.code == 0
    assert (ended.json["transferredObjects"], ended.json["skippedObjects"]) == (COUNT, 0)


def test_an_occupied_port_is_a_clear_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = program.run("serve", "--port", port, "--data-dir", str(tmp_path))
    assert ended.code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in ended.err


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_second_service_stands_by_and_takes_over(
    slow: S3Server,
    ministack: S3Server,
    buckets: tuple[str, str],
    boto: Boto,
    tmp_path: Path,
    end: signal.Signals,
) -> None:
    listing = boto(ministack).list_objects_v2
    with program.serving(tmp_path, env=FEW_AT_ONCE) as first:
        # It listens before it drives. A second that began now could be faster.
        program.wait_until(lambda: program.descendants(first.process) != [], "its workers")
        with program.serving(tmp_path, env={"SLURPER_LEASE_SECONDS": "3600"}) as second:
            job_id = second.create_job(slow, *buckets)
            program.wait_until(
                lambda: listing(Bucket=buckets[1])["KeyCount"] > 0, "the first object"
            )
            assert len(program.descendants(second.process)) == 0, "a standby has no workers"
            assert _jobs(second, "show", job_id, "--json").json["status"] == "running"
            first.process.send_signal(end)
            program.end(first.process)
            ended = _jobs(second, "watch", job_id, "--json")
    assert ended.code == 0, ended.err
    assert (ended.json["transferredObjects"], ended.json["skippedObjects"]) == (COUNT, 0)


def test_a_host_that_is_not_ours_is_a_clear_error(tmp_path: Path) -> None:
    behind = ("--behind-proxy", "127.0.0.1")
    ended = program.run("serve", "--host", "192.0.2.1", *behind, "--data-dir", str(tmp_path))
    assert ended.code == 2
    assert "cannot listen on 192.0.2.1" in ended.err


def test_a_job_from_creation_to_deletion(
    service: Service, ministack: S3Server, buckets: tuple[str, str]
) -> None:
    job_id = service.create_job(ministack, *buckets)
    watched = _jobs(service, "watch", job_id, anew=True)
    assert watched.code == 0, watched.err
    assert f"completed: {COUNT} objects, {COUNT} transferred, 0 skipped" in watched.out

    assert job_id in _jobs(service, "list", anew=True).out
    assert [job["id"] for job in _jobs(service, "list", "--json").json] == [job_id]

    shown = _jobs(service, "show", job_id, anew=True)
    assert buckets[0] in shown.out
    assert f"{COUNT} transferred" in shown.out
    assert "verifies CRC32C" in shown.out

    log = _jobs(service, "logs", job_id, anew=True)
    assert [line.split()[1] for line in log.out.splitlines()] == [
        "migrationStart",
        "migrationComplete",
    ]
    assert len(_jobs(service, "logs", job_id, "--offset", "1", "--json").json) == 1

    for verb in ("pause", "resume", "abort"):
        refused = _jobs(service, verb, job_id)
        assert refused.code == 2
        assert "error: " in refused.err
    assert _jobs(service, "delete", job_id, anew=True).out == "Job deleted\n"
    assert _jobs(service, "show", job_id).code == 2
    assert _jobs(service, "list").out == "no jobs\n"


def test_pause_resume_and_abort(service: Service, slow: S3Server, buckets: tuple[str, str]) -> None:
    job_id = service.create_job(slow, *buckets)
    assert _jobs(service, "pause", job_id, anew=True).out == "Job paused\n"
    assert _jobs(service, "show", job_id, "--json").json["status"] == "paused"
    assert _jobs(service, "resume", job_id, anew=True).out == "Job resumed\n"
    assert _jobs(service, "abort", job_id, anew=True).out == "Job aborted\n"
    watched = _jobs(service, "watch", job_id)
    assert watched.code == 1
    assert watched.out.startswith("aborted: ")

    other = service.create_job(slow, *buckets)
    assert _jobs(service, "abort", "--all").out == "All jobs aborted\n"
    assert _jobs(service, "show", other, "--json").json["status"] == "aborted"


def test_limits_hold_until_they_are_lifted(
    service: Service, ministack: S3Server, buckets: tuple[str, str], boto: Boto
) -> None:
    options = {"requestRateLimit": 5, "countObjects": True}
    job_id = service.create_job(ministack, *buckets, options=options)
    listing = boto(ministack).list_objects_v2
    program.wait_until(lambda: listing(Bucket=buckets[1])["KeyCount"] > 1, "two objects")

    def is_measured(progress: dict[str, object]) -> bool:
        return progress["totalObjects"] == COUNT and bool(progress["objectsPerSecond"])

    def asked() -> dict[str, object]:
        found: dict[str, object] = service.call("GET", f"/{job_id}/progress").json()["result"]
        return found

    def shown_as_json() -> dict[str, object]:
        found: dict[str, object] = _jobs(service, "show", job_id, "--json").json["progress"]
        return found

    program.wait_until(lambda: is_measured(asked()), "the count and a rate")
    program.wait_until(lambda: is_measured(shown_as_json()), "the same from the program")
    assert listing(Bucket=buckets[1])["KeyCount"] < COUNT
    shown = _jobs(service, "show", job_id).out
    assert "at most 5/s" in shown
    assert f"({COUNT} objects in all)" in shown
    assert _jobs(service, "set", job_id, "--bandwidth-limit", "fast").code == 2
    assert _jobs(service, "set", job_id).code == 2
    told = _jobs(service, "set", job_id, "--request-rate-limit", "none", anew=True).out
    assert told == "no limits\n"
    watched = _jobs(service, "watch", job_id, "--json")
    assert watched.code == 0, watched.err
    assert watched.json["transferredObjects"] == COUNT
    ended = _jobs(service, "set", job_id, "--request-rate-limit", "1")
    assert ended.code == 2
    assert "already completed" in ended.err


def test_a_failed_object_shows_in_log_and_exit_code(
    service: Service, ministack: S3Server, buckets: tuple[str, str]
) -> None:
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        front.add(proxy.status(403, "AccessDenied"), "^GET /[^?]*item-007")
        job_id = service.create_job(replace(ministack, endpoint=front.endpoint), *buckets)
        assert _jobs(service, "watch", job_id).code == 1
    log = _jobs(service, "logs", job_id).out
    assert "importErrorRetryExhaustion  item-007  " in log
    assert "AccessDenied" in log


def test_what_a_job_waits_for_is_said(
    service: Service, ministack: S3Server, buckets: tuple[str, str]
) -> None:
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        front.add(proxy.status(503, "SlowDown"), "^GET /[^?]*item-00[1-3]")
        job_id = service.create_job(replace(ministack, endpoint=front.endpoint), *buckets)
        shown = ""

        def is_said() -> bool:
            nonlocal shown
            shown = " ".join(_jobs(service, "show", job_id).out.split())
            return "waiting for" in shown

        program.wait_until(is_said, "what the job waits for")
        text = r"waiting for [1-3] requests? that the source answers with HTTP 503 SlowDown"
        assert re.search(text, shown), shown
        front.clear()
        assert _jobs(service, "watch", job_id).code == 0
        assert "waiting for" not in _jobs(service, "show", job_id).out


def test_what_failed_is_retried(
    service: Service, ministack: S3Server, buckets: tuple[str, str], boto: Boto
) -> None:
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        front.add(proxy.status(403, "AccessDenied"), "^GET /[^?]*item-01")
        job_id = service.create_job(replace(ministack, endpoint=front.endpoint), *buckets)
        assert _jobs(service, "watch", job_id).code == 1
        front.clear()
        made = _jobs(service, "retry-failed", job_id, anew=True)
        assert made.code == 0, made.err
        retry_id = made.out.strip()
        watched = _jobs(service, "watch", retry_id, "--json")
    assert watched.code == 0, watched.err
    assert (watched.json["objects"], watched.json["transferredObjects"]) == (10, 10)
    assert boto(ministack).list_objects_v2(Bucket=buckets[1])["KeyCount"] == COUNT
    assert f"what failed in job {job_id}" in _jobs(service, "show", retry_id).out.replace("\n", "")
    again = _jobs(service, "retry-failed", retry_id)
    assert again.code == 2
    assert "nothing to retry" in again.err


def test_a_job_resumes_with_new_credentials(
    service: Service, slow: S3Server, ministack: S3Server, buckets: tuple[str, str]
) -> None:
    job_id = service.create_job(slow, *buckets)
    assert _jobs(service, "pause", job_id).code == 0
    pair = ("--source-access-key-id", ministack.access_key_id)
    secret = {"SLURPER_SOURCE_SECRET_ACCESS_KEY": "wrong"}
    refused = program.run("jobs", "resume", job_id, *pair, env=service.env | secret)
    assert refused.code == 2
    assert "SignatureDoesNotMatch" in refused.err
    assert "wrong" not in refused.err
    missing = program.run("jobs", "resume", job_id, *pair, env=service.env)
    assert missing.code == 2
    assert "--source-secret-access-key is missing" in missing.err
    secret = {"SLURPER_SOURCE_SECRET_ACCESS_KEY": ministack.secret_access_key}
    resumed = program.run("jobs", "resume", job_id, *pair, env=service.env | secret)
    assert resumed.out == "Job resumed\n", resumed.err
    assert _jobs(service, "watch", job_id).code == 0


def test_job_commands_explain_what_is_missing(service: Service) -> None:
    for lacking, said in (
        ("CLOUDFLARE_ACCOUNT_ID", "--account"),
        ("SLURPER_API_TOKEN", "--token"),
    ):
        ended = program.run("jobs", "list", env=service.env | {lacking: ""})
        assert ended.code == 2
        assert said in ended.err
    wrong = program.run("jobs", "list", "--token", "wrong", env=service.env)
    assert wrong.code == 2
    assert "token is not valid" in wrong.err
    nobody = program.run("jobs", "list", "--server", "http://127.0.0.1:1", env=service.env)
    assert nobody.code == 2
    assert "is `slurper serve` running there?" in nobody.err
    nothing = program.run("jobs", "abort", env=service.env)
    assert nothing.code == 2
    assert "--all" in nothing.err


def test_tokens_open_the_api_until_they_are_revoked(tmp_path: Path) -> None:
    data_dir = ("--data-dir", str(tmp_path))
    with program.serving(tmp_path, env={"SLURPER_API_TOKEN": ""}) as service:
        made = program.run("token", "create", "laptop", "--account", ACCOUNT, *data_dir, anew=True)
        assert made.code == 0, made.err
        token = made.out.strip()
        named = replace(service, token=token)
        assert _jobs(named, "list").code == 0
        elsewhere = program.run("jobs", "list", "--account", "b" * 32, env=named.env)
        assert "token is not valid" in elsewhere.err

        assert token not in (tmp_path / "slurper.db").read_bytes().decode("latin-1")
        assert "laptop" in program.run("token", "list", *data_dir, anew=True).out
        assert program.run("token", "create", "laptop", *data_dir).code == 2
        assert program.run("token", "revoke", "laptop", *data_dir, anew=True).code == 0
        assert program.run("token", "revoke", "laptop", *data_dir).code == 2
        assert _jobs(named, "list").code == 2
        assert program.run("token", "list", *data_dir).out == "no tokens\n"


def test_health_and_metrics_need_no_token(service: Service) -> None:
    assert httpx.get(f"{service.url}/healthz").status_code == 200
    metrics = httpx.get(f"{service.url}/metrics")
    assert metrics.status_code == 200
    assert "slurper_jobs_running" in metrics.text
