"""Servers whose clocks differ agree on when a job was made."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Self

import pytest

from slurper.database import clock
from tests.unit.database import values
from tests.unit.database.values import Store


class Skewed(datetime):
    """The clock of a machine that is a day ahead."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + timedelta(days=1)


async def test_the_clock_of_the_server_that_makes_a_job_does_not_count(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    if store.database._engine.dialect.name == "sqlite":
        pytest.skip("all processes have this machine's clock")
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(clock, "datetime", Skewed)
        made_at = await store.now()
    assert made_at < datetime.now(UTC) + timedelta(hours=1)


async def test_the_driver_reads_it_by_its_own_clock(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With that it compares when it began to drive, and what its workers see of the target."""
    monkeypatch.setattr(clock, "datetime", Skewed)
    before = Skewed.now(UTC)
    job = replace(values.job(), created_at=await store.now())
    await values.create(store, job)
    (work,) = await store.work.running_jobs()
    assert before - timedelta(hours=1) < work.job.created_at <= Skewed.now(UTC)
