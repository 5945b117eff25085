"""Copies one object: reads a unit into memory, verifies it, writes it with its checksum.

A unit is the whole object up to the multipart threshold, else one part. It is read completely
before it is written, because only then can its checksum travel as a header that every S3 dialect
verifies, and because a write can then be sent again without a second read (decision 0002).

An object is begun at most `object_attempts` times (object level); below that, each HTTP request has
its own retries (request level), so that whatever fails here has been tried for a while already.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from slurper import errors
from slurper.jobs.models import LogType
from slurper.objectstore.base import (
    Body,
    ByteRange,
    ObjectHeaders,
    ObjectMeta,
    ObjectStore,
    Part,
    StoredObject,
)
from slurper.planning import selection
from slurper.planning.parts import PartPlan, plan_parts
from slurper.settings import MIB, Settings
from slurper.transfer import leftovers
from slurper.transfer.ledger import Failed, Outcome, Skipped, Transferred
from slurper.transfer.pacing import ByteBudget, Pacer
from slurper.transfer.shortcuts import Shortcut

ATTEMPT_PAUSE_SECONDS = 0.5
"""Mean pause before the second attempt; doubles with each further one."""

PART_LANES = 4
"""Parts of one object under way at once; the byte budget limits all objects together."""


_STATUS_OF_CHANGE = (412, 416)
"""If-Match does not hold, or the object has become too short for the range."""

COMPARED_BYTES = 4 * MIB
"""An object found at the target is compared with its source in pieces of this."""


class SourceChangedError(errors.SlurperError):
    """The object is no longer the version that was listed; another attempt reads the new one."""


class TargetChangedError(errors.SlurperError):
    """An upload or object that was at the target a moment ago is gone; another attempt may pass."""

    advice = "somebody else removes objects or uploads at the target, or a rule of its bucket does"
    retryable = True


class Copier:
    """Copies objects of one task."""

    def __init__(
        self,
        source: ObjectStore,
        target: ObjectStore,
        rules: selection.Rules,
        *,
        prefix: str,
        settings: Settings,
        budget: ByteBudget,
        pacer: Pacer | None = None,
        shortcut: Shortcut | None = None,
    ) -> None:
        self._source = source
        self._target = target
        self._rules = rules
        self._prefix = prefix
        self._strip = len(prefix) if rules.options.strip_prefix else 0
        self.max_attempts = settings.object_attempts
        self._multipart_threshold = settings.multipart_threshold_bytes
        self._part_bytes = settings.part_bytes
        self._budget = budget
        self._pacer = pacer
        self._if_absent = not rules.overwrite
        self._looks_at_content = rules.looks_at_content
        self._shortcut = None if rules.looks_at_content else shortcut
        self._begun_at = datetime.now(UTC)
        self._in_doubt: set[str] = set()
        """Target keys under which uploads of ours may be that nobody knows."""
        self.attempts = 0
        """Objects begun again."""

    def target_key(self, key: str) -> str:
        """The key under which the target keeps `key`."""
        return key[self._strip :]

    def source_key(self, target_key: str) -> str:
        """The key whose object the target keeps under `target_key`."""
        return self._prefix[: self._strip] + target_key

    def is_copied_in_parts(self, size: int) -> bool:
        """Whether objects of so many bytes become multipart uploads."""
        return size > self._multipart_threshold

    async def copy(self, meta: ObjectMeta) -> Outcome:
        """Bring one object to its outcome.

        Raises:
            SlurperError: with `blocks_job` set; AccessDenied, or a retryable one that outlasted
                every attempt, of which the caller decides whether it is the object's fault.
        """
        try:
            return await self._copy(meta)
        finally:
            key = self.target_key(meta.key)
            if key in self._in_doubt:
                self._in_doubt.remove(key)
                since = self._rules.replayed_since or self._begun_at
                # Shielded as in `_upload`.
                await asyncio.shield(leftovers.abort_lost(self._target, key, since=since))

    async def _copy(self, meta: ObjectMeta) -> Outcome:
        attempt = 1
        has_changed = False
        while True:
            try:
                if has_changed:
                    found = await self._look_again(meta.key)
                    if not isinstance(found, ObjectMeta):
                        return found
                    meta, has_changed = found, False
                return await self._attempt(meta)
            except SourceChangedError as error:
                if attempt >= self.max_attempts:
                    return Failed(_changing_text(error, attempt))
                has_changed = True
            except errors.SlurperError as error:
                if error.blocks_job or isinstance(error, errors.AccessDenied):
                    raise
                if not error.retryable:
                    return Failed(failure_text(error, attempt))
                if attempt >= self.max_attempts:
                    raise
                # Stores that know no If-Match show a change by a length that is wrong.
                has_changed = has_changed or isinstance(error, errors.IntegrityError)
                await asyncio.sleep(_pause_before(attempt + 1))
            attempt += 1
            self.attempts += 1

    async def _attempt(self, meta: ObjectMeta) -> Outcome:
        try:
            if self._shortcut is not None and self._shortcut.takes(meta.size):
                outcome = await self._copy_inside(self._shortcut, meta)
                if outcome is not None:
                    return outcome
            if self.is_copied_in_parts(meta.size):
                return await self._copy_parts(meta)
            return await self._copy_whole(meta)
        except errors.RequiresRetrieval as error:
            return Skipped(LogType.IMPORT_SKIPPED_REQUIRES_RETRIEVAL, f"{error}; {error.advice}")

    async def _look_again(self, key: str) -> ObjectMeta | Outcome:
        """The version that is there now, unless it must not be copied any more."""
        try:
            stored = await self._source.head(key)
        except errors.NotFound as error:
            return Failed(failure_text(error, 1))
        decision = selection.from_listing(stored.meta, None, self._rules)
        if isinstance(decision, selection.Skip):
            return Skipped(decision.log_type, decision.message)
        return stored.meta

    async def _copy_inside(self, shortcut: Shortcut, meta: ObjectMeta) -> Outcome | None:
        """Let the store copy the object itself; None when it does not."""
        if self._pacer is not None:
            self._pacer.spend(size=meta.size, requests=2)
        stored = await self._describe(meta)
        if isinstance(stored, Skipped):
            return stored
        key = self.target_key(meta.key)
        try:
            etag = await shortcut.copy_object(self._target, key, stored, if_absent=self._if_absent)
        except errors.PreconditionFailed as error:
            if self._if_absent:
                return await self._already_there(meta, key)
            raise SourceChangedError(str(error)) from error
        return Transferred(meta.size) if etag is not None else None

    async def _copy_whole(self, meta: ObjectMeta) -> Outcome:
        budget, size = self._budget, meta.size
        if self._pacer is not None:
            self._pacer.spend(size=size, requests=2)
        key = self.target_key(meta.key)
        await budget.acquire(size)
        try:
            outcome = await self._move_whole(meta, key)
        finally:
            budget.release(size)
        return outcome or await self._already_there(meta, key)

    async def _move_whole(self, meta: ObjectMeta, key: str) -> Outcome | None:
        """Read an object and write it; None when the target has one that is not to be replaced."""
        try:
            download = await self._source.get(meta.key, if_match=meta.etag, max_bytes=meta.size)
        except errors.PreconditionFailed as error:
            raise SourceChangedError(str(error)) from error
        if download.body.length != meta.size:
            raise errors.IntegrityError(
                f"read {download.body.length} bytes of an object listed with {meta.size}"
            )
        if self._looks_at_content:
            first = download.body.chunks[0] if download.body.chunks else b""
            skip = self._skip_by_content(download.stored.headers, first)
            if skip is not None:
                return skip
        try:
            await self._target.put(
                key, download.body, download.stored.headers, if_absent=self._if_absent
            )
        except errors.PreconditionFailed:
            return None
        return Transferred(meta.size)

    def _skip_by_content(self, headers: ObjectHeaders, first: bytes) -> Skipped | None:
        kind = headers.content.get("content-type", "")
        decision = selection.from_content(kind, first, self._rules.options)
        if isinstance(decision, selection.Skip):
            return Skipped(decision.log_type, decision.message)
        return None

    async def _already_there(self, meta: ObjectMeta, key: str) -> Outcome:
        """Tell our own earlier write from somebody else's after a 412 (design rule 4).

        The key was absent when its slice was planned. If it now holds what we would write, then
        we have written it: by a request whose answer was lost, or by work that was.
        """
        try:
            existing = (await self._target.head(key)).meta
        except errors.NotFound as error:
            raise TargetChangedError(str(error)) from error
        except errors.AccessDenied:
            return Skipped()  # who may not look leaves it at what the store said
        if existing.size != meta.size:
            return Skipped()
        for start in range(0, meta.size, COMPARED_BYTES):
            piece = ByteRange(start, min(start + COMPARED_BYTES, meta.size))
            await self._budget.acquire(2 * len(piece))
            try:
                if not await self._is_same(meta, key, piece):
                    return Skipped()
            finally:
                self._budget.release(2 * len(piece))
        return Transferred(meta.size)

    async def _is_same(self, meta: ObjectMeta, key: str, piece: ByteRange) -> bool:
        try:
            ours = await self._source.get(meta.key, if_match=meta.etag, byte_range=piece)
        except errors.PreconditionFailed as error:
            raise SourceChangedError(str(error)) from error
        try:
            theirs = await self._target.get(key, byte_range=piece)
        except errors.AccessDenied:
            return False  # as above
        return bytes(ours.body) == bytes(theirs.body)

    async def _copy_parts(self, meta: ObjectMeta) -> Outcome:
        plan = plan_parts(meta.size, self._target.dialect, part_bytes=self._part_bytes)
        stored = await self._describe(meta)
        if isinstance(stored, Skipped):
            return stored
        key = self.target_key(meta.key)
        async with self._upload(key, stored.headers) as upload_id:
            parts = await self._move_parts(stored.meta, plan, key, upload_id)
            if self._shortcut is not None:
                await self._describe(meta)  # parts copied inside do not tell their version
            try:
                await self._target.complete_upload(key, upload_id, parts, if_absent=self._if_absent)
            except errors.PreconditionFailed:
                await self._abort(key, upload_id)
                return await self._already_there(meta, key)
            except errors.NotFound as error:
                raise TargetChangedError(str(error)) from error
        return Transferred(meta.size)

    async def _describe(self, meta: ObjectMeta) -> StoredObject | Skipped:
        stored = await self._source.head(meta.key)
        if stored.meta.etag != meta.etag or stored.meta.size != meta.size:
            raise SourceChangedError("HEAD shows another version than the listing")
        if self._looks_at_content:
            first = await self._source.get(
                meta.key, if_match=meta.etag, byte_range=selection.FIRST_BYTES
            )
            skip = self._skip_by_content(stored.headers, bytes(first.body))
            if skip is not None:
                return skip
        return stored

    @asynccontextmanager
    async def _upload(self, key: str, headers: ObjectHeaders) -> AsyncIterator[str]:
        """An upload that is aborted when its block fails or is cancelled."""
        # Until its id has come, the store may have begun an upload that nobody knows.
        was_in_doubt = key in self._in_doubt or self._rules.replayed_since is not None
        self._in_doubt.add(key)
        upload_id = await self._target.create_upload(key, headers)
        if not was_in_doubt:
            self._in_doubt.discard(key)
        try:
            yield upload_id
        except BaseException:
            # Shielded: a cancelled copy must not leave parts behind that somebody pays for.
            await asyncio.shield(self._abort(key, upload_id))
            raise

    async def _abort(self, key: str, upload_id: str) -> None:
        try:
            await self._target.abort_upload(key, upload_id)
        except errors.SlurperError:
            # The first error matters more. The upload is looked for again when all is over.
            self._in_doubt.add(key)

    async def _move_parts(
        self, meta: ObjectMeta, plan: PartPlan, key: str, upload_id: str
    ) -> list[Part]:
        """Copy every part, a few at a time; the first failure cancels the others."""
        parts: dict[int, Part] = {}
        todo = iter(plan)

        async def lane() -> None:
            for number, byte_range in todo:
                size = len(byte_range)
                if self._pacer is not None:
                    await self._pacer.begin(size=size, requests=2)
                inside = await self._copy_part_inside(meta, key, upload_id, number, byte_range)
                if inside is not None:
                    parts[number] = inside
                    continue
                await self._budget.acquire(size)
                try:
                    download = await self._source.get(
                        meta.key, if_match=meta.etag, byte_range=byte_range
                    )
                    _check_version(meta, download.stored.meta)
                    parts[number] = await self._put_part(key, upload_id, number, download.body)
                    del download  # or its bytes would stay until those of the next part are here
                finally:
                    self._budget.release(size)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(PART_LANES, plan.count)):
                    group.create_task(lane())
        except ExceptionGroup as failures:
            first = failures.exceptions[0]
            if isinstance(first, errors.StoreError) and first.status in _STATUS_OF_CHANGE:
                raise SourceChangedError(str(first)) from first
            raise first from None
        return [parts[number] for number in sorted(parts)]

    async def _copy_part_inside(
        self, meta: ObjectMeta, key: str, upload_id: str, number: int, byte_range: ByteRange
    ) -> Part | None:
        """Let the store copy a part itself; None when it does not."""
        shortcut = self._shortcut
        if shortcut is None or shortcut.is_closed:
            return None
        return await shortcut.copy_part(self._target, key, upload_id, number, meta, byte_range)

    async def _put_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        try:
            return await self._target.put_part(key, upload_id, number, body)
        except errors.NotFound as error:
            raise TargetChangedError(str(error)) from error


def _check_version(wanted: ObjectMeta, got: ObjectMeta) -> None:
    """Refuse a part of another version, which a store that knows no If-Match may send.

    Raises:
        SourceChangedError: the part is of another version.
    """
    of_both = ((wanted.etag, got.etag), (wanted.last_modified, got.last_modified))
    differ = any(one and other and one != other for one, other in of_both)
    if differ or wanted.size != got.size:
        raise SourceChangedError("a part is of another version than HEAD showed")


def _pause_before(attempt: int) -> float:
    jitter = random.uniform(0.5, 1.5)  # noqa: S311 - spreads load, guards nothing
    return jitter * ATTEMPT_PAUSE_SECONDS * 2.0 ** (attempt - 2)


def _changing_text(error: SourceChangedError, attempts: int) -> str:
    return (
        f"changed during each of {attempts} attempts: {error}; "
        "try it again by key when nobody writes to it"
    )


def failure_text(error: errors.SlurperError, attempts: int) -> str:
    """What a log entry says of a failure: what was seen, how often it was tried, what to do."""
    tried = f" (after {attempts} attempts)" if attempts > 1 else ""
    advice = f"; {error.advice}" if error.advice else ""
    return f"{error}{tried}{advice}"
