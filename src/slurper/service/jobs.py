"""What the API and the command line may do with jobs."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from secrets import token_hex

from slurper import errors, offload
from slurper.database.bounds import Bounds
from slurper.database.idempotency import Asked
from slurper.database.store import JobStore
from slurper.engine.waits import Waits
from slurper.errors import PrecheckProblem
from slurper.http.places import Crowded, Owner, Places, Share
from slurper.job import lifecycle, rules
from slurper.job.lifecycle import Command
from slurper.job.model import (
    Delivery,
    Job,
    JobCapabilities,
    JobSpec,
    JobStatus,
    LimitChanges,
    Location,
    LogEntry,
    LogType,
    Progress,
)
from slurper.objectstore.base import StoreAddress
from slurper.secrets import Credentials, JobSecrets, Sealer
from slurper.service.precheck import Checked, Precheck, Side
from slurper.service.probes.check import side_by_side
from slurper.settings import Settings

MOST_CHECKS = 32
"""Checks under way at once, of all accounts; more, if one account may have more."""
CHECK_WAIT_SECONDS = 5.0
"""How long a check waits for its place. A check takes about as long, so one mostly comes free."""
_WAITING_PER_CHECK = 4
"""So many wait for each place of an account or token. What they want is in memory meanwhile."""
_FEW_KEYS = 100

_SECRETS = frozenset(f"/{side}/secret" for side in Side)


class JobService:
    """Checks, stores and commands jobs. The driver moves them forward.

    `wake` is called after every change that the driver should notice soon. `waits` knows what tasks
    wait for, if the driver is in this process.
    """

    def __init__(
        self,
        store: JobStore,
        sealer: Sealer,
        settings: Settings,
        *,
        wake: Callable[[], None],
        waits: Waits | None = None,
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._settings = settings
        self._wake = wake
        self._waits = waits or Waits()
        self._precheck = Precheck(settings)
        self._checks = _Checks.of(settings)
        self._places = Places(
            of_account=Share(self._checks.of_account, self._checks.of_account * _WAITING_PER_CHECK),
            of_token=Share(self._checks.of_token, self._checks.of_token * _WAITING_PER_CHECK),
            most=self._checks.of_all,
        )

    async def create(
        self,
        account_id: str,
        spec: JobSpec,
        secrets: JobSecrets,
        *,
        delivery: Delivery | None = None,
        created_by: str | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> str:
        """Check both sides, store the job as running, and return its id.

        `tell` gets notes about both sides before the job begins. The first entry of the job's log
        has the same text. `delivery` shows whether the request was sent before. If it has made a
        job already, no other job is made, and the id of that job is returned. Without `delivery`,
        the request is not expected to be sent again. `created_by` names the token that asks.

        Raises:
            KeyReused: the delivery's key came with another request.
            InvalidField: a location or key cannot be used. No store was asked anything.
            PrecheckFailed: with the problems of both sides.
            TooManyOpenFiles: nothing could be asked, because this process has no file descriptor.
            TooManyChecks: so many checks are under way that this one cannot begin.
            JobLimitReached: there are as many active jobs as the settings allow.
            TokenRevoked: the token was revoked while both sides were checked.
        """
        spec = replace(spec, keys=await _selected(spec.keys, spec.prefix))
        asked = await self._asked(
            account_id, delivery, "create", spec, secrets, is_long=_has_many(spec.keys)
        )
        made = await self._answered(asked)
        if made is not None:
            return made
        checked = await self._check(
            Owner(account_id, created_by),
            spec,
            source=secrets.source,
            target=secrets.target,
            is_new=True,
        )
        for note in checked.notes:
            tell(note)
        job = _new_job(
            account_id,
            spec,
            at=await self._store.now(),
            capabilities=checked.found,
            created_by=created_by,
        )
        job_id = await self._store.create_job(
            job,
            lambda: self._sealer.seal(secrets),
            max_active=self._settings.max_concurrent_jobs,
            max_total=self._settings.max_concurrent_jobs_total,
            entry=_started(job, checked.notes),
            asked=asked,
        )
        self._wake()
        return job_id

    async def retry_failed(
        self,
        account_id: str,
        job_id: str,
        *,
        source_credentials: Credentials | None = None,
        target_credentials: Credentials | None = None,
        delivery: Delivery | None = None,
        created_by: str | None = None,
    ) -> str:
        """Begin a job of exactly the objects that failed in an ended one; return its id.

        The new job has the same settings. A side without new credentials keeps its old ones. A
        request that is sent again makes no second job, as with `create`.

        Raises:
            KeyReused: the delivery's key came with another request.
            JobNotFound: no such job in this account.
            JobConflict: the job is active, nothing in it failed, or its settings are no longer
                allowed.
            InvalidField: credentials are of the wrong kind, or are needed because those of the job
                were erased.
            PrecheckFailed: with the problems of both sides.
            JobLimitReached: there are as many active jobs as the settings allow.
            TokenRevoked: the token was revoked while both sides were checked.
        """
        given = (source_credentials, target_credentials)
        asked = await self._asked(account_id, delivery, "retryFailed", job_id, given)
        made = await self._answered(asked)
        if made is not None:
            return made
        retried = await self._store.retried_job(account_id, job_id)
        secrets = self._merge(retried.sealed, source_credentials, target_credentials)
        spec, owner = replace(retried.job.spec, keys=retried.sample), Owner(account_id, created_by)
        with _only_secrets_can_change():
            checked = await self._check(
                owner, spec, source=secrets.source, target=secrets.target, is_new=True
            )
        job = _new_job(
            account_id,
            replace(spec, keys=()),
            at=await self._store.now(),
            capabilities=checked.found,
            created_by=created_by,
            retry_of=job_id,
        )
        text = f"Retries what failed in job {job_id}: {retried.failed:,} of its objects"
        made = await self._store.create_retry(
            job,
            lambda: self._sealer.seal(secrets),
            max_active=self._settings.max_concurrent_jobs,
            max_total=self._settings.max_concurrent_jobs_total,
            entry=_started(job, (text, *checked.notes)),
            asked=asked,
        )
        self._wake()
        return made

    async def _asked(
        self,
        account_id: str,
        delivery: Delivery | None,
        *request: object,
        is_long: bool = False,
    ) -> Asked | None:
        """How we recognise the request if it is sent again; None: that is not expected."""
        if delivery is None:
            return None
        return Asked(
            account_id=account_id,
            digests=await offload.run(functools.partial(self._digests, request), is_long=is_long),
            key=delivery.key,
            retries=delivery.retries,
            at=await self._store.now(),
        )

    def _digests(self, request: tuple[object, ...]) -> tuple[bytes, ...]:
        """Digest a request piece by piece: it may hold ten thousand keys."""
        pieces = json.JSONEncoder(sort_keys=True, default=asdict).iterencode(request)
        return self._sealer.digests(piece.encode() for piece in pieces)

    async def _answered(self, asked: Asked | None) -> str | None:
        return None if asked is None else await self._store.answered(asked)

    async def progress(self, account_id: str, job_id: str) -> Progress:
        """Return a job's counters. Raises JobNotFound."""
        progress = await self._store.progress(account_id, job_id)
        waiting_for = self._waits.of(job_id)
        return replace(progress, waiting_for=(*progress.waiting_for, *waiting_for))

    async def pause(self, account_id: str, job_id: str, *, delivery: Delivery | None = None) -> Job:
        """Begin no more tasks; those under way run to their end. Raises JobNotFound, JobConflict.

        Pause, resume and abort may be sent again (`delivery`). If the job already has the status
        that the command leads to, the command changes nothing and raises nothing.
        """
        done = await self._done(account_id, job_id, Command.PAUSE, delivery)
        return done or await self._command(account_id, job_id, Command.PAUSE)

    async def resume(
        self,
        account_id: str,
        job_id: str,
        *,
        source_credentials: Credentials | None = None,
        target_credentials: Credentials | None = None,
        delivery: Delivery | None = None,
        asked_by: str | None = None,
    ) -> Job:
        """Go on where the job stopped. A side for which credentials are given uses the new ones.

        `asked_by` names the token that asks.

        Raises:
            JobNotFound, JobConflict: no such job, or it is not paused.
            InvalidField: credentials are of the wrong kind, or are needed for the other side too.
            PrecheckFailed: with the problems of the sides for which credentials are given. The job
                stays paused and keeps its old credentials.
        """
        done = await self._done(account_id, job_id, Command.RESUME, delivery)
        if done is not None:
            return done
        if source_credentials is None and target_credentials is None:
            return await self._command(account_id, job_id, Command.RESUME)
        job = await self._store.get_job(account_id, job_id)
        lifecycle.decide(job.status, Command.RESUME)
        spec = await self._with_sample(job)
        with _only_secrets_can_change():
            await self._check(
                Owner(account_id, asked_by),
                spec,
                source=source_credentials,
                target=target_credentials,
            )

        def reseal(sealed: bytes | None) -> bytes:
            return self._sealer.seal(self._merge(sealed, source_credentials, target_credentials))

        return await self._command(account_id, job_id, Command.RESUME, reseal=reseal)

    async def renew_secrets(self, account_id: str, job_id: str, secrets: JobSecrets) -> None:
        """Give an unfinished job other credentials. They are checked like those of a new job.

        Tasks under way go on with the old ones; every later task uses the new ones.

        Raises:
            JobNotFound, JobConflict: no such job, or it has ended.
            PrecheckFailed: with the problems of both sides. The job keeps its old credentials.
        """
        spec = await self._with_sample(await self._store.get_job(account_id, job_id))
        await self._check(Owner(account_id), spec, source=secrets.source, target=secrets.target)
        await self._store.renew_secrets(account_id, job_id, lambda: self._sealer.seal(secrets))

    async def change_limits(self, account_id: str, job_id: str, changes: LimitChanges) -> Job:
        """Change the limits of an unfinished job that are named. Tasks under way keep their limits.

        Raises:
            InvalidField: no limit is named.
            JobNotFound, JobConflict: no such job, or it has ended.
        """
        rules.limit_changes(changes)
        job = await self._store.change_options(
            account_id, job_id, lambda options: replace(options, **changes)
        )
        self._wake()
        return job

    async def abort(self, account_id: str, job_id: str, *, delivery: Delivery | None = None) -> Job:
        """End the job for good; tasks under way still finish. Raises JobNotFound, JobConflict."""
        done = await self._done(account_id, job_id, Command.ABORT, delivery)
        return done or await self._command(account_id, job_id, Command.ABORT)

    async def abort_all(self, account_id: str) -> int:
        """Abort every active job of the account, paused ones included; return how many."""
        aborted = await self._store.apply_all(account_id, Command.ABORT)
        self._wake()
        return len(aborted)

    async def delete(self, account_id: str, job_id: str) -> None:
        """Forget a job that has ended. Raises JobNotFound, JobConflict."""
        await self._store.delete_job(account_id, job_id)
        self._wake()  # a large job leaves rows to remove

    async def precheck_source(
        self,
        account_id: str,
        location: Location,
        credentials: Credentials,
        *,
        prefix: str = "",
        keys: Sequence[str] | None = None,
        asked_by: str | None = None,
    ) -> tuple[PrecheckProblem, ...]:
        """Return why the source cannot be read, or else notes about it.

        `asked_by` names the token that asks. Raises InvalidField, TooManyChecks.
        """
        keys = await _selected(keys, prefix)
        owner = Owner(account_id, asked_by)
        address = self._precheck.resolve(Side.SOURCE, owner, location, credentials)
        async with self._place(owner):
            checked = await self._precheck.source(location, address, prefix=prefix, keys=keys)
        return checked.problems

    async def precheck_target(
        self,
        account_id: str,
        location: Location,
        credentials: Credentials,
        *,
        asked_by: str | None = None,
    ) -> tuple[PrecheckProblem, ...]:
        """Return why the target cannot be written to, or else notes about it.

        `asked_by` names the token that asks. Raises InvalidField, TooManyChecks.
        """
        owner = Owner(account_id, asked_by)
        address = self._precheck.resolve(Side.TARGET, owner, location, credentials)
        async with self._place(owner):
            return (await self._precheck.target(location, address)).problems

    @asynccontextmanager
    async def _place(self, owner: Owner) -> AsyncIterator[None]:
        """Hold a place for a check, of one side or both. Raises TooManyChecks: none came free."""
        try:
            async with asyncio.timeout(CHECK_WAIT_SECONDS):
                await self._places.take(owner)
        except (Crowded, TimeoutError):
            raise errors.TooManyChecks(
                f"{self._checks.of_account} checks of stores may be under way for an account, "
                f"{self._checks.of_token} for a token, and {self._checks.of_all} for all; "
                "try again when some have ended"
            ) from None
        try:
            yield
        finally:
            self._places.give_back(owner)

    async def _check(
        self,
        owner: Owner,
        spec: JobSpec,
        *,
        source: Credentials | None,
        target: Credentials | None,
        is_new: bool = False,
    ) -> _BothChecked:
        """Check the sides for which credentials are given, both at the same time.

        For a new job (`is_new`), also find out what its stores can do, and check that its two sides
        differ.

        Raises:
            InvalidField, PrecheckFailed, TooManyChecks, TooManyOpenFiles: as `create` says.
        """
        check = self._precheck
        read_from = write_to = None
        if source is not None:
            read_from = check.resolve(Side.SOURCE, owner, spec.source, source)
        if target is not None:
            write_to = check.resolve(Side.TARGET, owner, spec.target, target)
        if is_new and read_from is not None and write_to is not None:
            _refuse_same_bucket(spec, read_from, write_to)
        async with self._place(owner):
            readable, writable = await side_by_side(
                _unasked()
                if read_from is None
                else check.source(spec.source, read_from, prefix=spec.prefix, keys=spec.keys),
                _unasked()
                if write_to is None
                else check.target(
                    spec.target,
                    write_to,
                    asks_condition=is_new and not spec.overwrite,
                    asks_what_is_kept=is_new,
                ),
            )
        problems = readable.problems + writable.problems
        if any(problem.blocks for problem in problems):
            raise errors.PrecheckFailed(tuple(one for one in problems if one.blocks))
        return _BothChecked(
            found=JobCapabilities(source=readable.capabilities, target=writable.capabilities),
            notes=tuple(f"{one.side}: {one.message}" for one in problems),
        )

    async def _with_sample(self, job: Job) -> JobSpec:
        """The job's spec with at least one of its explicit keys, if it has any."""
        if job.spec.keys != ():
            return job.spec
        return replace(job.spec, keys=await self._store.first_keys(job.account_id, job.id))

    def _merge(
        self, sealed: bytes | None, source: Credentials | None, target: Credentials | None
    ) -> JobSecrets:
        """Return the given credentials. A side without them gets its sealed ones.

        Raises:
            InvalidField: there are no sealed ones, or they cannot be opened.
        """
        if source is not None and target is not None:
            return JobSecrets(source=source, target=target)
        missing = Side.SOURCE if source is None else Side.TARGET
        if sealed is None:
            text = "is required: the credentials of the job have been erased since it ended"
            raise errors.InvalidField(f"/{missing}/secret", text)
        try:
            stored = self._sealer.open(sealed)
        except errors.ConfigurationError as error:
            raise errors.InvalidField(f"/{missing}/secret", f"is required: {error}") from error
        return JobSecrets(source=source or stored.source, target=target or stored.target)

    async def _done(
        self, account_id: str, job_id: str, command: Command, delivery: Delivery | None
    ) -> Job | None:
        """Return the job if the command was sent again and is already carried out; else None."""
        if delivery is None or not delivery.retries:
            return None
        job = await self._store.get_job(account_id, job_id)
        return job if lifecycle.has_done(command, job.status) else None

    async def _command(
        self,
        account_id: str,
        job_id: str,
        command: Command,
        *,
        reseal: Callable[[bytes | None], bytes] | None = None,
    ) -> Job:
        bounds = Bounds.of(self._settings)
        job = await self._store.apply(account_id, job_id, command, reseal=reseal, bounds=bounds)
        self._wake()
        return job


@dataclass(frozen=True, slots=True)
class _Checks:
    """How many checks of stores may be under way."""

    of_account: int
    of_token: int
    of_all: int

    @classmethod
    def of(cls, settings: Settings) -> _Checks:
        """Half of all for one token: it may be good for every account, and name very many."""
        one = settings.max_concurrent_checks
        return cls(one, max(one, MOST_CHECKS // 2), max(one, MOST_CHECKS))


def _refuse_same_bucket(spec: JobSpec, read_from: StoreAddress, write_to: StoreAddress) -> None:
    """Raise InvalidField for a job that would copy every object onto itself.

    At some stores the credentials choose the tenant, and each tenant may have a bucket of that
    name. So the credentials must be the same too. We do not notice a store that has several names.
    """
    is_same = (
        read_from.origin == write_to.origin
        and read_from.bucket == write_to.bucket
        and read_from.credentials == write_to.credentials
    )
    if is_same and not (spec.options.strip_prefix and spec.prefix):
        text = (
            "is the source itself, where every object would be copied onto itself; name another "
            "bucket, or give source.pathPrefix with options.stripPrefix to copy to other keys"
        )
        raise errors.InvalidField("/target/bucket", text)


@dataclass(frozen=True, slots=True, kw_only=True)
class _BothChecked:
    """The outcome of the checks, if both sides can be used."""

    found: JobCapabilities
    notes: tuple[str, ...]
    """Notes about the sides. Each names its side."""


def _started(job: Job, texts: Sequence[str]) -> LogEntry:
    """The first entry of a job's log, with the notes about its sides."""
    return LogEntry(
        log_type=LogType.MIGRATION_START,
        created_at=job.created_at,
        message="; ".join(texts) or None,
    )


async def _unasked() -> Checked:
    return Checked(problems=())


def _new_job(
    account_id: str,
    spec: JobSpec,
    *,
    at: datetime,
    capabilities: JobCapabilities,
    created_by: str | None,
    retry_of: str | None = None,
) -> Job:
    return Job(
        id=token_hex(32),
        account_id=account_id,
        spec=spec,
        status=JobStatus.RUNNING,
        created_at=at,
        retry_of=retry_of,
        capabilities=capabilities,
        created_by=created_by,
    )


@contextmanager
def _only_secrets_can_change() -> Iterator[None]:
    """Raise JobConflict for a problem that new credentials cannot solve."""
    try:
        yield
    except errors.InvalidField as error:
        if error.pointer in _SECRETS:
            raise
        field = error.pointer.removeprefix("/").replace("/", ".")
        raise errors.JobConflict(
            f"The job cannot go on with its {field}, which {error.message}; create a new one"
        ) from error


async def _selected(keys: Sequence[str] | None, prefix: str) -> tuple[str, ...] | None:
    """Return the explicit keys of a source in the order of the key space, if it has any."""
    if keys is None:
        return None
    with rules.below("/source/keys"):
        select = functools.partial(rules.selected_keys, keys, prefix)
        return await offload.run(select, is_long=_has_many(keys))


def _has_many(keys: Sequence[str] | None) -> bool:
    """Whether work on all keys takes long."""
    return keys is not None and len(keys) > _FEW_KEYS
