"""Copies one whole object: reads it into memory, verifies it, writes it with its checksum.

It is read completely before it is written, because only then can its checksum travel as a header
that every S3 dialect verifies, and because a write can then be sent again without a second read
(decision 0002). Objects above the multipart threshold are copied in parts, by `parts_run`.

An object is begun at most `object_attempts` times (object level); below that, each HTTP request has
its own retries (request level), so that whatever fails here has been tried for a while already.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import datetime

from slurper import errors
from slurper.jobs.models import LogType
from slurper.objectstore.base import (
    ByteRange,
    ObjectHeaders,
    ObjectMeta,
    ObjectStore,
    StoredObject,
)
from slurper.planning import selection
from slurper.settings import MIB, Settings
from slurper.transfer.ledger import Failed, Large, Outcome, Skipped, Transferred
from slurper.transfer.pacing import ByteBudget, Pacer
from slurper.transfer.shortcuts import Shortcut

ATTEMPT_PAUSE_SECONDS = 0.5
"""Mean pause before the second attempt; doubles with each further one."""

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
        other_spelling: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        """Prepare. `other_spelling` tells how else a listed key may be meant, if it may."""
        self._source = source
        self._target = target
        self._checksum = target.dialect.checksum
        self._rules = rules
        self._strip = len(prefix) if rules.options.strip_prefix else 0
        self.max_attempts = settings.object_attempts
        self._multipart_threshold = settings.multipart_threshold_bytes
        self._budget = budget
        self._pacer = pacer
        self._if_absent = not rules.overwrite
        self._looks_at_content = rules.looks_at_content
        self._shortcut = None if rules.looks_at_content else shortcut
        self._other_spelling = other_spelling
        self.begun = 0
        """Objects, each counted once."""
        self.attempts = 0
        """Objects begun again."""

    def target_key(self, key: str) -> str:
        """The key under which the target keeps `key`."""
        return key[self._strip :]

    def is_large(self, size: int) -> bool:
        """Whether objects of so many bytes are copied in parts."""
        is_taken = self._shortcut is not None and self._shortcut.takes(size)
        return size > self._multipart_threshold and not is_taken

    async def copy(self, meta: ObjectMeta) -> Outcome | Large:
        """Bring one object to its outcome, unless it has become large meanwhile.

        Raises:
            SlurperError: with `blocks_job` set; AccessDenied, or a retryable one that outlasted
                every attempt, of which the caller decides whether it is the object's fault.
        """
        self.begun += 1
        attempt = 1
        has_changed = False
        while True:
            try:
                if has_changed:
                    found = await self.look_again(meta.key)
                    if not isinstance(found, ObjectMeta):
                        return found
                    meta, has_changed = found, False
                return await self._attempt(meta)
            except SourceChangedError as error:
                if attempt >= self.max_attempts:
                    return Failed(changing_text(error, attempt))
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
                await asyncio.sleep(pause_before(attempt + 1))
            attempt += 1
            self.attempts += 1

    async def _attempt(self, meta: ObjectMeta) -> Outcome | Large:
        try:
            if self._shortcut is not None and self._shortcut.takes(meta.size):
                outcome = await self._copy_inside(self._shortcut, meta)
                if outcome is not None:
                    return outcome
            if meta.size > self._multipart_threshold:
                return Large(meta)
            if self._pacer is not None:
                self._pacer.spend(size=meta.size, requests=2)
            await self._budget.acquire(meta.size)
            try:
                outcome = await self._copy_whole(meta)
            finally:
                self._budget.release(meta.size)
            return outcome or await self.already_there(meta)
        except errors.RequiresRetrieval as error:
            return archived(error)
        except errors.NotFound as gone:
            return await self._attempt_otherwise(meta, gone)

    async def _attempt_otherwise(self, meta: ObjectMeta, gone: errors.NotFound) -> Outcome | Large:
        """Look for an object under the other spelling of its key, before it counts as removed."""
        other = self._other_spelling(meta.key)
        if other is None:
            raise gone
        if self._if_absent and await self._target_holds(other):
            return Skipped()
        return await self._attempt(meta._replace(key=other))

    async def _target_holds(self, key: str) -> bool:
        try:
            await self._target.head(self.target_key(key))
        except errors.NotFound:
            return False
        return True

    async def look_again(self, key: str) -> ObjectMeta | Outcome:
        """The version that is there now, unless it must not be copied any more."""
        try:
            stored = await self._source.head(key)
        except errors.NotFound as error:
            return Failed(failure_text(error, 1))
        decision = selection.from_listing(stored.meta, None, self._rules)
        if isinstance(decision, selection.Skip):
            return Skipped(decision.log_type, decision.message)
        return stored.meta

    async def describe(self, meta: ObjectMeta) -> StoredObject | Skipped:
        """The object with its headers, unless it is to be left out for them or its first bytes.

        HEAD tells of an archive tier, and of a restore, what a listing does not.

        Raises:
            SourceChangedError: it is no longer this version.
        """
        stored = await self._head_of_version(meta)
        archive = selection.in_archive(stored.meta, self._rules.source)
        if archive is not None:
            return Skipped(archive.log_type, archive.message)
        if self._looks_at_content:
            first = await self._source.get(
                meta.key, if_match=meta.etag, byte_range=selection.FIRST_BYTES
            )
            skip = self._skip_by_content(stored.headers, bytes(first.body))
            if skip is not None:
                return skip
        return stored

    async def _head_of_version(self, meta: ObjectMeta) -> StoredObject:
        stored = await self._source.head(meta.key)
        if stored.meta.etag != meta.etag or stored.meta.size != meta.size:
            raise SourceChangedError("HEAD shows another version than the listing")
        return stored

    async def _copy_inside(self, shortcut: Shortcut, meta: ObjectMeta) -> Outcome | Large | None:
        """Let the store copy the object itself; None when it does not."""
        if self._pacer is not None:
            self._pacer.spend(size=meta.size, requests=2)
        outcome: Outcome | Large | None = None
        try:
            outcome = await self._ask_for_copy(shortcut, meta)
        finally:
            if self._pacer is not None and not isinstance(outcome, Transferred):
                # Given back: whatever moves these bytes instead is charged for them.
                self._pacer.spend(size=-meta.size)
        return outcome

    async def _ask_for_copy(self, shortcut: Shortcut, meta: ObjectMeta) -> Outcome | Large | None:
        stored = await self.describe(meta)
        if isinstance(stored, Skipped):
            return stored
        key = self.target_key(meta.key)
        try:
            etag = await shortcut.copy_object(self._target, key, stored, if_absent=self._if_absent)
        except errors.PreconditionFailed as error:
            if not self._if_absent:
                raise SourceChangedError(str(error)) from error
            return await self._tell_copy(meta, stored.served_at if error.retries else None)
        return Transferred(meta.size) if etag is not None else None

    async def _tell_copy(self, meta: ObjectMeta, since: datetime | None) -> Outcome | Large:
        """Tell our own earlier copy from somebody else's object, and read no large one for it.

        `since` is when the first of several requests for the copy was sent, by the store's clock.
        """
        is_large = meta.size > self._multipart_threshold
        found = await self._tell_by_descriptions(meta, since if is_large else None)
        if found is None and is_large:
            return Large(meta)
        return found or await self._tell_by_bytes(meta)

    async def _copy_whole(self, meta: ObjectMeta) -> Outcome | None:
        """Read an object and write it; None when the target has one that is not to be replaced."""
        try:
            download = await self._source.get(
                meta.key, if_match=meta.etag, max_bytes=meta.size, checksum=self._checksum
            )
        except errors.PreconditionFailed as error:
            raise SourceChangedError(str(error)) from error
        if download.body.length != meta.size:
            raise errors.IntegrityError(
                f"read {download.body.length} bytes of an object listed with {meta.size}"
            )
        if self._looks_at_content:
            first = download.body.beginning(selection.FIRST_BYTES.end)
            skip = self._skip_by_content(download.stored.headers, first)
            if skip is not None:
                return skip
        key = self.target_key(meta.key)
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

    async def already_there(self, meta: ObjectMeta) -> Outcome:
        """Tell our own earlier write from somebody else's after a 412 (design rule 4).

        The key was absent when its slice was planned. If it now holds what we would write, then
        we have written it: by a request whose answer was lost, or by work that was.
        """
        return await self._tell_by_descriptions(meta) or await self._tell_by_bytes(meta)

    async def _tell_by_descriptions(
        self, meta: ObjectMeta, since: datetime | None = None
    ) -> Outcome | None:
        """Tell by what the stores say of both objects; None when only their bytes can.

        With `since`, an object of the right size that is no older is taken for ours.
        """
        try:
            theirs = await self._target.head(self.target_key(meta.key))
        except errors.NotFound as error:
            raise TargetChangedError(str(error)) from error
        except errors.AccessDenied:
            return Skipped()  # who may not look leaves it at what the store said
        if theirs.meta.size != meta.size:
            return Skipped()
        ours = await self._head_of_version(meta) if theirs.crc32c else None
        if ours is not None and ours.crc32c:
            return Transferred(meta.size) if ours.crc32c == theirs.crc32c else Skipped()
        is_ours = selection.copied_by_lost_work(meta.size, theirs.meta, since)
        return Transferred(meta.size) if is_ours else None

    async def _tell_by_bytes(self, meta: ObjectMeta) -> Outcome:
        key = self.target_key(meta.key)
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


def archived(error: errors.RequiresRetrieval) -> Skipped:
    """How an object ends that must be restored before it can be read."""
    return Skipped(LogType.IMPORT_SKIPPED_REQUIRES_RETRIEVAL, f"{error}; {error.advice}")


def pause_before(attempt: int) -> float:
    """Seconds to wait before an attempt, so that what is in the way may pass."""
    jitter = random.uniform(0.5, 1.5)  # noqa: S311 - spreads load, guards nothing
    return jitter * ATTEMPT_PAUSE_SECONDS * 2.0 ** (attempt - 2)


def changing_text(error: SourceChangedError, attempts: int) -> str:
    """What a log entry says of an object that never kept still."""
    return (
        f"changed during each of {attempts} attempts: {error}; "
        "try it again by key when nobody writes to it"
    )


def failure_text(error: errors.SlurperError, attempts: int) -> str:
    """What a log entry says of a failure: what was seen, how often it was tried, what to do."""
    tried = f" (after {attempts} attempts)" if attempts > 1 else ""
    advice = f"; {error.advice}" if error.advice else ""
    return f"{error}{tried}{advice}"
