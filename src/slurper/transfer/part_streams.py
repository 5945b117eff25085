"""Copies a part while it comes in: the read and the write overlap (decision 0029).

The checksum of a part is not known before its last byte. So it is computed while the bytes pass,
and sent behind them. Targets were asked before the job whether they verify that. A target that
verifies no checksum at all gets the bytes alone. All other parts are read as a whole first.
"""

from __future__ import annotations

from slurper import errors
from slurper.http.streams import StreamBroken, StreamDeclined
from slurper.objectstore.base import ByteRange, Part
from slurper.objectstore.checksums import QUICK, Algorithm
from slurper.objectstore.streamed import StreamedPart, StreamedRange, StreamingStore
from slurper.planning.parts import SourceSum
from slurper.transfer.attempts import SourceChangedError, TargetChangedError
from slurper.transfer.large_object import TOO_SHORT, LargeObject
from slurper.transfer.streaming import MIN_BYTES, Streams
from slurper.transfer.task import BegunUpload


class PartStreams:
    """Copies the parts of one task as streams.

    What disturbs a stream may let a part pass that is read as a whole. So each part is tried once
    in this way.
    """

    def __init__(
        self,
        large: LargeObject,
        source: StreamingStore,
        target: StreamingStore,
        streams: Streams,
    ) -> None:
        self._large = large
        self._source = source
        self._target = target
        self._streams = streams
        self._failed: set[int] = set()

    def takes(self, begun: BegunUpload, number: int, byte_range: ByteRange) -> bool:
        """Whether a part is to be copied as a stream."""
        meta, dialect = self._large.meta, self._large.target.dialect
        if number in self._failed or not self._streams.may_pass_parts:
            return False
        if len(byte_range) < MIN_BYTES or not meta.etag:
            return False
        if dialect.verifies_checksum and not dialect.trailing_checksum:
            return False
        if dialect.wants_md5 or (dialect.checksum is not None and dialect.checksum not in QUICK):
            return False
        told = begun.source_sum
        return told is None or told.algorithm in QUICK or told.algorithm is Algorithm.MD5

    async def copy(self, begun: BegunUpload, number: int, byte_range: ByteRange) -> Part | None:
        """Copy a part; None: it must be read as a whole.

        Raises:
            SourceChangedError: the source has another version now.
            TargetChangedError: the upload is gone.
            SlurperError: as `ObjectStore.get` and `put_part`.
        """
        try:
            part = await self._passed(begun, number, byte_range)
        except StreamDeclined:
            self._failed.add(number)
            return None
        except (SourceChangedError, TargetChangedError):
            raise
        except errors.SlurperError as error:
            self._failed.add(number)
            if error.blocks_job or error.retryable or isinstance(error, errors.Refused):
                raise
            self._streams.part_failed()  # the store may refuse this way of writing
            return None
        self._streams.part_passed()
        return part

    async def _passed(self, begun: BegunUpload, number: int, byte_range: ByteRange) -> Part:
        large, dialect = self._large, self._large.target.dialect
        answer = await self._read(begun, byte_range)
        part = StreamedPart(
            answer.body,
            dialect.checksum if dialect.trailing_checksum else None,
            also=_also(begun.source_sum),
            sizes=() if begun.source_sum is None else begun.source_sum.cut(byte_range),
        )
        try:
            return await self._target.put_part_stream(
                large.target_key, begun.upload_id, number, part
            )
        except errors.NotFound as error:
            raise TargetChangedError(str(error)) from error
        except StreamBroken as broken:
            if isinstance(broken.cause, errors.PreconditionFailed):
                raise SourceChangedError(str(broken.cause)) from broken
            raise broken.cause from broken
        finally:
            answer.body.close()

    async def _read(self, begun: BegunUpload, byte_range: ByteRange) -> StreamedRange:
        meta = self._large.meta
        try:
            answer = await self._source.get_range_stream(
                meta.key, byte_range, if_match=meta.etag, size=meta.size
            )
        except StreamDeclined:
            self._streams.part_failed()
            raise
        except errors.StoreError as error:
            if isinstance(error, errors.PreconditionFailed) or error.status == TOO_SHORT:
                raise SourceChangedError(str(error)) from error
            raise
        try:
            self._large.check_version(begun, answer.stored.meta)
        except SourceChangedError:
            answer.body.close()
            raise
        return answer


def _also(told: SourceSum | None) -> Algorithm | None:
    """The checksum of the pieces of a part. MD5s come from the target's ETag."""
    return None if told is None or told.algorithm is Algorithm.MD5 else told.algorithm


def part_streams(large: LargeObject, streams: Streams | None) -> PartStreams | None:
    """A copier of parts as streams, if both stores can stream."""
    source, target = large.source, large.target
    if streams is None:
        return None
    if not (isinstance(source, StreamingStore) and isinstance(target, StreamingStore)):
        return None
    return PartStreams(large, source, target, streams)
