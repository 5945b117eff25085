"""What the API and the command line may do with jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from secrets import token_hex

from slurper import errors
from slurper.database.schema import encode_key
from slurper.database.store import JobStore
from slurper.errors import PrecheckProblem
from slurper.jobs.lifecycle import Command
from slurper.jobs.models import Job, JobSpec, JobStatus, Location, LogEntry, LogType, Progress
from slurper.jobs.precheck import Precheck, Side
from slurper.secrets import Credentials, JobSecrets, Sealer
from slurper.settings import Settings


class JobService:
    """Checks, stores and commands jobs; moving them forward is the driver's part.

    `wake` is called after every change the driver should notice soon.
    """

    def __init__(
        self,
        store: JobStore,
        sealer: Sealer,
        settings: Settings,
        *,
        wake: Callable[[], None],
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._settings = settings
        self._wake = wake
        self._precheck = Precheck(settings)

    async def create(self, account_id: str, spec: JobSpec, secrets: JobSecrets) -> str:
        """Check both sides, store the job as running, and return its id.

        Raises:
            InvalidField: a location or key cannot be used; nothing was asked of any store.
            PrecheckFailed: with the problems of both sides.
            JobLimitReached: the account has as many active jobs as the settings allow.
        """
        spec = _in_order(spec)
        problems = await self._check_both(account_id, spec, secrets)
        if problems:
            raise errors.PrecheckFailed(problems)
        now = datetime.now(UTC)
        job = Job(
            id=token_hex(32),
            account_id=account_id,
            spec=spec,
            status=JobStatus.RUNNING,
            created_at=now,
        )
        await self._store.create_job(
            job,
            self._sealer.seal(secrets),
            max_active=self._settings.max_concurrent_jobs,
            entry=LogEntry(log_type=LogType.MIGRATION_START, created_at=now),
        )
        self._wake()
        return job.id

    async def get(self, account_id: str, job_id: str) -> Job:
        """Return a job. Raises JobNotFound."""
        return await self._store.get_job(account_id, job_id)

    async def list(self, account_id: str, *, limit: int, offset: int) -> Sequence[Job]:
        """Return jobs, newest first; one with explicit keys has `spec.keys == ()` in here."""
        return await self._store.list_jobs(account_id, limit=limit, offset=offset)

    async def progress(self, account_id: str, job_id: str) -> Progress:
        """Return a job's counters. Raises JobNotFound."""
        return await self._store.progress(account_id, job_id)

    async def logs(
        self, account_id: str, job_id: str, *, limit: int, offset: int
    ) -> Sequence[LogEntry]:
        """Return a job's log entries, oldest first. Raises JobNotFound."""
        return await self._store.logs(account_id, job_id, limit=limit, offset=offset)

    async def pause(self, account_id: str, job_id: str) -> Job:
        """Begin no more work; what is under way ends. Raises JobNotFound, JobConflict."""
        return await self._command(account_id, job_id, Command.PAUSE)

    async def resume(self, account_id: str, job_id: str) -> Job:
        """Go on where the job stopped. Raises JobNotFound, JobConflict."""
        return await self._command(account_id, job_id, Command.RESUME)

    async def renew_secrets(self, account_id: str, job_id: str, secrets: JobSecrets) -> None:
        """Give an unfinished job other credentials, checked as those of a new job are.

        Tasks under way go on with the old ones; every later task uses the new ones.

        Raises:
            JobNotFound, JobConflict: no such job, or it has ended.
            PrecheckFailed: with the problems of both sides; the job keeps what it had.
        """
        job = await self._store.get_job(account_id, job_id)
        problems = await self._check_both(account_id, job.spec, secrets)
        if problems:
            raise errors.PrecheckFailed(problems)
        await self._store.renew_secrets(account_id, job_id, self._sealer.seal(secrets))

    async def abort(self, account_id: str, job_id: str) -> Job:
        """End the job for good; what is under way ends. Raises JobNotFound, JobConflict."""
        return await self._command(account_id, job_id, Command.ABORT)

    async def abort_all(self, account_id: str) -> int:
        """Abort every active job of the account, paused ones included; return how many."""
        aborted = await self._store.apply_all(account_id, Command.ABORT)
        self._wake()
        return len(aborted)

    async def delete(self, account_id: str, job_id: str) -> None:
        """Forget a job that has ended. Raises JobNotFound, JobConflict."""
        await self._store.delete_job(account_id, job_id)

    async def precheck_source(
        self,
        account_id: str,
        location: Location,
        credentials: Credentials,
        *,
        prefix: str = "",
        keys: Sequence[str] | None = None,
    ) -> tuple[PrecheckProblem, ...]:
        """Return why the source cannot be read. Raises InvalidField."""
        address = self._precheck.resolve(Side.SOURCE, account_id, location, credentials)
        return await self._precheck.source(location, address, prefix=prefix, keys=keys)

    async def precheck_target(
        self, account_id: str, location: Location, credentials: Credentials
    ) -> tuple[PrecheckProblem, ...]:
        """Return why the target cannot be written to. Raises InvalidField."""
        address = self._precheck.resolve(Side.TARGET, account_id, location, credentials)
        return await self._precheck.target(location, address)

    async def _check_both(
        self, account_id: str, spec: JobSpec, secrets: JobSecrets
    ) -> tuple[PrecheckProblem, ...]:
        check = self._precheck
        source = check.resolve(Side.SOURCE, account_id, spec.source, secrets.source)
        target = check.resolve(Side.TARGET, account_id, spec.target, secrets.target)
        async with asyncio.TaskGroup() as group:
            readable = group.create_task(
                check.source(spec.source, source, prefix=spec.prefix, keys=spec.keys)
            )
            writable = group.create_task(check.target(spec.target, target))
        return readable.result() + writable.result()

    async def _command(self, account_id: str, job_id: str, command: Command) -> Job:
        job = await self._store.apply(account_id, job_id, command)
        self._wake()
        return job


def _in_order(spec: JobSpec) -> JobSpec:
    """Bring explicit keys into the order of the key space, each once."""
    if spec.keys is None:
        return spec
    if not spec.keys:
        raise errors.InvalidField("/source/keys", "names no key; leave it out to copy everything")
    for index, key in enumerate(spec.keys):
        if not key.startswith(spec.prefix):
            raise errors.InvalidField(
                f"/source/keys/{index}", "does not begin with the prefix, and both apply"
            )
    return replace(spec, keys=tuple(sorted(set(spec.keys), key=encode_key)))
