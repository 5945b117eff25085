"""One byte flipped on its way from the source, under every kind of checksum that one can tell."""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from slurper.demo.servers import S3Server
from slurper.job.model import LogType
from slurper.objectstore import checksums
from slurper.objectstore.checksums import COMBINABLE, Algorithm
from tests.chaos import faults
from tests.chaos.cases import EVERYTHING, HEAD, PARTS, PLAIN
from tests.chaos.conftest import LARGE, SMALL, NewBucket
from tests.chaos.proxy import HOST
from tests.chaos.stage import LEAST_PART, PART, Run, Stage, stage
from tests.chaos.wire import Exchange
from tests.pairs.referee import S3Bucket

KEY = "k-07"
"""An object whose source tells no checksum but its ETag."""
NO_MD5 = "x-amz-server-side-encryption: aws:kms"
"""Its ETag is none either."""
AT = 40_000
"""The byte that is flipped."""

ETAG = "the ETag of a single PUT"


def told(algorithm: Algorithm, body: bytes) -> str:
    """The header in which a store tells a checksum of a whole object."""
    return f"x-amz-checksum-{algorithm}: {checksums.encode(algorithm, [body])}"


def lines_of(kind: str, body: bytes) -> tuple[str, ...]:
    """The headers by which a source tells this kind of checksum and no other."""
    return () if kind == ETAG else (told(Algorithm(kind), body), NO_MD5)


WHOLE = [*Algorithm, ETAG]


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("kind", WHOLE)
async def test_a_byte_flipped_once_is_healed(staged: Stage, kind: str, *, overwrite: bool) -> None:
    proxy, lines = staged.source_proxy, lines_of(kind, staged.source.get(KEY).body)
    flip = proxy.add(faults.corrupted(AT, *lines), PLAIN, times=1)
    proxy.add(faults.with_headers(*lines), PLAIN)
    run = await staged.run(overwrite=overwrite)
    staged.check(run)
    assert (flip.hits, run.counts.transferred, run.events) == (1, EVERYTHING, [])
    assert sum(report.attempts for report in run.reports) == 1


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("kind", WHOLE)
async def test_a_byte_flipped_each_time_fails_its_object_and_no_other(
    staged: Stage, kind: str, *, overwrite: bool
) -> None:
    body = staged.source.get(KEY).body
    staged.source_proxy.add(faults.corrupted(AT, *lines_of(kind, body)), PLAIN)
    run = await staged.run(overwrite=overwrite)
    staged.check(run)
    algorithm = Algorithm.MD5 if kind == ETAG else Algorithm(kind)
    value = checksums.encode(algorithm, [body])
    assert_failed(run, KEY, rf"the bytes read have .*(MD5|{algorithm}) .*, the source .*")
    assert value in run.events[0].message
    assert "damaged at its source or on the way" in run.events[0].message
    assert KEY not in staged.target.read_all()


def assert_failed(run: Run, key: str, says: str) -> None:
    """This object has failed, and all others are there."""
    assert [(event.key, event.log_type) for event in run.events] == [
        (key, LogType.IMPORT_ERROR_RETRY_EXHAUSTION)
    ]
    assert re.search(says, run.events[0].message), run.events[0].message
    assert (run.counts.transferred, run.counts.failed) == (EVERYTHING - 1, 1)


# Objects copied in parts


SOURCE_PARTS = [PART + PART // 4, PART, 2 * PART, 2 * PART + 70_000]
"""Ours are of PART: those of the source begin elsewhere, or not."""


@dataclass(frozen=True, slots=True)
class Sum:
    """A checksum of a large object, told by HEAD."""

    algorithm: Algorithm
    part_bytes: int | None
    """The source has made it of those of parts of so many bytes; None: of the whole."""

    def lines(self, body: bytes) -> tuple[str, ...]:
        """The headers that tell it."""
        if self.part_bytes is None:
            return (told(self.algorithm, body), "x-amz-checksum-type: FULL_OBJECT")
        pieces = [
            body[start : start + self.part_bytes] for start in range(0, len(body), self.part_bytes)
        ]
        joined = b"".join(
            base64.b64decode(checksums.encode(self.algorithm, [piece])) for piece in pieces
        )
        value = f"{checksums.encode(self.algorithm, [joined])}-{len(pieces)}"
        return (f"x-amz-checksum-{self.algorithm}: {value}", "x-amz-checksum-type: COMPOSITE")


SUMS = [Sum(algorithm, size) for algorithm in sorted(COMBINABLE) for size in (None, *SOURCE_PARTS)]
names = [f"{each.algorithm} of {each.part_bytes or 'the whole'}" for each in SUMS]
by_sum = pytest.mark.parametrize("each", SUMS, ids=names)


def tell(staged: Stage, each: Sum) -> str:
    """Let the source tell a checksum of its large object; return what it says."""
    proxy, body = staged.source_proxy, staged.source.get(LARGE).body
    lines = each.lines(body)
    if each.part_bytes is not None:
        count = -(-len(body) // each.part_bytes)
        describe_part(staged, LARGE, min(each.part_bytes, len(body)), count)
    proxy.add(faults.with_headers(*lines), HEAD)
    return lines[0].partition(": ")[2]


def describe_part(staged: Stage, key: str, size: int, count: int) -> None:
    """Let the source say of what parts an object is; ministack tells it to GET alone."""
    head = f'HTTP/1.1 206 Partial Content\r\nETag: "e"\r\nx-amz-mp-parts-count: {count}'

    async def fault(exchange: Exchange) -> bool:
        await exchange.write(f"{head}\r\nContent-Length: {size}\r\n\r\n".encode())
        return True

    staged.source_proxy.add(fault, rf"^HEAD /[^?]*/{key}\?partNumber=1 ")


@by_sum
async def test_parts_that_are_right_are_found_to_be(staged: Stage, each: Sum) -> None:
    tell(staged, each)
    run = await staged.run()
    staged.check(run)
    assert (run.counts.transferred, run.events) == (EVERYTHING, [])
    assert sum(report.attempts for report in run.reports) == 0


@by_sum
async def test_a_byte_of_a_part_flipped_once_is_healed(staged: Stage, each: Sum) -> None:
    tell(staged, each)
    flip = staged.source_proxy.add(faults.corrupted(PART // 2), PARTS, times=1)
    run = await staged.run()
    staged.check(run)
    assert (flip.hits, run.counts.transferred, run.events) == (1, EVERYTHING, [])
    assert sum(report.attempts for report in run.reports) == 1


@by_sum
async def test_a_byte_of_a_part_flipped_each_time_fails_its_object(
    staged: Stage, each: Sum
) -> None:
    value = tell(staged, each)
    staged.source_proxy.add(faults.corrupted(PART // 2), PARTS)
    run = await staged.run()
    staged.check(run)
    assert_failed(run, LARGE, r"the parts read make an object with x-amz-checksum-.*\(after 2 at")
    assert value in run.events[0].message
    assert LARGE not in staged.target.read_all()


# Objects that their source has in parts; it tells nothing about them but what it made of those

FILM = "film"
READ_FILM = f"^GET /[^?]*/{FILM} "


def upload(bucket: S3Bucket, key: str, sizes: Sequence[int], **more: Any) -> None:  # noqa: ANN401
    """Upload an object in parts; `more` is for boto3, at the beginning and with each part."""
    at: dict[str, Any] = {"Bucket": bucket.name, "Key": key}
    begun = bucket.client.create_multipart_upload(**at, ContentType="video/x", **more)
    at["UploadId"] = begun["UploadId"]
    chance = random.Random(key)  # noqa: S311 - repeatable bytes
    parts: list[Any] = []
    for number, size in enumerate(sizes, 1):
        part = bucket.client.upload_part(
            **at, PartNumber=number, Body=chance.randbytes(size), **more
        )
        sums = {name: value for name, value in part.items() if name.startswith("Checksum")}
        parts.append({"PartNumber": number, "ETag": part["ETag"], **sums})
    bucket.client.complete_multipart_upload(**at, MultipartUpload={"Parts": parts})


@pytest.fixture(params=["crc32c", "sha256", "md5"])
def films(
    request: pytest.FixtureRequest, ministack: S3Server, new_bucket: NewBucket
) -> Iterator[Stage]:
    """Two objects that the real server has put together of parts, with what it says of them."""
    bucket = new_bucket(ministack)
    more = {} if request.param == "md5" else {"ChecksumAlgorithm": request.param.upper()}
    sizes = {FILM: (PART, PART, 70_000), "other": (PART, 1)}
    for key in sizes:
        upload(bucket, key, sizes[key], **more)
    with stage(ministack, bucket, ministack, new_bucket(ministack)) as staged:
        for key in sizes:
            describe_part(staged, key, PART, len(sizes[key]))
        if request.param == "sha256":  # for which an ETag would do
            staged.source_proxy.add(faults.with_headers(NO_MD5), "^HEAD ")
        yield staged


async def test_what_a_server_tells_of_its_own_parts_is_right(films: Stage) -> None:
    run = await films.run()
    films.check(run)
    assert (run.counts.transferred, run.events) == (2, [])
    assert sum(report.attempts for report in run.reports) == 0
    assert films.source_proxy.count("^HEAD .*partNumber=1 ") == 2


async def test_a_byte_of_them_flipped_once_is_healed(films: Stage) -> None:
    flip = films.source_proxy.add(faults.corrupted(PART // 2), READ_FILM, times=1)
    run = await films.run()
    films.check(run)
    assert (flip.hits, run.counts.transferred, run.events) == (1, 2, [])
    assert sum(report.attempts for report in run.reports) == 1


async def test_a_byte_of_them_flipped_each_time_fails_the_object(films: Stage) -> None:
    films.source_proxy.add(faults.corrupted(PART // 2), READ_FILM)
    run = await films.run()
    films.check(run)
    assert [event.key for event in run.events] == [FILM]
    assert "the parts read make an object with x-amz-checksum-" in run.events[0].message
    assert run.counts.transferred == 1
    assert FILM not in films.target.read_all()


async def test_etags_of_parts_that_are_no_md5s_are_found_out(films: Stage) -> None:
    films.source_proxy.add(faults.other_etags(), "^(HEAD|GET) (?!.*partNumber)", first=True)
    run = await films.run()
    films.check(run)
    assert (run.counts.transferred, run.events) == (2, [])


async def test_a_target_whose_etags_are_no_md5s_tells_nothing_of_parts(films: Stage) -> None:
    films.target_proxy.add(faults.other_etags_of_parts, r"^PUT .*partNumber=|^POST .*\?uploadId=")
    run = await films.run()
    films.check(run)
    assert (run.counts.transferred, run.events) == (2, [])


# The same of objects that are small enough to be copied as a whole


@pytest.fixture(params=["crc32c", "sha256", "md5"])
def shorts(
    request: pytest.FixtureRequest, ministack: S3Server, new_bucket: NewBucket
) -> Iterator[Stage]:
    """As above; the parts are smaller than others would allow."""
    bucket = new_bucket(ministack)
    more = {} if request.param == "md5" else {"ChecksumAlgorithm": request.param.upper()}
    sizes = {FILM: (900_000, 900_000, 70_000), "other": (900_000, 1), "one": (10_000,)}
    for key in sizes:
        upload(bucket, key, sizes[key], **more)
    with stage(ministack, bucket, ministack, new_bucket(ministack)) as staged:
        for key in sizes:
            describe_part(staged, key, 900_000, len(sizes[key]))
        yield staged


async def test_what_is_made_of_parts_is_compared_of_the_whole_too(shorts: Stage) -> None:
    run = await shorts.run()
    shorts.check(run)
    assert (run.counts.transferred, run.events) == (3, [])
    assert shorts.source_proxy.count("^HEAD .*partNumber=1 ") == 2, "one part is the whole"
    assert shorts.source_proxy.count("^GET /[^?]*/[a-z]+ ") == 3


@pytest.mark.parametrize("key", [FILM, "one"])
async def test_then_too_a_byte_flipped_once_is_healed(shorts: Stage, key: str) -> None:
    flip = shorts.source_proxy.add(faults.corrupted(9_000), f"^GET /[^?]*/{key} ", times=1)
    run = await shorts.run()
    shorts.check(run)
    assert (flip.hits, run.counts.transferred, run.events) == (1, 3, [])
    assert sum(report.attempts for report in run.reports) == 1


@pytest.mark.parametrize("key", [FILM, "one"])
async def test_then_too_a_byte_flipped_each_time_fails_the_object(shorts: Stage, key: str) -> None:
    shorts.source_proxy.add(faults.corrupted(9_000), f"^GET /[^?]*/{key} ")
    run = await shorts.run()
    shorts.check(run)
    assert [event.key for event in run.events] == [key]
    assert "the bytes read have x-amz-checksum-" in run.events[0].message
    assert key not in shorts.target.read_all()


async def test_then_too_etags_that_are_no_md5s_are_found_out(shorts: Stage) -> None:
    shorts.source_proxy.add(faults.other_etags(), "^(HEAD|GET) (?!.*partNumber)")
    run = await shorts.run()
    shorts.check(run)
    assert (run.counts.transferred, run.events) == (3, [])


async def test_parts_of_different_sizes_are_not_compared(
    ministack: S3Server, new_bucket: NewBucket
) -> None:
    bucket = new_bucket(ministack)
    upload(bucket, FILM, (PART + PART // 4, PART, PART + 70_000))
    with stage(ministack, bucket, ministack, new_bucket(ministack)) as staged:
        run = await staged.run()
        staged.check(run)
        assert (run.counts.transferred, run.events) == (1, [])


# ETags and checksums that are not what they seem


async def test_a_source_whose_etags_are_no_md5s_is_found_out_once(staged: Stage) -> None:
    staged.source_proxy.add(faults.other_etags())
    staged.settings = staged.settings.model_copy(update={"in_flight_requests": 1})
    run = await staged.run()
    staged.check(run)
    assert (run.counts.transferred, run.events) == (EVERYTHING, [])
    # The first object's body is read twice, and three others are looked at.
    first = next(key for key in sorted(staged.source.read_keys()) if key != "k-00")
    assert staged.source_proxy.count(f"^GET /[^?]*/{first} ") <= 3
    assert staged.source_proxy.count("^GET /[^?]*/k-") <= SMALL + 5
    assert staged.target_proxy.count("^PUT /[^?]*/k-") <= SMALL + 1


async def test_the_same_with_many_at_a_time(staged: Stage) -> None:
    staged.source_proxy.add(faults.other_etags())
    run = await staged.run(overwrite=False)
    staged.check(run)
    assert (run.counts.transferred, run.events) == (EVERYTHING, [])


@pytest.mark.parametrize(
    "line", [NO_MD5, "x-amz-server-side-encryption-customer-algorithm: AES256"]
)
async def test_etags_of_encrypted_objects_are_not_taken_for_md5s(staged: Stage, line: str) -> None:
    staged.source_proxy.add(faults.other_etags(line), PLAIN)
    staged.source_proxy.add(faults.other_etags())
    run = await staged.run(keys=[KEY])
    assert (run.counts.transferred, run.events) == (1, [])
    assert staged.source_proxy.count(PLAIN) == 1
    assert staged.target.get(KEY).body == staged.source.get(KEY).body


@pytest.mark.parametrize("kind", Algorithm)
async def test_a_declared_checksum_that_alone_disagrees_is_wrong(
    staged: Stage, kind: Algorithm
) -> None:
    staged.source_proxy.add(faults.with_headers(told(kind, b"another body")), PLAIN)
    run = await staged.run()
    if kind is Algorithm.MD5:  # it says of itself what the ETag would have to
        assert_failed(run, KEY, "the bytes read have MD5 .*, and the same bytes came twice")
        return
    staged.check(run)
    assert (run.counts.transferred, run.events) == (EVERYTHING, [])


async def test_where_nothing_else_vouches_for_the_bytes_both_values_are_told(
    staged: Stage,
) -> None:
    wrong = told(Algorithm.CRC64NVME, b"another body")
    staged.source_proxy.add(faults.with_headers(wrong, NO_MD5), PLAIN)
    run = await staged.run()
    staged.check(run)
    assert_failed(run, KEY, "x-amz-checksum-crc64nvme .*, the source announces .*; .*onto itself")


# On the way to the target, with what the source says


@pytest.mark.parametrize("times", [1, None])
async def test_a_byte_flipped_on_the_way_to_the_target_is_not_the_sources_fault(
    staged: Stage, times: int | None
) -> None:
    rule = staged.target_proxy.add(
        faults.corrupted_request(AT), rf"^PUT /[^?]*/{KEY} ", times=times
    )
    run = await staged.run()
    staged.check(run)
    assert rule.hits >= 1
    if times is None:
        assert_failed(run, KEY, r"PutObject: the store refused the bytes: .*\(after 2 attempts\)")
        assert KEY not in staged.target.read_all()
    else:
        assert (run.counts.transferred, run.events) == (EVERYTHING, [])
    assert staged.source_proxy.count(PLAIN) == 2


# Other targets than ministack


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Server]:
    server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield S3Server(endpoint=f"http://{host}:{port}", access_key_id="a", secret_access_key="s")
    server.stop()


@pytest.fixture
def to_moto(
    ministack: S3Server, moto: S3Server, long_filled: S3Bucket, new_bucket: NewBucket
) -> Iterator[Stage]:
    """From the filled bucket to an empty one at moto, which compares no checksum at all."""
    with stage(ministack, long_filled, moto, new_bucket(moto), part=LEAST_PART) as staged:
        yield staged


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("target", ["moto", "seaweedfs"])
async def test_targets_that_compare_no_md5_say_what_they_have_written(
    request: pytest.FixtureRequest, target: str, *, overwrite: bool
) -> None:
    staged: Stage = request.getfixturevalue(f"to_{target}")
    flip = staged.source_proxy.add(faults.corrupted(AT), PLAIN, times=1)
    run = await staged.run(overwrite=overwrite)
    staged.check(run)
    assert (flip.hits, run.counts.transferred, run.events) == (1, EVERYTHING, [])
    staged.source_proxy.add(faults.corrupted(AT), PLAIN)
    staged.target.delete(KEY)
    run = await staged.run(overwrite=overwrite, keys=[KEY, "k-08"])
    failed = [event.key for event in run.events]
    assert (failed, run.counts.failed) == ([KEY], 1)
