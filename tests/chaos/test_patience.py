"""How long objects are waited for that their store does not serve, when everything else is done."""

from __future__ import annotations

import time

import pytest

from slurper.http import client
from slurper.settings import Settings
from slurper.transfer import copy
from tests.chaos import faults
from tests.chaos.cases import EVERYTHING
from tests.chaos.stage import HASTY, Stage
from tests.chaos.wire import Exchange

PATIENT = Settings(
    **{
        **HASTY.model_dump(),
        "request_retries": 5,
        "object_attempts": 3,
        "retry_deadline_seconds": 120.0,
        "task_seconds": 2.0,
    }
)
BAD = ("k-02", "k-10", "k-11")
BROKEN = faults.status(500, "InternalError")


@pytest.fixture(autouse=True)
def _pauses_as_they_are(monkeypatch: pytest.MonkeyPatch, _short_pauses: None) -> None:
    monkeypatch.setattr(client, "BACKOFF_BASE_SECONDS", 0.2)
    monkeypatch.setattr(copy, "ATTEMPT_PAUSE_SECONDS", 0.5)


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize("status", [500, 502])
async def test_a_few_lasting_errors_do_not_hold_a_finished_job(
    staged: Stage, method: str, status: int
) -> None:
    """In full three attempts would send 18 requests for each, and take eleven seconds."""
    staged.settings = PATIENT
    proxy = staged.source_proxy if method == "GET" else staged.target_proxy
    match = f"^{method} /[^?]*/({'|'.join(BAD)}) "
    proxy.add(faults.status(status, "InternalError"), match)
    run = await staged.run()
    assert {event.key for event in run.events} == set(BAD)
    assert all(f"HTTP {status} InternalError" in event.message for event in run.events)
    assert run.counts.transferred == EVERYTHING - len(BAD)
    for key in BAD[1:]:  # the first one may have been waited for while others were under way
        assert proxy.count(f"^{method} /[^?]*/{key} ") <= 3 * (1 + client.LASTING_RETRIES) + 2
    assert staged.target.uploads() == []


@pytest.mark.parametrize("side", ["source", "target"])
async def test_a_store_that_is_down_for_seconds_in_the_end_is_outlived(
    staged: Stage, side: str
) -> None:
    """It goes down with the last objects, and answers nobody."""
    staged.settings = PATIENT
    proxy = staged.source_proxy if side == "source" else staged.target_proxy
    back_at: list[float] = []

    async def down(exchange: Exchange) -> bool:
        if not back_at and b"/k-09" in exchange.request.raw:
            back_at.append(time.monotonic() + 3.0)
        if back_at and time.monotonic() < back_at[0]:
            return await BROKEN(exchange)
        return await faults.passed_on(exchange)

    proxy.add(down, "")
    run = await staged.run()
    assert back_at
    assert (run.events, run.counts.transferred) == ([], EVERYTHING)
