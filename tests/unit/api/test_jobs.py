"""The operations on jobs, on a real service and database; nothing is copied here."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from slurper.api import translate
from slurper.api.app import PRECONNECTIVITY_FAILED
from slurper.api.envelope import Code
from slurper.database.leases import LeaseStore
from slurper.database.work import WorkStore
from slurper.job.lifecycle import Command
from slurper.job.model import (
    Capabilities,
    Counts,
    Job,
    JobCapabilities,
    JobOptions,
    JobSpec,
    JobStatus,
    Jurisdiction,
    Location,
    LogEntry,
    LogType,
    Vendor,
)
from slurper.transfer.task import ObjectEvent, RangeReport
from tests.unit.api import bodies
from tests.unit.api.conftest import ACCOUNT, JOBS, Api
from tests.unit.api.test_app import failure

BEGAN = datetime(2026, 3, 19, 15, 46, 20, 123_456, tzinfo=UTC)
SPEC = JobSpec(
    source=Location(
        vendor=Vendor.S3, bucket="source", endpoint="https://s3.example.com", region="eu-west-1"
    ),
    target=Location(vendor=Vendor.R2, bucket="target", jurisdiction=Jurisdiction.EU),
)
ABSENT = "f" * 64
NEITHER = ["f" * 63, "f" * 65, "F" * 64, "g" * 64, "job-1", "abortAll", "%00", "..;"]


async def add(api: Api, number: int, spec: JobSpec = SPEC, account: str = ACCOUNT) -> str:
    """Store a running job without asking any store."""
    began = BEGAN + timedelta(seconds=number)
    job = Job(
        id=f"{number:064x}",
        account_id=account,
        spec=spec,
        status=JobStatus.RUNNING,
        created_at=began,
        capabilities=JobCapabilities(
            source=Capabilities(
                list_version=2,
                key_order="bytes",
                clock_ahead_seconds=-3,
                obeys_if_match=False,
                etags_of_parts_are_md5s=False,
            ),
            target=Capabilities(
                checksum="crc64nvme",
                verifies_checksum=True,
                trailing_checksum=False,
                verifies_md5=False,
                wants_md5=True,
                conditional_put=True,
                conditional_completion=False,
                unkept_keys=("backslash", "plus"),
                unkept_headers=("expires",),
            ),
        ),
    )
    entry = LogEntry(log_type=LogType.MIGRATION_START, created_at=began)
    await api.store.create_job(job, b"sealed", max_active=1_000, entry=entry)
    return job.id


def result(answer: httpx.Response) -> object:
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body.keys() == {"success", "errors", "messages", "result"}
    assert (body["success"], body["errors"]) == (True, [])
    return body["result"]


async def test_a_job_is_shown_without_region_and_secret(api: Api) -> None:
    job_id = await add(api, 1)
    assert result(await api.client.get(f"{JOBS}/{job_id}")) == {
        "id": job_id,
        "createdAt": "2026-03-19T15:46:21.123Z",
        "finishedAt": None,
        "overwrite": True,
        "source": {
            "vendor": "s3",
            "bucket": "source",
            "endpoint": "https://s3.example.com",
            "pathPrefix": None,
            "keys": None,
        },
        "status": "running",
        "target": {"vendor": "r2", "bucket": "target", "jurisdiction": "eu"},
        "options": {
            "skipEmpty": False,
            "contentTypes": {"include": [], "exclude": []},
            "validateMedia": False,
            "stripPrefix": False,
            "maxObjectSize": None,
            "bandwidthLimit": None,
            "requestRateLimit": None,
            "serverSideCopy": True,
            "countObjects": False,
            "require": [],
        },
        "retryOf": None,
        "createdBy": None,
        "capabilities": {
            "source": {
                "listVersion": 2,
                "keyOrder": "bytes",
                "clockAheadSeconds": -3,
                "conditionalReads": False,
                "etagsAreMd5": None,
                "partEtagsAreMd5": False,
            },
            "target": {
                "listVersion": None,
                "keyOrder": None,
                "clockAheadSeconds": None,
                "conditionalReads": None,
                "checksum": "crc64nvme",
                "checksumVerified": True,
                "trailingChecksumVerified": False,
                "md5Verified": False,
                "md5Required": True,
                "conditionalWrites": True,
                "conditionalCompletions": False,
                "unkeptKeys": ["backslash", "plus"],
                "unkeptHeaders": ["expires"],
            },
        },
        "keyCount": None,
    }


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        (Location(vendor=Vendor.GCS, bucket="b"), {"vendor": "gcs", "bucket": "b"}),
        (
            Location(vendor=Vendor.R2, bucket="b"),
            {"vendor": "r2", "bucket": "b", "jurisdiction": "default"},
        ),
        (Location(vendor=Vendor.S3, bucket="b"), {"vendor": "s3", "bucket": "b", "endpoint": None}),
    ],
)
async def test_each_vendor_shows_its_own_members(
    api: Api, location: Location, shown: dict[str, object]
) -> None:
    spec = replace(
        SPEC, source=location, target=location, prefix="a/", keys=("a/", "a/ü"), overwrite=False,
        options=JobOptions(
            skip_empty=True, include_content_types=("image/*",), exclude_content_types=("a/b",),
            validate_media=True, strip_prefix=True, max_object_bytes=5, bandwidth_limit=6,
            request_rate_limit=7, server_side_copy=False, count_objects=True,
            require=("expires", "metadata"),
        ),
    )  # fmt: skip
    job_id = await add(api, 1, spec)
    job = result(await api.client.get(f"{JOBS}/{job_id}"))
    assert isinstance(job, dict)
    assert job["source"] == {**shown, "pathPrefix": "a/", "keys": ["a/", "a/ü"]}
    assert job["keyCount"] == 2
    assert job["target"] == shown
    assert job["overwrite"] is False
    assert job["options"] == {
        "skipEmpty": True,
        "contentTypes": {"include": ["image/*"], "exclude": ["a/b"]},
        "validateMedia": True,
        "stripPrefix": True,
        "maxObjectSize": 5,
        "bandwidthLimit": 6,
        "requestRateLimit": 7,
        "serverSideCopy": False,
        "countObjects": True,
        "require": ["expires", "metadata"],
    }


async def test_limits_change_one_by_one_while_a_job_lasts(api: Api) -> None:
    job_id = await add(api, 1)

    async def change(**limits: int | None) -> tuple[object, object]:
        answer = await api.client.patch(f"{JOBS}/{job_id}", json={"options": limits})
        job = result(answer)
        assert isinstance(job, dict)
        assert job == result(await api.client.get(f"{JOBS}/{job_id}"))
        return job["options"]["bandwidthLimit"], job["options"]["requestRateLimit"]

    assert await change(bandwidthLimit=10) == (10, None)
    assert await change(requestRateLimit=20) == (10, 20)
    assert await change(bandwidthLimit=None, requestRateLimit=30) == (None, 30)
    await api.client.put(f"{JOBS}/{job_id}/pause")
    assert await change(requestRateLimit=None) == (None, None)


async def test_limits_of_a_job_that_has_ended_or_is_not_there_do_not_change(api: Api) -> None:
    body = {"options": {"bandwidthLimit": 1}}
    absent = await api.client.patch(f"{JOBS}/{'0' * 64}", json=body)
    assert (absent.status_code, absent.json()["errors"][0]["code"]) == (404, Code.JOB_NOT_FOUND)
    job_id = await add(api, 1)
    await api.client.put(f"{JOBS}/{job_id}/abort")
    ended = await api.client.patch(f"{JOBS}/{job_id}", json=body)
    assert (ended.status_code, ended.json()["errors"][0]["code"]) == (409, Code.JOB_CONFLICT)
    assert ended.headers["x-should-retry"] == "false"


async def test_jobs_are_paged_newest_first(api: Api) -> None:
    ids = [await add(api, number) for number in range(60)][::-1]
    await add(api, 60, account="another")

    async def page(query: str) -> list[str]:
        jobs = result(await api.client.get(f"{JOBS}{query}"))
        assert isinstance(jobs, list)
        return [job["id"] for job in jobs]

    assert await page("") == ids[:50]
    assert await page("?limit=1") == ids[:1]
    assert await page("?limit=50&offset=50") == ids[50:]
    assert await page("?offset=60") == []
    assert await page("?offset=999999999999999999") == []
    assert await page("?limit=7&offset=3&page=9&unknown") == ids[3:10]


@pytest.mark.parametrize("base", ["/client/v4", ""])
async def test_both_base_paths_lead_to_the_same_job(api: Api, base: str) -> None:
    job_id = await add(api, 1)
    path = f"{base}/accounts/{ACCOUNT}/slurper/jobs/{job_id}"
    for action, status in (("pause", "paused"), ("resume", "running"), ("abort", "aborted")):
        # The Python SDK sends a JSON content type with these empty bodies.
        answer = await api.client.put(
            f"{path}/{action}", headers={"content-type": "application/json"}
        )
        assert result(answer) == f"Job {action}d" if action != "abort" else "Job aborted"
        job = result(await api.client.get(path))
        assert isinstance(job, dict)
        assert job["status"] == status
        assert (job["finishedAt"] is None) == (status != "aborted")
    assert result(await api.client.delete(path)) == "Job deleted"
    failure(await api.client.get(path), 404, Code.JOB_NOT_FOUND)


@pytest.mark.parametrize("content", [b"", b"{}", b"null", b"not json", b"[" * 9])
async def test_a_body_that_no_operation_reads_is_ignored(api: Api, content: bytes) -> None:
    job_id = await add(api, 1)
    headers = {"content-type": "application/json"}
    answer = await api.client.put(f"{JOBS}/{job_id}/pause", content=content, headers=headers)
    assert result(answer) == "Job paused"


@pytest.mark.parametrize("content", [b"", b"null", b" null\n"])
async def test_null_is_no_body_for_any_operation_that_needs_none(api: Api, content: bytes) -> None:
    job_id = await add(api, 1)
    for method, path, status in (
        ("PUT", f"{job_id}/pause", 200),
        ("PUT", f"{job_id}/resume", 200),
        ("PUT", f"{job_id}/abort", 200),
        ("PUT", f"{job_id}/retryFailed", 409),  # nothing has failed in it
        ("PUT", "abortAll", 200),
        ("GET", f"{job_id}/progress", 200),
        ("DELETE", job_id, 200),
    ):
        headers = {"content-type": "application/json"}
        sent = api.client.request(method, f"{JOBS}/{path}", content=content, headers=headers)
        assert (await sent).status_code == status, path


@pytest.mark.parametrize(
    ("commands", "method", "action", "says"),
    [
        ([], "DELETE", "", "still active"),
        ([], "PUT", "/resume", "not paused"),
        ([Command.PAUSE], "PUT", "/pause", "not running"),
        ([Command.PAUSE], "DELETE", "", "still active"),
        ([Command.ABORT], "PUT", "/pause", "already aborted"),
        ([Command.ABORT], "PUT", "/resume", "already aborted"),
        ([Command.ABORT], "PUT", "/abort", "already aborted"),
    ],
)
async def test_a_command_that_the_status_forbids_is_409_and_not_to_be_repeated(
    api: Api, commands: list[Command], method: str, action: str, says: str
) -> None:
    job_id = await add(api, 1)
    for command in commands:
        await api.store.apply(ACCOUNT, job_id, command)
    answer = await api.client.request(method, f"{JOBS}/{job_id}{action}")
    assert says in failure(answer, 409, Code.JOB_CONFLICT)
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("job_id", [ABSENT, *NEITHER])
@pytest.mark.parametrize(
    ("method", "action"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/progress"),
        ("GET", "/logs"),
        ("PUT", "/pause"),
        ("PUT", "/resume"),
        ("PUT", "/abort"),
    ],
)
async def test_an_absent_job_is_404(api: Api, method: str, action: str, job_id: str) -> None:
    answer = await api.client.request(method, f"{JOBS}/{job_id}{action}")
    failure(answer, 404, Code.JOB_NOT_FOUND)


async def test_a_job_of_another_account_is_absent(api: Api) -> None:
    job_id = await add(api, 1, account="another")
    failure(await api.client.get(f"{JOBS}/{job_id}"), 404, Code.JOB_NOT_FOUND)
    failure(await api.client.put(f"{JOBS}/{job_id}/abort"), 404, Code.JOB_NOT_FOUND)
    assert result(await api.client.put(f"{JOBS}/abortAll")) == "All jobs aborted"
    assert (await api.store.get_job("another", job_id)).status is JobStatus.RUNNING


async def test_abort_all_ends_running_and_paused_jobs(api: Api) -> None:
    ids = [await add(api, number) for number in range(3)]
    await api.store.apply(ACCOUNT, ids[0], Command.PAUSE)
    await api.store.apply(ACCOUNT, ids[1], Command.ABORT)
    answer = await api.client.put(f"{JOBS}/abortAll", headers={"content-type": "application/json"})
    assert result(answer) == "All jobs aborted"
    jobs = result(await api.client.get(JOBS))
    assert isinstance(jobs, list)
    assert [job["status"] for job in jobs] == ["aborted"] * 3


async def test_progress_and_logs(api: Api) -> None:
    job_id = await add(api, 1)
    lease = await LeaseStore(api.store.database).acquire("driver", 60)
    assert lease is not None
    store = WorkStore(api.store.database, lease)
    (work,) = await store.running_jobs()
    committed = datetime(2026, 3, 19, 16, tzinfo=UTC)
    await store.commit(
        RangeReport(
            job_id=job_id,
            range_id=work.ranges[0].range_id,
            started_after=None,
            cursor="z",
            finished=True,
            counts=Counts(objects=6, transferred=3, skipped=1, failed=2, transferred_bytes=1 << 40),
            events=(
                ObjectEvent(
                    key="b\udcff",
                    log_type=LogType.IMPORT_ERROR_RETRY_EXHAUSTION,
                    message="GetObject of b\udcff",
                ),
                ObjectEvent(
                    key="a/ü", log_type=LogType.IMPORT_SKIPPED_OVERSIZED, message="too large"
                ),
            ),
        ),
        committed,
    )
    assert result(await api.client.get(f"{JOBS}/{job_id}/progress")) == {
        "id": job_id,
        "createdAt": "2026-03-19T15:46:21.123Z",
        "finishedAt": "2026-03-19T16:00:00.000Z",
        "status": "completed",
        "objects": 6,
        "transferredObjects": 3,
        "skippedObjects": 1,
        "failedObjects": 2,
        "transferredBytes": 1 << 40,
        "objectsPerSecond": 0.0,
        "bytesPerSecond": 0.0,
        "totalObjects": None,
        "totalBytes": None,
        "estimatedSecondsLeft": 0.0,
        "throttledShare": {"source": 0.0, "target": 0.0},
        "activeWorkers": 0,
        "waitingFor": [],
    }
    logs = result(await api.client.get(f"{JOBS}/{job_id}/logs"))
    assert isinstance(logs, list)
    assert [(entry["logType"], entry["objectKey"]) for entry in logs] == [
        ("migrationStart", None),
        ("importSkippedOversized", "a/ü"),
        # JSON cannot carry a key that is not UTF-8 as it is.
        ("importErrorRetryExhaustion", "b\ufffd"),
        ("migrationComplete", None),
    ]
    assert logs[1] == {
        "createdAt": "2026-03-19T16:00:00.000Z",
        "job": job_id,
        "logType": "importSkippedOversized",
        "message": "too large",
        "objectKey": "a/ü",
    }
    page = result(await api.client.get(f"{JOBS}/{job_id}/logs?limit=2&offset=1"))
    assert page == logs[1:3]


async def test_create_names_the_sides_that_cannot_be_reached(api: Api) -> None:
    body = bodies.create(target=bodies.s3_source(bucket="target-bucket"))
    answer = await api.client.post(JOBS, json=body)
    assert failure(answer, 403, Code.PRECHECK_FAILED) == PRECONNECTIVITY_FAILED
    assert PRECONNECTIVITY_FAILED == "Preconnectivity failed, please verify tokens and try again"
    first, *causes = answer.json()["errors"]
    assert "source" not in first
    assert [cause["source"]["pointer"] for cause in causes] == [
        "/source/endpoint",
        "/target/endpoint",
    ]
    assert all(cause["code"] == Code.PRECHECK_FAILED for cause in causes)
    assert "s3cr3t" not in answer.text
    assert await api.store.list_jobs(ACCOUNT, limit=1, offset=0) == []


async def test_a_precheck_answers_with_reasons(api: Api) -> None:
    path = f"/accounts/{ACCOUNT}/slurper/source/connectivity-precheck"
    answer = await api.client.put(path, json=bodies.s3_source())
    found = answer.json()["result"]
    assert found["connectivityStatus"] == "error"
    (reason,) = found["reasons"]
    assert (reason["pointer"], reason["blocks"]) == ("/endpoint", True)
    assert "127.0.0.1:9" in reason["message"]
    # Clients drop the messages; who reads the envelope finds the same there.
    assert answer.json()["messages"] == [f"endpoint: {reason['message']}"]


async def test_a_private_key_that_cannot_sign_is_pointed_at(api: Api) -> None:
    answer = await api.client.post(JOBS, json=bodies.from_gcs())
    failure(answer, 400, Code.INVALID_FIELD)
    assert answer.json()["errors"][0]["source"]["pointer"] == "/source/secret/privateKey"
    path = f"/accounts/{ACCOUNT}/slurper/source/connectivity-precheck"
    answer = await api.client.put(path, json=bodies.gcs_source())
    failure(answer, 400, Code.INVALID_FIELD)
    assert answer.json()["errors"][0]["source"]["pointer"] == "/secret/privateKey"
    assert "MIIEvQ" not in answer.text


def test_times_have_the_form_of_the_api() -> None:
    shown = translate.timestamp(BEGAN.astimezone(None))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", shown)
    assert shown == "2026-03-19T15:46:20.123Z"
    assert json.dumps(shown) == '"2026-03-19T15:46:20.123Z"'
