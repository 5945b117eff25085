"""Copies one whole object: reads it into memory, verifies it, writes it with its checksum.

The object is read completely before it is written, for two reasons (decision 0002). Its checksum
can then be sent as a header, which every S3 dialect verifies. And a write can be sent again without
a second read. Objects above the multipart threshold are copied in parts, by `parts_run`.

An object is begun at most `object_attempts` times (see `attempts`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from slurper import errors
from slurper.http.streams import StreamDeclined
from slurper.job.model import LogType
from slurper.objectstore.base import Download, ObjectMeta
from slurper.planning import selection
from slurper.settings import Settings
from slurper.transfer.attempts import (
    Attempts,
    SourceChangedError,
    TargetChangedError,
    changing_text,
    pause_before,
)
from slurper.transfer.diagnosis import failure_text
from slurper.transfer.etags import SourceEtags
from slurper.transfer.ledger import Failed, Large, Outcome, Skipped, Transferred
from slurper.transfer.ownership import Ownership
from slurper.transfer.pacing import ByteBudget, Pacer
from slurper.transfer.reading import Doubt, Reader, whole
from slurper.transfer.route import Route
from slurper.transfer.server_side import Shortcut
from slurper.transfer.streaming import Streams, stream_copier
from slurper.transfer.versions import Versions

BARE_FOLDER = Skipped(
    LogType.IMPORT_SKIPPED_EMPTY_OBJECT,
    "the source lists this folder and has no object of this name: there is nothing to copy; if "
    "there should be, write the object again",
)


@dataclass(frozen=True, slots=True)
class CopyMeans:
    """What the copies of several tasks share."""

    settings: Settings
    budget: ByteBudget
    etags: SourceEtags
    shortcut: Shortcut | None = None
    streams: Streams | None = None
    """None: no object is streamed."""


class Copier:
    """Copies objects of one task."""

    def __init__(
        self,
        route: Route,
        rules: selection.Rules,
        means: CopyMeans,
        pacer: Pacer | None,
        *,
        other_spelling: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        """Prepare. `other_spelling` tells another key that a listed key may mean, or None."""
        self._route = route
        self._budget = means.budget
        self._pacer = pacer
        self._etags = means.etags
        self._multipart_threshold = means.settings.multipart_threshold_bytes
        self._if_absent = not rules.overwrite
        self._looks_at_content = rules.looks_at_content
        self._shortcut = None if rules.looks_at_content else means.shortcut
        self._other_spelling = other_spelling
        self.attempts = Attempts(means.settings.object_attempts)
        self.versions = Versions(route, rules)
        self.ownership = Ownership(route, self.versions, means.budget, pacer)
        self._reader = Reader(route, means.etags, self.attempts)
        self._stream = None
        if means.streams is not None and not rules.looks_at_content:
            self._stream = stream_copier(
                route,
                means.streams,
                means.etags,
                means.budget,
                pacer,
                if_absent=self._if_absent,
                threshold=self._multipart_threshold,
            )
        self.begun = 0
        """How many objects were begun; each counts once."""

    def is_large(self, meta: ObjectMeta) -> bool:
        """Whether an object is copied in parts."""
        if meta.size <= self._multipart_threshold:
            return False
        is_copied_inside = self._shortcut is not None and self._shortcut.takes(meta.size)
        return not is_copied_inside and not (self._stream and self._stream.takes(meta))

    def take_whole(self, max_bytes: int) -> None:
        """Copy objects of up to this many bytes in one request, whatever the settings say."""
        self._multipart_threshold = max_bytes

    async def copy(self, meta: ObjectMeta, *, in_doubt: bool = False) -> Outcome | Large:
        """Bring one object to its outcome, unless it has become large meanwhile.

        `in_doubt` says that the target has an object under its key, which may be ours. Nothing is
        written then, unless that object goes away.

        Raises:
            SlurperError: one with `blocks_job` set, a refusal, or an error that lasted through
                every attempt. For the last two, the caller decides whether the object is to blame.
        """
        self.begun += 1
        attempt = 1
        has_changed, may_stream = False, True
        while True:
            try:
                if has_changed:
                    found = await self.versions.look_again(meta.key)
                    if not isinstance(found, ObjectMeta):
                        return found
                    meta, has_changed = found, False
                return await self._attempt(meta, in_doubt=in_doubt, may_stream=may_stream)
            except SourceChangedError as error:
                if attempt >= self.attempts.max:
                    return Failed(changing_text(error, attempt))
                has_changed = True
            except errors.SlurperError as error:
                if error.blocks_job or isinstance(error, errors.Refused):
                    raise
                if not error.retryable:
                    return Failed(failure_text(error, attempt))
                if attempt >= self.attempts.max:
                    raise
                in_doubt = in_doubt and not isinstance(error, TargetChangedError)
                # Where a store knows no If-Match, a wrong length shows that the object changed.
                has_changed = has_changed or isinstance(error, errors.IntegrityError)
                # What disturbs one long request may let several short ones pass.
                may_stream = isinstance(error, errors.IntegrityError)
                await pause_before(attempt + 1)
            attempt += 1
            self.attempts.again += 1

    async def _attempt(
        self, meta: ObjectMeta, *, in_doubt: bool, may_stream: bool = True
    ) -> Outcome | Large:
        try:
            if in_doubt:
                return await self.ownership.decide(meta)
            if self._shortcut is not None and self._shortcut.takes(meta.size):
                outcome = await self._copy_inside(self._shortcut, meta)
                if outcome is not None:
                    return outcome
            if may_stream and self._stream is not None and self._stream.takes(meta):
                with contextlib.suppress(StreamDeclined):
                    return await self._stream.copy(meta) or await self.ownership.decide(meta)
            if meta.size > self._multipart_threshold:
                return Large(meta)
            if self._pacer is not None:
                self._pacer.spend(size=meta.size, requests=2)
            await self._budget.acquire(meta.size)
            try:
                outcome = await self._copy_whole(meta)
            finally:
                self._budget.release(meta.size)
            return outcome or await self.ownership.decide(meta)
        except errors.RequiresRetrieval as error:
            return archived(error)
        except errors.NotFound as gone:
            if await self.is_bare_folder(meta.key):
                return BARE_FOLDER
            return await self._attempt_otherwise(meta, gone)

    async def is_bare_folder(self, key: str) -> bool:
        """Whether the source lists a folder under this key, and has no object of that name.

        An object that was removed is not listed any more.
        """
        if not key.endswith("/"):
            return False
        try:
            page = await self._route.source.list_page(prefix=key, max_keys=1)
            if any(meta.key == key and meta.size == 0 for meta in page.objects):
                await self._route.source.head(key)
        except errors.NotFound:
            return True
        except errors.SlurperError as error:
            if error.retryable or error.blocks_job:
                raise
        return False

    async def _attempt_otherwise(self, meta: ObjectMeta, gone: errors.NotFound) -> Outcome | Large:
        """Look for an object under the other spelling of its key, before it counts as removed."""
        other = self._other_spelling(meta.key)
        if other is None:
            raise gone
        if self._if_absent and await self._target_holds(other):
            return Skipped()
        return await self._attempt(meta._replace(key=other), in_doubt=False)

    async def _target_holds(self, key: str) -> bool:
        try:
            await self._route.target.head(self._route.target_key(key))
        except errors.NotFound:
            return False
        return True

    async def _copy_inside(self, shortcut: Shortcut, meta: ObjectMeta) -> Outcome | Large | None:
        """Let the store copy the object itself; None when it does not."""
        if self._pacer is not None:
            self._pacer.spend(size=meta.size, requests=2)
        outcome: Outcome | Large | None = None
        try:
            outcome = await self._ask_for_copy(shortcut, meta)
        finally:
            if self._pacer is not None and not isinstance(outcome, Transferred):
                # Given back: the copy that moves these bytes instead is charged for them.
                self._pacer.spend(size=-meta.size)
        return outcome

    async def _ask_for_copy(self, shortcut: Shortcut, meta: ObjectMeta) -> Outcome | Large | None:
        try:
            stored = await self.versions.describe(meta)
        except errors.SlurperError as error:
            if not _is_of_head_alone(error):
                raise
            shortcut.doubt()
            return None
        if isinstance(stored, Skipped):
            return stored
        key = self._route.target_key(meta.key)
        try:
            etag = await shortcut.copy_object(
                self._route.target, key, stored, if_absent=self._if_absent
            )
        except errors.PreconditionFailed as error:
            if self._if_absent:
                with contextlib.suppress(TargetChangedError):
                    return await self._tell_copy(meta, stored.served_at if error.retries else None)
            await self.versions.confirm(meta)
            shortcut.doubt()
            return None
        return Transferred(meta.size) if etag is not None else None

    async def _tell_copy(self, meta: ObjectMeta, since: datetime | None) -> Outcome | Large:
        """Find out whether the target's object is our own earlier copy or somebody else's.

        A large one is read only if its size and date may be those of our copy. `since` is when the
        first of several requests for the copy was sent, by the store's clock; None: there was one.
        """
        theirs = await self.ownership.decide_by_descriptions(meta)
        if not isinstance(theirs, ObjectMeta):
            return theirs
        is_large = meta.size > self._multipart_threshold
        if is_large and not selection.may_be_ours(meta.size, theirs, since):
            return Large(meta)
        return await self.ownership.decide_by_bytes(meta)

    async def _copy_whole(self, meta: ObjectMeta) -> Outcome | None:
        """Read an object and write it; None when the target has one that is not to be replaced."""
        download: Download | None = None
        try:
            download = whole(meta, await self._reader.ask(meta))
        except errors.PreconditionFailed as error:
            raise SourceChangedError(str(error)) from error
        except errors.ChecksumDisagrees as error:
            seen = error.seen
        if download is None:  # outside of the handler, whose error keeps the body in memory
            download = await self._reader.read_disagreeing(meta, seen)
        if self._looks_at_content:
            first = download.body.beginning(selection.FIRST_BYTES.end)
            skip = self.versions.skip_by_content(download.stored.headers, first)
            if skip is not None:
                return skip
        told = download.body.source_md5
        try:
            await self._route.target.put(
                self._route.target_key(meta.key),
                download.body,
                download.stored.headers,
                if_absent=self._if_absent,
            )
        except errors.PreconditionFailed:
            return None
        except (errors.IntegrityError, errors.StoreError) as error:
            doubt = await self._reader.doubt(error, download.body)
        else:
            if told and meta.size:
                self._etags.are_md5s = True
            return Transferred(meta.size)
        del download  # no memory is set aside to hold it twice
        return await self._copy_doubted(meta, doubt)

    async def _copy_doubted(self, meta: ObjectMeta, doubt: Doubt) -> Outcome | None:
        """Read an object again whose bytes lack the MD5 that its source tells, and write it."""
        again = await self._reader.read_doubted(meta, doubt)
        told = again.body.source_md5
        try:
            await self._route.target.put(
                self._route.target_key(meta.key),
                again.body,
                again.stored.headers,
                if_absent=self._if_absent,
            )
        except errors.PreconditionFailed:
            return None
        except (errors.IntegrityError, errors.StoreError) as error:
            raise errors.IntegrityError(str(await self._reader.doubt(error, again.body))) from error
        if told and meta.size:
            self._etags.are_md5s = True
        return Transferred(meta.size)


def _is_of_head_alone(error: errors.SlurperError) -> bool:
    """Whether a HEAD failed in a way that a GET may not: 405, for example, or without a size."""
    return type(error) is errors.StoreError or isinstance(error, errors.IntegrityError)


def archived(error: errors.RequiresRetrieval) -> Skipped:
    """The outcome of an object that must be restored before it can be read."""
    return Skipped(LogType.IMPORT_SKIPPED_REQUIRES_RETRIEVAL, failure_text(error, 1))
