"""Jobs are made only when both sides answer, on a real S3 server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mypy_boto3_s3 import S3Client

from slurper import errors
from slurper.database.store import JobStore
from slurper.demo.servers import S3Server
from slurper.errors import PrecheckProblem
from slurper.job.model import Delivery, JobOptions, JobSpec, JobStatus, LogType
from slurper.secrets import JobSecrets, S3Credentials
from slurper.service import jobs
from slurper.service.jobs import JobService
from slurper.service.precheck import Checked, Precheck
from slurper.settings import Settings
from tests.unit.service.conftest import ACCOUNT, Office


async def test_a_job_is_made_running_sealed_and_logged(office: Office) -> None:
    job_id = await office.create(prefix="a/", overwrite=False)
    assert re.fullmatch("[0-9a-f]{64}", job_id)
    job = await office.store.get_job(ACCOUNT, job_id)
    assert (job.status, job.spec.prefix, job.spec.overwrite) == (JobStatus.RUNNING, "a/", False)
    (entry,) = await office.store.logs(ACCOUNT, job_id, limit=50, offset=0)
    assert (entry.log_type, entry.created_at) == (LogType.MIGRATION_START, job.created_at)
    (work,) = await office.work.running_jobs()
    assert office.sealer.open(work.sealed) == office.secrets
    assert len(office.woken) == 1


@pytest.mark.parametrize(("overwrite", "obeys"), [(False, True), (True, None)])
async def test_what_its_stores_can_do_is_kept_with_the_job(
    office: Office,
    overwrite: bool,
    obeys: bool | None,
) -> None:
    """Whether conditions are obeyed is asked, with an object, only for a job that relies on it."""
    target = replace(office.spec.source, bucket=office.spec.target.bucket)
    spec = replace(office.spec, target=target, overwrite=overwrite)
    job_id = await office.service.create(ACCOUNT, spec, office.secrets)
    (work,) = await office.work.running_jobs()
    found = (await office.store.get_job(ACCOUNT, job_id)).capabilities
    assert found == work.job.capabilities
    assert found.source.key_order == "bytes"
    assert (found.target.checksum, found.target.verifies_checksum) == ("crc32c", True)
    assert found.target.conditional_put is obeys


async def test_what_is_worth_knowing_is_told_before_the_job_and_in_its_first_entry(
    office: Office, ministack: S3Server, boto: Callable[[S3Server], S3Client]
) -> None:
    target = replace(office.spec.source, bucket=office.spec.target.bucket)
    enabled = {"Status": "Enabled"}
    boto(ministack).put_bucket_versioning(Bucket=target.bucket, VersioningConfiguration=enabled)  # type: ignore[arg-type]
    told: list[str] = []
    spec = replace(office.spec, target=target)
    job_id = await office.service.create(ACCOUNT, spec, office.secrets, tell=told.append)
    (note,) = told
    assert note.startswith("target: which keys and headers the target keeps could not be found")
    assert "its bucket keeps versions" in note
    (entry,) = await office.store.logs(ACCOUNT, job_id, limit=50, offset=0)
    assert (entry.log_type, entry.message) == (LogType.MIGRATION_START, note)


@pytest.mark.parametrize(
    "delivery", [Delivery(key="k"), Delivery(retries=1)], ids=["by key", "by the SDK's count"]
)
async def test_of_one_request_at_two_servers_at_once_one_job_is_made(
    office: Office, tmp_path: Path, delivery: Delivery
) -> None:
    settings = Settings(data_dir=tmp_path, allow_http=True, allow_private_endpoints=True)
    settings = settings.model_copy(update={"r2_endpoint": office.spec.source.endpoint})
    store = await JobStore.open(settings.resolved_database_url)
    other = JobService(store, office.sealer, settings, wake=lambda: None)
    made = await asyncio.gather(
        *(
            service.create(ACCOUNT, office.spec, office.secrets, delivery=delivery)
            for service in (office.service, other) * 3
        )
    )
    assert len(set(made)) == 1
    assert len(await store.list_jobs(ACCOUNT, limit=50, offset=0)) == 1
    await store.close()


async def test_a_request_is_another_one_with_anything_changed(office: Office) -> None:
    """Credentials too: a job of theirs is no job of others."""
    again = Delivery(retries=1)

    async def answered(spec: JobSpec, secrets: JobSecrets) -> str:
        job_id = await office.service.create(ACCOUNT, spec, secrets, delivery=again)
        await office.service.abort(ACCOUNT, job_id)
        return job_id

    first = await office.service.create(ACCOUNT, office.spec, office.secrets, delivery=Delivery())
    other_options = replace(office.spec, options=JobOptions(skip_empty=True))
    assert isinstance(office.secrets.target, S3Credentials)
    token = replace(office.secrets.target, session_token="token")
    changed = [
        await answered(replace(office.spec, prefix="p"), office.secrets),
        await answered(replace(office.spec, overwrite=False), office.secrets),
        await answered(other_options, office.secrets),
    ]
    assert len({first, *changed}) == 4
    with pytest.raises(errors.PrecheckFailed):
        await answered(office.spec, replace(office.secrets, target=token))
    assert await answered(office.spec, office.secrets) == first


async def test_nothing_is_left_at_either_side(
    office: Office, ministack: S3Server, boto: Callable[[S3Server], S3Client]
) -> None:
    await office.create()
    for location in (office.spec.source, office.spec.target):
        assert boto(ministack).list_objects_v2(Bucket=location.bucket)["KeyCount"] == 0
        uploads = boto(ministack).list_multipart_uploads(Bucket=location.bucket)
        assert "Uploads" not in uploads


async def test_explicit_keys_are_put_in_byte_order_once_each(office: Office) -> None:
    given = ("p/ü", "p/z", "p/\U0001f600", "p/\uffff", "p/z", "p/u\u0308", "p/")
    job_id = await office.create(prefix="p/", keys=given)
    keys = await office.store.explicit_keys(ACCOUNT, job_id)
    assert keys == tuple(sorted(set(given), key=str.encode))


@pytest.mark.parametrize(
    ("keys", "pointer"), [((), "/source/keys"), (("p/a", "q/a"), "/source/keys/1")]
)
async def test_keys_that_cannot_be_meant_are_refused(
    office: Office, keys: tuple[str, ...], pointer: str
) -> None:
    with pytest.raises(errors.InvalidField) as caught:
        await office.create(prefix="p/", keys=keys)
    assert caught.value.pointer == pointer
    assert await office.store.list_jobs(ACCOUNT, limit=50, offset=0) == []


async def test_the_problems_of_both_sides_come_together_and_no_job_is_made(
    office: Office,
) -> None:
    missing = replace(office.spec.source, bucket="no-such-bucket-anywhere")
    right = office.secrets.target
    assert isinstance(right, S3Credentials)
    wrong = replace(right, secret_access_key="mistyped")
    secrets = replace(office.secrets, target=wrong)
    with pytest.raises(errors.PrecheckFailed) as caught:
        await office.service.create(ACCOUNT, replace(office.spec, source=missing), secrets)
    bucket, secret = caught.value.problems
    assert (bucket.pointer, secret.pointer) == ("/source/bucket", "/target/secret")
    assert "HTTP 404 NoSuchBucket" in bucket.message
    assert "HTTP 403 SignatureDoesNotMatch" in secret.message
    assert "mistyped" not in secret.message
    assert await office.store.list_jobs(ACCOUNT, limit=50, offset=0) == []
    assert office.woken == []


async def test_an_unreachable_endpoint_is_named(office: Office) -> None:
    nowhere = replace(office.spec.source, endpoint="http://127.0.0.1:9")
    (problem,) = await office.service.precheck_source(ACCOUNT, nowhere, office.secrets.source)
    assert problem.pointer == "/source/endpoint"
    assert "127.0.0.1:9" in problem.message


async def test_prechecks_pass_on_their_own(office: Office) -> None:
    secrets, spec = office.secrets, office.spec
    assert await office.service.precheck_source(ACCOUNT, spec.source, secrets.source) == ()
    assert (
        await office.service.precheck_source(
            ACCOUNT, spec.source, secrets.source, prefix="a/", keys=("a/missing",)
        )
        == ()
    )
    assert await office.service.precheck_target(ACCOUNT, spec.target, secrets.target) == ()


async def test_a_missing_bucket_is_seen_behind_explicit_keys_too(office: Office) -> None:
    missing = replace(office.spec.source, bucket="no-such-bucket-anywhere")
    (problem,) = await office.service.precheck_source(
        ACCOUNT, missing, office.secrets.source, keys=("a",)
    )
    assert problem.pointer == "/source/bucket"


async def test_creates_at_the_same_time_stop_at_the_limit(office: Office) -> None:
    outcomes = await asyncio.gather(*(office.create() for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(one, errors.JobLimitReached) for one in outcomes) == 3
    assert len(await office.store.list_jobs(ACCOUNT, limit=50, offset=0)) == 2


async def test_commands_reach_the_job_and_wake_the_driver(office: Office) -> None:
    service = office.service
    first, second = await office.create(), await office.create()
    assert (await service.pause(ACCOUNT, first)).status is JobStatus.PAUSED
    assert (await service.resume(ACCOUNT, first)).status is JobStatus.RUNNING
    assert (await service.abort(ACCOUNT, first)).status is JobStatus.ABORTED
    with pytest.raises(errors.JobConflict):
        await service.abort(ACCOUNT, first)
    await service.pause(ACCOUNT, second)
    before = len(office.woken)
    assert await service.abort_all(ACCOUNT) == 1
    assert await service.abort_all(ACCOUNT) == 0
    assert len(office.woken) > before
    assert (await service.progress(ACCOUNT, second)).status is JobStatus.ABORTED
    await service.delete(ACCOUNT, second)
    with pytest.raises(errors.JobNotFound):
        await office.store.get_job(ACCOUNT, second)
    assert [job.id for job in await office.store.list_jobs(ACCOUNT, limit=50, offset=0)] == [first]


async def test_a_bucket_is_not_copied_onto_itself(office: Office) -> None:
    same = replace(office.spec, target=office.spec.source, prefix="p/")
    with pytest.raises(errors.InvalidField) as caught:
        await office.service.create(ACCOUNT, same, office.secrets)
    assert caught.value.pointer == "/target/bucket"
    assert await office.store.list_jobs(ACCOUNT, limit=50, offset=0) == []
    options = replace(same.options, strip_prefix=True)
    assert await office.service.create(ACCOUNT, replace(same, options=options), office.secrets)


async def test_the_same_name_under_other_credentials_may_be_another_bucket(office: Office) -> None:
    same = replace(office.spec, target=office.spec.source)
    right = office.secrets.target
    assert isinstance(right, S3Credentials)
    wrong = replace(right, secret_access_key="another tenant's")
    with pytest.raises(errors.PrecheckFailed):  # it is asked, and this server knows no such tenant
        await office.service.create(ACCOUNT, same, replace(office.secrets, target=wrong))


# Checks at once


@pytest.fixture
def waiting_checks(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Checks of sources end when this is set. No other check waits long for a place."""
    end = asyncio.Event()

    async def slow(*_: object, **__: object) -> Checked:
        await end.wait()
        return Checked(problems=())

    monkeypatch.setattr(Precheck, "source", slow)
    monkeypatch.setattr(jobs, "CHECK_WAIT_SECONDS", 0.05)
    return end


def checking(
    office: Office, account: str, token: str | None = None
) -> asyncio.Task[tuple[PrecheckProblem, ...]]:
    pair, source = office.secrets.source, office.spec.source
    return asyncio.ensure_future(
        office.service.precheck_source(account, source, pair, asked_by=token)
    )


async def test_an_account_has_so_many_checks_at_once_and_other_accounts_have_theirs(
    office: Office, waiting_checks: asyncio.Event
) -> None:
    most = Settings().max_concurrent_checks
    under_way = [checking(office, ACCOUNT) for _ in range(most)]
    await asyncio.sleep(0)
    with pytest.raises(errors.TooManyChecks, match=f"{most} checks of stores may be under way"):
        await checking(office, ACCOUNT)
    with pytest.raises(errors.TooManyChecks):
        await office.create()
    other = checking(office, "b" * 32)
    await asyncio.sleep(0.1)
    assert not other.done()
    waiting_checks.set()
    await asyncio.gather(*under_way, other)
    assert await checking(office, ACCOUNT) == ()


async def test_all_accounts_together_have_so_many_checks_at_once(
    office: Office, waiting_checks: asyncio.Event
) -> None:
    each = Settings().max_concurrent_checks
    accounts = [f"{number:032x}" for number in range(jobs.MOST_CHECKS // each)]
    under_way = [checking(office, account) for account in accounts for _ in range(each)]
    await asyncio.sleep(0)
    with pytest.raises(errors.TooManyChecks):
        await checking(office, ACCOUNT)
    under_way[0].cancel()
    await asyncio.gather(under_way[0], return_exceptions=True)
    last = checking(office, ACCOUNT)
    waiting_checks.set()
    await asyncio.gather(last, *under_way[1:])


async def test_a_token_for_every_account_has_half_of_them(
    office: Office, waiting_checks: asyncio.Event
) -> None:
    accounts = [f"{number:032x}" for number in range(jobs.MOST_CHECKS)]
    under_way = [checking(office, account, "all") for account in accounts[::2]]
    await asyncio.sleep(0)
    with pytest.raises(errors.TooManyChecks, match=f"{jobs.MOST_CHECKS // 2} for a token"):
        await checking(office, accounts[1], "all")
    under_way += [checking(office, account, "another") for account in accounts[1::2]]
    await asyncio.sleep(0.1)
    assert not any(task.done() for task in under_way), "another token has all of its own"
    waiting_checks.set()
    await asyncio.gather(*under_way)


async def test_where_one_account_may_have_more_than_all_the_text_says_so(
    office: Office, waiting_checks: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 2 * jobs.MOST_CHECKS
    settings = Settings(max_concurrent_checks=most, allow_http=True, allow_private_endpoints=True)
    service = JobService(office.store, office.sealer, settings, wake=lambda: None)
    monkeypatch.setattr(office, "service", service)
    under_way = [checking(office, ACCOUNT) for _ in range(most)]
    await asyncio.sleep(0)
    with pytest.raises(errors.TooManyChecks, match=f"{most} checks .* and {most} for all"):
        await checking(office, ACCOUNT)
    waiting_checks.set()
    await asyncio.gather(*under_way)


async def test_who_waits_for_a_place_gets_it_when_one_comes_free(
    office: Office, waiting_checks: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "CHECK_WAIT_SECONDS", 60.0)
    most = Settings().max_concurrent_checks
    checks = [checking(office, ACCOUNT) for _ in range(5 * most)]
    await asyncio.sleep(0)
    with pytest.raises(errors.TooManyChecks):
        await checking(office, ACCOUNT)
    waiting_checks.set()
    await asyncio.gather(*checks)
