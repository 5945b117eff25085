"""Many small jobs with few file descriptors: nothing fails, nothing grows, nothing is left open.

The long form is `make soak`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak import soak
from tests.soak.soak import Plan


@pytest.mark.slow
def test_small_jobs_of_many_accounts_and_credentials_with_few_descriptors(tmp_path: Path) -> None:
    """All exact, no 5xx, no pause; memory flat, descriptors bounded; at rest nothing is open."""
    result = soak.run(Plan(seed=14, seconds=30, limit=256), tmp_path)
    assert result.tally.jobs >= 16, "or this shows nothing"


@pytest.mark.slow
def test_small_jobs_while_processes_are_killed(tmp_path: Path) -> None:
    result = soak.run(Plan(seed=15, jobs=40, kill_seconds=2.5), tmp_path)
    assert result.kills, "or this shows nothing"
