"""Targets that lose headers, and a first object that cannot be read: what the program says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from slurper.demo.servers import S3Server
from tests.chaos import faults, proxy
from tests.e2e import program

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Boto = Callable[[S3Server], "S3Client"]
MakeBucket = Callable[[S3Server], str]

LOST = ("content-encoding", "content-language", "expires")


@pytest.fixture
def lossy(ministack: S3Server) -> Iterator[S3Server]:
    """Loses some headers, as MinIO's gateway does: it never shows them again."""
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        front.add(faults.with_headers(without=LOST), "^(GET|HEAD) [^?]+ ")
        yield replace(ministack, endpoint=front.endpoint)


@pytest.fixture(scope="module")
def source(ministack: S3Server, make_bucket: MakeBucket, boto: Boto) -> str:
    """A bucket that no test changes."""
    bucket = make_bucket(ministack)
    put = boto(ministack).put_object
    put(Bucket=bucket, Key="plain", Body=b"1", ContentType="a/b", Metadata={"m": "1"})
    put(Bucket=bucket, Key="zipped", Body=b"2", ContentEncoding="gzip")
    put(Bucket=bucket, Key="large", Body=b"3" * (6 << 20), ContentLanguage="de")
    return bucket


def _environment(source: S3Server, target: S3Server, data: Path) -> dict[str, str]:
    env = program.both_sides(source, target, data)
    in_parts = {"SLURPER_MULTIPART_THRESHOLD_BYTES": str(5 << 20), "SLURPER_STREAM_SECONDS": "0"}
    return env | in_parts


def test_headers_that_the_target_loses_are_told_before_and_after_the_copy(
    ministack: S3Server, lossy: S3Server, source: str, make_bucket: MakeBucket, tmp_path: Path
) -> None:
    env = _environment(ministack, lossy, tmp_path)
    ended = program.run("copy", f"s3://{source}", f"s3://{make_bucket(ministack)}", env=env)
    assert ended.code == 0, ended.err
    assert "note: target: the target does not keep content-encoding, content-language" in ended.err
    assert "the target does not keep content-encoding, content-language, expires: no" in ended.out


@pytest.mark.parametrize(
    ("require", "failed"),
    [
        (("content-type", "metadata"), set()),
        (("Content-Encoding",), {"zipped"}),
        (("headers",), {"zipped", "large"}),
    ],
)
@pytest.mark.parametrize("more", [(), ("--no-overwrite",)], ids=str)
def test_objects_that_would_lose_a_required_header_fail_and_no_other(
    ministack: S3Server,
    lossy: S3Server,
    source: str,
    make_bucket: MakeBucket,
    boto: Boto,
    tmp_path: Path,
    require: tuple[str, ...],
    failed: set[str],
    more: tuple[str, ...],
) -> None:
    target = make_bucket(ministack)
    wanted = [argument for name in require for argument in ("--require", name)]
    command = ("copy", f"s3://{source}", f"s3://{target}", "--json", *wanted, *more)
    ended = program.run(*command, env=_environment(ministack, lossy, tmp_path))
    told = ended.json
    assert {failure["key"] for failure in told["failures"]} == failed
    assert (told["transferred"], told["failed"]) == (3 - len(failed), len(failed))
    for failure in told["failures"]:
        assert "which options.require asks for" in failure["message"]
        assert "leave the header out of options.require (--require)" in failure["message"]
    assert told["capabilities"]["target"]["unkept_headers"] == list(LOST)
    listed = boto(ministack).list_objects_v2(Bucket=target).get("Contents", ())
    assert {item["Key"] for item in listed} == {"plain", "zipped", "large"} - failed
    assert "Uploads" not in boto(ministack).list_multipart_uploads(Bucket=target)


def test_what_can_be_required_is_said(ministack: S3Server, tmp_path: Path) -> None:
    env = _environment(ministack, ministack, tmp_path)
    ended = program.run("copy", "s3://one-bucket", "s3://other-one", "--require", "etag", env=env)
    assert ended.code == 2
    assert "--require 'etag': must be one of cache-control" in ended.err


UNREADABLE = {
    "sse-c": faults.status(400, "InvalidRequest"),
    "kms": faults.status(403, "AccessDenied"),
    "signature": faults.status(403, "SignatureDoesNotMatch"),
    **faults.ELSEWHERE,
    "405": faults.status(405, "MethodNotAllowed"),
    "451": faults.status(451, "UnavailableForLegalReasons"),
    "500": faults.status(500, "InternalError"),
    "a header that no parser takes": faults.answer('200 OK\r\nETag: "e"\r\nx-amz-meta-\x00: 1'),
}


@pytest.mark.parametrize("keys", ["", "large\nplain\nzipped"], ids=["listed", "named"])
@pytest.mark.parametrize("name", UNREADABLE)
def test_a_first_object_that_cannot_be_read_refuses_no_job(
    ministack: S3Server,
    source: str,
    make_bucket: MakeBucket,
    tmp_path: Path,
    name: str,
    keys: str,
) -> None:
    """Whether it fails alone in the copy is not asked here: that the job begins is."""
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        front.add(UNREADABLE[name], "^GET [^?]*/large ", times=2)
        behind = replace(ministack, endpoint=front.endpoint)
        named = ("--keys-from", "-") if keys else ()
        command = ("copy", f"s3://{source}", f"s3://{make_bucket(ministack)}", "--json", *named)
        env = _environment(behind, ministack, tmp_path)
        ended = program.run(*command, env=env, stdin=keys)
    assert "note: source: 'large' could not be read" in ended.err, ended.err
    assert ended.json["transferred"] >= 2
