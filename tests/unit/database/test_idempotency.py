"""A request that is sent again gets the first one's job, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from datetime import timedelta
from secrets import token_bytes

import pytest
from sqlalchemy import select, update

from slurper import errors
from slurper.database import schema
from slurper.database.idempotency import KEY_SECONDS, RETRY_SECONDS, Asked
from slurper.database.store import JobStore
from slurper.job.model import Job
from tests.unit.database import values
from tests.unit.database.values import ACCOUNT, SEALED, Store

OTHER_ACCOUNT = "b" * 32


async def asked(store: JobStore, digest: bytes, **changes: object) -> Asked:
    first = Asked(account_id=ACCOUNT, digests=(digest,), key=None, retries=0, at=await store.now())
    return replace(first, **changes)  # type: ignore[arg-type]


@pytest.fixture
def digest() -> bytes:
    return token_bytes(32)


async def ended(store: Store) -> Job:
    """A completed job in which an object failed."""
    job = values.job()
    work = await values.create(store, job)
    report = values.report(job, work, "a", finished=True, failed=("a",))
    await store.work.commit(report, values.now())
    return job


@pytest.fixture(params=["create", "retry"])
async def retry_of(request: pytest.FixtureRequest, store: Store) -> Job | None:
    """None where jobs are made by create; else the job whose failures are retried."""
    return await ended(store) if request.param == "retry" else None


async def make(
    store: JobStore, request: Asked | None, retry_of: Job | None = None, *, max_active: int = 100
) -> str:
    """Store a job as the service does; return what the request is answered."""
    job = values.job(request.account_id if request else ACCOUNT)
    entry = values.started(job)
    if retry_of is None:
        return await store.create_job(
            job, SEALED, max_active=max_active, entry=entry, asked=request
        )
    job = replace(job, spec=replace(retry_of.spec, keys=()), retry_of=retry_of.id)
    return await store.create_retry(job, SEALED, max_active=max_active, entry=entry, asked=request)


async def made(store: JobStore, retry_of: Job | None = None) -> int:
    """How many jobs there are, besides the one that is retried."""
    jobs = await store.list_jobs(ACCOUNT, limit=50, offset=0)
    return len(jobs) - (retry_of is not None)


async def test_a_request_that_is_sent_again_makes_no_second_job(
    store: Store, digest: bytes, retry_of: Job | None
) -> None:
    first = await make(store, await asked(store, digest), retry_of)
    for retries in (1, 2, 9):
        again = await asked(store, digest, retries=retries)
        assert await store.answered(again) == first
        assert await make(store, again, retry_of, max_active=0) == first, "no limit is met"
    assert await made(store, retry_of) == 1


async def test_a_request_that_was_never_sent_before_makes_its_own(
    store: Store, digest: bytes
) -> None:
    first = await make(store, await asked(store, digest))
    second = await make(store, await asked(store, digest))
    other = await make(store, await asked(store, token_bytes(32), retries=1))
    elsewhere = await make(store, await asked(store, digest, retries=1, account_id=OTHER_ACCOUNT))
    unknown = [await make(store, None) for _ in range(2)]
    assert len({first, second, other, elsewhere, *unknown}) == 6
    again = await asked(store, digest, retries=1)
    assert await make(store, again) == second, "whose answer was lost cannot be told; the last one"


async def test_the_first_of_two_may_end_last_and_makes_no_job_then(
    store: Store, digest: bytes, retry_of: Job | None
) -> None:
    """The client has given it up while the stores were checked, and has sent it again."""
    slow = await asked(store, digest)
    assert await store.answered(slow) is None
    quick = await make(store, await asked(store, digest, retries=1), retry_of)
    assert await make(store, slow, retry_of) == quick
    assert await made(store, retry_of) == 1
    # The next one is no part of that story.
    assert await make(store, await asked(store, digest), retry_of) != quick


@pytest.mark.parametrize("key", ["one-key", None])
async def test_of_many_at_once_on_two_servers_one_makes_the_job(
    store: Store, database_url: str, digest: bytes, key: str | None, retry_of: Job | None
) -> None:
    other = await JobStore.open(database_url)
    requests = [
        await asked(store, digest, key=key, retries=number) for number in (0, 1, 1, 2, 2, 2, 3, 4)
    ]
    if key is not None:
        requests = [replace(one, retries=0) for one in requests]
    stores = itertools.cycle([store, other])
    answers = await asyncio.gather(
        *(make(one, request, retry_of) for one, request in zip(stores, requests, strict=False))
    )
    assert len(set(answers)) == 1
    assert await made(store, retry_of) == 1
    await other.close()


async def test_a_key_is_good_for_one_request(store: Store, digest: bytes) -> None:
    first = await make(store, await asked(store, digest, key="k"))
    again = await asked(store, digest, key="k")
    assert await store.answered(again) == first
    assert await make(store, again) == first
    other = await asked(store, token_bytes(32), key="k", retries=1)
    with pytest.raises(errors.KeyReused):
        await store.answered(other)
    with pytest.raises(errors.KeyReused):
        await make(store, other)
    assert await make(store, await asked(store, digest, key="K")) != first
    elsewhere = await asked(store, token_bytes(32), key="k", account_id=OTHER_ACCOUNT)
    assert await make(store, elsewhere) != first
    assert await made(store) == 2


async def test_a_key_alone_decides_where_one_is_given(store: Store, digest: bytes) -> None:
    """Who wants the same job twice within minutes can say so."""
    first = await make(store, await asked(store, digest))
    assert await make(store, await asked(store, digest, key="k", retries=1)) != first


@pytest.mark.parametrize(("key", "seconds"), [(None, RETRY_SECONDS), ("k", KEY_SECONDS)])
async def test_an_answer_is_kept_for_its_time(
    store: Store, digest: bytes, key: str | None, seconds: int
) -> None:
    first = await make(store, await asked(store, digest, key=key))
    again = await asked(store, digest, key=key, retries=1)
    late = again.at + timedelta(seconds=seconds)
    soon = replace(again, at=late - timedelta(seconds=5))
    assert await store.answered(soon) == first
    assert await make(store, replace(again, at=late)) != first


async def test_answers_are_swept_after_their_time(store: Store, digest: bytes) -> None:
    first = await make(store, await asked(store, digest, key="k"))
    await make(store, await asked(store, digest))
    assert await values.housekeeping(store.work).forget_answers() == 0

    past = await store.now() - timedelta(seconds=1)
    by_key = schema.answers.c.job_id == first
    await store.database.write(
        lambda connection: connection.execute(
            update(schema.answers).where(by_key).values(kept_until=past)
        )
    )
    assert await values.housekeeping(store.work).forget_answers() == 1
    assert await values.count_rows(store, schema.answers) == [1]


async def test_a_request_that_was_refused_leaves_no_answer(store: Store, digest: bytes) -> None:
    request = await asked(store, digest, key="k")
    with pytest.raises(errors.JobLimitReached):
        await make(store, request, max_active=0)
    assert await values.count_rows(store, schema.answers) == [0]
    assert await make(store, await asked(store, token_bytes(32), key="k"))


async def test_a_job_that_was_deleted_meanwhile_is_not_made_again(
    store: Store, digest: bytes, retry_of: Job | None
) -> None:
    first = await make(store, await asked(store, digest), retry_of)
    (job,) = [one for one in await store.list_jobs(ACCOUNT, limit=9, offset=0) if one.id == first]
    await values.abort(store, job)
    again = await asked(store, digest, retries=1)
    assert await make(store, again, retry_of) == first
    await store.delete_job(ACCOUNT, first)
    if retry_of is not None:
        await store.delete_job(ACCOUNT, retry_of.id)
    assert await make(store, again, retry_of) == first
    assert await store.list_jobs(ACCOUNT, limit=9, offset=0) == []


async def test_a_new_key_of_the_server_does_not_make_requests_unknown(
    store: Store, digest: bytes
) -> None:
    newer = (token_bytes(32), digest)
    for key in (None, "k"):
        first = await make(store, await asked(store, digest, key=key))
        again = await asked(store, digest, key=key, retries=1, digests=newer)
        assert await make(store, again) == first


async def test_nothing_of_a_request_is_kept_but_digests(store: Store, digest: bytes) -> None:
    await make(store, await asked(store, digest, key="the key of the client"))
    (row,) = await store.database.read(
        lambda connection: connection.execute(select(schema.answers)).all()
    )
    assert len(row.name) == len(row.digest) == 32
    assert "the key of the client" not in repr(tuple(row))
