"""Puts the parts together: database, service, driver and engine of one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from slurper import data_folder, telemetry
from slurper.database.store import JobStore
from slurper.engine.local import LocalEngine
from slurper.jobs.driver import Driver
from slurper.jobs.service import JobService
from slurper.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The parts of one process. Nothing moves before `driven`."""

    store: JobStore
    service: JobService
    engine: LocalEngine
    driver: Driver
    registry: CollectorRegistry


@asynccontextmanager
async def assembled(settings: Settings) -> AsyncIterator[Node]:
    """Open the database and connect the parts; close the database in the end.

    Raises:
        ConfigurationError: database, data folder or key cannot be used.
    """
    sealer = data_folder.prepare(settings)
    store = await JobStore.open(settings.resolved_database_url)
    try:
        metrics = telemetry.Metrics(CollectorRegistry())
        engine = LocalEngine(settings, metrics=metrics)
        driver = Driver(store, engine, sealer, settings, metrics=metrics)
        service = JobService(store, sealer, settings, wake=driver.wake)
        yield Node(
            store=store, service=service, engine=engine, driver=driver, registry=metrics.registry
        )
    finally:
        await store.close()


@asynccontextmanager
async def driven(node: Node, settings: Settings) -> AsyncIterator[asyncio.Task[None]]:
    """Move jobs forward until the block ends; then let tasks under way end, and commit them.

    Yields the driver's task, which ends early only by a fault.
    """
    await node.engine.start()
    driving = asyncio.create_task(node.driver.run(), name="driver")
    try:
        yield driving
    finally:
        try:
            await node.driver.stop(settings.stop_grace_seconds)
        finally:
            driving.cancel()
            await asyncio.gather(driving, return_exceptions=True)
            await node.engine.stop(0)
