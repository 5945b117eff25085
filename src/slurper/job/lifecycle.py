"""The lifecycle of a job: a pure function from (status, command) to a transition.

    status     pause              resume             abort              complete           halt
    ---------  -----------------  -----------------  -----------------  -----------------  -----------------
    running    paused             -                  aborted            completed          paused
               migrationPause                        migrationAbort     migrationComplete  migrationError
    paused     -                  running            aborted            -                  -
                                  migrationResume    migrationAbort
    aborted    -                  -                  -                  -                  -
    completed  -                  -                  -                  -                  -

A dash is a `JobConflict`. Users pause, resume and abort. The driver's commit gives complete (the
last open range is done) and halt (a cause that would fail every object, design rule 7). Aborted and
completed jobs never change their status. Only such jobs can be deleted.
"""  # noqa: E501 - the table is the specification, and is easiest to read in one piece

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from slurper import errors
from slurper.job.model import JobStatus, LogType


class Command(StrEnum):
    """What can happen to a job."""

    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    COMPLETE = "complete"
    HALT = "halt"


@dataclass(frozen=True, slots=True)
class Transition:
    """The status that a command leads to, and its type in the job's log."""

    status: JobStatus
    log_type: LogType


ACTIVE = frozenset({JobStatus.RUNNING, JobStatus.PAUSED})
"""Statuses that count towards the account's limit. The others are final."""

_TRANSITIONS = {
    (JobStatus.RUNNING, Command.PAUSE): Transition(JobStatus.PAUSED, LogType.MIGRATION_PAUSE),
    (JobStatus.RUNNING, Command.ABORT): Transition(JobStatus.ABORTED, LogType.MIGRATION_ABORT),
    (JobStatus.RUNNING, Command.COMPLETE): Transition(
        JobStatus.COMPLETED, LogType.MIGRATION_COMPLETE
    ),
    (JobStatus.RUNNING, Command.HALT): Transition(JobStatus.PAUSED, LogType.MIGRATION_ERROR),
    (JobStatus.PAUSED, Command.RESUME): Transition(JobStatus.RUNNING, LogType.MIGRATION_RESUME),
    (JobStatus.PAUSED, Command.ABORT): Transition(JobStatus.ABORTED, LogType.MIGRATION_ABORT),
}


def has_done(command: Command, status: JobStatus) -> bool:
    """Whether a job in `status` already has the status that `command` leads to."""
    return any(
        transition.status is status
        for (_, given), transition in _TRANSITIONS.items()
        if given is command
    )


def decide(status: JobStatus, command: Command) -> Transition:
    """Return what `command` does to a job in `status`.

    Raises:
        JobConflict: the status does not allow the command. The text is for the user.
    """
    transition = _TRANSITIONS.get((status, command))
    if transition is None:
        raise errors.JobConflict(_conflict(status, command))
    return transition


def check_delete(status: JobStatus) -> None:
    """Pass if a job in `status` may be deleted. Raises JobConflict: the job is still active."""
    if status in ACTIVE:
        raise errors.JobConflict(f"Job is still active ({status}); abort it before deleting it")


def check_change(status: JobStatus) -> None:
    """Pass if the options of a job in `status` may be changed.

    Raises:
        JobConflict: the job has ended.
    """
    if status not in ACTIVE:
        raise errors.JobConflict(f"Job is already {status}; there is nothing left to change")


def check_retry(status: JobStatus, failed: int) -> None:
    """Pass if a new job can retry what failed in a job.

    Raises:
        JobConflict: the job is still active, or nothing failed.
    """
    if status in ACTIVE:
        raise errors.JobConflict(
            f"Job is still active ({status}); its failures can be retried when it has ended"
        )
    if not failed:
        raise errors.JobConflict("No object of the job failed; there is nothing to retry")


def _conflict(status: JobStatus, command: Command) -> str:
    if status not in ACTIVE:
        return f"Job is already {status}; it cannot {command} any more"
    if command is Command.RESUME:
        return f"Job is not paused, it is {status}"
    return f"Job is not running, it is {status}"
