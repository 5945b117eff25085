"""The middle step of a large object: copy its parts, side by side.

A part is begun at most `object_attempts` times (see `attempts`).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator
from dataclasses import replace

from slurper import errors
from slurper.objectstore.base import Body, ByteRange, Download, Part
from slurper.objectstore.checksums import Algorithm
from slurper.planning.parts import SourceSum, summed_by_etag
from slurper.transfer.attempts import SourceChangedError, TargetChangedError
from slurper.transfer.copy import CopyMeans
from slurper.transfer.deadline import Deadline
from slurper.transfer.large_object import LargeObject, is_of_another_version
from slurper.transfer.pacing import Pacer
from slurper.transfer.part_streams import part_streams
from slurper.transfer.task import BegunUpload


class UploadParts:
    """Copies the parts of one task."""

    def __init__(self, large: LargeObject, means: CopyMeans, pacer: Pacer | None) -> None:
        self._large = large
        self._budget = means.budget
        self._pacer = pacer
        self._shortcut = means.shortcut
        self._streams = part_streams(large, means.streams)
        self._lanes = means.settings.in_flight_requests
        self._deadline = Deadline(large.task.budget_seconds)
        self.finished: dict[int, Part] = {}
        """The parts that were copied, by their numbers."""
        self.has_copied_inside = False
        """The store has copied some of these parts itself."""

    async def copy(self, begun: BegunUpload) -> None:
        """Copy the parts of this task side by side; the first failure cancels the others."""
        numbers = self._large.task.numbers
        wanted = range(1, self._large.plan(begun).count + 1) if numbers is None else numbers
        todo = iter(wanted)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._lanes, len(wanted))):
                    group.create_task(self._lane(begun, todo))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    async def written_again(self, begun: BegunUpload, part: Part) -> Part | None:
        """Copy a part once more, if its ETag is not the MD5 of its bytes.

        None: the new ETag is not the MD5 either. So the target's ETags are no MD5s.
        """
        repeat = self._large.attempts.repeat
        byte_range = self._large.plan(begun).byte_range(part.number)
        size = len(byte_range)
        await self._budget.acquire(size)
        try:
            download = await repeat(functools.partial(self._read, begun, byte_range))
            md5 = (await download.body.computed(Algorithm.MD5),)
            if part.source_sums != md5:
                write = functools.partial(
                    self._write, begun, part.number, byte_range, download.body
                )
                part = await repeat(write)
        finally:
            self._budget.release(size)
        return part if part.source_sums == md5 else None

    async def _lane(self, begun: BegunUpload, todo: Iterator[int]) -> None:
        plan = self._large.plan(begun)
        for number in todo:
            byte_range = plan.byte_range(number)
            size = len(byte_range)
            if self._pacer is not None and not await self._is_our_turn(self._pacer, size):
                return
            await self._budget.acquire(size)
            try:
                # Checked here, because a lane may have waited long for its bytes.
                if self._deadline.is_over:
                    return
                self._deadline.start()
                copy = functools.partial(self._copy, begun, number, byte_range)
                self.finished[number] = await self._large.attempts.repeat(copy)
            finally:
                self._budget.release(size)

    async def _is_our_turn(self, pacer: Pacer, size: int) -> bool:
        """Wait until another part may begin, and charge it. False: there is no time for it."""
        async with pacer.queue:
            await pacer.turn(self._deadline.at)
            if self._deadline.is_over:
                return False
            pacer.spend(size=size, requests=2)
            return True

    async def _copy(self, begun: BegunUpload, number: int, byte_range: ByteRange) -> Part:
        if (inside := await self._copy_inside(begun, number, byte_range)) is not None:
            return inside
        if self._streams is not None and self._streams.takes(begun, number, byte_range):
            passed = await self._streams.copy(begun, number, byte_range)
            if passed is not None:
                return passed
            if self._pacer is not None:  # the bytes come a second time
                self._pacer.spend(size=len(byte_range), requests=2)
        download = await self._read(begun, byte_range)
        return await self._write(begun, number, byte_range, download.body)

    async def _read(self, begun: BegunUpload, byte_range: ByteRange) -> Download:
        large, told = self._large, begun.source_sum
        try:
            download = await large.source.get(
                large.meta.key,
                if_match=large.meta.etag,
                byte_range=byte_range,
                checksum=large.target.dialect.checksum,
                also=None if told is None else told.algorithm,
            )
        except errors.IntegrityError:
            # Stores that know no If-Match show a change by a wrong length.
            await large.versions.describe(large.meta)
            raise
        except errors.StoreError as error:
            if is_of_another_version(error):
                raise SourceChangedError(str(error)) from error
            raise
        large.check_version(begun, download.stored.meta)
        return download

    async def _write(
        self, begun: BegunUpload, number: int, byte_range: ByteRange, body: Body
    ) -> Part:
        large, told = self._large, begun.source_sum
        try:
            part = await large.target.put_part(large.target_key, begun.upload_id, number, body)
        except errors.NotFound as error:
            raise TargetChangedError(str(error)) from error
        return part if told is None else await _with_sums(part, body, told, byte_range)

    async def _copy_inside(
        self, begun: BegunUpload, number: int, byte_range: ByteRange
    ) -> Part | None:
        """Let the store copy a part itself; None when it does not."""
        large, shortcut = self._large, self._shortcut
        if shortcut is None or shortcut.is_closed:
            return None
        if large.copies_any_version and begun.last_modified is None:
            return None
        try:
            part = await shortcut.copy_part(
                large.target, large.target_key, begun.upload_id, number, large.meta, byte_range
            )
        except errors.PreconditionFailed:
            await large.versions.confirm(large.meta)
            shortcut.doubt()
            return None
        self.has_copied_inside = self.has_copied_inside or part is not None
        return part and self._with_own_sum(part, begun.source_sum, byte_range)

    def _with_own_sum(self, part: Part, told: SourceSum | None, byte_range: ByteRange) -> Part:
        """The part, with the store's checksum of it if that is of the same kind as the source's."""
        algorithm = self._large.target.dialect.checksum
        if told is None or not part.checksum or told.algorithm != algorithm:
            return part
        is_one_piece = len(told.cut(byte_range)) == 1
        return replace(part, source_sums=(part.checksum,)) if is_one_piece else part


async def _with_sums(part: Part, body: Body, told: SourceSum, byte_range: ByteRange) -> Part:
    """The part with the checksums of its pieces. MD5s come from the target's ETag."""
    if told.algorithm is Algorithm.MD5:
        return summed_by_etag(part)
    if told.part_bytes is not None:
        return replace(part, source_sums=(await body.computed(told.algorithm),))
    return replace(part, source_sums=body.sums(told.algorithm, told.cut(byte_range)))
