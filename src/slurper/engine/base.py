"""The engine protocol: an engine runs tasks on workers and returns their reports."""

from __future__ import annotations

from typing import Protocol

from slurper.transfer.task import Task, TaskReport


class Engine(Protocol):
    """Runs tasks somewhere else. An engine keeps no state that a restart would miss."""

    @property
    def slots(self) -> int:
        """How many tasks that copy ranges run at the same time.

        Twice as many run in all, if the others copy large objects. Further tasks wait inside the
        engine.
        """
        ...

    async def start(self) -> None:
        """Start the workers. Returns when tasks can be submitted."""
        ...

    async def run(self, task: Task[TaskReport]) -> TaskReport:
        """Run one task to its report. Cancelling the call cancels the task at its worker.

        Raises:
            WorkerLost: the worker died before it reported. Nothing of the task is committed, so
                the caller may submit it again.
        """
        ...

    def job_ended(self, job_id: str) -> None:
        """Let the workers close what they have open only for a job that has ended, or is paused."""
        ...

    async def stop(self, grace_seconds: float) -> None:
        """Let tasks under way end within `grace_seconds`, then end the workers."""
        ...
