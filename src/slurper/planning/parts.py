"""Part-size arithmetic for multipart uploads, pure.

R2 wants all parts to have one size, except the last
(https://developers.cloudflare.com/r2/objects/multipart-objects/). So the size is chosen once, from
the object's size, before the first part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from slurper import errors
from slurper.objectstore import checksums, verification
from slurper.objectstore.base import ByteRange, Part, StoredObject
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.dialects import Dialect
from slurper.settings import MIB


@dataclass(frozen=True, slots=True)
class PartPlan:
    """How an object of `size` bytes is cut: `count` parts of `part_size`; the last may be less."""

    size: int
    part_size: int

    @property
    def count(self) -> int:
        """Number of parts; at least one, so that an empty object has an (empty) part."""
        return max(1, -(-self.size // self.part_size))

    def byte_range(self, number: int) -> ByteRange:
        """The bytes of part `number`, counted from 1."""
        start = (number - 1) * self.part_size
        return ByteRange(start, min(start + self.part_size, self.size))


def plan_parts(size: int, dialect: Dialect, *, part_bytes: int) -> PartPlan:
    """Cut `size` bytes into parts of `part_bytes`, or of the next whole MiB that the limits need.

    Raises:
        ConfigurationError: `size` is too large for the dialect. The selection leaves out such
            objects before.
    """
    min_bytes = max(dialect.min_part_bytes, part_bytes, -(-size // dialect.max_parts))
    part_size = min(-(-min_bytes // MIB) * MIB, dialect.max_put_bytes)
    plan = PartPlan(size, part_size)
    if plan.count > dialect.max_parts:
        raise errors.ConfigurationError(
            f"{size} bytes do not fit into {dialect.max_parts} parts of "
            f"{dialect.max_put_bytes} bytes, the limits of {dialect.name}"
        )
    return plan


_MAX_PIECE_BYTES = 64 * MIB
"""Longer parts of a source are not copied as parts of the same size: a part is held in memory."""


@dataclass(frozen=True, slots=True)
class SourceSum:
    """A checksum that a source tells of an object, which the parts of its copy must give again.

    Each part of the copy brings the checksums of its pieces. If the source's checksum was made of
    the source's parts, a part is cut into pieces where these begin. CRCs can be combined, so parts
    of the copy may have any size. For other checksums they must be as long as the source's parts.
    """

    algorithm: Algorithm
    value: str
    """Base64. If it is made of the source's parts, "-" and their number follow."""
    piece_bytes: int
    """The size of the source's parts. If the checksum is of the whole object, the object's size."""

    @property
    def part_bytes(self) -> int | None:
        """How long the parts of the copy have to be; None: any size."""
        return None if self.algorithm in checksums.COMBINABLE else self.piece_bytes

    def cut(self, byte_range: ByteRange) -> tuple[int, ...]:
        """The sizes of the pieces of a part. An empty part is one piece."""
        first = byte_range.start - byte_range.start % self.piece_bytes + self.piece_bytes
        cuts = range(first, byte_range.end, self.piece_bytes)
        edges = (byte_range.start, *cuts, byte_range.end)
        return tuple(end - start for start, end in pairwise(edges))

    def of(self, parts: Sequence[Part]) -> str | None:
        """The same checksum, made of all parts in order; None if some of them were not seen."""
        pieces: dict[int, list[tuple[str, int]]] = {}
        start = 0
        for part in parts:
            sizes = self.cut(ByteRange(start, start + part.size))
            if len(part.source_sums) != len(sizes):
                return None
            for value, size in zip(part.source_sums, sizes, strict=True):
                pieces.setdefault(start // self.piece_bytes, []).append((value, size))
                start += size
        whole = [self._joined(rows) for rows in pieces.values()]
        return checksums.composite(self.algorithm, whole) if "-" in self.value else whole[0]

    def _joined(self, rows: Sequence[tuple[str, int]]) -> str:
        return rows[0][0] if len(rows) == 1 else checksums.combine(self.algorithm, rows)


def summed_by_etag(part: Part) -> Part:
    """The part with the MD5 that the target's ETag tells, if it is one."""
    md5 = verification.md5_of_etag(part.etag)
    return replace(part, source_sums=(md5,) if md5 else ())


def sum_of_whole(stored: StoredObject) -> SourceSum | None:
    """The CRC that a source tells of all bytes of an object; None: it tells none."""
    told = stored.told
    if told is None or told.algorithm not in checksums.COMBINABLE:
        return None
    return SourceSum(told.algorithm, told.value, max(stored.meta.size, 1))


def sums_of_parts(
    stored: StoredObject, dialect: Dialect, part_bytes: int, count: int
) -> Iterator[SourceSum]:
    """Checksums that the source made of its parts' checksums, if a copy can give them again.

    The source has `count` parts, and the first has `part_bytes`. All but the last must have had
    that size. The cheapest comes first: a CRC, then the ETag (a target computes its MD5s anyway),
    then others.
    """
    size, told = stored.meta.size, stored.told_of_parts
    if part_bytes < 1 or -(-size // part_bytes) != count:
        return
    fits = (
        dialect.min_part_bytes <= part_bytes <= min(dialect.max_put_bytes, _MAX_PIECE_BYTES)
        and count <= dialect.max_parts
    )
    named = None
    if told is not None:
        value = verification.numbered(told.value, count)
        named = SourceSum(told.algorithm, value, part_bytes)
    if named is not None and named.part_bytes is None:
        yield named
    etag = verification.etag_of_parts(stored)
    if fits and etag is not None and etag.value.endswith(f"-{count}"):
        yield SourceSum(Algorithm.MD5, etag.value, part_bytes)
    if fits and named is not None and named.part_bytes is not None:
        yield named
