"""Which parts are passed on while they come in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from slurper.objectstore.base import ByteRange
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.dialects import Dialect
from slurper.planning.parts import SourceSum
from slurper.settings import MIB
from slurper.transfer.large_object import LargeObject
from slurper.transfer.part_streams import PartStreams, part_streams
from slurper.transfer.route import Route
from slurper.transfer.streaming import MIN_BYTES, Streams
from slurper.transfer.task import BegunUpload
from tests.chain import first_task
from tests.memory.store import MemoryStore
from tests.unit.transfer.test_range_run import TASK
from tests.unit.transfer.test_streaming import VERIFIES, copier, meta, store

TRAILS = replace(VERIFIES, checksum=Algorithm.CRC32C, trailing_checksum=True)
PART = ByteRange(0, 16 * MIB)


def large(target: Any = None, etag: str = '"abc-7"') -> LargeObject:  # noqa: ANN401 - any store
    task = first_task(TASK, meta(100 * MIB, etag))
    route = Route(store(VERIFIES), target or store(TRAILS), "", 0)
    return LargeObject(task, route, copier())


def begun(source_sum: SourceSum | None = None) -> BegunUpload:
    return BegunUpload(
        upload_id="u",
        part_size=16 * MIB,
        begun_at=datetime(2026, 1, 1, tzinfo=UTC),
        whole_checked=False,
        last_modified=None,
        source_sum=source_sum,
    )


def takes(
    dialect: Dialect = TRAILS,
    *,
    etag: str = '"abc-7"',
    part: ByteRange = PART,
    told: SourceSum | None = None,
    streams: Streams | None = None,
) -> bool:
    made = part_streams(large(store(dialect), etag), streams or Streams(15.0))
    assert isinstance(made, PartStreams)
    return made.takes(begun(told), 1, part)


def test_a_part_passes_where_its_checksum_may_trail() -> None:
    assert takes()
    assert not takes(replace(TRAILS, trailing_checksum=False))


def test_a_part_passes_bare_where_no_checksum_is_verified() -> None:
    assert takes(replace(TRAILS, trailing_checksum=False, checksum=None))


def test_a_store_that_wants_md5s_gets_them() -> None:
    assert not takes(replace(TRAILS, wants_md5=True))


def test_without_an_etag_a_read_that_broke_cannot_be_resumed() -> None:
    assert not takes(etag="")


def test_small_parts_are_read_first() -> None:
    assert takes(part=ByteRange(5, 5 + MIN_BYTES))
    assert not takes(part=ByteRange(5, 4 + MIN_BYTES))


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        (Algorithm.CRC32, True),
        (Algorithm.CRC64NVME, True),
        (Algorithm.MD5, True),
        (Algorithm.SHA256, False),
        (Algorithm.SHA1, False),
    ],
)
def test_what_the_source_tells_must_be_quick_to_compute_or_come_from_the_target(
    algorithm: Algorithm, *, expected: bool
) -> None:
    assert takes(told=SourceSum(algorithm, "AAAA-7", 16 * MIB)) is expected


def test_after_three_failures_no_more_parts_pass() -> None:
    streams = Streams(15.0)
    for _ in range(2):
        streams.part_failed()
    streams.part_passed()
    streams.part_failed()
    assert takes(streams=streams)
    streams.part_failed()
    assert not takes(streams=streams)


def test_both_stores_must_be_able_to() -> None:
    assert part_streams(large(MemoryStore()), Streams(15.0)) is None
    assert part_streams(large(), None) is None
