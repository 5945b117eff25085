"""Which objects are passed on while they come in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from slurper.http.client import TransportOptions
from slurper.job.model import JobOptions
from slurper.objectstore import dialects
from slurper.objectstore.base import ObjectMeta, StoreAddress
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.dialects import Dialect
from slurper.objectstore.factory import open_store
from slurper.planning import selection
from slurper.secrets import S3Credentials
from slurper.settings import MIB, Settings
from slurper.transfer.copy import Copier, CopyMeans
from slurper.transfer.etags import SourceEtags
from slurper.transfer.pacing import ByteBudget, Pacer
from slurper.transfer.route import Route
from slurper.transfer.streaming import FIRST_RATE, MIN_BYTES, Streams
from slurper.transfer.task import Share
from tests.memory.store import MemoryStore

SETTINGS = Settings()
THRESHOLD = SETTINGS.multipart_threshold_bytes
VERIFIES = replace(dialects.GENERIC, verifies_md5=True)
MD5 = '"' + "0f" * 16 + '"'


def store(dialect: Dialect) -> Any:  # noqa: ANN401 - an S3 store
    credentials = S3Credentials(access_key_id="a", secret_access_key="s")
    address = StoreAddress(
        origin="http://127.0.0.1:1",
        bucket="b",
        region="us-east-1",
        dialect=dialect,
        credentials=credentials,
        trusted=True,
    )
    return open_store(address, TransportOptions())


def meta(size: int, etag: str = MD5) -> ObjectMeta:
    return ObjectMeta("k", size, etag, None, "")


def copier(
    *,
    source: Any = None,  # noqa: ANN401
    target: Any = None,  # noqa: ANN401
    streams: Streams | None = None,
    pacer: Pacer | None = None,
    options: JobOptions | None = None,
    etags_are_md5s: bool | None = None,
    overwrite: bool = True,
) -> Copier:
    route = Route(source or store(VERIFIES), target or store(VERIFIES), "", 0)
    etags = SourceEtags(route.source.dialect)
    etags.are_md5s = etags_are_md5s
    rules = selection.Rules(
        source=route.source.dialect,
        target=route.target.dialect,
        overwrite=overwrite,
        options=options or JobOptions(),
    )
    budget = ByteBudget(SETTINGS.in_flight_bytes)
    streams = streams or Streams(15.0)
    return Copier(route, rules, CopyMeans(SETTINGS, budget, etags, streams=streams), pacer)


def streams(made: Copier, one: ObjectMeta) -> bool:
    return made._stream is not None and made._stream.takes(one)


@pytest.mark.parametrize(
    ("size", "etag", "expected"),
    [
        (MIN_BYTES - 1, MD5, False),
        (MIN_BYTES, MD5, True),
        (THRESHOLD + 1, MD5, True),
        (int(FIRST_RATE * 15), MD5, True),
        (int(FIRST_RATE * 15) + 1, MD5, False),
        (MIN_BYTES, "", False),
        (MIN_BYTES, '"0f-3"', True),
    ],
)
def test_size_and_etag_decide(size: int, etag: str, expected: bool) -> None:
    made = copier()
    assert streams(made, meta(size, etag)) is expected
    assert made.is_large(meta(size, etag)) is (size > THRESHOLD and not expected)


def test_a_target_must_verify_a_checksum_that_can_be_known() -> None:
    plain = replace(dialects.GENERIC, checksum=None)
    assert not streams(copier(target=store(plain)), meta(MIN_BYTES))
    only_md5 = replace(dialects.GENERIC, checksum=Algorithm.MD5, verifies_md5=True)
    assert streams(copier(target=store(only_md5)), meta(MIN_BYTES))
    assert not streams(copier(target=store(only_md5), etags_are_md5s=False), meta(MIN_BYTES))


def test_a_store_of_unknown_make_may_take_a_crc_and_not_compare_it() -> None:
    unknown_make = replace(dialects.GENERIC, checksum=Algorithm.CRC32C, verifies_md5=False)
    assert not streams(copier(target=store(unknown_make)), meta(MIN_BYTES))
    known_make = replace(unknown_make, assumed=False)
    assert streams(copier(target=store(known_make)), meta(MIN_BYTES))


def test_without_a_condition_on_the_write_nothing_is_streamed_beside_others_objects() -> None:
    made = copier(target=store(replace(VERIFIES, conditional_put=False)), overwrite=False)
    assert not streams(made, meta(MIN_BYTES))
    assert streams(copier(overwrite=False), meta(MIN_BYTES))


def test_both_stores_must_be_able_to() -> None:
    assert not streams(copier(source=MemoryStore()), meta(MIN_BYTES))
    assert not streams(copier(target=MemoryStore()), meta(MIN_BYTES))


def test_what_looks_at_the_content_reads_it_first() -> None:
    made = copier(options=JobOptions(validate_media=True))
    assert not streams(made, meta(MIN_BYTES))


def test_a_job_with_limits_streams_no_more_than_it_reads_as_a_whole() -> None:
    made = copier(pacer=Pacer(Share(bytes_per_second=1e6)))
    assert streams(made, meta(THRESHOLD))
    assert not streams(made, meta(THRESHOLD + 1))


def test_a_target_takes_no_more_than_its_largest_put() -> None:
    small = replace(VERIFIES, max_put_bytes=5 * MIB)
    made = copier(target=store(small))
    assert streams(made, meta(5 * MIB))
    assert not streams(made, meta(5 * MIB + 1))


def test_objects_without_a_known_checksum_are_tried_a_few_times() -> None:
    known = Streams(15.0)
    made, unknown = copier(streams=known), meta(MIN_BYTES, '"0f-3"')
    for _ in range(3):
        assert streams(made, unknown)
        known.declined(unknown)
    assert not streams(made, unknown)
    assert streams(made, meta(MIN_BYTES)), "its listing shows an MD5"
    for _ in range(3):
        assert streams(made, meta(MIN_BYTES))
        known.declined(meta(MIN_BYTES))
    assert not streams(made, meta(MIN_BYTES))


def test_the_rate_decides_how_large_an_object_may_be() -> None:
    known = Streams(10.0)
    for _ in range(50):
        known.arrived(meta(200 * MIB), 1.0)
    assert known.max_bytes == pytest.approx(2000 * MIB, rel=0.01)
    for _ in range(50):
        known.arrived(meta(MIB), 1.0)
    assert known.max_bytes == pytest.approx(10 * MIB, rel=0.01)
    assert streams(copier(streams=known), meta(THRESHOLD)), "it would be read as a whole"
    assert not streams(copier(streams=known), meta(THRESHOLD + 1))
