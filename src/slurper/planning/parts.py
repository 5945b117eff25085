"""Part-size arithmetic for multipart uploads, pure.

R2 wants every part but the last to be of one size, so the size is chosen once, from the object's
size, before the first part (https://developers.cloudflare.com/r2/objects/multipart-objects/).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from slurper import errors
from slurper.objectstore import checksums
from slurper.objectstore.base import ByteRange, Part, StoredObject
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.dialects import Dialect

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class PartPlan:
    """How an object of `size` bytes is cut: `count` parts of `part_size`, the last may be less."""

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

    def __iter__(self) -> Iterator[tuple[int, ByteRange]]:
        return ((number, self.byte_range(number)) for number in range(1, self.count + 1))


def plan_parts(size: int, dialect: Dialect, *, part_bytes: int) -> PartPlan:
    """Cut `size` bytes into parts of `part_bytes`, or of the next whole MiB that the limits need.

    Raises:
        ConfigurationError: no part size that the dialect allows can hold `size`; the selection
            has refused such objects before.
    """
    least = max(dialect.min_part_bytes, part_bytes, -(-size // dialect.max_parts))
    part_size = min(-(-least // MIB) * MIB, dialect.max_put_bytes)
    plan = PartPlan(size, part_size)
    if plan.count > dialect.max_parts:
        raise errors.ConfigurationError(
            f"{size} bytes do not fit into {dialect.max_parts} parts of "
            f"{dialect.max_put_bytes} bytes, the limits of {dialect.name}"
        )
    return plan


@dataclass(frozen=True, slots=True)
class SourceSum:
    """A CRC that a source tells of an object, which is found again from the parts of its copy.

    Each part brings those of its pieces: it is cut where the source's own parts begin, if the CRC
    was made of theirs. So the parts of the copy may be of any size.
    """

    algorithm: Algorithm
    value: str
    """As it is told: base64, with "-" and the number of the source's parts if it is made of them.
    """
    piece_bytes: int
    """The size of the source's parts; of the object, if the CRC is of all its bytes."""

    def cut(self, byte_range: ByteRange) -> tuple[int, ...]:
        """The sizes of the pieces of a part. An empty part is one piece."""
        first = byte_range.start - byte_range.start % self.piece_bytes + self.piece_bytes
        cuts = range(first, byte_range.end, self.piece_bytes)
        edges = (byte_range.start, *cuts, byte_range.end)
        return tuple(end - start for start, end in pairwise(edges))

    def of(self, parts: Sequence[Part]) -> str | None:
        """What all parts, in order, make of it; None when there are some that nobody has seen."""
        pieces: dict[int, list[tuple[str, int]]] = {}
        start = 0
        for part in parts:
            sizes = self.cut(ByteRange(start, start + part.size))
            if len(part.source_sums) != len(sizes):
                return None
            for value, size in zip(part.source_sums, sizes, strict=True):
                pieces.setdefault(start // self.piece_bytes, []).append((value, size))
                start += size
        whole = [checksums.combine(self.algorithm, rows) for rows in pieces.values()]
        return checksums.composite(self.algorithm, whole) if "-" in self.value else whole[0]


def sum_of_whole(stored: StoredObject) -> SourceSum | None:
    """The CRC that a source tells of all bytes of an object; None: it tells none."""
    told = stored.told
    if told is None or told.algorithm not in checksums.COMBINABLE:
        return None
    return SourceSum(told.algorithm, told.value, max(stored.meta.size, 1))


def sum_of_parts(stored: StoredObject, part_bytes: int, count: int) -> SourceSum | None:
    """The CRC that a source has made of those of its parts, the first of which has `part_bytes`.

    None: it tells none, or the parts cannot all have had that size.
    """
    told = stored.told_of_parts
    if told is None or told.algorithm not in checksums.COMBINABLE or part_bytes < 1:
        return None
    is_even = -(-stored.meta.size // part_bytes) == count
    value = told.value if "-" in told.value else f"{told.value}-{count}"
    return SourceSum(told.algorithm, value, part_bytes) if is_even else None
