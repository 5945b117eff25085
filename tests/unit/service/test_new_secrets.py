"""Retrying what failed and resuming, with the old credentials and with new ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.fernet import Fernet
from mypy_boto3_s3 import S3Client

from slurper import errors
from slurper.database.housekeeping import Housekeeping
from slurper.database.tokens import TokenStore
from slurper.demo.servers import S3Server
from slurper.job.lifecycle import Command
from slurper.job.model import Counts, JobStatus, LogType
from slurper.planning.keyspace import KeyRange
from slurper.secrets import GcsCredentials, JobSecrets, S3Credentials, Sealer
from slurper.transfer.task import ObjectEvent, RangeReport
from tests.unit.service.conftest import ACCOUNT, Office

NOW = datetime(2026, 3, 19, tzinfo=UTC)
EVER = datetime(9999, 1, 1, tzinfo=UTC)
GCS = GcsCredentials(client_email="a@b", private_key="pem")


async def _failed(office: Office, *keys: str, **changes: object) -> str:
    """A completed job in which these keys failed."""
    job_id = await office.create(**changes)
    (work,) = [one for one in await office.work.running_jobs() if one.job.id == job_id]
    report = RangeReport(
        job_id=job_id,
        range_id=work.ranges[0].range_id,
        started_after=None,
        cursor="z",
        finished=True,
        counts=Counts(objects=len(keys) + 1, transferred=1, failed=len(keys)),
        events=tuple(
            ObjectEvent(key=key, log_type=LogType.IMPORT_ERROR_RETRY_EXHAUSTION, message="HTTP 500")
            for key in keys
        ),
    )
    assert (await office.work.commit(report, NOW)).status is JobStatus.COMPLETED
    return job_id


async def _secrets(office: Office, job_id: str) -> JobSecrets:
    (work,) = [one for one in await office.work.running_jobs() if one.job.id == job_id]
    return office.sealer.open(work.sealed)


def _other(office: Office) -> S3Credentials:
    """Credentials that are as good but not the same: ministack lets any account's root in."""
    assert isinstance(office.secrets.source, S3Credentials)
    return replace(office.secrets.source, session_token=None)


def _wrong(office: Office) -> S3Credentials:
    return replace(_other(office), secret_access_key="mistyped")


# Retrying what failed


async def test_a_retry_is_a_job_of_the_failed_keys_with_the_same_settings(office: Office) -> None:
    retried = await _failed(office, "p/b", "p/a", prefix="p/", overwrite=False)
    woken = len(office.woken)
    job_id = await office.service.retry_failed(ACCOUNT, retried)
    job = await office.store.get_job(ACCOUNT, job_id)
    before = await office.store.get_job(ACCOUNT, retried)
    assert job.spec == replace(before.spec, keys=())
    assert (job.retry_of, job.status, before.status) == (retried, JobStatus.RUNNING, "completed")
    assert await office.work.keys_within(job_id, KeyRange(), limit=9) == ("p/a", "p/b")
    assert await _secrets(office, job_id) == office.secrets
    assert len(office.woken) == woken + 1
    (entry,) = await office.store.logs(ACCOUNT, job_id, limit=9, offset=0)
    assert entry.log_type is LogType.MIGRATION_START
    assert entry.message == f"Retries what failed in job {retried}: 2 of its objects"


async def test_a_job_and_its_retry_tell_which_token_made_each(office: Office) -> None:
    tokens = TokenStore(office.store.database)
    for name in ("first", "second"):
        await tokens.create(name)
    retried = await _failed(office, "k")
    retry_id = await office.service.retry_failed(ACCOUNT, retried, created_by="second")
    job_id = await office.service.create(ACCOUNT, office.spec, office.secrets, created_by="first")

    async def maker(job_id: str) -> str | None:
        return (await office.store.get_job(ACCOUNT, job_id)).created_by

    assert [await maker(one) for one in (retried, retry_id, job_id)] == [None, "second", "first"]
    await tokens.revoke("second", abort_jobs=True)
    assert (await office.store.get_job(ACCOUNT, retry_id)).status is JobStatus.ABORTED
    with pytest.raises(errors.TokenRevoked):
        await office.service.retry_failed(ACCOUNT, retried, created_by="second")


async def test_retries_stop_at_the_limit_of_all_accounts(office: Office) -> None:
    retried = await _failed(office, "k")
    limited = office.service._settings.model_copy(update={"max_concurrent_jobs_total": 1})
    office.service._settings = limited
    await office.create()
    with pytest.raises(errors.JobLimitReached, match=r"of all accounts has been reached \(1\)"):
        await office.service.retry_failed(ACCOUNT, retried)


async def test_nothing_but_an_ended_job_with_failures_is_retried(office: Office) -> None:
    running = await office.create()
    with pytest.raises(errors.JobConflict, match=r"still active \(running\)"):
        await office.service.retry_failed(ACCOUNT, running)
    await office.service.abort(ACCOUNT, running)
    with pytest.raises(errors.JobConflict, match="nothing to retry"):
        await office.service.retry_failed(ACCOUNT, running)
    with pytest.raises(errors.JobNotFound):
        await office.service.retry_failed(ACCOUNT, "0" * 64)
    with pytest.raises(errors.JobNotFound):
        await office.service.retry_failed("b" * 32, running)


async def test_retries_stop_at_the_limit_of_active_jobs(office: Office) -> None:
    retried = await _failed(office, "k")
    retries = [office.service.retry_failed(ACCOUNT, retried) for _ in range(5)]
    outcomes = await asyncio.gather(*retries, return_exceptions=True)
    assert sum(isinstance(one, errors.JobLimitReached) for one in outcomes) == 3


async def test_erased_credentials_must_be_given_again(office: Office) -> None:
    retried = await _failed(office, "k")
    assert await Housekeeping(office.work.database, office.work.lease).erase_secrets(EVER) == 1
    service, pair = office.service, office.secrets.source
    with pytest.raises(errors.InvalidField, match="have been erased") as caught:
        await service.retry_failed(ACCOUNT, retried)
    assert caught.value.pointer == "/source/secret"
    with pytest.raises(errors.InvalidField) as caught:
        await service.retry_failed(ACCOUNT, retried, source_credentials=pair)
    assert caught.value.pointer == "/target/secret"
    job_id = await service.retry_failed(
        ACCOUNT, retried, source_credentials=pair, target_credentials=pair
    )
    assert await _secrets(office, job_id) == office.secrets


async def test_credentials_sealed_with_a_lost_key_must_be_given_again(office: Office) -> None:
    retried = await _failed(office, "k")
    service, pair = office.service, office.secrets.source
    service._sealer = Sealer((Fernet.generate_key().decode(),))
    with pytest.raises(errors.InvalidField, match="sealed with another key") as caught:
        await service.retry_failed(ACCOUNT, retried, source_credentials=pair)
    assert caught.value.pointer == "/target/secret"
    await service.retry_failed(ACCOUNT, retried, source_credentials=pair, target_credentials=pair)


async def test_a_retry_is_checked_as_a_new_job_is(office: Office) -> None:
    retried = await _failed(office, "k")
    with pytest.raises(errors.PrecheckFailed) as caught:
        await office.service.retry_failed(
            ACCOUNT,
            retried,
            source_credentials=_wrong(office),
            target_credentials=_wrong(office),
        )
    pointers = [problem.pointer for problem in caught.value.problems]
    assert pointers == ["/source/secret", "/target/secret"]
    with pytest.raises(errors.InvalidField) as refused:
        await office.service.retry_failed(ACCOUNT, retried, source_credentials=GCS)
    assert refused.value.pointer == "/source/secret"
    assert len(await office.store.list_jobs(ACCOUNT, limit=9, offset=0)) == 1


async def test_a_bucket_that_is_gone_is_found_before_the_retry(
    office: Office, ministack: S3Server, boto: Callable[[S3Server], S3Client]
) -> None:
    retried = await _failed(office, "k")
    boto(ministack).delete_bucket(Bucket=office.spec.target.bucket)
    with pytest.raises(errors.PrecheckFailed) as caught:
        await office.service.retry_failed(ACCOUNT, retried)
    assert [problem.pointer for problem in caught.value.problems] == ["/target/bucket"]


async def test_settings_that_are_not_allowed_any_more_are_a_conflict(office: Office) -> None:
    """The request has no field that could be changed to cure it."""
    retried, paused = await _failed(office, "k"), await office.create()
    await office.service.pause(ACCOUNT, paused)
    office.service._precheck._settings = office.service._settings.model_copy(
        update={"allow_http": False}
    )
    with pytest.raises(errors.JobConflict, match=r"source\.endpoint, which must start with https"):
        await office.service.retry_failed(ACCOUNT, retried)
    with pytest.raises(errors.JobConflict, match=r"source\.endpoint"):
        await office.service.resume(ACCOUNT, paused, source_credentials=office.secrets.source)


# Resuming


@pytest.mark.parametrize("side", ["source", "target"])
async def test_a_job_resumes_with_new_credentials_for_one_side(office: Office, side: str) -> None:
    stored = replace(office.secrets, **{side: _wrong(office)})
    job_id = await office.create()
    await office.store.renew_secrets(ACCOUNT, job_id, office.sealer.seal(stored))
    await office.service.pause(ACCOUNT, job_id)
    given: dict[str, Any] = {f"{side}_credentials": _other(office)}
    job = await office.service.resume(ACCOUNT, job_id, **given)
    assert job.status is JobStatus.RUNNING
    assert await _secrets(office, job_id) == office.secrets


async def test_the_side_without_new_credentials_is_not_asked(office: Office) -> None:
    """It may be down for the moment, and the job pauses again if it stays so."""
    stored = replace(office.secrets, target=_wrong(office))
    job_id = await office.create()
    await office.store.renew_secrets(ACCOUNT, job_id, office.sealer.seal(stored))
    await office.service.pause(ACCOUNT, job_id)
    await office.service.resume(ACCOUNT, job_id, source_credentials=_other(office))
    assert await _secrets(office, job_id) == stored


async def test_credentials_that_do_not_work_leave_the_job_as_it_was(office: Office) -> None:
    job_id = await office.create()
    await office.service.pause(ACCOUNT, job_id)
    with pytest.raises(errors.PrecheckFailed) as caught:
        await office.service.resume(
            ACCOUNT, job_id, source_credentials=_other(office), target_credentials=_wrong(office)
        )
    assert [problem.pointer for problem in caught.value.problems] == ["/target/secret"]
    with pytest.raises(errors.InvalidField) as refused:
        await office.service.resume(ACCOUNT, job_id, target_credentials=GCS)
    assert refused.value.pointer == "/target/secret"
    job = await office.service.resume(ACCOUNT, job_id)
    assert job.status is JobStatus.RUNNING
    assert await _secrets(office, job_id) == office.secrets


async def test_credentials_change_with_the_status_or_not_at_all(office: Office) -> None:
    job_id = await office.create()
    for _ in range(2):
        with pytest.raises(errors.JobConflict, match="not paused"):
            await office.service.resume(ACCOUNT, job_id, source_credentials=_other(office))
    await office.service.pause(ACCOUNT, job_id)
    office.service._sealer = Sealer((Fernet.generate_key().decode(),))
    with pytest.raises(errors.InvalidField, match="sealed with another key") as caught:
        await office.service.resume(ACCOUNT, job_id, source_credentials=_other(office))
    assert caught.value.pointer == "/target/secret"
    assert (await office.store.get_job(ACCOUNT, job_id)).status is JobStatus.PAUSED
    entries = await office.store.logs(ACCOUNT, job_id, limit=9, offset=0)
    assert [entry.log_type for entry in entries][-1] is LogType.MIGRATION_PAUSE


async def test_of_many_resumes_at_once_one_counts(office: Office) -> None:
    job_id = await office.create()
    await office.service.pause(ACCOUNT, job_id)
    resumes = [
        office.service.resume(ACCOUNT, job_id, source_credentials=_other(office)) for _ in range(4)
    ]
    outcomes = await asyncio.gather(*resumes, return_exceptions=True)
    assert sum(isinstance(one, errors.JobConflict) for one in outcomes) == 3
    entries = await office.store.logs(ACCOUNT, job_id, limit=9, offset=0)
    assert len(entries) == 3


async def test_a_job_of_unread_keys_is_checked_by_some_of_them(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may not list the bucket can still resume a job of explicit keys."""
    monkeypatch.setattr("slurper.database.reading.MAX_KEYS_READ", 1)
    job_id = await office.create(keys=("b", "a"))
    await office.store.apply(ACCOUNT, job_id, Command.PAUSE)
    asked: list[object] = []
    check = office.service._precheck.source

    async def remember(*args: object, **kwargs: object) -> object:
        asked.append(kwargs["keys"])
        return await check(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(office.service._precheck, "source", remember)
    await office.service.resume(ACCOUNT, job_id, source_credentials=_other(office))
    assert asked == [("a", "b")]
