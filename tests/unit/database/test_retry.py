"""A retry has exactly the keys that failed, however many, and none passes through Python."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import event

from slurper import errors
from slurper.database import in_batches, reading
from slurper.database.leases import LeaseStore
from slurper.database.store import JobStore
from slurper.database.work import WorkStore
from slurper.job.lifecycle import Command
from slurper.job.model import Job, JobStatus, LogType
from slurper.planning.keyspace import KeyRange, encode_key
from slurper.transfer.task import ObjectEvent
from tests.unit.database import values
from tests.unit.database.values import ACCOUNT, SEALED, Store

HOSTILE = ("\x01", "\n", "/lead", "a//b", "x y+%25", "ü", "\U0001f600", "\udcff")


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten rows a piece, so that a small job is a large one."""
    monkeypatch.setattr(in_batches, "PIECE_ROWS", 10)


async def _ended(store: Store, *failed: str, **changes: Any) -> Job:  # noqa: ANN401 - fields of JobSpec
    """A completed job in which these keys failed, and others did not."""
    job = values.job(**changes)
    work = await values.create(store, job)
    skipped = ObjectEvent(key="!", log_type=LogType.IMPORT_SKIPPED_OVERSIZED, message="too large")
    for key in sorted(failed, key=encode_key):
        report = values.report(job, work, key, transferred=1, skipped=1, failed=(key,))
        events = (*report.events, replace(skipped, key=f"{key}!"))
        await store.work.commit(replace(report, events=events), values.now())
        work = replace(work, slice=work.slice.after(key))
    end = values.report(job, work, work.slice.start_after, finished=True)
    assert (await store.work.commit(end, values.now())).status is JobStatus.COMPLETED
    return job


async def _retry(store: JobStore, retried: Job, *, max_active: int = 1000) -> Job:
    spec = replace(retried.spec, keys=())
    retry = replace(values.job(retried.account_id), spec=spec, retry_of=retried.id)
    entry = values.started(retry)
    await store.create_retry(retry, b"other-secrets", max_active=max_active, entry=entry)
    return retry


async def _keys(store: Store, job: Job, *, limit: int = 3) -> list[str]:
    """All keys of the job, as a driver reads them."""
    keys: list[str] = []
    left = KeyRange()
    while page := await store.work.keys_within(job.id, left, limit=limit):
        keys += page
        left = KeyRange(page[-1])
    return keys


async def _tidy(store: Store) -> int:
    """Do everything that is left to be done; return in how many pieces."""
    pieces = 0
    while await values.housekeeping(store.work).tidy():
        pieces += 1
    return pieces


@contextmanager
def _statements(store: JobStore) -> Iterator[list[str]]:
    seen: list[str] = []

    def remember(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(" ".join(statement.split()))

    engine = store.database._engine
    event.listen(engine, "before_cursor_execute", remember)
    yield seen
    event.remove(engine, "before_cursor_execute", remember)


async def test_a_retry_has_exactly_the_keys_that_failed(store: Store) -> None:
    retried = await _ended(store, *HOSTILE, prefix="", overwrite=False)
    await _ended(store, "failed in another job")
    retry = await _retry(store, retried)
    in_order = sorted(HOSTILE, key=encode_key)
    assert await _keys(store, retry) == in_order
    stored = await values.whole(store, retry)
    assert stored == replace(retry, spec=replace(retried.spec, keys=tuple(in_order)))
    assert (stored.retry_of, stored.status) == (retried.id, JobStatus.RUNNING)
    (work,) = await store.work.running_jobs()
    assert (values.made_at(work.job, retry), work.sealed) == (retry, b"other-secrets")
    assert [one.slice for one in work.ranges] == [KeyRange()]
    assert await _tidy(store) == 0
    assert (await store.get_job(ACCOUNT, retried.id)).retry_of is None


async def test_keys_are_read_by_slices_in_byte_order(store: Store) -> None:
    retry = await _retry(store, await _ended(store, *HOSTILE))
    in_order = sorted(HOSTILE, key=encode_key)
    for first in range(len(in_order)):
        for last in range(first + 1, len(in_order)):
            slice_ = KeyRange(in_order[first], in_order[last])
            found = await store.work.keys_within(retry.id, slice_, limit=100)
            assert list(found) == in_order[first + 1 : last + 1]
    assert await store.work.keys_within("0" * 64, KeyRange(), limit=9) == ()


async def test_keys_never_pass_through_python(store: Store) -> None:
    retried = await _ended(store, "a", "b", "c")
    with _statements(store) as statements:
        retry = await _retry(store, retried)
    about_keys = [one for one in statements if "job_keys" in one or "object_key" in one]
    log, keys = about_keys
    assert log.startswith("INSERT INTO logs")
    assert re.match(r'INSERT INTO job_keys \(job_number, "?key"?\) SELECT .* FROM logs', keys)
    with _statements(store) as statements:
        (work,) = await store.work.running_jobs()
    assert work.job.id == retry.id
    assert not [one for one in statements if "job_keys" in one]


async def test_a_job_is_not_retried_while_it_is_active(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    await store.work.commit(values.report(job, work, "k", failed=("k",)), values.now())
    with pytest.raises(errors.JobConflict, match=r"still active \(running\)"):
        await store.retried_job(ACCOUNT, job.id)
    with pytest.raises(errors.JobConflict, match="still active"):
        await _retry(store, job)
    await store.apply(ACCOUNT, job.id, Command.ABORT)
    assert await _keys(store, await _retry(store, job)) == ["k"]


async def test_a_job_without_failures_is_not_retried(store: Store) -> None:
    job = await _ended(store)
    with pytest.raises(errors.JobConflict, match="nothing to retry"):
        await store.retried_job(ACCOUNT, job.id)
    with pytest.raises(errors.JobConflict, match="nothing to retry"):
        await _retry(store, job)
    assert len(await store.list_jobs(ACCOUNT, limit=50, offset=0)) == 1


async def test_what_a_retry_begins_with(store: Store) -> None:
    job = await _ended(store, "b", "a")
    retried = await store.retried_job(ACCOUNT, job.id)
    assert (retried.job.id, retried.sealed) == (job.id, SEALED)
    assert (retried.failed, retried.sample) == (2, ("a", "b"))
    await values.housekeeping(store.work).erase_secrets(values.now().replace(year=9999))
    assert (await store.retried_job(ACCOUNT, job.id)).sealed is None
    for account_id, job_id in (("b" * 32, job.id), (ACCOUNT, "0" * 64)):
        with pytest.raises(errors.JobNotFound):
            await store.retried_job(account_id, job_id)
        with pytest.raises(errors.JobNotFound):
            await _retry(store, replace(job, account_id=account_id, id=job_id))


async def test_retries_count_towards_the_limit(store: Store) -> None:
    job = await _ended(store, "k")
    await _retry(store, job, max_active=2)
    await _retry(store, job, max_active=2)
    with pytest.raises(errors.JobLimitReached):
        await _retry(store, job, max_active=2)


async def test_a_retry_can_be_retried(store: Store) -> None:
    first = await _retry(store, await _ended(store, "a", "b", "c"))
    (work,) = (await store.work.running_jobs())[0].ranges
    done = values.report(first, work, "c", transferred=1, failed=("b", "c"), finished=True)
    assert (await store.work.commit(done, values.now())).status is JobStatus.COMPLETED
    second = await _retry(store, first)
    assert await _keys(store, second) == ["b", "c"]
    assert (await store.get_job(ACCOUNT, second.id)).retry_of == first.id


@pytest.mark.usefixtures("small_pieces")
async def test_many_keys_are_taken_over_in_pieces_before_the_job_is_driven(store: Store) -> None:
    keys = [f"k{number:03}" for number in range(37)]
    retried = await _ended(store, *keys)
    retry = await _retry(store, retried)
    assert (await store.progress(ACCOUNT, retry.id)).status is JobStatus.RUNNING
    seen = [len(await _keys(store, retry))]
    while await store.work.running_jobs() == []:
        assert await values.housekeeping(store.work).tidy()
        seen.append(len(await _keys(store, retry)))
    assert await _keys(store, retry) == keys
    assert seen == sorted(seen)
    assert all(more - fewer <= 10 for fewer, more in pairwise(seen))
    assert not await values.housekeeping(store.work).tidy()


@pytest.mark.usefixtures("small_pieces")
async def test_taking_over_goes_on_after_a_crash(store: Store, database_url: str) -> None:
    keys = [f"k{number:03}" for number in range(25)]
    retry = await _retry(store, await _ended(store, *keys))
    await values.housekeeping(store.work).tidy()
    later = await Store.open(database_url, store.lease)
    await _tidy(later)
    assert await _keys(later, retry) == keys
    await later.close()


@pytest.mark.usefixtures("small_pieces")
async def test_an_unready_retry_obeys_commands(store: Store) -> None:
    keys = [f"k{number:03}" for number in range(25)]
    retried = await _ended(store, *keys)
    paused, aborted = await _retry(store, retried), await _retry(store, retried)
    await store.apply(ACCOUNT, paused.id, Command.PAUSE)
    assert (await values.abort(store, aborted)).status is JobStatus.ABORTED
    await _tidy(store)
    assert (await store.apply(ACCOUNT, paused.id, Command.RESUME)).status is JobStatus.RUNNING
    (work,) = await store.work.running_jobs()
    assert work.job.id == paused.id
    assert await _keys(store, paused) == keys
    assert len(await _keys(store, aborted)) < len(keys), "what nobody needs is not taken over"
    await store.delete_job(ACCOUNT, aborted.id)
    await _tidy(store)
    assert await _keys(store, aborted) == []


@pytest.mark.usefixtures("small_pieces")
async def test_a_retry_gets_its_keys_although_the_retried_job_is_deleted(store: Store) -> None:
    keys = [f"k{number:03}" for number in range(25)]
    retried = await _ended(store, *keys)
    retry = await _retry(store, retried)
    await store.delete_job(ACCOUNT, retried.id)
    with pytest.raises(errors.JobNotFound):
        await store.get_job(ACCOUNT, retried.id)
    with pytest.raises(errors.JobNotFound):
        await _retry(store, retried)
    await _tidy(store)
    assert await _keys(store, retry) == keys
    query = "SELECT count(*) FROM logs UNION ALL SELECT count(*) FROM jobs"
    counts = await store.database.read(
        lambda connection: connection.exec_driver_sql(query).scalars().all()
    )
    assert counts == [1, 1]


async def test_of_more_keys_than_a_request_may_name_none_is_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_KEYS_READ", 3)
    many, few = await _ended(store, *"abcd"), await _ended(store, *"abc")
    retries = [await _retry(store, one) for one in (many, few)]
    read = [await store.explicit_keys(ACCOUNT, one.id) for one in retries]
    assert read == [(), ("a", "b", "c")]
    for one in retries:
        assert (await store.first_keys(ACCOUNT, one.id))[:3] == ("a", "b", "c")
        assert (await store.apply(ACCOUNT, one.id, Command.PAUSE)).status is JobStatus.PAUSED
    with pytest.raises(errors.JobNotFound):
        await store.first_keys("b" * 32, few.id)


async def test_a_retry_names_no_keys_of_its_own(store: Store) -> None:
    retried = await _ended(store, "k")
    wrong = replace(values.job(keys=("a",)), retry_of=retried.id)
    for job in (wrong, values.job()):
        with pytest.raises(ValueError, match="names another job"):
            await store.create_retry(job, SEALED, max_active=9, entry=values.started(job))


@pytest.mark.usefixtures("small_pieces")
async def test_a_driver_that_was_replaced_tidies_nothing(store: Store) -> None:
    keys = [f"k{number:03}" for number in range(25)]
    retry = await _retry(store, await _ended(store, *keys))
    before = await _keys(store, retry)
    leases = LeaseStore(store.database)
    await leases.release(store.lease)
    with pytest.raises(errors.LeaseLost):
        await values.housekeeping(store.work).tidy()
    assert await _keys(store, retry) == before
    lease = await leases.acquire("driver", 3600)
    assert lease is not None
    store.work = WorkStore(store.database, lease)
    await _tidy(store)
    assert await _keys(store, retry) == keys
