"""Of several nodes on one database one drives; a node that was replaced stands by again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from slurper.database.holders import Holder
from slurper.database.leases import Lease, LeaseStore
from slurper.driver.leadership import DRIVER
from slurper.node import assembled, driven_in_turn
from slurper.settings import Settings

FAR_AWAY = Holder(4711, "elsewhere", "another-boot/1", "1")


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(3000):
        if await condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("waited too long")


async def test_a_node_that_was_replaced_stands_by_and_drives_again(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, workers=1, lease_seconds=0.3)
    before = set(psutil.Process().children())

    async def workers_run() -> bool:
        return bool(set(psutil.Process().children()) - before)

    async def no_workers_run() -> bool:
        return not await workers_run()

    async with assembled(settings) as node, driven_in_turn(node) as driving:
        await _until(workers_run)
        leases = LeaseStore(node.store.database, FAR_AWAY)
        await leases.release(Lease(name=DRIVER, token=1))
        lease = await leases.acquire(DRIVER, 3600)
        assert lease is not None
        await _until(no_workers_run)
        assert not driving.done()
        assert await leases.holder(DRIVER) == FAR_AWAY
        await leases.release(lease)
        await _until(workers_run)
        assert await leases.holder(DRIVER) == Holder.this_process()
        assert not driving.done()
    assert await no_workers_run()
