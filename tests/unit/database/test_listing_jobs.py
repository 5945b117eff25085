"""A page of jobs costs the same wherever it is: what comes before it is counted in an index."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, event, insert

from slurper.database import rows, schema
from slurper.job.model import Job, JobStatus
from tests.unit.database import values
from tests.unit.database.values import ACCOUNT, Store

COUNT = 1_200


async def _filled(store: Store) -> list[Job]:
    """Jobs of one account, with some of another, and some that are deleted."""
    jobs, table = [values.job() for _ in range(COUNT)], schema.jobs
    others = [values.job("b" * 32) for _ in range(2 * COUNT)]

    def fill(connection: Connection) -> None:
        ended = {"status": JobStatus.COMPLETED.value, "finished_at": values.now()}
        made = [rows.job_values(job, values.SEALED) | ended for job in (*jobs, *others)]
        for number, row in enumerate(made):
            row["deleted_at"] = values.now() if number % 3 == 0 else None
        connection.execute(insert(table), made)

    await store.database.write(fill)
    kept = [job for number, job in enumerate(jobs) if number % 3]
    return list(reversed(kept))


async def test_pages_follow_each_other_without_a_gap(store: Store) -> None:
    expected = [job.id for job in await _filled(store)]
    found: list[str] = []
    while page := await store.list_jobs(ACCOUNT, limit=150, offset=len(found)):
        found += [job.id for job in page]
    assert found == expected


async def test_what_comes_before_a_page_is_counted_in_an_index_that_holds_all_that_is_needed(
    store: Store,
) -> None:
    await _filled(store)
    sent: list[tuple[str, object]] = []
    engine = store.database._engine

    def remember(
        _connection: object, _cursor: object, statement: str, parameters: object, *_: object
    ) -> None:
        sent.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", remember)
    await store.list_jobs(ACCOUNT, limit=50, offset=700)
    event.remove(engine, "before_cursor_execute", remember)
    ((statement, parameters),) = [one for one in sent if one[0].startswith("SELECT")]

    is_file = engine.dialect.name == "sqlite"

    def plan(connection: Connection) -> str:
        explain = "EXPLAIN QUERY PLAN" if is_file else "EXPLAIN"
        found = connection.exec_driver_sql(f"{explain} {statement}", parameters)  # type: ignore[arg-type]
        return "\n".join(str(row) for row in found)

    if not is_file:  # what a server does by itself from time to time
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql("VACUUM ANALYZE jobs")
    shown = await store.database.read(plan)
    way = "USING COVERING INDEX" if is_file else "Index Only Scan Backward using"
    assert f"{way} ix_jobs_listed" in shown, shown


async def test_a_page_reads_so_many_rows_and_no_more(sqlite_store: Store) -> None:
    """Steps of SQLite's machine, which do not depend on how busy this one is."""
    await _filled(sqlite_store)

    async def steps(offset: int) -> int:
        taken = 0

        def count() -> int:
            nonlocal taken
            taken += 1
            return 0

        def attach(connection: Connection) -> None:
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.set_progress_handler(count, 10)

        engine = sqlite_store.database._engine
        event.listen(engine, "begin", attach)
        page = await sqlite_store.list_jobs(ACCOUNT, limit=50, offset=offset)
        event.remove(engine, "begin", attach)
        assert len(page) == 50
        return 10 * taken

    near, far = await steps(0), await steps(700)
    assert far - near < 700 * 6, "a job before the page costs a step in an index, not a row"


@pytest.mark.parametrize(("limit", "offset"), [(50, 5_000), (1, 10**12)])
async def test_behind_the_last_page_is_nothing(store: Store, limit: int, offset: int) -> None:
    await values.create(store, values.job())
    assert await store.list_jobs(ACCOUNT, limit=limit, offset=offset) == []
