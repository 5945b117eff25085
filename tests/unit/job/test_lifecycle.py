"""Every status with every command, against a table written down a second time."""

from __future__ import annotations

from itertools import product

import pytest

from slurper import errors
from slurper.job import lifecycle
from slurper.job.lifecycle import Command
from slurper.job.model import JobStatus

ALLOWED = {
    ("running", "pause"): ("paused", "migrationPause"),
    ("running", "abort"): ("aborted", "migrationAbort"),
    ("running", "complete"): ("completed", "migrationComplete"),
    ("running", "halt"): ("paused", "migrationError"),
    ("paused", "resume"): ("running", "migrationResume"),
    ("paused", "abort"): ("aborted", "migrationAbort"),
}
REFUSED = {
    ("running", "resume"): "Job is not paused, it is running",
    ("paused", "pause"): "Job is not running, it is paused",
    ("paused", "complete"): "Job is not running, it is paused",
    ("paused", "halt"): "Job is not running, it is paused",
    ("aborted", "pause"): "Job is already aborted; it cannot pause any more",
    ("aborted", "resume"): "Job is already aborted; it cannot resume any more",
    ("aborted", "abort"): "Job is already aborted; it cannot abort any more",
    ("aborted", "complete"): "Job is already aborted; it cannot complete any more",
    ("aborted", "halt"): "Job is already aborted; it cannot halt any more",
    ("completed", "pause"): "Job is already completed; it cannot pause any more",
    ("completed", "resume"): "Job is already completed; it cannot resume any more",
    ("completed", "abort"): "Job is already completed; it cannot abort any more",
    ("completed", "complete"): "Job is already completed; it cannot complete any more",
    ("completed", "halt"): "Job is already completed; it cannot halt any more",
}
PAIRS = list(product(JobStatus, Command))


def test_the_two_tables_cover_every_pair_once() -> None:
    assert set(ALLOWED).isdisjoint(REFUSED)
    assert {(status.value, command.value) for status, command in PAIRS} == {*ALLOWED, *REFUSED}


@pytest.mark.parametrize(("status", "command"), PAIRS)
def test_every_status_with_every_command(status: JobStatus, command: Command) -> None:
    expected = ALLOWED.get((status.value, command.value))
    if expected is None:
        with pytest.raises(errors.JobConflict) as caught:
            lifecycle.decide(status, command)
        assert str(caught.value) == REFUSED[status.value, command.value]
    else:
        transition = lifecycle.decide(status, command)
        assert (transition.status.value, transition.log_type.value) == expected


@pytest.mark.parametrize(("status", "command"), PAIRS)
def test_where_a_command_leads_it_has_done_its_work(status: JobStatus, command: Command) -> None:
    leads_to = {to for (_, given), (to, _) in ALLOWED.items() if given == command.value}
    assert lifecycle.has_done(command, status) is (status.value in leads_to)


@pytest.mark.parametrize("status", list(JobStatus))
def test_only_ended_jobs_can_be_deleted(status: JobStatus) -> None:
    if status.value in {"aborted", "completed"}:
        lifecycle.check_delete(status)
    else:
        with pytest.raises(errors.JobConflict, match="Job is still active"):
            lifecycle.check_delete(status)


def test_the_table_in_the_docstring_is_the_one_in_force() -> None:
    lines = (lifecycle.__doc__ or "").splitlines()
    header = next(line for line in lines if "status" in line and "pause" in line)
    columns = {command: header.index(command.value) for command in Command}
    for status in JobStatus:
        row = next(line for line in lines if line.split()[:1] == [status.value])
        for command, column in columns.items():
            expected = ALLOWED.get((status.value, command.value), ("-", ""))[0]
            assert row[column:].split()[0] == expected
