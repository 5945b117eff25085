"""One tenant's source lists archived objects for ever. The others do not notice.

A `POST` of another tenant takes less than a second where the machine has time for it. Where it has
not, seconds say nothing. There we count how many objects the flood has settled meanwhile: a few
reports, for which the `POST` has waited, and not the whole flood.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from slurper.demo.servers import S3Server
from slurper.transfer.ledger import MAX_EVENTS
from tests.e2e import program
from tests.e2e.program import Service
from tests.security import endless
from tests.servers.r2 import server as r2
from tests.servers.r2.bucket import Bucket

ENTRIES = 40_000
"""The bound of a job's log here."""

WORKERS = 2

UNDER_WAY = WORKERS * MAX_EVENTS
"""What tasks under way may add when the bound is reached."""

FLOODS = 2

FEW = 8 * MAX_EVENTS
"""A `POST` has a few transactions, and each waits for a report of each worker at most."""

SETTINGS = {
    "SLURPER_JOB_LOG_ENTRIES": str(ENTRIES),
    "SLURPER_MAX_CONCURRENT_JOBS": "1000",
    "SLURPER_WORKERS": str(WORKERS),
    "SLURPER_TASK_SECONDS": "8",
}

Body = dict[str, object]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with program.serving(tmp_path, env=SETTINGS) as service:
        yield service


@pytest.fixture
def quiet_store() -> Iterator[S3Server]:
    """A store with the empty buckets `source` and `target`."""
    with r2.running() as stub:
        for name in ("source", "target"):
            stub.buckets[name] = Bucket()
        yield stub.address


def _body(source: S3Server, target: S3Server) -> Body:
    def side(server: S3Server, bucket: str) -> Body:
        secret = {"accessKeyId": server.access_key_id, "secretAccessKey": server.secret_access_key}
        where = {"endpoint": server.endpoint, "region": server.region}
        return {"vendor": "s3", "bucket": bucket, "secret": secret, **where}

    return {"source": side(source, "source"), "target": side(target, "target")}


def _create(service: Service, body: Body) -> str:
    answer = service.call("POST", "", body)
    assert answer.status_code == 201, answer.text
    job_id: str = answer.json()["result"]["id"]
    return job_id


def _seconds_of_a_create(service: Service, body: Body) -> float:
    began = time.monotonic()
    _create(service, body)
    return time.monotonic() - began


def _job(service: Service, job_id: str) -> Body:
    answer = service.call("GET", f"/{job_id}/progress")
    assert answer.status_code == 200, answer.text
    found: Body = answer.json()["result"]
    return found


def test_a_flood_of_log_entries_ends_and_keeps_no_other_tenant_waiting(
    service: Service, quiet_store: S3Server, tmp_path: Path
) -> None:
    other = replace(service, account=secrets.token_hex(16))
    quiet = _body(quiet_store, quiet_store)
    _seconds_of_a_create(other, quiet)
    with endless.running() as source:
        jobs = [_create(service, _body(source, quiet_store)) for _ in range(FLOODS)]
        program.wait_until(lambda: _settled(service, jobs) > 0, "a flood")
        waited = []
        while any(_job(service, job)["status"] == "running" for job in jobs):
            settled = _settled(service, jobs)
            seconds = _seconds_of_a_create(other, quiet)
            waited.append((seconds, _settled(service, jobs) - settled))
    assert len(waited) >= 4, "or this shows nothing"
    assert all(seconds <= 1 or meanwhile <= FEW for seconds, meanwhile in waited), waited
    for job in jobs:
        _check_full(service, job)
    with closing(sqlite3.connect(tmp_path / "slurper.db")) as database:
        (rows,) = database.execute("SELECT count(*) FROM logs").fetchone()
    assert rows <= FLOODS * (ENTRIES + UNDER_WAY) + 4 * (1 + len(waited))


def _settled(service: Service, jobs: list[str]) -> int:
    return sum(int(str(_job(service, job)["objects"])) for job in jobs)


def _check_full(service: Service, job_id: str) -> None:
    """The job has paused, says why, and cannot be resumed."""
    found = _job(service, job_id)
    skipped = int(str(found["skippedObjects"]))
    assert (found["status"], found["transferredObjects"]) == ("paused", 0)
    assert ENTRIES - 10 <= skipped <= ENTRIES + UNDER_WAY
    last = service.call("GET", f"/{job_id}/logs?limit=9&offset={skipped}").json()["result"][-1]
    assert last["logType"] == "migrationError"
    assert "SLURPER_JOB_LOG_ENTRIES" in last["message"]
    refused = service.call("PUT", f"/{job_id}/resume")
    assert refused.status_code == 409, refused.text
    assert "SLURPER_JOB_LOG_ENTRIES" in refused.text
