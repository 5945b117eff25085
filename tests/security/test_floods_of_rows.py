"""One tenant's source lists archived objects for ever. The others do not notice.

The time that a `POST` takes depends on how busy the machine is. So it is compared with a bound that
is generous, and with what it took before the flood.
"""

from __future__ import annotations

import secrets
import sqlite3
import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from slurper.demo.servers import S3Server
from tests.e2e import program
from tests.e2e.program import Service
from tests.security import endless
from tests.servers.r2 import server as r2

ENTRIES = 60_000
"""The bound of a job's log here."""

WORKERS = 2

UNDER_WAY = WORKERS * 6_000
"""What tasks under way may add when the bound is reached: 5,000 events each, and a page more."""

FLOODS = 3

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
    """A store with the empty buckets `from` and `to`."""
    with r2.running() as stub:
        for name in ("from", "to"):
            stub.buckets[name] = r2.Bucket()
        yield stub.address


def _body(source: S3Server, target: S3Server) -> Body:
    def side(server: S3Server, bucket: str) -> Body:
        secret = {"accessKeyId": server.access_key_id, "secretAccessKey": server.secret_access_key}
        where = {"endpoint": server.endpoint, "region": server.region}
        return {"vendor": "s3", "bucket": bucket, "secret": secret, **where}

    return {"source": side(source, "from"), "target": side(target, "to")}


def _seconds_of_a_create(service: Service, body: Body) -> float:
    began = time.monotonic()
    answer = service.call("POST", "", body)
    assert answer.status_code == 201, answer.text
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
    before = [_seconds_of_a_create(other, quiet) for _ in range(10)]
    with endless.running() as source:
        flood = _body(source, quiet_store)
        jobs = []
        for _ in range(FLOODS):
            answer = service.call("POST", "", flood)
            assert answer.status_code == 201, answer.text
            jobs.append(answer.json()["result"]["id"])
        program.wait_until(lambda: int(str(_job(service, jobs[0])["objects"])) > 0, "a flood")
        during = []
        while any(_job(service, job)["status"] == "running" for job in jobs):
            during.append(_seconds_of_a_create(other, quiet))
    assert len(during) >= 5, "or this shows nothing"
    slowest = statistics.quantiles(during, n=100)[98]
    assert slowest <= max(1.0, 10 * statistics.median(before)), (before, during)
    for job in jobs:
        _check_full(service, job)
    with closing(sqlite3.connect(tmp_path / "slurper.db")) as database:
        (rows,) = database.execute("SELECT count(*) FROM logs").fetchone()
    assert rows <= FLOODS * (ENTRIES + UNDER_WAY) + 4 * (len(before) + len(during))


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
