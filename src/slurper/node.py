"""Connects the parts of one process: database, service, driver and engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass

from slurper import data_folder, errors, telemetry
from slurper.database.leases import LeaseStore
from slurper.database.store import JobStore
from slurper.database.work import WorkStore
from slurper.driver.leadership import Leadership, Tenure
from slurper.driver.loop import Driver
from slurper.engine.local import LocalEngine
from slurper.engine.template import Template
from slurper.engine.waits import Waits
from slurper.http import resolver
from slurper.secrets import Sealer
from slurper.service.jobs import JobService
from slurper.settings import Settings

_log = telemetry.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The parts of one process. No job moves before `driven` or `driven_in_turn`."""

    settings: Settings
    store: JobStore
    service: JobService
    leadership: Leadership
    sealer: Sealer
    metrics: telemetry.Metrics
    woken: asyncio.Event
    """The service sets it when the driver, if it is in this process, should look at the jobs."""
    moved: asyncio.Event
    """The driver, if it is in this process, sets it when progress was committed."""
    waits: Waits
    """What tasks wait for, if the driver is in this process."""


@asynccontextmanager
async def assembled(
    settings: Settings, *, metrics: telemetry.Metrics | None = None
) -> AsyncIterator[Node]:
    """Open the database, connect the parts, and close the database at the end.

    Without `metrics`, nothing is counted.

    Raises:
        ConfigurationError: database, data folder or key cannot be used.
    """
    resolver.limit_system_time_outs()
    sealer = data_folder.prepare(settings)
    store = await JobStore.open(settings.resolved_database_url)
    woken, waits = asyncio.Event(), Waits()
    try:
        yield Node(
            settings=settings,
            store=store,
            service=JobService(store, sealer, settings, wake=woken.set, waits=waits),
            leadership=Leadership(LeaseStore(store.database), settings.lease_seconds),
            sealer=sealer,
            metrics=metrics or telemetry.Metrics(),
            woken=woken,
            moved=asyncio.Event(),
            waits=waits,
        )
    finally:
        await store.close()


@asynccontextmanager
async def driven(
    node: Node, tenure: Tenure, template: Template | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    """Move jobs forward until the block ends. Then let tasks under way end, and commit them.

    If a `template` is given, workers are forked from it, and it ends with the block. Yields the
    task that drives. That task ends early only by a fault or the loss of the lease.
    """
    async with _aside(_drive(node, tenure, template)) as driving:
        yield driving


@asynccontextmanager
async def driven_in_turn(node: Node) -> AsyncIterator[asyncio.Task[None]]:
    """Do the same as `driven` while no other process drives. Stand by while one does.

    Yields the task that drives or stands by. That task ends early only by a fault.
    """
    async with _aside(_drive_in_turn(node)) as driving:
        yield driving


async def _drive_in_turn(node: Node) -> None:
    while True:
        try:
            async with node.leadership.hold() as tenure:
                await _drive(node, tenure)
        except errors.LeaseLost as error:
            _log.warning("another process drives now; this one stands by", error=str(error))


async def _drive(node: Node, tenure: Tenure, template: Template | None = None) -> None:
    """Move jobs forward until cancelled. Then let tasks under way end, unless cancelled again.

    Raises:
        LeaseLost: another process drives now.
    """
    engine = LocalEngine(node.settings, template=template, metrics=node.metrics, waits=node.waits)
    driver = Driver(
        WorkStore(node.store.database, tenure.lease),
        engine,
        node.sealer,
        node.settings,
        since=tenure.since,
        metrics=node.metrics,
        woken=node.woken,
        moved=node.moved,
    )
    driving = asyncio.create_task(_run(engine, driver), name="driver")
    try:
        await asyncio.wait((driving, tenure.lost), return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        await driver.stop(node.settings.stop_grace_seconds)
        raise
    finally:
        driving.cancel()
        await asyncio.gather(driving, return_exceptions=True)
        await driver.stop(0)
        await engine.stop(0)
    (tenure.lost if tenure.lost.done() else driving).result()


async def _run(engine: LocalEngine, driver: Driver) -> None:
    await engine.start()
    await driver.run()


@asynccontextmanager
async def _aside(work: Coroutine[None, None, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run `work` beside the block. When the block has ended, cancel it and wait for its end."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        try:
            task.cancel()
            await asyncio.wait((task,))
        finally:
            task.cancel()  # for the second time only if the wait was cancelled
            await asyncio.gather(task, return_exceptions=True)
