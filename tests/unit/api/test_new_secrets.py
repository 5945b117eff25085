"""Retrying what failed, and resuming with new secrets, between buckets of a real server."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from slurper.api.envelope import Code
from slurper.database.housekeeping import Housekeeping
from slurper.database.leases import LeaseStore
from slurper.database.work import WorkStore
from slurper.demo.servers import S3Server
from slurper.job.model import Counts, LogType
from slurper.planning.keyspace import KeyRange
from slurper.transfer.task import ObjectEvent, RangeReport
from tests.unit.api import bodies
from tests.unit.api.conftest import ACCOUNT, JOBS, Api, running, settings_in
from tests.unit.api.test_app import failure

NOW = datetime(2026, 3, 19, tzinfo=UTC)
MakeBucket = Callable[[S3Server], str]


@pytest.fixture
async def api(tmp_path: Path, empty_database: Path, ministack: S3Server) -> AsyncIterator[Api]:
    shutil.copy(empty_database, tmp_path)
    near = {"allow_http": True, "r2_endpoint": ministack.endpoint}
    async with running(settings_in(tmp_path).model_copy(update=near)) as api:
        yield api


@pytest.fixture
async def work(api: Api) -> WorkStore:
    """The database as a driver sees it; this one makes up what it reports."""
    lease = await LeaseStore(api.store.database).acquire("driver", 3600)
    assert lease is not None
    return WorkStore(api.store.database, lease)


@pytest.fixture
def secret(ministack: S3Server) -> bodies.Json:
    return {
        "accessKeyId": ministack.access_key_id,
        "secretAccessKey": ministack.secret_access_key,
    }


@pytest.fixture
def body(ministack: S3Server, make_bucket: MakeBucket, secret: bodies.Json) -> bodies.Json:
    """What makes a job from one bucket of the server to another."""
    at = {"endpoint": ministack.endpoint, "region": ministack.region, "secret": secret}
    return bodies.create(
        source=bodies.s3_source(bucket=make_bucket(ministack), **at),
        target=bodies.r2_target(bucket=make_bucket(ministack), secret=secret),
    )


async def _created(api: Api, body: bodies.Json) -> str:
    answer = await api.client.post(JOBS, json=body)
    assert answer.status_code == 201, answer.text
    job_id: str = answer.json()["result"]["id"]
    return job_id


async def _failed(api: Api, work: WorkStore, body: bodies.Json, *keys: str) -> str:
    """A job that has completed, except for these keys."""
    job_id = await _created(api, body)
    (job,) = [one for one in await work.running_jobs() if one.job.id == job_id]
    failed = LogType.IMPORT_ERROR_RETRY_EXHAUSTION
    report = RangeReport(
        job_id=job_id,
        range_id=job.ranges[0].range_id,
        started_after=None,
        cursor="\U0001f600",
        finished=True,
        counts=Counts(objects=len(keys), failed=len(keys)),
        events=tuple(ObjectEvent(key=key, log_type=failed, message="HTTP 500") for key in keys),
    )
    await work.commit(report, NOW)
    return job_id


async def _retry(api: Api, job_id: str, body: bodies.Json | None = None) -> httpx.Response:
    path = f"{JOBS}/{job_id}/retryFailed"
    return await (api.client.put(path) if body is None else api.client.put(path, json=body))


async def _shown(api: Api, job_id: str) -> bodies.Json:
    answer = await api.client.get(f"{JOBS}/{job_id}")
    shown: bodies.Json = answer.json()["result"]
    return shown


async def test_a_retry_answers_like_create_and_says_what_it_retries(
    api: Api, work: WorkStore, body: bodies.Json
) -> None:
    body = bodies.changed(body, overwrite=False, options={"skipEmpty": True})
    retried = await _failed(api, work, body, "b", "a", "not UTF-8: \udcff")
    answer = await _retry(api, retried)
    assert answer.status_code == 201, answer.text
    assert answer.json().keys() == {"success", "errors", "messages", "result"}
    job_id = answer.json()["result"]["id"]
    assert answer.json()["result"] == {"id": job_id}
    shown, before = await _shown(api, job_id), await _shown(api, retried)
    same = {name: before[name] for name in ("overwrite", "target", "options")}
    assert same.items() <= shown.items()
    assert (shown["retryOf"], before["retryOf"]) == (retried, None)
    assert shown["source"]["keys"] == ["a", "b", "not UTF-8: \ufffd"]
    assert (shown["keyCount"], before["keyCount"]) == (3, None)
    assert await work.keys_within(job_id, KeyRange("b"), limit=9) == ("not UTF-8: \udcff",)
    listed = (await api.client.get(JOBS)).json()["result"]
    assert [(one["id"], one["retryOf"]) for one in listed] == [(job_id, retried), (retried, None)]
    assert (listed[0]["source"]["keys"], listed[0]["keyCount"]) == ([], 3)


async def test_a_retry_that_is_sent_again_makes_no_second_job(
    api: Api, work: WorkStore, body: bodies.Json, secret: bodies.Json
) -> None:
    path = f"{JOBS}/{await _failed(api, work, body, 'a')}/retryFailed"
    new = {"source": {"secret": secret}}
    first = await api.client.put(path)
    again = await api.client.put(path, headers={"x-stainless-retry-count": "1"})
    assert (again.status_code, again.json()) == (201, first.json())
    other = await api.client.put(path, json=new, headers={"x-stainless-retry-count": "1"})
    key = {"idempotency-key": "k"}
    by_key = [await api.client.put(path, headers=key) for _ in range(2)]
    assert by_key[0].json() == by_key[1].json()
    ids = {one.json()["result"]["id"] for one in (first, other, *by_key)}
    assert len(ids) == 3
    failure(await api.client.put(path, json=new, headers=key), 422, Code.KEY_REUSED)
    failure(await api.client.post(JOBS, json=body, headers=key), 422, Code.KEY_REUSED)
    assert len((await api.client.get(JOBS)).json()["result"]) == 4


async def test_more_keys_than_a_request_may_name_are_not_echoed(
    api: Api, work: WorkStore, body: bodies.Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slurper.database.reading.MAX_KEYS_READ", 2)
    job_id = (await _retry(api, await _failed(api, work, body, *"abc"))).json()["result"]["id"]
    assert (await _shown(api, job_id))["source"]["keys"] == []


async def test_what_cannot_be_retried_is_a_conflict(
    api: Api, work: WorkStore, body: bodies.Json
) -> None:
    running_job, flawless = await _created(api, body), await _failed(api, work, body)
    assert "still active" in failure(await _retry(api, running_job), 409, Code.JOB_CONFLICT)
    assert "nothing to retry" in failure(await _retry(api, flawless), 409, Code.JOB_CONFLICT)
    for absent in ("0" * 64, "nonsense"):
        failure(await _retry(api, absent), 404, Code.JOB_NOT_FOUND)
    elsewhere = f"/accounts/{'b' * 32}/slurper/jobs/{flawless}/retryFailed"
    failure(await api.client.put(elsewhere), 404, Code.JOB_NOT_FOUND)


async def test_erased_secrets_are_asked_for_by_name(
    api: Api, work: WorkStore, body: bodies.Json, secret: bodies.Json
) -> None:
    job_id = await _failed(api, work, body, "a")
    await Housekeeping(work.database, work.lease).erase_secrets(datetime(9999, 1, 1, tzinfo=UTC))
    side = {"secret": secret}
    for sent, pointer in ((None, "/source/secret"), ({"source": side}, "/target/secret")):
        answer = await _retry(api, job_id, sent)
        failure(answer, 400, Code.INVALID_FIELD)
        assert answer.json()["errors"][0]["source"] == {"pointer": pointer}
    assert (await _retry(api, job_id, {"source": side, "target": side})).status_code == 201


@pytest.mark.parametrize("operation", ["retryFailed", "resume"])
async def test_secrets_that_do_not_work_change_nothing(
    api: Api, work: WorkStore, body: bodies.Json, secret: bodies.Json, operation: str
) -> None:
    if operation == "retryFailed":
        job_id = await _failed(api, work, body, "a")
    else:
        job_id = await _created(api, body)
        await api.client.put(f"{JOBS}/{job_id}/pause")
    before = await _shown(api, job_id)
    path = f"{JOBS}/{job_id}/{operation}"
    wrong = {"secret": bodies.changed(secret, secretAccessKey="s3cr3t")}
    answer = await api.client.put(path, json={"source": {"secret": secret}, "target": wrong})
    failure(answer, 403, Code.PRECHECK_FAILED)
    _, cause = answer.json()["errors"]
    assert cause["source"] == {"pointer": "/target/secret"}
    assert "s3cr3t" not in answer.text
    answer = await api.client.put(path, json={"source": {"secret": bodies.gcs_secret()}})
    failure(answer, 400, Code.INVALID_FIELD)
    assert answer.json()["errors"][0]["source"] == {"pointer": "/source/secret"}
    assert await _shown(api, job_id) == before
    assert len((await api.client.get(JOBS)).json()["result"]) == 1


@pytest.mark.parametrize("sides", [(), ("source",), ("target",), ("source", "target")])
async def test_a_job_resumes_with_the_secrets_that_are_sent(
    api: Api, body: bodies.Json, secret: bodies.Json, sides: tuple[str, ...]
) -> None:
    job_id = await _created(api, body)
    await api.client.put(f"{JOBS}/{job_id}/pause")
    sent = {side: {"secret": secret} for side in sides}
    answer = await api.client.put(f"{JOBS}/{job_id}/resume", json=sent)
    assert (answer.status_code, answer.json()["result"]) == (200, "Job resumed")
    again = await api.client.put(f"{JOBS}/{job_id}/resume", json=sent)
    failure(again, 409, Code.JOB_CONFLICT)
    assert again.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/json"}])
async def test_clients_that_know_nothing_of_secrets_resume_as_ever(
    api: Api, body: bodies.Json, headers: dict[str, str]
) -> None:
    job_id = await _created(api, body)
    await api.client.put(f"{JOBS}/{job_id}/pause", headers=headers)
    answer = await api.client.put(f"{JOBS}/{job_id}/resume", headers=headers)
    assert (answer.status_code, answer.json()["result"]) == (200, "Job resumed")
    assert answer.request.headers.get("content-length") == "0"


async def test_nobody_without_a_token_gets_a_body_read(api: Api) -> None:
    path = f"/accounts/{ACCOUNT}/slurper/jobs/{'0' * 64}/retryFailed"
    answer = await api.client.put(path, content=b"{", headers={"authorization": "Bearer wrong"})
    failure(answer, 401, Code.AUTHENTICATION)


async def test_one_job_too_many_is_409_and_not_to_be_repeated_until_one_has_ended(
    api: Api, work: WorkStore, body: bodies.Json
) -> None:
    ended = await _failed(api, work, body, "a")
    first, *_ = [await _created(api, body) for _ in range(10)]
    for answer in (await api.client.post(JOBS, json=body), await _retry(api, ended)):
        assert "Maximum number of concurrent jobs" in failure(answer, 409, Code.JOB_LIMIT)
        assert answer.headers["x-should-retry"] == "false"
    await api.client.put(f"{JOBS}/{first}/pause")
    assert (await api.client.post(JOBS, json=body)).status_code == 409, "paused jobs are active"
    await api.client.put(f"{JOBS}/{first}/abort")
    assert (await api.client.post(JOBS, json=body)).status_code == 201
