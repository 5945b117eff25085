"""All credentials are sealed again while others use the database, and nothing is missed or lost."""

from __future__ import annotations

import asyncio
import threading

import pytest
from sqlalchemy import Connection, select

from slurper import errors
from slurper.database import sealing
from slurper.database.schema import jobs
from slurper.database.sealing import SealedStore, sealed_now
from slurper.database.store import JobStore
from slurper.job.lifecycle import Command
from slurper.secrets import JobSecrets, S3Credentials, Sealer, new_key
from slurper.service.resealing import Resealed, reseal
from tests.unit.database import values
from tests.unit.database.values import ACCOUNT, Store

PAIR = S3Credentials(access_key_id="AKIDEXAMPLE", secret_access_key="hunter2")
SECRETS = JobSecrets(source=PAIR, target=PAIR)
OLD, NEW = new_key(), new_key()
JOBS = 7


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "PIECE_ROWS", 3)


async def _create(store: JobStore, sealer: Sealer) -> str:
    job = values.job()
    entry = values.started(job)
    await store.create_job(job, lambda: sealer.seal(SECRETS), max_active=99, entry=entry)
    return job.id


async def _sealed(store: JobStore) -> list[bytes | None]:
    def read(connection: Connection) -> list[bytes | None]:
        return list(connection.scalars(select(jobs.c.sealed).order_by(jobs.c.number)))

    return await store.database.read(read)


async def test_rows_of_every_age_are_sealed_again(store: Store) -> None:
    old, both = Sealer((OLD,)), Sealer((NEW, OLD))
    made = [await _create(store, old) for _ in range(JOBS)]
    await store.apply(ACCOUNT, made[0], Command.PAUSE)
    await store.apply(ACCOUNT, made[1], Command.ABORT)
    await store.apply(ACCOUNT, made[2], Command.ABORT)
    await store.delete_job(ACCOUNT, made[2])  # it keeps them until its target is swept
    await _create(store, both)
    assert await reseal(store.database, both) == Resealed(changed=JOBS, unopened=0)
    assert await reseal(store.database, both) == Resealed(changed=0, unopened=0)
    rows = await _sealed(store)
    assert len(rows) == JOBS + 1
    assert all(Sealer((NEW,)).open(sealed or b"") == SECRETS for sealed in rows)


async def test_what_no_key_opens_is_left_and_told(store: Store) -> None:
    await _create(store, Sealer((new_key(),)))
    await _create(store, Sealer((OLD,)))
    before = await _sealed(store)
    found = await reseal(store.database, Sealer((NEW, OLD)))
    assert found == Resealed(changed=1, unopened=1)
    assert (await _sealed(store))[0] == before[0]


@pytest.mark.parametrize("after", range(3))
async def test_a_stop_in_the_middle_loses_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    for _ in range(JOBS):
        await _create(store, Sealer((OLD,)))
    both, left = Sealer((NEW, OLD)), after
    replace = SealedStore.replace

    async def replace_some(self: SealedStore, pairs: list[object]) -> int:
        nonlocal left
        if not left:
            raise errors.DatabaseUnavailable("gone")
        left -= 1
        return await replace(self, pairs)  # type: ignore[arg-type]

    monkeypatch.setattr(SealedStore, "replace", replace_some)
    with pytest.raises(errors.DatabaseUnavailable):
        await reseal(store.database, both)
    monkeypatch.undo()
    assert all(both.open(sealed or b"") == SECRETS for sealed in await _sealed(store))
    await reseal(store.database, both)
    assert all(Sealer((NEW,)).open(sealed or b"") == SECRETS for sealed in await _sealed(store))


async def test_newer_credentials_are_not_overwritten(store: Store) -> None:
    job_id = await _create(store, Sealer((OLD,)))
    sealed = SealedStore(store.database)
    (row,) = await sealed.after(0)
    await store.renew_secrets(ACCOUNT, job_id, b"newer")
    assert await sealed.replace([(row, b"sealed again")]) == 0
    assert await _sealed(store) == [b"newer"]
    assert await sealed.replace([(row, b"x")]) == 0


async def test_it_waits_for_who_may_still_seal_with_the_old_key(
    store: Store, database_url: str
) -> None:
    """A transaction has looked at the keys, and the new one comes before it commits."""
    other = await JobStore.open(database_url)
    looked, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slowly() -> bytes:
        loop.call_soon_threadsafe(looked.set)
        assert go_on.wait(60)
        return Sealer((OLD,)).seal(SECRETS)

    job = values.job()
    entry = values.started(job)
    creating = asyncio.create_task(other.create_job(job, slowly, max_active=9, entry=entry))
    await looked.wait()
    resealing = asyncio.create_task(reseal(store.database, Sealer((NEW, OLD))))
    done, _ = await asyncio.wait((resealing,), timeout=0.3)
    assert not done
    go_on.set()
    await creating
    assert await resealing == Resealed(changed=1, unopened=0)
    await other.close()


async def test_several_may_seal_at_once(store: Store) -> None:
    if store.database._engine.dialect.name == "sqlite":
        pytest.skip("it has only one writer")
    both = threading.Barrier(2, timeout=60)

    def meet(connection: Connection) -> None:
        sealed_now(connection, lambda: bytes(both.wait()))

    await asyncio.gather(store.database.write(meet), store.database.write(meet))
