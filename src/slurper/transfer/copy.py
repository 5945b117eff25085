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

from slurper import errors
from slurper.jobs.models import LogType
from slurper.objectstore.base import ObjectHeaders, ObjectMeta, ObjectStore, Part
from slurper.planning import selection
from slurper.planning.parts import PartPlan, plan_parts
from slurper.settings import Settings
from slurper.transfer.ledger import Failed, Outcome, Skipped, Transferred
from slurper.transfer.pacing import ByteBudget

ATTEMPT_PAUSE_SECONDS = 0.5
"""Mean pause before the second attempt; doubles with each further one."""

PART_LANES = 4
"""Parts of one object under way at once; the byte budget limits all objects together."""


class SourceChangedError(errors.SlurperError):
    """The object is no longer the version that was listed; another attempt reads the new one."""


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
    ) -> None:
        self._source = source
        self._target = target
        self._rules = rules
        self._strip = len(prefix) if rules.options.strip_prefix else 0
        self.max_attempts = settings.object_attempts
        self._multipart_threshold = settings.multipart_threshold_bytes
        self._part_bytes = settings.part_bytes
        self._budget = budget
        self._if_absent = not rules.overwrite
        self._looks_at_content = rules.looks_at_content
        self.attempts = 0
        """Objects begun again."""

    def target_key(self, key: str) -> str:
        """The key under which the target keeps `key`."""
        return key[self._strip :]

    async def copy(self, meta: ObjectMeta) -> Outcome:
        """Bring one object to its outcome.

        Raises:
            SlurperError: with `blocks_job` set, or a retryable one that outlasted every attempt;
                the caller decides whether it is the object's fault or the store's.
        """
        attempt = 1
        while True:
            try:
                return await self._attempt(meta)
            except SourceChangedError as error:
                if attempt >= self.max_attempts:
                    return Failed(f"changed during each of {attempt} attempts: {error}")
                refreshed = await self._look_again(meta.key)
                if not isinstance(refreshed, ObjectMeta):
                    return refreshed
                meta = refreshed
            except errors.SlurperError as error:
                if error.blocks_job:
                    raise
                if not error.retryable:
                    return Failed(failure_text(error, attempt))
                if attempt >= self.max_attempts:
                    raise
                await asyncio.sleep(_pause_before(attempt + 1))
            attempt += 1
            self.attempts += 1

    async def _attempt(self, meta: ObjectMeta) -> Outcome:
        try:
            if meta.size > self._multipart_threshold:
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

    async def _copy_whole(self, meta: ObjectMeta) -> Outcome:
        budget, size = self._budget, meta.size
        await budget.acquire(size)
        try:
            try:
                download = await self._source.get(meta.key, if_match=meta.etag, max_bytes=meta.size)
            except errors.PreconditionFailed as error:
                raise SourceChangedError(str(error)) from error
            if download.body.length != size:
                raise errors.IntegrityError(
                    f"read {download.body.length} bytes of an object listed with {size}"
                )
            if self._looks_at_content:
                first = download.body.chunks[0] if download.body.chunks else b""
                skip = self._skip_by_content(download.stored.headers, first)
                if skip is not None:
                    return skip
            key = self.target_key(meta.key)
            try:
                await self._target.put(
                    key, download.body, download.stored.headers, if_absent=self._if_absent
                )
            except errors.PreconditionFailed as error:
                return await self._already_there(key, size, error)
            return Transferred(size)
        finally:
            budget.release(size)

    def _skip_by_content(self, headers: ObjectHeaders, first: bytes) -> Skipped | None:
        kind = headers.content.get("content-type", "")
        decision = selection.from_content(kind, first, self._rules.options)
        if isinstance(decision, selection.Skip):
            return Skipped(decision.log_type, decision.message)
        return None

    async def _already_there(
        self, key: str, size: int, refusal: errors.PreconditionFailed
    ) -> Outcome:
        """Tell our own earlier write from somebody else's after a 412 (design rule 4).

        A write that was sent more than once, or whose slice is replayed, may have met itself.
        """
        since = self._rules.replayed_since
        if refusal.retries == 0 and since is None:
            return Skipped()
        existing = (await self._target.head(key)).meta
        sent_twice = refusal.retries > 0 and existing.size == size
        if sent_twice or selection.copied_by_lost_work(size, existing, since):
            return Transferred(size)
        return Skipped()

    async def _copy_parts(self, meta: ObjectMeta) -> Outcome:
        plan = plan_parts(meta.size, self._target.dialect, part_bytes=self._part_bytes)
        headers = await self._headers_of(meta)
        if isinstance(headers, Skipped):
            return headers
        key = self.target_key(meta.key)
        async with self._upload(key, headers) as upload_id:
            parts = await self._move_parts(meta, plan, key, upload_id)
            try:
                await self._target.complete_upload(key, upload_id, parts, if_absent=self._if_absent)
            except errors.PreconditionFailed as error:
                outcome = await self._already_there(key, meta.size, error)
                await self._target.abort_upload(key, upload_id)
                return outcome
        return Transferred(meta.size)

    async def _headers_of(self, meta: ObjectMeta) -> ObjectHeaders | Skipped:
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
        return stored.headers

    @asynccontextmanager
    async def _upload(self, key: str, headers: ObjectHeaders) -> AsyncIterator[str]:
        """An upload that is aborted when its block fails or is cancelled."""
        upload_id = await self._target.create_upload(key, headers)
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
            # The first error matters more; the store drops stale uploads by itself after a while.
            return

    async def _move_parts(
        self, meta: ObjectMeta, plan: PartPlan, key: str, upload_id: str
    ) -> list[Part]:
        """Copy every part, a few at a time; the first failure cancels the others."""
        parts: dict[int, Part] = {}
        todo = iter(plan)

        async def lane() -> None:
            for number, byte_range in todo:
                size = len(byte_range)
                await self._budget.acquire(size)
                try:
                    download = await self._source.get(
                        meta.key, if_match=meta.etag, byte_range=byte_range
                    )
                    parts[number] = await self._target.put_part(
                        key, upload_id, number, download.body
                    )
                finally:
                    self._budget.release(size)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(PART_LANES, plan.count)):
                    group.create_task(lane())
        except ExceptionGroup as failures:
            first = failures.exceptions[0]
            if isinstance(first, errors.PreconditionFailed):
                raise SourceChangedError(str(first)) from first
            raise first from None
        return [parts[number] for number in sorted(parts)]


def _pause_before(attempt: int) -> float:
    jitter = random.uniform(0.5, 1.5)  # noqa: S311 - spreads load, guards nothing
    return jitter * ATTEMPT_PAUSE_SECONDS * 2.0 ** (attempt - 2)


def failure_text(error: errors.SlurperError, attempts: int) -> str:
    """What a log entry says of a failure: what was seen, how often it was tried, what to do."""
    tried = f" (after {attempts} attempts)" if attempts > 1 else ""
    advice = f"; {error.advice}" if error.advice else ""
    return f"{error}{tried}{advice}"
