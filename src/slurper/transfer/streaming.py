"""Copies an object while it comes in: the read and the write overlap (decision 0026).

This needs a checksum of the whole object that the source tells and the target verifies. It goes
with the write, so nothing is computed here, and the target keeps no object that lacks it. All other
objects are read as a whole before they are written, or are copied in parts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from slurper import errors
from slurper.http.streams import StreamBroken, StreamDeclined
from slurper.objectstore import verification
from slurper.objectstore.base import ObjectMeta, SourceMd5
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.dialects import Dialect
from slurper.objectstore.streamed import StreamedBody, StreamingStore
from slurper.objectstore.texts import cleaned
from slurper.settings import MIB
from slurper.transfer.attempts import SourceChangedError
from slurper.transfer.etags import SourceEtags, some_are_md5s
from slurper.transfer.ledger import Transferred
from slurper.transfer.pacing import ByteBudget, Pacer
from slurper.transfer.reading import may_mean_the_bytes
from slurper.transfer.route import Route

MIN_BYTES = 4 * MIB
"""Smaller objects are read as a whole: the next one is read while they are written."""
IN_FLIGHT_BYTES = 2 * MIB
"""The most that one object has in memory: what its stream holds, and what waits to be sent."""
FIRST_RATE = 50e6
"""Bytes per second of one object, until some were measured. Most stores give more."""
_WEIGHT = 0.25
"""How much a new measurement counts beside those before it."""
_MAX_DECLINED = 3


class Streams:
    """What is known of objects that go from one source to one target, in one process."""

    __slots__ = ("_max_seconds", "_part_tries", "_rate", "_tries")

    def __init__(self, max_seconds: float) -> None:
        """Take how long one object may take. A longer one goes in parts.

        Parts can be resumed, and they go side by side.
        """
        self._max_seconds = max_seconds
        self._rate = FIRST_RATE
        self._part_tries = _MAX_DECLINED
        self._tries = {True: _MAX_DECLINED, False: _MAX_DECLINED}
        """How many more requests may find no checksum. Objects whose ETag looks like an MD5 are
        counted apart from the others."""

    @property
    def max_bytes(self) -> float:
        """The largest object that is expected to arrive in time."""
        return self._rate * self._max_seconds

    def may_tell(self, meta: ObjectMeta) -> bool:
        """Whether an object may tell a checksum that the target verifies."""
        return self._tries[_looks_like_md5(meta)] > 0

    @property
    def may_pass_parts(self) -> bool:
        """Whether parts may pass as streams, after those that failed."""
        return self._part_tries > 0

    def part_failed(self) -> None:
        """Count a part that did not pass."""
        self._part_tries -= 1

    def part_passed(self) -> None:
        """Count a part that passed."""
        self._part_tries = min(self._part_tries + 1, _MAX_DECLINED)

    def declined(self, meta: ObjectMeta) -> None:
        """Count a request for an object that tells no checksum that the target verifies."""
        self._tries[_looks_like_md5(meta)] -= 1

    def arrived(self, meta: ObjectMeta, seconds: float) -> None:
        """Count an object that arrived."""
        kind = _looks_like_md5(meta)
        self._tries[kind] = min(self._tries[kind] + 1, _MAX_DECLINED)
        self._rate += _WEIGHT * (meta.size / max(seconds, 1e-3) - self._rate)


def _looks_like_md5(meta: ObjectMeta) -> bool:
    return verification.md5_of_etag(meta.etag) != ""


@dataclass(frozen=True, slots=True)
class StreamCopier:
    """Copies objects of one task as streams."""

    route: Route
    source: StreamingStore
    target: StreamingStore
    streams: Streams
    etags: SourceEtags
    budget: ByteBudget
    pacer: Pacer | None
    if_absent: bool
    threshold: int
    """Larger objects go in parts if they cannot be streamed."""

    def takes(self, meta: ObjectMeta) -> bool:
        """Whether an object is to be copied as a stream, as far as its listing tells."""
        if meta.size < MIN_BYTES or not meta.etag:
            return False
        if self.if_absent and not self._dialect.conditional_put:
            return False  # parts leave less time between the look at the target and the write
        most = self.threshold if self.pacer is not None else self.streams.max_bytes
        if meta.size > min(max(most, self.threshold), self._dialect.max_put_bytes):
            return False
        return bool(self._algorithms()) and self.streams.may_tell(meta)

    async def copy(self, meta: ObjectMeta) -> Transferred | None:
        """Copy an object; None when the target has one that is not to be replaced.

        Raises:
            StreamDeclined: the object must be copied in another way.
            SourceChangedError: the source has another version now.
            SlurperError: as `ObjectStore.get` and `put`.
        """
        if self.pacer is not None:
            self.pacer.spend(size=meta.size, requests=2)
        await self.budget.acquire(IN_FLIGHT_BYTES)
        moved = 0
        try:
            outcome = await self._copy(meta)
            moved = meta.size
        except StreamDeclined:
            if self.pacer is not None:
                self.pacer.spend(size=-meta.size)  # the copy that moves the bytes is charged
            raise
        finally:
            self.budget.release(IN_FLIGHT_BYTES, moved=moved)
        return outcome

    @property
    def _dialect(self) -> Dialect:
        return self.route.target.dialect

    def _algorithms(self) -> frozenset[Algorithm]:
        """The checksums that the target verifies, and that may be known before the bytes."""
        dialect, known = self._dialect, set[Algorithm]()
        if self.etags.use(dialect.verifies_md5) is SourceMd5.INSTEAD:
            known.add(Algorithm.MD5)
        # A store of unknown make may take a checksum and not compare it.
        is_verified = not (dialect.assumed or dialect.wants_md5)
        if is_verified and dialect.checksum not in (None, Algorithm.MD5):
            known.add(dialect.checksum)
        return frozenset(known)

    async def _copy(self, meta: ObjectMeta) -> Transferred | None:
        began = time.monotonic()
        try:
            download = await self.source.get_stream(
                meta.key, if_match=meta.etag, size=meta.size, algorithms=self._algorithms()
            )
        except StreamDeclined:
            self.streams.declined(meta)
            raise
        except errors.PreconditionFailed as error:
            raise SourceChangedError(str(error)) from error
        body = download.body
        try:
            await self.target.put_stream(
                self.route.target_key(meta.key),
                body,
                download.stored.headers,
                if_absent=self.if_absent,
            )
        except errors.PreconditionFailed:
            return None
        except StreamBroken as broken:
            if isinstance(broken.cause, errors.PreconditionFailed):
                raise SourceChangedError(str(broken.cause)) from broken
            raise broken.cause from broken
        except (errors.IntegrityError, errors.StoreError) as error:
            await self._settle_refusal(meta, body, error)
        finally:
            body.close()
        if body.told.algorithm is Algorithm.MD5:
            self.etags.are_md5s = True
        self.streams.arrived(meta, time.monotonic() - began)
        return Transferred(meta.size)

    async def _settle_refusal(
        self, meta: ObjectMeta, body: StreamedBody, refusal: errors.SlurperError
    ) -> None:
        """Decide what follows when the target has refused an object. It always raises.

        Raises:
            StreamDeclined: another way of copying finds out more, or may not be refused.
            IntegrityError: the bytes do not have the MD5 that the source tells.
            SlurperError: the refusal, if it is not about this way of copying.
        """
        if _is_for_every_way(refusal):
            raise refusal
        is_large = meta.size > self.threshold
        is_of_bytes = isinstance(refusal, errors.IntegrityError)
        if not is_large and not may_mean_the_bytes(refusal):
            raise refusal  # one request is what the other way needs too
        if not (is_large and is_of_bytes and body.told.algorithm is Algorithm.MD5):
            raise StreamDeclined(str(refusal)) from refusal
        async with self.etags.asking:
            if self.etags.are_md5s is None:
                route = self.route
                found = await some_are_md5s(route.source, route.prefix, meta.key)
                self.etags.are_md5s = found or None  # no object has shown that they are none
        if not self.etags.are_md5s:
            raise StreamDeclined(str(refusal)) from refusal
        raise errors.IntegrityError(
            "the target refused the bytes read, which do not have the MD5 "
            f"{cleaned(body.told.value)} that the source tells: {refusal}"
        ) from refusal


def _is_for_every_way(refusal: errors.SlurperError) -> bool:
    """Whether another way of copying would meet the same refusal, or the same way may pass."""
    lasting = isinstance(refusal, errors.Refused | errors.NoSuchBucket) or refusal.blocks_job
    return lasting or (refusal.retryable and not isinstance(refusal, errors.IntegrityError))


def stream_copier(
    route: Route,
    streams: Streams,
    etags: SourceEtags,
    budget: ByteBudget,
    pacer: Pacer | None,
    *,
    if_absent: bool,
    threshold: int,
) -> StreamCopier | None:
    """A copier of streams, if both stores can stream."""
    source, target = route.source, route.target
    if not (isinstance(source, StreamingStore) and isinstance(target, StreamingStore)):
        return None
    return StreamCopier(route, source, target, streams, etags, budget, pacer, if_absent, threshold)
