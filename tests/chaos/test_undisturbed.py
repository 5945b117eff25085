"""Without a fault the stage itself must be right: the reference of every other test here."""

from __future__ import annotations

from tests.chaos.conftest import SMALL
from tests.chaos.stage import Stage


async def test_ministack(staged: Stage) -> None:
    run = await staged.run()
    staged.check(run)
    assert run.counts.transferred == SMALL + 1
    assert run.events == []
    assert staged.target_proxy.count(r"^PUT /[^ ]*partNumber=") == 3


async def test_seaweedfs(to_seaweedfs: Stage) -> None:
    run = await to_seaweedfs.run(overwrite=False)
    to_seaweedfs.check(run)
    assert run.counts.transferred == SMALL + 1
