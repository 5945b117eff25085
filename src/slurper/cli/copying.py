"""Runs one job without a server: it is made or resumed, driven in this process, and reported.

Each copy has its own directory below the data directory. The directory's name is a fingerprint of
what is to be copied. So the same command finds its unfinished job again. Different copies are
independent of each other, and no copy touches the jobs of a server.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO

from slurper import errors
from slurper.cli import copy_result
from slurper.cli.census import Census
from slurper.cli.copy_result import CopyResult
from slurper.cli.progress import Display, Snapshot
from slurper.database.housekeeping import Housekeeping
from slurper.driver.leadership import Tenure
from slurper.engine.template import Template
from slurper.http.client import TransportOptions
from slurper.job import rules
from slurper.job.model import (
    Counts,
    JobSpec,
    JobStatus,
    LimitChanges,
    LogType,
    Progress,
)
from slurper.node import Node, assembled, driven
from slurper.objectstore import factory
from slurper.secrets import JobSecrets
from slurper.settings import Settings

LEASE_SECONDS = 3.0
"""Shorter than a server's. It takes this long to find out whether an earlier run is still alive."""

SHOW_SECONDS = 0.2
"""How often the display is refreshed on a terminal."""
POLL_SECONDS = 1.0
"""How often progress is read without a terminal. Each commit causes a read as well."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_UNFINISHED = (JobStatus.RUNNING, JobStatus.PAUSED)
_HALTS = (LogType.MIGRATION_ERROR, LogType.MIGRATION_ERROR_FAILED_CONTINUATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyRequest:
    """What is to be copied, and the credentials for it."""

    account_id: str
    spec: JobSpec
    secrets: JobSecrets

    @property
    def fingerprint(self) -> str:
        """The name of the copy. Credentials and limits do not change it."""
        options = dataclasses.replace(
            self.spec.options, bandwidth_limit=None, request_rate_limit=None
        )
        spec = dataclasses.replace(self.spec, options=options)
        plain: dict[str, Any] = {"account": self.account_id, "spec": dataclasses.asdict(spec)}
        if not options.require:  # then the name is the same as in earlier versions
            del plain["spec"]["options"]["require"]
        text = json.dumps(plain, sort_keys=True)  # ASCII, so that any key can be hashed
        return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]


async def run(
    request: CopyRequest,
    settings: Settings,
    display: Display,
    *,
    template: Template | None = None,
    failed_keys: BinaryIO | None = None,
) -> CopyResult:
    """Copy until everything is settled, the job cannot go on, or a signal asks to stop.

    Workers are forked from `template`, if there is one. The keys of objects that failed are written
    to `failed_keys`, one per line.

    Raises:
        ConfigurationError, InvalidField: the request cannot work.
        PrecheckFailed: a side cannot be used with what was given.
    """
    own = {
        "data_dir": settings.data_dir / "copies" / request.fingerprint,
        "database_url": None,
        "lease_seconds": min(settings.lease_seconds, LEASE_SECONDS),
        # These keep tenants of a service from filling its disk. Here, the disk is the user's own.
        "job_log_entries": rules.MAX_NUMBER,
        "job_gathered_keys": rules.MAX_NUMBER,
    }
    own_settings = settings.model_copy(update=own)
    return await _Copy(request, own_settings, display, template, failed_keys).run()


class _Copy:
    """One run of a copy."""

    def __init__(
        self,
        request: CopyRequest,
        settings: Settings,
        display: Display,
        template: Template | None,
        failed_keys: BinaryIO | None,
    ) -> None:
        self._request = request
        self._template = template
        self._failed_keys = failed_keys
        self._settings = settings
        self._display = display
        self._account_id = request.account_id
        self._census = Census.of(request.spec)

    async def run(self) -> CopyResult:
        begun = time.monotonic()
        async with assembled(self._settings) as node, self._alone(node) as tenure:
            job_id, resumed = await self._prepare(node)
            before = (await node.service.progress(self._account_id, job_id)).counts
            async with driven(node, tenure, self._template) as driving, self._counting():
                stopped_by = await self._watch(node, job_id, driving)
            progress = await node.service.progress(self._account_id, job_id)
            job = await node.store.get_job(self._account_id, job_id)
            housekeeping = Housekeeping(node.store.database, tenure.lease)
            await housekeeping.erase_secrets(datetime.now(UTC))  # there is no server to do it later
            left = await copy_result.collect(
                node.store,
                self._account_id,
                job_id,
                self._failed_keys,
                skipped=progress.counts.skipped,
            )
            return CopyResult(
                job_id=job_id,
                resumed=resumed,
                status=progress.status,
                counts=progress.counts,
                seconds=time.monotonic() - begun,
                copied_now=_since(before, progress.counts),
                left=left,
                capabilities=job.capabilities,
                halt=await self._halt(node, progress) if stopped_by is None else None,
                stopped_by=stopped_by,
            )

    @asynccontextmanager
    async def _alone(self, node: Node) -> AsyncIterator[Tenure]:
        """Make sure that no other process runs the same copy."""
        async with AsyncExitStack() as stack:
            held = node.leadership.hold(stand_by=False)
            try:
                tenure = await stack.enter_async_context(held)
            except errors.LeaseHeld as error:
                raise errors.ConfigurationError(
                    f"this very copy is already running as {error.holder}"
                    f" (in {self._settings.data_dir})"
                ) from error
            yield tenure

    async def _prepare(self, node: Node) -> tuple[str, bool]:
        """Make the job, or resume the unfinished one with the credentials and limits given now."""
        service, secrets = node.service, self._request.secrets
        unfinished = await self._unfinished(node)
        if unfinished is None:
            job_id = await service.create(
                self._account_id, self._request.spec, secrets, tell=self._display.note
            )
            return job_id, False
        job_id, status = unfinished
        await service.renew_secrets(self._account_id, job_id, secrets)
        now = self._request.spec.options
        limits = LimitChanges(
            bandwidth_limit=now.bandwidth_limit, request_rate_limit=now.request_rate_limit
        )
        await service.change_limits(self._account_id, job_id, limits)
        if status is JobStatus.PAUSED:
            await service.resume(self._account_id, job_id)
        return job_id, True

    async def _unfinished(self, node: Node) -> tuple[str, JobStatus] | None:
        """Return this copy's unfinished job: it can only be the newest one in the directory."""
        for job in await node.store.list_jobs(self._account_id, limit=1, offset=0):
            if job.status in _UNFINISHED:
                return job.id, job.status
        return None

    async def _watch(self, node: Node, job_id: str, driving: asyncio.Task[None]) -> int | None:
        """Show progress until the job is no longer running; return the signal that stopped it."""
        with _stop_signals() as stopped:
            while True:
                progress = await node.service.progress(self._account_id, job_id)
                self._show(progress)
                if progress.status is not JobStatus.RUNNING:
                    return None
                await self._until_it_moves(node, stopped, driving)
                if driving.done():
                    driving.result()
                if stopped.done():
                    with suppress(errors.JobConflict):  # it has just ended by itself
                        await node.service.pause(self._account_id, job_id)
                    return stopped.result()

    async def _until_it_moves(self, node: Node, *ends: asyncio.Future[Any]) -> None:
        moved = asyncio.create_task(node.moved.wait())
        await asyncio.wait(
            (moved, *ends),
            timeout=SHOW_SECONDS if self._display.live else POLL_SECONDS,
            return_when=asyncio.FIRST_COMPLETED,
        )
        moved.cancel()
        node.moved.clear()

    def _show(self, progress: Progress) -> None:
        counts, census, whole = progress.counts, self._census, progress.whole.objects
        self._display.update(
            Snapshot(
                objects=counts.objects,
                skipped=counts.skipped,
                failed=counts.failed,
                transferred_bytes=counts.transferred_bytes,
                total=census.total if whole is None else whole,
                total_is_final=census.final or whole is not None,
                throttled_by_source=progress.pace.source_throttled,
                throttled_by_target=progress.pace.target_throttled,
                waiting_for=progress.waiting_for,
            )
        )

    @asynccontextmanager
    async def _counting(self) -> AsyncIterator[None]:
        """Count the source during the block, if there is a terminal and the total is not known."""
        if not self._display.live or self._census.final:
            yield
            return
        spec = self._request.spec
        address = factory.resolve(
            spec.source,
            self._request.secrets.source,
            account_id=self._account_id,
            settings=self._settings,
        )
        options = TransportOptions.from_settings(self._settings)
        task = asyncio.create_task(self._census.take(address, options, spec.prefix))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _halt(self, node: Node, progress: Progress) -> str | None:
        """Return the newest reason why a paused job could not go on."""
        if progress.status is not JobStatus.PAUSED:
            return None
        reason = None
        async for entry in copy_result.log(node.store, self._account_id, progress.job_id):
            if entry.log_type in _HALTS:
                reason = entry.message
        return reason


@contextmanager
def _stop_signals() -> Iterator[asyncio.Future[int]]:
    """Put the first stop signal into a future. A second signal has its usual effect."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[int] = loop.create_future()

    def note(number: int) -> None:
        for each in STOP_SIGNALS:
            loop.remove_signal_handler(each)
        stopped.set_result(number)

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, note, number)
    try:
        yield stopped
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)


def _since(before: Counts, now: Counts) -> Counts:
    if now.objects < before.objects:  # the job has begun anew
        return now
    return Counts(
        objects=now.objects - before.objects,
        transferred=now.transferred - before.transferred,
        skipped=now.skipped - before.skipped,
        failed=now.failed - before.failed,
        transferred_bytes=now.transferred_bytes - before.transferred_bytes,
    )
