"""Tokens are shown once, kept as hashes, and void as soon as they are revoked or have expired."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from slurper import errors
from slurper.database import schema
from slurper.database import store as store_module
from slurper.database.connection import Database
from slurper.database.store import JobStore
from slurper.database.tokens import TokenInfo, TokenStore
from slurper.job.access import STATIC, Scope
from slurper.job.lifecycle import Command
from slurper.job.model import Job, JobStatus
from tests.unit.database import values
from tests.unit.database.values import ACCOUNT, SEALED, Store


@pytest.fixture
def tokens(store: Store) -> TokenStore:
    return TokenStore(store.database)


async def named(tokens: TokenStore, name: str) -> TokenInfo:
    (found,) = (token for token in await tokens.list() if token.name == name)
    return found


async def change(tokens: TokenStore, name: str, **columns: object) -> None:
    """Write columns as nobody but time does."""
    query = update(schema.tokens).where(schema.tokens.c.name == name).values(columns)
    await tokens.database.write(lambda connection: connection.execute(query))


async def test_a_token_is_found_with_all_that_it_may_do(tokens: TokenStore) -> None:
    mine = await tokens.create("mine", (ACCOUNT,))
    found = await tokens.find(mine)
    assert found is not None
    assert (found.name, found.accounts, found.scope) == ("mine", (ACCOUNT,), Scope.WRITE)
    assert (found.expires_at, found.has_expired, found.used_at) == (None, False, None)
    several = await tokens.create("several", ("b", ACCOUNT, "b"), scope=Scope.READ)
    found = await tokens.find(several)
    assert found is not None
    assert (found.accounts, found.scope) == ((ACCOUNT, "b"), Scope.READ)
    for wrong in ("", mine[:-1], mine + "x", mine.upper(), "slurper_", "\udc80", "\x00"):
        assert await tokens.find(wrong) is None


async def test_tokens_are_long_random_and_recognisable(tokens: TokenStore) -> None:
    made = {await tokens.create(str(number)) for number in range(5)}
    assert len(made) == 5
    assert all(token.startswith("slurper_") and len(token) >= 50 for token in made)


async def test_tokens_are_listed_without_themselves_and_revoked_by_name(
    tokens: TokenStore,
) -> None:
    assert await tokens.list() == ()
    assert not await tokens.exist()
    token = await tokens.create("b", (ACCOUNT,))
    await tokens.create("a")
    assert await tokens.exist()
    listed = [(one.name, one.accounts) for one in await tokens.list()]
    assert listed == [("a", None), ("b", (ACCOUNT,))]
    assert await tokens.revoke("b")
    assert not await tokens.revoke("b")
    assert await tokens.find(token) is None
    assert [one.name for one in await tokens.list()] == ["a"]


@pytest.mark.parametrize("name", ["", " x", "x\n", "x\x1b[2J", "\udc80", "x" * 101, "\u202ex"])
async def test_a_name_can_be_shown_anywhere(tokens: TokenStore, name: str) -> None:
    with pytest.raises(errors.InvalidField, match="1 to 100 printable characters"):
        await tokens.create(name)


async def test_nobody_takes_the_name_of_the_token_in_the_settings(tokens: TokenStore) -> None:
    with pytest.raises(errors.InvalidField, match="SLURPER_API_TOKEN"):
        await tokens.create(STATIC)


async def test_a_token_needs_a_name_of_its_own(tokens: TokenStore) -> None:
    token = await tokens.create("ci")
    with pytest.raises(errors.ConfigurationError, match="named 'ci' exists"):
        await tokens.create("ci")
    assert await tokens.find(token)


@pytest.mark.parametrize("account", ["", "a b", "-a", "a/b", "a,b", "x" * 64, "ü"])
async def test_an_account_is_one_that_a_request_could_name(
    tokens: TokenStore, account: str
) -> None:
    with pytest.raises(errors.InvalidField, match="1 to 63 letters") as caught:
        await tokens.create("ci", (ACCOUNT, account))
    assert caught.value.pointer == "/account"
    assert await tokens.list() == ()


async def test_an_admin_is_for_every_account(tokens: TokenStore) -> None:
    with pytest.raises(errors.ConfigurationError, match="for every account"):
        await tokens.create("ci", (ACCOUNT,), scope=Scope.ADMIN)
    await tokens.create("ci", scope=Scope.ADMIN)


async def test_a_token_expires(tokens: TokenStore) -> None:
    token = await tokens.create("brief", expires=timedelta(hours=12))
    found = await tokens.find(token)
    assert found is not None
    assert found.expires_at is not None
    assert found.expires_at - found.created_at == timedelta(hours=12)
    assert not found.has_expired
    await change(tokens, "brief", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    found = await tokens.find(token)
    assert found is not None
    assert found.has_expired
    assert (await named(tokens, "brief")).has_expired


async def test_a_token_that_would_have_expired_is_not_made(tokens: TokenStore) -> None:
    with pytest.raises(errors.ConfigurationError, match="expired already, on 2020-01-02"):
        await tokens.create("late", expires=datetime(2020, 1, 2, tzinfo=UTC))


async def test_the_last_use_is_written_at_most_once_a_minute(tokens: TokenStore) -> None:
    await tokens.create("ci")
    await tokens.note_use("ci")
    first = (await named(tokens, "ci")).used_at
    assert first is not None
    await tokens.note_use("ci")
    assert (await named(tokens, "ci")).used_at == first
    await change(tokens, "ci", used_at=first - timedelta(seconds=60))
    await tokens.note_use("ci")
    again = (await named(tokens, "ci")).used_at
    assert again is not None
    assert again >= first
    await tokens.note_use("nobody")


async def make(store: JobStore, created_by: str | None, **more: Any) -> Job:  # noqa: ANN401 - of values.job
    """Store a job that a token makes now."""
    made = replace(values.job(**more), created_by=created_by, created_at=await store.now())
    await store.create_job(made, SEALED, max_active=1000, entry=values.started(made))
    return made


async def test_a_job_tells_who_made_it(store: Store, tokens: TokenStore) -> None:
    await tokens.create("ci")
    for name in ("ci", STATIC, None):
        job = await make(store, name)
        assert (await store.get_job(ACCOUNT, job.id)).created_by == name
        assert (await store.list_jobs(ACCOUNT, limit=1, offset=0))[0].created_by == name
        (work,) = [one for one in await store.work.running_jobs() if one.job.id == job.id]
        assert work.job.created_by == name


async def test_revoking_aborts_the_active_jobs_of_that_token(
    store: Store, tokens: TokenStore
) -> None:
    await tokens.create("ci")
    former = await make(store, "ci")
    await tokens.revoke("ci")
    await tokens.create("ci")
    await tokens.create("other")
    running, elsewhere = await make(store, "ci"), await make(store, "ci", account_id="b")
    paused, ended = await make(store, "ci"), await make(store, "ci")
    others = [await make(store, name) for name in ("other", STATIC, None)]
    await store.apply(ACCOUNT, paused.id, Command.PAUSE)
    await values.abort(store, ended)
    revoked = await tokens.revoke("ci", abort_jobs=True)
    assert revoked is not None
    assert revoked.aborted == 3

    async def status(job: Job) -> JobStatus:
        return (await store.get_job(job.account_id, job.id)).status

    for job in (running, elsewhere, paused):
        assert await status(job) is JobStatus.ABORTED
    for job in (former, *others):
        assert await status(job) is JobStatus.RUNNING


async def test_a_revoked_token_makes_no_more_jobs(store: Store, tokens: TokenStore) -> None:
    await tokens.create("ci")
    asked = replace(values.job(), created_by="ci", created_at=await store.now())
    await tokens.revoke("ci")
    await tokens.create("ci")
    with pytest.raises(errors.TokenRevoked):
        await store.create_job(asked, SEALED, max_active=9, entry=values.started(asked))
    assert await store.list_jobs(ACCOUNT, limit=9, offset=0) == []


async def test_no_job_escapes_a_revocation_at_the_same_time(
    store: Store, tokens: TokenStore
) -> None:
    for number in range(5):
        await tokens.create("ci")
        creates = [make(store, "ci") for _ in range(6)]
        outcomes = await asyncio.gather(
            *creates[:3],
            tokens.revoke("ci", abort_jobs=True),
            *creates[3:],
            return_exceptions=True,
        )
        wrong = [one for one in outcomes if isinstance(one, Exception)]
        assert all(isinstance(one, errors.TokenRevoked) for one in wrong), wrong
        jobs = await store.list_jobs(ACCOUNT, limit=50, offset=0)
        assert {job.status for job in jobs} <= {JobStatus.ABORTED}, number


async def test_creates_of_many_accounts_at_once_stop_at_the_limit_of_all(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert_job = store_module._insert

    def insert_slowly(*given: Any) -> int:  # noqa: ANN401 - whatever it takes
        """Let all of them insert before the first counts, where they can."""
        number = insert_job(*given)
        time.sleep(0.1)
        return number

    monkeypatch.setattr(store_module, "_insert", insert_slowly)

    async def create(number: int) -> str:
        job = values.job(account_id=f"account{number}")
        entry = values.started(job)
        return await store.create_job(job, SEALED, max_active=1, max_total=3, entry=entry)

    outcomes = await asyncio.gather(*map(create, range(8)), return_exceptions=True)
    refused = [one for one in outcomes if isinstance(one, errors.JobLimitReached)]
    assert len(refused) == 5
    assert "of all accounts" in str(refused[0])
    assert "SLURPER_MAX_CONCURRENT_JOBS_TOTAL" in str(refused[0])
    assert await values.count_rows(store, schema.jobs, schema.ranges, schema.logs) == [3, 3, 3]


async def test_only_the_hash_is_stored(sqlite_store: Store, tmp_path: Path) -> None:
    tokens = TokenStore(sqlite_store.database)
    token = await tokens.create("ci")
    on_disk = b"".join(file.read_bytes() for file in tmp_path.glob("slurper.db*"))  # noqa: ASYNC240 - small and local
    assert token.encode() not in on_disk
    assert token.removeprefix("slurper_").encode() not in on_disk
    stored = await sqlite_store.database.read(
        lambda connection: connection.scalar(select(schema.tokens.c.sha256))
    )
    assert stored == hashlib.sha256(token.encode()).digest()


async def test_a_process_of_its_own_may_manage_tokens(database_url: str) -> None:
    command_line = await Database.open(database_url)
    token = await TokenStore(command_line).create("ci")
    await command_line.close()
    server = await Store.open(database_url)
    assert await TokenStore(server.database).find(token)
    await server.close()
