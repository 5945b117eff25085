"""Copies to R2, from it, and within it, by the real program; R2 is what its stub knows of it."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from slurper.demo import compare
from slurper.demo.servers import S3Server
from slurper.jobs.assignment import CLOCK_ALLOWANCE
from slurper.jobs.probes import RESERVED_PREFIX
from tests.chaos import proxy
from tests.chaos.faults import lost_answer
from tests.e2e import program
from tests.r2 import server as r2
from tests.r2.bucket import Bucket as R2Bucket
from tests.r2.bucket import PartOf

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Boto = Callable[[S3Server], "S3Client"]
MakeBucket = Callable[[S3Server], str]

MIB = 1 << 20
KEYS = (
    "a//b",
    "/lead",
    "dir/",
    "dir",
    "a/../b",
    "x y+%25&=?#",
    "nfc-\u00fc",
    "emoji-😀",
    "control-\u0001",
    "new\nline",
    "k" * 1024,
)
LARGE = {"large/11-mib": 11 * MIB, "large/20-mib": 20 * MIB, "large/just-parts": 10 * MIB}
IN_PARTS = {
    "SLURPER_MULTIPART_THRESHOLD_BYTES": str(6 * MIB),
    "SLURPER_PART_BYTES": str(5 * MIB),
    "SLURPER_WORKERS": "2",
}
HEADERS: dict[str, Any] = {
    "CacheControl": "max-age=60",
    "ContentDisposition": 'attachment; filename="a  b.txt"',
    "ContentEncoding": "gzip",
    "ContentLanguage": "de, en",
    "ContentType": "text/x-odd; charset=utf-8",
    "Metadata": {"plain": "a   b", "words": "=?UTF-8?B?Z3LDvG4g8J+YgA==?="},
}


@pytest.fixture(scope="session")
def other_account() -> Iterator[S3Server]:
    """R2 once more: another account's."""
    with r2.running() as stub:
        yield stub.address


@dataclass(frozen=True)
class Pair:
    """Two buckets, and how the program reaches them."""

    source: compare.Bucket
    target: compare.Bucket
    urls: tuple[str, str]
    env: dict[str, str]

    def copy(self, *arguments: str, **env: str) -> Any:  # noqa: ANN401 - as JSON is
        """Copy, and return what the program tells."""
        command = ("copy", *self.urls, "--json", *arguments)
        ended = program.run(*command, env={**self.env, **IN_PARTS, **env})
        assert ended.out, ended.err
        return ended.json


PAIRS = {
    "s3-to-r2": ("ministack", "r2_server"),
    "r2-to-r2": ("other_account", "r2_server"),
    "r2-to-s3": ("r2_server", "ministack"),
    "within-r2": ("r2_server", "r2_server"),
    "seaweedfs-to-r2": ("seaweedfs", "r2_server"),
}


@pytest.fixture
def pair(
    request: pytest.FixtureRequest, boto: Boto, make_bucket: MakeBucket, tmp_path: Path
) -> Pair:
    source, target = (request.getfixturevalue(name) for name in PAIRS[request.param])
    return make_pair(source, target, boto, make_bucket, tmp_path)


def make_pair(
    source: S3Server, target: S3Server, boto: Boto, make_bucket: MakeBucket, directory: Path
) -> Pair:
    buckets = [compare.Bucket(boto(side), make_bucket(side)) for side in (source, target)]
    schemes = ["r2" if side.region == "auto" else "s3" for side in (source, target)]
    source_url, target_url = (
        f"{scheme}://{bucket.name}" for scheme, bucket in zip(schemes, buckets, strict=True)
    )
    env = program.both_sides(source, target, directory / "data")
    for side, scheme in zip(("SOURCE", "TARGET"), schemes, strict=True):
        if scheme == "r2":
            del env[f"SLURPER_{side}_REGION"]  # R2 has none
    return Pair(buckets[0], buckets[1], (source_url, target_url), env)


def between(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("pair", names, indirect=True)


def put(bucket: compare.Bucket, key: str, body: bytes, **more: Any) -> None:  # noqa: ANN401
    bucket.client.put_object(Bucket=bucket.name, Key=key, Body=body, **more)


def let_the_clock_move_on() -> None:
    """What is at the target now is then older than the next job by more than the allowance."""
    time.sleep(CLOCK_ALLOWANCE.total_seconds() + 1.1)


def assert_equal(pair: Pair) -> None:
    found = list(compare.compare(pair.source, pair.target))
    assert found
    assert [one for one in found if one.difference] == []


@between("s3-to-r2", "r2-to-r2", "r2-to-s3", "within-r2")
def test_everything_arrives(pair: Pair) -> None:
    bodies = {key: key.encode() for key in KEYS}
    bodies |= {key: os.urandom(size) for key, size in LARGE.items()}
    bodies |= {f"many/{number:03}": b"x" * number for number in range(40)}
    for key, body in bodies.items():
        put(pair.source, key, body, **HEADERS)
    told = pair.copy()
    assert (told["status"], told["transferred"]) == ("completed", len(bodies)), told
    assert (told["failed"], told["skipped"]) == (0, 0)
    assert_equal(pair)
    let_the_clock_move_on()
    again = pair.copy("--no-overwrite")
    assert (again["transferred"], again["skipped"], again["failed"]) == (0, len(bodies), 0)
    uploads = pair.target.client.list_multipart_uploads(Bucket=pair.target.name)
    assert "Uploads" not in uploads


@between("seaweedfs-to-r2")
def test_folders_and_large_objects_arrive(pair: Pair) -> None:
    for key, size in LARGE.items():
        put(pair.source, key, os.urandom(size), ContentType="video/x", Metadata={"a": "b"})
    for number in range(20):
        put(pair.source, f"folder-{number % 3}/{number}", b"x" * number, ContentType="text/x")
    told = pair.copy()
    assert (told["status"], told["transferred"]) == ("completed", 23), told
    assert_equal(pair)


@between("s3-to-r2")
@pytest.mark.parametrize("overwrite", [True, False])
def test_no_two_keys_are_merged(pair: Pair, *, overwrite: bool) -> None:
    for key in ("caf\u00e9", "cafe\u0301", "alone-u\u0308", "plain"):
        put(pair.source, key, ascii(key).encode())
    how = () if overwrite else ("--no-overwrite",)
    told = pair.copy(*how)
    assert (told["transferred"], told["failed"], told["skipped"]) == (3, 1, 0)
    (failure,) = told["failures"]
    assert failure["key"] == "cafe\u0301"
    assert ascii("caf\u00e9") in failure["message"]
    client, bucket = pair.target.client, pair.target.name
    body = client.get_object(Bucket=bucket, Key="caf\u00e9")["Body"].read()
    assert body == ascii("caf\u00e9").encode()
    if not overwrite:
        let_the_clock_move_on()
        again = pair.copy(*how)
        assert (again["transferred"], again["failed"], again["skipped"]) == (0, 1, 3)


@between("s3-to-r2")
def test_what_r2_cannot_hold_fails_alone_and_says_why(pair: Pair) -> None:
    put(pair.source, "fits", b"1", Metadata={"m": "x" * 8191})
    put(pair.source, "too-much", b"2", Metadata={"m": "x" * 8192})
    put(pair.source, "large-too-much", bytes(7 * MIB), Metadata={"m": "x" * 8192})
    told = pair.copy()
    assert (told["transferred"], told["failed"]) == (1, 2)
    for failure in told["failures"]:
        assert "8193 bytes; r2 holds at most 8192" in failure["message"]
    assert_only(pair, {"fits"})


def assert_only(pair: Pair, keys: set[str]) -> None:
    page = pair.target.client.list_objects_v2(Bucket=pair.target.name)
    assert {item["Key"] for item in page.get("Contents", ())} == keys


@between("r2-to-r2")
def test_keys_come_from_r2_in_the_form_in_which_they_are_unique(pair: Pair) -> None:
    for key in ("u\u0308/1", "z", "e\u0301/2"):
        put(pair.source, key, b"1")
    told = pair.copy()
    assert (told["transferred"], told["failed"]) == (3, 0), told
    assert_only(pair, {"\u00fc/1", "z", "\u00e9/2"})


def test_an_upload_that_r2_has_dropped_is_begun_again(
    ministack: S3Server, boto: Boto, make_bucket: MakeBucket, tmp_path: Path
) -> None:
    with r2.running() as stub:
        pair = make_pair(ministack, stub.address, boto, make_bucket, tmp_path)
        body = os.urandom(12 * MIB)
        put(pair.source, "large", body, ContentType="video/x")
        bucket = stub.buckets[pair.target.name]
        expire_after_a_part(bucket)
        told = pair.copy()
        assert (told["transferred"], told["failed"]) == (1, 0), told
        assert_equal(pair)
        assert bucket.uploads("") == []


def expire_after_a_part(bucket: R2Bucket) -> None:
    """Let the first upload end, as after seven days, once it has a part."""
    put_part, dropped = bucket.put_part, list[str]()

    def put_and_drop(
        key: str, upload_id: str, number: int, headers: Mapping[str, str], body: bytes
    ) -> PartOf:
        part = put_part(key, upload_id, number, headers, body)
        if not key.startswith(RESERVED_PREFIX) and not dropped:
            dropped.append(upload_id)
            bucket.abort(key, upload_id)
        return part

    bucket.put_part = put_and_drop  # type: ignore[method-assign]


def test_an_answer_that_was_lost_makes_no_second_object_and_no_skip(
    r2_server: S3Server, boto: Boto, make_bucket: MakeBucket, ministack: S3Server, tmp_path: Path
) -> None:
    with proxy.FaultProxy(r2_server.endpoint).running() as front:
        target = replace(r2_server, endpoint=front.endpoint)
        pair = make_pair(ministack, target, boto, make_bucket, tmp_path)
        key = secrets.token_hex(4)
        put(pair.source, key, b"body")
        front.add(lost_answer, f"^PUT /[^ ]*{key}", times=1)
        told = pair.copy("--no-overwrite")
        assert (told["transferred"], told["skipped"], told["failed"]) == (1, 0, 0), told
        assert_equal(pair)
