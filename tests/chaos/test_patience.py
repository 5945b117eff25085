"""How long objects are waited for that their store does not serve, when everything else is done."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

import pytest

from slurper.http import client
from slurper.objectstore import witness
from slurper.transfer import attempts
from tests.chaos import faults
from tests.chaos.cases import EVERYTHING
from tests.chaos.conftest import LARGE
from tests.chaos.stage import CALM, PART, Stage
from tests.chaos.wire import Exchange

PATIENT = CALM.model_copy(
    update={
        "request_retries": 5,
        "object_attempts": 3,
        "retry_deadline_seconds": 120.0,
        "task_seconds": 2.0,
    }
)
BAD = ("k-02", "k-10", "k-11")
BROKEN = faults.status(500, "InternalError")
UNAVAILABLE = faults.status(503, "ServiceUnavailable")
MOST_REQUESTS = 3 * (1 + client.LASTING_RETRIES) + 3 + 2
"""Of three attempts. Each may meet one dead connection. Two requests are for the witness."""
SLOWED = 5
"""More answers than a lasting failure is given before it is given up; they take some seconds."""


@pytest.fixture(autouse=True)
def _pauses_as_they_are(monkeypatch: pytest.MonkeyPatch, _short_pauses: None) -> None:
    monkeypatch.setattr(client, "BACKOFF_BASE_SECONDS", 0.2)
    monkeypatch.setattr(attempts, "ATTEMPT_PAUSE_SECONDS", 0.5)


@dataclass(frozen=True)
class Lasting:
    """What always comes for some objects, and what their entries say."""

    fault: faults.Fault
    says: str
    methods: tuple[str, ...] = ("GET", "PUT")


LASTING = {
    "500": Lasting(BROKEN, "HTTP 500 InternalError"),
    "502": Lasting(faults.status(502, "InternalError"), "HTTP 502 InternalError"),
    "503": Lasting(UNAVAILABLE, "HTTP 503 ServiceUnavailable"),
    "503 without a code": Lasting(faults.answer("503 Service Unavailable"), "HTTP 503"),
    "cut": Lasting(faults.truncated(1_000), "closed by the server .* gave up after", ("GET",)),
    "reset": Lasting(faults.reset_before, "reset by the server .* gave up after"),
    "reset in the answer": Lasting(
        faults.truncated(1_000, reset=True), "reset by the server .* gave up after", ("GET",)
    ),
}


@pytest.mark.parametrize(
    ("name", "method"), [(name, method) for name, one in LASTING.items() for method in one.methods]
)
async def test_a_few_lasting_failures_do_not_hold_a_finished_job(
    staged: Stage, name: str, method: str
) -> None:
    """In full three attempts would send 18 requests for each, and far more where 503 is said."""
    staged.settings = PATIENT
    proxy = staged.source_proxy if method == "GET" else staged.target_proxy
    proxy.add(LASTING[name].fault, f"^{method} /[^?]*/({'|'.join(BAD)}) ")
    run = await staged.run()
    assert {event.key for event in run.events} == set(BAD)
    for event in run.events:
        assert re.search(rf"{LASTING[name].says}.*\(after 3 attempts\)", event.message)
    assert (run.counts.failed, run.counts.transferred) == (len(BAD), EVERYTHING - len(BAD))
    for key in BAD[1:]:  # the first one may have been waited for while others were under way
        assert proxy.count(f"^{method} /[^?]*/{key} ") <= MOST_REQUESTS
    assert staged.target.uploads() == []


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_an_object_that_is_to_come_slower_is_waited_for(staged: Stage, method: str) -> None:
    """Everything else is done, and is served; no second attempt is begun."""
    staged.settings = PATIENT
    proxy = staged.source_proxy if method == "GET" else staged.target_proxy
    slow = proxy.add(faults.status(503, "SlowDown"), f"^{method} /[^?]*/k-11 ", times=SLOWED)
    run = await staged.run()
    assert (run.events, run.counts.transferred) == ([], EVERYTHING)
    assert slow.hits == SLOWED
    assert proxy.count(f"^{method} /[^?]*/k-11 ") == SLOWED + 1
    assert sum(report.attempts for report in run.reports) == 0


SECOND_PART = {"GET": "^GET /[^?]*/large ", "PUT": "^PUT /[^?]*/large[?].*partNumber=2&"}


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_nor_does_a_part_for_which_its_store_always_is_unavailable(
    staged: Stage, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets more retries, because all other parts are lost with it."""
    monkeypatch.setattr(client, "BACKOFF_BASE_SECONDS", 0.05)
    staged.settings = PATIENT
    proxy = staged.source_proxy if method == "GET" else staged.target_proxy
    refused = 0

    async def unavailable(exchange: Exchange) -> bool:
        nonlocal refused
        if method == "GET" and exchange.request.header("range") != f"bytes={PART}-{2 * PART - 1}":
            return await faults.passed_on(exchange)
        refused += 1
        return await UNAVAILABLE(exchange)

    proxy.add(unavailable, SECOND_PART[method])
    run = await staged.run()
    assert [event.key for event in run.events] == [LARGE]
    assert "HTTP 503 ServiceUnavailable" in run.events[0].message
    assert (run.counts.failed, run.counts.transferred) == (1, EVERYTHING - 1)
    # A few more may come at first: while other parts are under way, it is waited for.
    assert 3 * (1 + witness.PART_RETRIES) <= refused <= 3 * (1 + witness.PART_RETRIES) + 4
    assert staged.target.uploads() == []


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize(
    "fault", [BROKEN, UNAVAILABLE, faults.reset_before], ids=["500", "503", "reset"]
)
async def test_a_store_that_is_down_for_seconds_in_the_end_is_outlived(
    staged: Stage, side: str, fault: faults.Fault
) -> None:
    """It goes down with the last objects, and answers nobody."""
    staged.settings = PATIENT
    proxy = staged.source_proxy if side == "source" else staged.target_proxy
    back_at: list[float] = []

    async def down(exchange: Exchange) -> bool:
        if not back_at and b"/k-09" in exchange.request.raw:
            back_at.append(time.monotonic() + 3.0)
        if back_at and time.monotonic() < back_at[0]:
            return await fault(exchange)
        return await faults.passed_on(exchange)

    proxy.add(down, "")
    run = await staged.run()
    assert back_at
    assert (run.events, run.counts.transferred) == ([], EVERYTHING)
