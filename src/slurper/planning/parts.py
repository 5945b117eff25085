"""Part-size arithmetic for multipart uploads, pure.

R2 wants every part but the last to be of one size, so the size is chosen once, from the object's
size, before the first part (https://developers.cloudflare.com/r2/objects/multipart-objects/).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from slurper import errors
from slurper.objectstore.base import ByteRange
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
