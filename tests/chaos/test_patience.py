"""How long objects are waited for that their store does not serve, when everything else is done."""

from __future__ import annotations

import re
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
        assert proxy.count(f"^{method} /[^?]*/{key} ") <= 3 * (2 + client.LASTING_RETRIES) + 2
    assert staged.target.uploads() == []


LASTING = {
    "503 without a code": (faults.status(503, ""), "HTTP 503"),
    "503 about no pace": (faults.status(503, "ServiceUnavailable"), "HTTP 503 ServiceUnavailable"),
    "cut off": (faults.truncated(100), "closed|ended|cut"),
    "reset": (faults.reset_before, "reset|closed"),
}


@pytest.mark.parametrize("name", LASTING)
async def test_whatever_lasts_for_one_object_does_not_hold_a_finished_job(
    staged: Stage, name: str
) -> None:
    fault, says = LASTING[name]
    staged.settings = PATIENT
    staged.source_proxy.add(fault, f"^GET /[^?]*/{BAD[1]} ")
    run = await staged.run()
    (event,) = run.events
    assert event.key == BAD[1]
    assert re.search(says, event.message)
    assert run.counts.transferred == EVERYTHING - 1
    sent = staged.source_proxy.count(f"^GET /[^?]*/{BAD[1]} ")
    assert sent <= 3 * (2 + client.LASTING_RETRIES) + 2


async def test_an_object_is_waited_for_as_long_as_its_store_asks_to_slow_down(
    staged: Stage,
) -> None:
    staged.settings = PATIENT
    more_than_errors_get = client.LASTING_RETRIES + 3
    rule = staged.source_proxy.add(
        faults.status(503, "SlowDown"), f"^GET /[^?]*/{BAD[1]} ", times=more_than_errors_get
    )
    run = await staged.run()
    assert rule.hits == more_than_errors_get
    assert (run.events, run.counts.transferred) == ([], EVERYTHING)


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
