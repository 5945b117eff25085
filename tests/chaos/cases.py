"""What a disturbed copy may come to, and how to look."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from slurper.job.model import LogType
from tests.chaos.conftest import LARGE, SMALL
from tests.chaos.faults import Fault
from tests.chaos.stage import Run, Stage

Ending = Literal["copied", "failed", "halted"]

CONTINUATION = LogType.MIGRATION_ERROR_FAILED_CONTINUATION
EVERYTHING = SMALL + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A fault, the requests it meets, and what has to come of it."""

    name: str
    fault: Fault
    match: str
    times: int | None = None
    """None: until the fault is taken away."""
    skip: int = 0
    ends: Ending = "copied"
    key: str = "k-05"
    """Which object fails, where one does."""
    says: str = ""
    """What the entry of the log says, as a pattern."""
    halt: LogType = LogType.MIGRATION_ERROR


def as_parameters(cases: Sequence[Case]) -> pytest.MarkDecorator:
    """One test for each case."""
    assert len({case.name for case in cases}) == len(cases)
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


async def play(
    stage: Stage, case: Case, side: Literal["source", "target"], *, overwrite: bool = True
) -> Run:
    """Copy with the fault, hold the outcome against the case, then cure and go on if need be."""
    proxy = stage.source_proxy if side == "source" else stage.target_proxy
    rule = proxy.add(case.fault, case.match, times=case.times, skip=case.skip)
    begun = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
    run = await stage.run(overwrite=overwrite)
    assert rule.hits > 0, "the fault met no request"
    proxy.clear()
    if case.ends == "halted":
        halt = run.last.halt
        assert halt is not None, run.events
        assert (halt.log_type, run.events) == (case.halt, []), halt
        assert re.search(case.says, halt.message), halt.message
        # As the driver goes on after a halt: objects beyond the cursor may be there already.
        run = await stage.run(overwrite=overwrite, went_before=run, replayed_since=begun)
    else:
        assert run.last.halt is None, run.last.halt
    stage.check(run)
    if case.ends == "failed":
        assert [(e.key, e.log_type) for e in run.events] == [
            (case.key, LogType.IMPORT_ERROR_RETRY_EXHAUSTION)
        ]
        assert re.search(case.says, run.events[0].message), run.events[0].message
        assert (run.counts.transferred, run.counts.failed) == (EVERYTHING - 1, 1)
    else:
        assert (run.counts.transferred, run.events) == (EVERYTHING, [])
    assert run.counts.skipped == 0
    return run


ONE = "^GET /[^?]*/k-05 "
"""An object whose source gives a checksum."""
FIRST = "^GET /[^?]*/k-00 "
PLAIN = "^GET /[^?]*/k-07 "
"""One without."""
PARTS = f"^GET /[^?]*/{LARGE} "
HEAD = f"^HEAD /[^?]*/{LARGE} "
LIST = r"^GET /[^/]*\?.*list-type=2"
PUT = r"^PUT /[^?]*/k-05 "
CREATE = r"^POST /[^?]*\?uploads"
PUT_PART = r"^PUT /[^?]*\?partNumber"
PUT_PART_2 = r"^PUT /[^?]*\?partNumber=2"
COMPLETE = r"^POST /[^?]*\?uploadId"
ABORT = r"^DELETE /[^?]*\?uploadId"
