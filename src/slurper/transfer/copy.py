"""Copies one whole object: reads it into memory, verifies it, writes it with its checksum.

It is read completely before it is written, because only then can its checksum travel as a header
that every S3 dialect verifies, and because a write can then be sent again without a second read
(decision 0002). Objects above the multipart threshold are copied in parts, by `parts_run`.

An object is begun at most `object_attempts` times (object level); below that, each HTTP request has
its own retries (request level), so that whatever fails here has been tried for a while already.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from slurper import errors, telemetry
from slurper.job.model import LogType
from slurper.objectstore import advice, entity_tags, verification
from slurper.objectstore.base import (
    Body,
    ByteRange,
    Download,
    ObjectHeaders,
    ObjectMeta,
    ObjectStore,
    StoredObject,
)
from slurper.objectstore.checksums import Algorithm
from slurper.planning import selection
from slurper.settings import MIB, Settings
from slurper.transfer.etags import SourceEtags, some_are_md5s
from slurper.transfer.ledger import Failed, Large, Outcome, Skipped, Transferred
from slurper.transfer.pacing import ByteBudget, Pacer
from slurper.transfer.server_side import Shortcut

ATTEMPT_PAUSE_SECONDS = 0.5
"""Mean pause before the second attempt; doubles with each further one."""

_log = telemetry.get_logger(__name__)

COMPARED_BYTES = 4 * MIB
"""An object found at the target is compared with its source in pieces of this."""


class SourceChangedError(errors.SlurperError):
    """The object is no longer the version that was listed; another attempt reads the new one."""


class TargetChangedError(errors.SlurperError):
    """An upload or object that was at the target a moment ago is gone; another attempt may pass."""

    advice = "somebody else removes objects or uploads at the target, or a rule of its bucket does"
    retryable = True


@dataclass(frozen=True, slots=True)
class _Doubt:
    """The bytes that were read do not have the MD5 that the source tells."""

    told: str
    seen: str

    def __str__(self) -> str:
        return f"the bytes read have MD5 {self.seen}, the source tells {self.told}"


class PartsDisagreeError(errors.ChecksumDisagrees):
    """The parts that were read do not make the object whose checksum the source tells."""


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
        etags: SourceEtags | None = None,
    ) -> None:
        """Prepare. `other_spelling` tells another key that a listed key may mean, or None."""
        self._source = source
        self._target = target
        self._checksum = target.dialect.checksum
        self._verifies_md5 = target.dialect.verifies_md5
        self._etags = etags or SourceEtags(source.dialect)
        self._prefix = prefix
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

    def take_whole(self, most: int) -> None:
        """Copy objects of up to this many bytes in one request, whatever the settings say."""
        self._multipart_threshold = most

    async def copy(self, meta: ObjectMeta, *, in_doubt: bool = False) -> Outcome | Large:
        """Bring one object to its outcome, unless it has become large meanwhile.

        `in_doubt` says that the target has an object under its key, which may be ours. Nothing is
        written then, unless that object goes away.

        Raises:
            SlurperError: with `blocks_job` set; Refused, or a retryable one that outlasted
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
                return await self._attempt(meta, in_doubt=in_doubt)
            except SourceChangedError as error:
                if attempt >= self.max_attempts:
                    return Failed(changing_text(error, attempt))
                has_changed = True
            except errors.SlurperError as error:
                if error.blocks_job or isinstance(error, errors.Refused):
                    raise
                if not error.retryable:
                    return Failed(failure_text(error, attempt))
                if attempt >= self.max_attempts:
                    raise
                in_doubt = in_doubt and not isinstance(error, TargetChangedError)
                # Stores that know no If-Match show a change by a length that is wrong.
                has_changed = has_changed or isinstance(error, errors.IntegrityError)
                await asyncio.sleep(pause_before(attempt + 1))
            attempt += 1
            self.attempts += 1

    async def _attempt(self, meta: ObjectMeta, *, in_doubt: bool) -> Outcome | Large:
        try:
            if in_doubt:
                return await self.already_there(meta)
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
            page = await self._source.list_page(prefix=key, max_keys=1)
            if any(meta.key == key and meta.size == 0 for meta in page.objects):
                await self._source.head(key)
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

    async def describe(
        self, meta: ObjectMeta, *, with_checksums: bool = False
    ) -> StoredObject | Skipped:
        """The object with its headers, unless it is to be left out for them or its first bytes.

        `with_checksums` asks for checksums too; that needs the permission to read the object. HEAD
        tells archive tiers and restores, which a listing does not tell.

        Raises:
            SourceChangedError: it is no longer this version.
        """
        stored = await self._head_of_version(meta, with_checksums=with_checksums)
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

    async def confirm_unchanged(self, meta: ObjectMeta) -> None:
        """Return if the source still has this version, whatever the answer to a condition was.

        Raises:
            SourceChangedError: it has another, or none any more.
        """
        try:
            await self._head_of_version(meta)
        except errors.NotFound as error:
            raise SourceChangedError(str(error)) from error

    async def _head_of_version(
        self, meta: ObjectMeta, *, with_checksums: bool = False
    ) -> StoredObject:
        stored = await self._source.head(meta.key, with_checksums=with_checksums)
        if not entity_tags.same(stored.meta.etag, meta.etag) or stored.meta.size != meta.size:
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
        try:
            stored = await self.describe(meta)
        except errors.SlurperError as error:
            if not _is_of_head_alone(error):
                raise
            shortcut.doubt(error)
            return None
        if isinstance(stored, Skipped):
            return stored
        key = self.target_key(meta.key)
        try:
            etag = await shortcut.copy_object(self._target, key, stored, if_absent=self._if_absent)
        except errors.PreconditionFailed as error:
            if self._if_absent:
                with contextlib.suppress(TargetChangedError):
                    return await self._tell_copy(meta, stored.served_at if error.retries else None)
            await self.confirm_unchanged(meta)
            shortcut.doubt(error)
            return None
        return Transferred(meta.size) if etag is not None else None

    async def _tell_copy(self, meta: ObjectMeta, since: datetime | None) -> Outcome | Large:
        """Tell our own earlier copy from somebody else's object, and read no large one for it.

        `since` is when the first of several requests for the copy was sent, by the store's clock.
        """
        theirs = await self._tell_by_descriptions(meta)
        if not isinstance(theirs, ObjectMeta):
            return theirs
        is_large = meta.size > self._multipart_threshold
        if is_large and not selection.may_be_ours(meta.size, theirs, since):
            return Large(meta)
        return await self._tell_by_bytes(meta)

    async def _copy_whole(self, meta: ObjectMeta) -> Outcome | None:
        """Read an object and write it; None when the target has one that is not to be replaced."""
        download: Download | None = None
        try:
            download = _whole(meta, await self._asked(meta))
        except errors.PreconditionFailed as error:
            raise SourceChangedError(str(error)) from error
        except errors.ChecksumDisagrees as error:
            seen = error.seen
        if download is None:  # outside of the handler, whose error keeps the body in memory
            download = await self._read_disagreeing(meta, seen)
        if self._looks_at_content:
            first = download.body.beginning(selection.FIRST_BYTES.end)
            skip = self._skip_by_content(download.stored.headers, first)
            if skip is not None:
                return skip
        told = download.body.source_md5
        try:
            await self._target.put(
                self.target_key(meta.key),
                download.body,
                download.stored.headers,
                if_absent=self._if_absent,
            )
        except errors.PreconditionFailed:
            return None
        except (errors.IntegrityError, errors.StoreError) as error:
            doubt = await self._doubt(error, download.body)
        else:
            if told and meta.size:
                self._etags.are_md5s = True
            return Transferred(meta.size)
        del download  # before it is read again, for which no memory is set aside
        return await self._copy_doubted(meta, doubt)

    async def _doubt(self, refusal: errors.SlurperError, body: Body) -> _Doubt:
        """Look into the refusal of a write that told the source's MD5; raise all others."""
        told = body.source_md5
        if not (told and _may_mean_the_bytes(refusal)):
            raise refusal
        seen = await body.computed(Algorithm.MD5)
        if seen == told:
            raise refusal  # they were damaged after the read, or the refusal means something else
        return _Doubt(told, seen)

    async def _copy_doubted(self, meta: ObjectMeta, doubt: _Doubt) -> Outcome | None:
        """Read and write an object again whose bytes did not have the MD5 that its source tells."""
        again = await self._read_doubted(meta, doubt)
        told = again.body.source_md5
        try:
            await self._target.put(
                self.target_key(meta.key),
                again.body,
                again.stored.headers,
                if_absent=self._if_absent,
            )
        except errors.PreconditionFailed:
            return None
        except (errors.IntegrityError, errors.StoreError) as error:
            raise errors.IntegrityError(str(await self._doubt(error, again.body))) from error
        if told and meta.size:
            self._etags.are_md5s = True
        return Transferred(meta.size)

    async def _read(self, meta: ObjectMeta) -> Download:
        """Read an object and compare the quick checksums that its source tells."""
        try:
            return await self._read_again(meta)
        except errors.ChecksumDisagrees as error:
            seen = error.seen
        return await self._read_disagreeing(meta, seen)

    async def _read_disagreeing(self, meta: ObjectMeta, seen: str) -> Download:
        """Read an object again that has `seen` instead of the checksum that its source tells."""
        if "-" in seen:
            return await self._read_in_doubt_of_parts(meta, seen)
        return await self._read_disputed(meta, seen)

    def _asked(self, meta: ObjectMeta, *, compares: bool = True) -> Awaitable[Download]:
        etags = self._etags
        return self._source.get(
            meta.key,
            if_match=meta.etag,
            max_bytes=meta.size,
            checksum=self._checksum,
            md5=etags.use(self._verifies_md5),
            etag_of_parts=etags.of_parts_are_md5s is not False,
            compares=compares,
        )

    async def _read_again(self, meta: ObjectMeta, *, compares: bool = True) -> Download:
        """Read an object; raise the error if its checksum disagrees."""
        try:
            return _whole(meta, await self._asked(meta, compares=compares))
        except errors.PreconditionFailed as error:
            raise SourceChangedError(str(error)) from error

    # Objects whose bytes are not what the source tells of them.

    async def _read_disputed(self, meta: ObjectMeta, seen: str) -> Download:
        """Read an object again that does not have the checksum that its source declares.

        If the same bytes come again and they have the MD5 of the ETag, the declared checksum is
        wrong: some stores keep a wrong one after copies of their own.

        Raises:
            ChecksumDisagrees: nothing vouches for the bytes.
        """
        self.attempts += 1
        again = await self._read_again(meta, compares=False)
        told = again.stored.told
        if told is None:
            return again
        body = again.body
        seen_again = await body.computed(told.algorithm)
        if seen_again == told.value:
            return again
        is_vouched = seen_again == seen and body.source_md5 != ""
        if is_vouched and await body.computed(Algorithm.MD5) == body.source_md5:
            error = verification.disagreement(told, seen)
            _log.warning("a source keeps a wrong checksum", key=meta.key, error=str(error))
            return again
        raise verification.disagreement(told, seen_again)

    async def _read_in_doubt_of_parts(self, meta: ObjectMeta, seen: str) -> Download:
        """Read an object again that disagrees with the checksum made of its parts at the source.

        Raises:
            ChecksumDisagrees: it disagrees again.
        """
        self.attempts += 1
        try:
            return await self._read_again(meta)
        except errors.ChecksumDisagrees as error:
            if error.seen != seen or error.algorithm != Algorithm.MD5:
                raise
            disagreement = error.with_traceback(None)  # which would keep the body in memory
        if await self._etags.of_parts_must_be_md5s(self._source, self._prefix, meta.key):
            raise disagreement
        _log.info("an ETag is not made of the parts' MD5s", key=meta.key, error=str(disagreement))
        return await self._read_again(meta)

    async def _read_doubted(self, meta: ObjectMeta, doubt: _Doubt) -> Download:
        """Read an object again that does not have the MD5 that its source tells.

        If other bytes come, the first were damaged on their way. If the same come again, either
        they are damaged at the source, or its ETags are no MD5s. That is found out once.

        Raises:
            IntegrityError: the bytes are damaged, as far as we can know.
        """
        self.attempts += 1
        async with self._etags.asking:
            again = await self._read(meta)
            body = again.body
            if not body.source_md5:
                return again  # another task that asked before has found it out
            seen = await body.computed(Algorithm.MD5)
            if seen == body.source_md5:
                return again
            if seen != doubt.seen:
                raise errors.IntegrityError(str(doubt))
            if not await self._is_not_told_by_etag(again):
                raise errors.ChecksumDisagrees(f"{doubt}, and the same bytes came twice", seen)
            body.source_md5 = ""
            return again

    async def _is_not_told_by_etag(self, download: Download) -> bool:
        """Whether these bytes are right although they lack the MD5 that the source tells."""
        told, meta, etags = download.stored.told, download.stored.meta, self._etags
        if told is not None and await download.body.computed(told.algorithm) != told.value:
            return False
        if etags.are_md5s is None:
            etags.are_md5s = await some_are_md5s(self._source, self._prefix, meta.key)
            if not etags.are_md5s:
                _log.info("the ETags of the source are no MD5s", key=meta.key, etag=meta.etag)
        return told is not None or not etags.are_md5s

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
        found = await self._tell_by_descriptions(meta)
        return await self._tell_by_bytes(meta) if isinstance(found, ObjectMeta) else found

    async def _tell_by_descriptions(self, meta: ObjectMeta) -> Outcome | ObjectMeta:
        """Tell by what the stores say of both objects; the target's, when only their bytes can."""
        try:
            theirs = await self._target.head(self.target_key(meta.key), with_checksums=True)
        except errors.NotFound as error:
            raise TargetChangedError(str(error)) from error
        except errors.AccessDenied:
            return Skipped()  # who may not look leaves it at what the store said
        if theirs.meta.size != meta.size:
            return Skipped()
        if verification.same_bytes(meta.etag, theirs.meta.etag):
            return Transferred(meta.size)
        if theirs.told is None and not theirs.crc32c:
            return theirs.meta
        ours = await self._head_of_version(meta, with_checksums=True)
        if theirs.crc32c and ours.crc32c:
            return Transferred(meta.size) if ours.crc32c == theirs.crc32c else Skipped()
        # A difference is no proof: some sources keep the checksum of other bytes.
        is_same = theirs.told is not None and theirs.told == ours.told
        return Transferred(meta.size) if is_same else theirs.meta

    async def _tell_by_bytes(self, meta: ObjectMeta) -> Outcome:
        key = self.target_key(meta.key)
        for start in range(0, meta.size, COMPARED_BYTES):
            piece = ByteRange(start, min(start + COMPARED_BYTES, meta.size))
            if self._pacer is not None:
                self._pacer.spend(size=len(piece), requests=2)
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


def _is_of_head_alone(error: errors.SlurperError) -> bool:
    """Whether a HEAD failed in a way that a GET may not: 405, for example, or without a size."""
    return type(error) is errors.StoreError or isinstance(error, errors.IntegrityError)


BARE_FOLDER = Skipped(
    LogType.IMPORT_SKIPPED_EMPTY_OBJECT,
    "the source lists this folder and has no object of this name: there is nothing to copy; if "
    "there should be, write the object again",
)


def _whole(meta: ObjectMeta, download: Download) -> Download:
    """The body, if it is as long as it was listed. Raises IntegrityError."""
    if download.body.length != meta.size:
        raise errors.IntegrityError(
            f"read {download.body.length} bytes of an object listed with {meta.size}"
        )
    return download


def _may_mean_the_bytes(error: errors.SlurperError) -> bool:
    """Whether a write may have been refused because the bytes do not have its Content-MD5.

    Not every store uses the usual code for that.
    """
    if isinstance(error, errors.StoreError):
        return error.status == 400 and not error.blocks_job
    return True


def archived(error: errors.RequiresRetrieval) -> Skipped:
    """How an object ends that must be restored before it can be read."""
    return Skipped(LogType.IMPORT_SKIPPED_REQUIRES_RETRIEVAL, failure_text(error, 1))


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
    known = advice.advice_of(error)
    todo = f"; {known}" if known else ""
    return f"{error}{tried}{todo}"


def halt_text(error: errors.SlurperError, key: str | None = None) -> str:
    """The text for a job that cannot go on: what was seen, for which key, and what to do."""
    text = failure_text(error, 1)
    if "resume" not in text:
        text += "; then resume the job"
    return text if key is None else f"at {key!a}: {text}"
