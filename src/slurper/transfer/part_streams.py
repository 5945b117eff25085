"""Copies a part while it comes in: the read and the write overlap (decision 0029).

The checksum of a part is not known before its last byte. So it is computed while the bytes pass,
and sent behind them. Targets were asked before the job whether they verify that. A target that
verifies no checksum at all gets the bytes alone. All other parts are read as a whole first.

A part is sent once in this way. If that fails, it is read as a whole in the same attempt. So a
fault that only a stream meets fails no object.
"""

from __future__ import annotations

from slurper import errors
from slurper.http.streams import StreamBroken, StreamDeclined
from slurper.objectstore.base import ByteRange, Part
from slurper.objectstore.checksums import QUICK, Algorithm
from slurper.objectstore.streamed import StreamedPart, StreamedRange, StreamingStore
from slurper.planning.parts import summed_by_etag
from slurper.transfer.attempts import SourceChangedError, TargetChangedError
from slurper.transfer.large_object import LargeObject, is_of_another_version
from slurper.transfer.streaming import MIN_BYTES, Streams
from slurper.transfer.task import BegunUpload


class PartStreams:
    """Copies the parts of one task as streams. Each part is tried once in this way."""

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
        self._tried: set[int] = set()

    def takes(self, begun: BegunUpload, number: int, byte_range: ByteRange) -> bool:
        """Whether a part is to be copied as a stream."""
        meta, dialect = self._large.meta, self._large.target.dialect
        if number in self._tried or not self._streams.may_pass_parts:
            return False
        if len(byte_range) < MIN_BYTES or not meta.etag:
            return False
        if dialect.wants_md5 or not (dialect.checksum is None or dialect.trailing_checksum):
            return False
        told = begun.source_sum
        return told is None or told.algorithm in QUICK or told.algorithm is Algorithm.MD5

    async def copy(self, begun: BegunUpload, number: int, byte_range: ByteRange) -> Part | None:
        """Copy a part; None: it must be read as a whole.

        Raises:
            SourceChangedError: the source has another version now.
            TargetChangedError: the upload is gone.
            SlurperError: as `ObjectStore.get`.
        """
        self._tried.add(number)
        try:
            answer = await self._read(begun, byte_range)
        except StreamDeclined:
            self._streams.part_failed()
            return None
        try:
            part = await self._write(begun, number, byte_range, answer)
        except errors.NotFound as error:
            raise TargetChangedError(str(error)) from error
        except StreamBroken as broken:
            if isinstance(broken.cause, errors.PreconditionFailed):
                raise SourceChangedError(str(broken.cause)) from broken
            self._streams.part_failed()
            return None
        except (errors.SlurperError, StreamDeclined):
            # The target may refuse only this way of writing. If not, it refuses the whole part too.
            self._streams.part_failed()
            return None
        finally:
            answer.body.close()
        self._streams.part_passed()
        return part

    async def _write(
        self, begun: BegunUpload, number: int, byte_range: ByteRange, answer: StreamedRange
    ) -> Part:
        large, told = self._large, begun.source_sum
        from_etag = told is not None and told.algorithm is Algorithm.MD5
        body = StreamedPart(
            answer.body,
            large.target.dialect.checksum,
            also=None if told is None or from_etag else told.algorithm,
            sizes=() if told is None else told.cut(byte_range),
        )
        part = await self._target.put_part_stream(large.target_key, begun.upload_id, number, body)
        return summed_by_etag(part) if from_etag else part

    async def _read(self, begun: BegunUpload, byte_range: ByteRange) -> StreamedRange:
        meta = self._large.meta
        try:
            answer = await self._source.get_range_stream(
                meta.key, byte_range, if_match=meta.etag, size=meta.size
            )
        except errors.StoreError as error:
            if is_of_another_version(error):
                raise SourceChangedError(str(error)) from error
            raise
        try:
            self._large.check_version(begun, answer.stored.meta)
        except SourceChangedError:
            answer.body.close()
            raise
        return answer


def part_streams(large: LargeObject, streams: Streams | None) -> PartStreams | None:
    """A copier of parts as streams, if both stores can stream."""
    source, target = large.source, large.target
    if streams is None:
        return None
    if not (isinstance(source, StreamingStore) and isinstance(target, StreamingStore)):
        return None
    return PartStreams(large, source, target, streams)
