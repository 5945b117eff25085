"""Is an error one object's own, or does it stop everything (design rule 7)?

An object that fails for a reason of its own is counted as failed. If nothing at all can be copied,
the job pauses, and no object is counted as failed.

*An error that outlasted all attempts.* Either the object is broken, or a store is down. So both
stores are asked to list.

*A refusal.* One object may be refused for a reason of its own: an access list, a policy for a
folder, a lock. A store, or a proxy before it, may read one key or header in another form than the
signed one. It may send the requests for one key to another place or bucket. But the same answers
come when the credentials have expired or have lost their permission for the whole bucket, and when
the bucket is gone. So when a store refuses an object, we try something else on the same side. If
one of these requests is allowed, only the object is refused:

    side    what is tried
    source  to read one byte of the object read last; of up to `SAMPLE` of the task's explicit keys;
            of as many of the first keys that the source lists
    target  to begin an upload, aborted at once, for the object written last; for an unused key. If
            the write of a whole object was refused, a part is written too
            if the target was only asked what it has: to describe these two objects

The cost is a few requests. Their answer counts for all objects that were refused before. When
nothing has been read yet, it is `SAMPLE` requests, once. An answer such as ExpiredToken is never
about one object. If a question gets such an answer too, the job pauses at once. One case is judged
wrongly: nothing has been read yet, and the first `SAMPLE` keys of the source are all refused for
reasons of their own. Then the job pauses.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence

from slurper import errors
from slurper.job.model import LogType
from slurper.objectstore import advice, error_answers
from slurper.objectstore.base import Body, ByteRange, ObjectHeaders
from slurper.transfer.route import Route
from slurper.transfer.task import Halt

SAMPLE = 20
"""How many other objects are tried before the whole source counts as refused."""

_READS = frozenset({"GetObject", "HeadObject", "objects.get"})
"""Requests to the source. All others that can be refused during a copy go to the target."""
_WRITES_WHOLE = frozenset({"PutObject", "objects.insert"})
_FIRST_BYTE = ByteRange(0, 1)

_OUT_OF_TIME = frozenset(
    {"ExpiredToken", "RequestExpired", "RequestTimeTooSkewed", "TokenRefreshRequired"}
)
"""Codes that are never about one object."""

_OF_ONE_MACHINE = _OUT_OF_TIME | {"InvalidAccessKeyId", "InvalidToken", "NotSignedUp"}
"""Codes that have nothing to do with the key, even when they come for one object only."""

LEARNED_LATE = (errors.CredentialsRejected, errors.Misdirected)
"""After these errors we ask once more: the machines of a store learn new credentials and buckets
one by one."""

_BY_HAND = "copy the object by hand, or under another key"
_SIGNED_OTHERWISE = (
    "other requests with the same credentials succeed: the store, or a proxy before it, reads this "
    f"key or its headers in another form than the signed one; {_BY_HAND}"
)
_ONE_MACHINE = (
    "other requests with the same credentials succeed: one of the store's machines, or a proxy "
    "before it, has a wrong clock, or does not know the credentials; try the object again by key"
)
_SENT_ELSEWHERE = (
    "other requests are not redirected: the store, or a proxy before it, sends requests for this "
    f"object elsewhere, and no redirect is followed; {_BY_HAND}"
)
_OTHER_BUCKET = (
    "other requests find the bucket: the store, or a proxy before it, reads the name of another "
    f"bucket in this key; {_BY_HAND}"
)


class PermissionLostError(errors.SlurperError):
    """Nothing can be read from the source, or nothing can be written to the target."""

    advice = "give these credentials the permission back, then resume: nothing was left out"
    blocks_job = True


class CredentialsLostError(PermissionLostError):
    """The reason is that the store rejects the credentials, or all signatures."""

    advice = errors.CredentialsRejected.advice


class BucketLostError(PermissionLostError):
    """The reason is that requests do not reach the bucket."""

    advice = f"{errors.Misdirected.advice}; then resume: nothing was left out"


class Diagnosis:
    """Decides whether an error of one task stops everything. If it does, the task halts."""

    def __init__(self, route: Route, *, keys: Sequence[str] | None) -> None:
        """Take the explicit keys, if there are any. Some are read to test the permission."""
        self._route = route
        self._permission = Permission(route, keys=keys or ())
        self.halt: Halt | None = None
        """Why the task, and its job, cannot go on."""

    def used(self, key: str) -> None:
        """Take note that an object could be read and written."""
        self._permission.used_last = key

    async def is_of_object(
        self, key: str, error: errors.SlurperError, *, came_at: float, looked: bool = False
    ) -> bool:
        """Whether an error is the object's own. Otherwise the task halts.

        Args:
            key: The source's key of the object.
            error: The error that ended its copy.
            came_at: When the error came, in monotonic seconds. Only later requests prove anything.
            looked: The target was only asked what it has.
        """
        if isinstance(error, errors.Refused):
            if self.halt is not None:
                return False
            try:
                await self._permission.check(key, error, came_at=came_at, looked=looked)
            except errors.SlurperError as cause:
                self.stop(LogType.MIGRATION_ERROR, cause, key=key)
                return False
            return True
        cause_for_all: errors.SlurperError | None = error
        if not error.blocks_job:
            cause_for_all = await self._outage() if error.retryable else None
        if cause_for_all is not None:
            self.stop(LogType.MIGRATION_ERROR, cause_for_all)
        return cause_for_all is None

    def stop(
        self, log_type: LogType, cause: errors.SlurperError, *, key: str | None = None
    ) -> None:
        """Halt the task, unless it halts already."""
        if self.halt is None:
            self.halt = Halt(log_type=log_type, message=halt_text(cause, key))

    async def _outage(self) -> errors.SlurperError | None:
        """Why no object at all can be copied now; None when both stores answer."""
        try:
            await self._route.source.list_page(max_keys=1)
            await self._route.target.list_page(max_keys=1)
        except errors.SlurperError as error:
            return error
        return None


def failure_text(error: errors.SlurperError, attempts: int) -> str:
    """What a log entry says of a failure: what was seen, how often it was tried, what to do."""
    tried = f" (after {attempts} attempts)" if attempts > 1 else ""
    known = advice.advice_of(error)
    todo = f"; {known}" if known else ""
    return f"{error}{tried}{todo}"


def halt_text(error: errors.SlurperError, key: str | None = None) -> str:
    """The text for a job that cannot go on: what was seen, for which key, and what to do."""
    text = failure_text(error, 1)
    if "resume" not in text:
        text += "; then resume the job"
    return text if key is None else f"at {key!a}: {text}"


def own_failure_text(error: errors.SlurperError, attempts: int) -> str:
    """The log entry of an object whose last error is its own, when others can be copied."""
    if isinstance(error, errors.Refused):
        return f"{error}; {_why_alone(error)}"
    return failure_text(error, attempts if error.retryable else 1)


def _why_alone(refusal: errors.Refused) -> str:
    if isinstance(refusal, errors.Misdirected):
        is_bucket = refusal.code == "NoSuchBucket" or refusal.status == 404
        return _OTHER_BUCKET if is_bucket else _SENT_ELSEWHERE
    if isinstance(refusal, errors.CredentialsRejected):
        return _ONE_MACHINE if refusal.code in _OF_ONE_MACHINE else _SIGNED_OTHERWISE
    return advice.advice_of(refusal)


class Permission:
    """What may be done at both sides of one task."""

    def __init__(self, route: Route, *, keys: Sequence[str]) -> None:
        self._route = route
        self._source = route.source
        self._target = route.target
        self._keys = keys
        target_prefix = route.target_key(route.prefix)
        self._unused_key = f"{target_prefix}.slurper-permission-{secrets.token_hex(16)}"
        self.used_last: str | None = None
        """The source's key of the object that was copied last."""
        self._asking = asyncio.Lock()
        self._allowed_at: dict[str, float] = {}
        """When the last request that was allowed was sent, for each kind of request."""

        self._cause: errors.SlurperError | None = None
        """Why the task halts. Once it is set, nothing more is tried."""

    async def check(
        self, key: str, refusal: errors.Refused, *, came_at: float, looked: bool = False
    ) -> None:
        """Pass when something else is allowed, so that only this object is refused.

        The arguments are those of `Diagnosis.is_of_object`.

        Raises:
            PermissionLostError: nothing else is allowed.
            SlurperError: the side cannot be asked; the error stops the whole job.
        """
        if refusal.operation == error_answers.TOKEN_OPERATION:  # no object was asked for
            raise refusal
        if looked:
            await self._ask(
                "nothing at the target can be looked at", self._may_look, refusal, came_at
            )
        elif refusal.operation in _READS:
            ask = functools.partial(self._may_read, beside=key)
            await self._ask("no object of the source can be read any more", ask, refusal, came_at)
            if not isinstance(refusal, errors.AccessDenied):
                await self._ask(
                    "the target takes no request any more", self._takes_any, refusal, came_at
                )
        else:
            ask = functools.partial(self._may_write, whole=refusal.operation in _WRITES_WHOLE)
            await self._ask("nothing can be written to the target any more", ask, refusal, came_at)

    async def _ask(
        self,
        otherwise: str,
        ask: Callable[[], Awaitable[bool]],
        refusal: errors.Refused,
        came_at: float,
    ) -> None:
        async with self._asking:  # those that waited here use the first one's answer
            if self._cause is not None:
                raise self._cause
            if self._allowed_at.get(otherwise, -math.inf) > came_at:
                return
            asked_at = time.monotonic()
            try:
                if not await ask():
                    raise _lost(refusal)(f"{otherwise}: {refusal}")
            except errors.SlurperError as cause:
                self._cause = cause
                raise
            self._allowed_at[otherwise] = asked_at

    async def _may_read(self, *, beside: str) -> bool:
        last = () if self.used_last is None else (self.used_last,)
        for key in (*last, *self._keys[:SAMPLE]):
            if key != beside and await self._may_read_one(key):
                return True
        for key in await self._first_listed():
            if key != beside and await self._may_read_one(key):
                return True
        return False

    async def _may_read_one(self, key: str) -> bool:
        return await _allowed(self._source.get(key, byte_range=_FIRST_BYTE))

    async def _first_listed(self) -> list[str]:
        try:
            page = await self._source.list_page(prefix=self._route.prefix, max_keys=SAMPLE + 1)
        except errors.AccessDenied:  # explicit keys need no permission to list
            return []
        return [meta.key for meta in page.objects]

    async def _one_passes(self, request: Callable[[str], Awaitable[bool]]) -> bool:
        """Whether a request passes for the object written last, or else for an unused key."""
        last = () if self.used_last is None else (self._route.target_key(self.used_last),)
        for key in (*last, self._unused_key):
            if await request(key):
                return True
        return False

    async def _may_write(self, *, whole: bool) -> bool:
        return await self._one_passes(
            lambda key: _allowed(self._begin_upload(key, with_part=whole))
        )

    async def _begin_upload(self, key: str, *, with_part: bool) -> None:
        upload_id = (await self._target.create_upload(key, ObjectHeaders())).upload_id
        try:
            if with_part:
                await self._target.put_part(key, upload_id, 1, Body([b"?"]))
        finally:
            # Shielded: this upload is only a test. It must not stay when the task is cancelled.
            await asyncio.shield(self._abort(key, upload_id))

    async def _abort(self, key: str, upload_id: str) -> None:
        with contextlib.suppress(errors.SlurperError):
            await self._target.abort_upload(key, upload_id)

    async def _may_look(self) -> bool:
        return await self._one_passes(lambda key: _allowed(self._target.head(key)))

    async def _takes_any(self) -> bool:
        """Whether requests reach the target and their signatures are accepted.

        The refusal may have come from the target. Permissions there are not tested.
        """
        return await self._one_passes(self._reaches)

    async def _reaches(self, key: str) -> bool:
        try:
            await self._target.head(key)
        except (errors.CredentialsRejected, errors.Misdirected):
            return False
        except errors.NoSuchBucket:
            raise
        except errors.SlurperError:
            return True
        return True


def _lost(refusal: errors.Refused) -> type[PermissionLostError]:
    if isinstance(refusal, errors.Misdirected):
        return BucketLostError
    is_known = not isinstance(refusal, errors.CredentialsRejected)
    return PermissionLostError if is_known else CredentialsLostError


async def _allowed(request: Awaitable[object]) -> bool:
    """Whether a store does what it is asked, or fails for another reason than permission."""
    try:
        await request
    except errors.Refused as refusal:
        if refusal.operation == error_answers.TOKEN_OPERATION or refusal.code in _OUT_OF_TIME:
            raise
        return False
    except errors.IntegrityError:
        return True
    except errors.StoreError as error:
        if error.blocks_job or error.retryable:
            raise
    return True
