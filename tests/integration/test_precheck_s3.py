"""Every cause that keeps a side from being used, brought about for real, and what is said of it."""

from __future__ import annotations

import asyncio
import json
import math
import re
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import boto3
import pytest
from moto.server import ThreadedMotoServer

from slurper.demo.servers import HOST, S3Server
from slurper.errors import PrecheckProblem
from slurper.http import client, resolver
from slurper.http.places import Owner
from slurper.job.model import Capabilities, Location, Vendor
from slurper.secrets import S3Credentials
from slurper.service import precheck
from slurper.service.precheck import Checked, Precheck, Side
from slurper.service.probes import clean_up
from slurper.service.probes.specimens import Specimens
from slurper.settings import Settings
from tests.chaos import proxy
from tests.chaos.faults import (
    Fault,
    answer,
    deaf,
    delayed,
    lost_answer,
    reset_before,
    status,
    unless,
    with_headers,
    with_request_line,
    without_request_headers,
)
from tests.chaos.wire import Exchange
from tests.servers.r2.server import R2Stub
from tests.servers.tls_forwarder import TlsForwarder, issue

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ACCOUNT = "c" * 32
Boto = Callable[[S3Server], "S3Client"]
MakeBucket = Callable[[S3Server], str]
SIDES = pytest.mark.parametrize("side", list(Side))


@pytest.fixture
def bucket(ministack: S3Server, make_bucket: MakeBucket, boto: Boto) -> str:
    name = make_bucket(ministack)
    boto(ministack).put_object(Bucket=name, Key="first", Body=b"12345")
    return name


async def check(
    side: Side, server: S3Server, bucket: str, **given: object
) -> Sequence[PrecheckProblem]:
    return (await checked(side, server, bucket, **given)).problems


async def checked(side: Side, server: S3Server, bucket: str, **given: object) -> Checked:
    settings = Settings.model_validate(
        {"allow_http": True, "allow_private_endpoints": True, "data_dir": Path("unused"), **given}
    )
    location = Location(
        vendor=Vendor.S3, bucket=bucket, endpoint=server.endpoint, region=server.region
    )
    pair = S3Credentials(
        access_key_id=server.access_key_id, secret_access_key=server.secret_access_key
    )
    checks = Precheck(settings)
    address = checks.resolve(side, Owner(ACCOUNT), location, pair)
    run = checks.source if side is Side.SOURCE else checks.target
    return await run(location, address)


def timeless(answer: Checked) -> Capabilities:
    return replace(answer.capabilities, clock_ahead_seconds=0)


async def refused(side: Side, server: S3Server, bucket: str, field: str, **given: object) -> str:
    (problem,) = await check(side, server, bucket, **given)
    assert problem.pointer == f"/{side}/{field}", problem.message
    return problem.message


def uploads_of(client: S3Client, bucket: str) -> int:
    return len(client.list_multipart_uploads(Bucket=bucket).get("Uploads", ()))


@pytest.fixture(autouse=True)
def _near(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine every server may seem far away, and is then asked in another order."""
    monkeypatch.setattr(client, "FAR_SECONDS", math.inf)


@SIDES
@pytest.mark.parametrize("name", ["ministack", "seaweedfs", "r2_server"])
async def test_nothing_is_found_where_nothing_is_wrong(
    request: pytest.FixtureRequest, side: Side, name: str, make_bucket: MakeBucket, boto: Boto
) -> None:
    server: S3Server = request.getfixturevalue(name)
    bucket = make_bucket(server)
    noted = 1 if side is Side.TARGET and name == "seaweedfs" else 0  # that it keeps folders
    assert len(await check(side, server, bucket)) == noted
    boto(server).put_object(Bucket=bucket, Key="empty", Body=b"")
    assert len(await check(side, server, bucket)) == noted
    boto(server).put_object(Bucket=bucket, Key="a", Body=b"12345")
    assert len(await check(side, server, bucket)) == noted
    assert uploads_of(boto(server), bucket) == 0
    keys = [item["Key"] for item in boto(server).list_objects_v2(Bucket=bucket)["Contents"]]
    assert keys == ["a", "empty"]


@SIDES
@pytest.mark.parametrize("name", ["ministack", "seaweedfs", "moto"])
async def test_of_a_store_that_is_far_away_the_same_is_found(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    side: Side,
    name: str,
    make_bucket: MakeBucket,
    boto: Boto,
) -> None:
    server: S3Server = request.getfixturevalue(name)
    bucket = make_bucket(server)
    boto(server).put_object(Bucket=bucket, Key="a", Body=b"12345")
    near = await checked(side, server, bucket)
    monkeypatch.setattr(client, "FAR_SECONDS", 0.0)
    with proxy.FaultProxy(server.endpoint).running() as front:
        front.add(delayed(0.02))
        far = await checked(side, replace(server, endpoint=front.endpoint), bucket)
        begun = front.count("^POST .*uploads")
    assert far.problems == near.problems
    assert timeless(far) == timeless(near)
    if side is Side.TARGET:
        assert begun >= 2, "both checksums are tried at once"
    assert uploads_of(boto(server), bucket) == 0
    keys = [item["Key"] for item in boto(server).list_objects_v2(Bucket=bucket)["Contents"]]
    assert keys == ["a"]


async def test_a_far_target_is_not_asked_longer_than_needed(
    ministack: S3Server, monkeypatch: pytest.MonkeyPatch, make_bucket: MakeBucket, boto: Boto
) -> None:
    bucket = make_bucket(ministack)
    near = await checked(Side.TARGET, ministack, bucket)
    monkeypatch.setattr(client, "FAR_SECONDS", 0.0)
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        # The upload for MD5 declares no checksum. Which of the two comes first is chance.
        begun = front.add(unless("x-amz-checksum-algorithm", None, deaf(30)), "^POST .*uploads=")
        far = await checked(Side.TARGET, replace(ministack, endpoint=front.endpoint), bucket)
        assert begun.hits == 2
    assert far.problems == near.problems
    assert timeless(far) == timeless(near)
    assert uploads_of(boto(ministack), bucket) == 0


@SIDES
async def test_a_wrong_secret(ministack: S3Server, bucket: str, side: Side) -> None:
    server = replace(ministack, secret_access_key="wrong")
    message = await refused(side, server, bucket, "secret")
    assert "SignatureDoesNotMatch" in message
    assert "check the access key id and secret" in message


@SIDES
async def test_an_unknown_key_id(ministack: S3Server, bucket: str, side: Side) -> None:
    message = await refused(side, replace(ministack, access_key_id="AKIAWRONG"), bucket, "secret")
    assert "InvalidAccessKeyId" in message


@SIDES
async def test_an_absent_bucket(ministack: S3Server, side: Side) -> None:
    message = await refused(side, ministack, "no-such-bucket-41c0", "bucket")
    assert "NoSuchBucket" in message
    assert "(listing it)" in message


@SIDES
async def test_another_region_than_r2_knows(
    r2_server: S3Server, make_bucket: MakeBucket, side: Side
) -> None:
    server = replace(r2_server, region="eu-west-1")
    message = await refused(side, server, make_bucket(r2_server), "region")
    assert "InvalidRegionName" in message


@SIDES
async def test_a_port_where_nobody_listens(ministack: S3Server, bucket: str, side: Side) -> None:
    with closing(socket.socket()) as taken:
        taken.bind((HOST, 0))  # bound and not listening: nobody else gets it
        endpoint = f"http://{HOST}:{taken.getsockname()[1]}"
        message = await refused(side, replace(ministack, endpoint=endpoint), bucket, "endpoint")
    assert "Connection refused" in message
    assert "check endpoint, network and proxy" in message


@SIDES
async def test_a_host_name_that_does_not_exist(
    ministack: S3Server, bucket: str, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(_host: str) -> Exception:
        return socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    # The name servers of the machine are not asked: their answer is not the test's to foresee.
    monkeypatch.setattr(resolver, "_look_up", nowhere)
    server = replace(ministack, endpoint="https://s3.mistyped.example")
    message = await refused(side, server, bucket, "endpoint")
    assert "host name not found" in message
    assert "check how it is spelt" in message


@SIDES
async def test_a_certificate_of_an_unknown_authority(seaweedfs_tls: S3Server, side: Side) -> None:
    message = await refused(side, seaweedfs_tls, "any-bucket", "endpoint")
    assert "certificate not accepted" in message
    assert "SLURPER_CA_FILE" in message


@pytest.fixture
def other_name(ministack: S3Server, tmp_path: Path) -> Iterator[S3Server]:
    """Ministack behind a certificate for another host, of an authority that is trusted."""
    files = issue(tmp_path, "other.example")
    with TlsForwarder(ministack.endpoint, files) as front:
        yield replace(ministack, endpoint=front.endpoint, ca_file=files.ca)


@SIDES
async def test_a_certificate_for_another_host(
    other_name: S3Server, bucket: str, side: Side
) -> None:
    message = await refused(side, other_name, bucket, "endpoint", ca_file=other_name.ca_file)
    assert "certificate not accepted" in message
    assert "correct the host name" in message


@SIDES
async def test_https_where_http_is_spoken(ministack: S3Server, bucket: str, side: Side) -> None:
    server = replace(ministack, endpoint=ministack.endpoint.replace("http:", "https:"))
    await refused(side, server, bucket, "endpoint")


@SIDES
async def test_a_clock_that_cannot_be_followed(side: Side) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b"<Error><Code>RequestTimeTooSkewed</Code></Error>"
        head = f"HTTP/1.1 403 Forbidden\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
        date = "date: Thu, 01 Jan 2015 00:00:00 GMT\r\n\r\n"  # of whatever stands before the store
        writer.write(head.encode() + date.encode() + body)
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(answer, HOST, 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        server = S3Server(
            endpoint=f"http://{HOST}:{port}", access_key_id="a", secret_access_key="s"
        )
        message = await refused(side, server, "bucket", "endpoint")
    assert "RequestTimeTooSkewed" in message
    assert "Date header" in message


@SIDES
async def test_a_peer_that_never_answers_ends_the_check(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precheck, "CHECK_SECONDS", 0.3)
    with closing(socket.socket()) as silent:
        silent.bind((HOST, 0))
        silent.listen()  # the kernel accepts; nobody reads
        server = S3Server(
            endpoint=f"http://{HOST}:{silent.getsockname()[1]}",
            access_key_id="a",
            secret_access_key="s",
        )
        message = await refused(side, server, "bucket", "endpoint")
    assert "no answer within 0.3 seconds (listing it)" in message


def user(server: S3Server, bucket: str, actions: Sequence[str]) -> S3Server:
    """A new user of ministack who may do these things in a bucket."""
    root = ("test", "test")  # ministack's own bootstrap pair
    iam = boto3.client(
        "iam",
        endpoint_url=server.endpoint,
        region_name=server.region,
        aws_access_key_id=root[0],
        aws_secret_access_key=root[1],
    )
    name = f"user-{secrets.token_hex(4)}"
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    allow = {"Effect": "Allow", "Action": list(actions), "Resource": resources}
    with closing(iam):
        iam.create_user(UserName=name)
        iam.put_user_policy(
            UserName=name,
            PolicyName="p",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allow]}),
        )
        pair = iam.create_access_key(UserName=name)["AccessKey"]
    return replace(
        server, access_key_id=pair["AccessKeyId"], secret_access_key=pair["SecretAccessKey"]
    )


READ_ONLY = ("s3:ListBucket", "s3:GetObject")
WRITE_ONLY = ("s3:PutObject", "s3:AbortMultipartUpload")


@pytest.mark.parametrize(
    ("side", "actions", "step"),
    [
        (Side.SOURCE, ("s3:ListBucket",), "reading a byte of 'first'"),
        (Side.SOURCE, ("s3:GetObject",), "listing it"),
        (Side.TARGET, READ_ONLY, "beginning an upload"),
        (Side.TARGET, WRITE_ONLY, "listing it"),
    ],
)
async def test_a_policy_that_lacks_something(
    ministack: S3Server, bucket: str, side: Side, actions: Sequence[str], step: str
) -> None:
    message = await refused(side, user(ministack, bucket, actions), bucket, "secret")
    assert f"({step})" in message
    assert "give these credentials permission to" in message


async def test_the_least_policy_is_enough(ministack: S3Server, bucket: str, boto: Boto) -> None:
    assert await check(Side.SOURCE, user(ministack, bucket, READ_ONLY), bucket) == ()
    writer = user(ministack, bucket, ("s3:ListBucket", *WRITE_ONLY))
    answer = await checked(Side.TARGET, writer, bucket)
    assert answer.capabilities.conditional_put is None
    (note,) = answer.problems
    assert not note.blocks
    assert "s3:GetBucketVersioning" in note.message
    assert everything_in(boto(ministack), bucket) == {"first"}


# Whether conditions on writes are obeyed


def everything_in(client: S3Client, bucket: str) -> set[str]:
    """Every key that has a version, a marker or an upload."""
    seen = client.list_object_versions(Bucket=bucket)
    uploads = client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())
    found = (*seen.get("Versions", ()), *seen.get("DeleteMarkers", ()), *uploads)
    return {item["Key"] for item in found}


IGNORES_CONDITIONS = without_request_headers("if-none-match")

OF_THE_CONDITION = "^PUT /[^/]*/[^/?]* "
"""Its PUTs: the others of a check go to keys with a slash."""


@pytest.mark.parametrize("name", ["ministack", "seaweedfs"])
async def test_a_store_that_obeys_conditions_is_found_to(
    request: pytest.FixtureRequest, name: str, make_bucket: MakeBucket, boto: Boto
) -> None:
    server: S3Server = request.getfixturevalue(name)
    bucket = make_bucket(server)
    found = (await checked(Side.TARGET, server, bucket)).capabilities
    assert found.list_version is None  # nothing is there to see it by
    keys = {"a/1", "b"}
    for key in keys:
        boto(server).put_object(Bucket=bucket, Key=key, Body=b"x")
    answer = await checked(Side.TARGET, server, bucket)
    found = answer.capabilities
    notes = [problem.message for problem in answer.problems if not problem.blocks]
    assert ["keys that hold '//'" in note for note in notes] == [True] * (name == "seaweedfs")
    assert (found.conditional_put, found.conditional_completion) == (True, True)
    assert (found.verifies_checksum, found.checksum) == (True, "crc32c")
    assert found.trailing_checksum
    assert found.key_order == ("folders" if name == "seaweedfs" else "bytes")
    assert found.list_version == 2
    assert abs(found.clock_ahead_seconds or 0) < 60
    assert everything_in(boto(server), bucket) == keys


@pytest.mark.parametrize(
    ("request_line", "put", "completion", "text"),
    [
        ("^PUT ", False, True, "knows no condition for writes"),
        ("^POST .*uploadId=", True, False, "knows no condition for the completion of uploads"),
        ("", False, False, "knows no condition for writes"),
    ],
)
async def test_a_store_that_ignores_them_is_found_out(
    ministack: S3Server,
    bucket: str,
    boto: Boto,
    request_line: str,
    put: bool,
    completion: bool,
    text: str,
) -> None:
    """Of an ordinary write, only when an upload is completed, or of both."""
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        front.add(IGNORES_CONDITIONS, request_line)
        answer = await checked(Side.TARGET, replace(ministack, endpoint=front.endpoint), bucket)
    found = answer.capabilities
    assert (found.conditional_put, found.conditional_completion) == (put, completion)
    (note,) = answer.problems
    assert text in note.message
    assert everything_in(boto(ministack), bucket) == {"first"}


async def as_ceph_16_does(exchange: Exchange) -> bool:
    """It completes an upload whatever the condition says, and names an empty ETag."""
    reply = await exchange.forward(request=exchange.request.without("if-none-match"))
    body = re.sub(b"<ETag>[^<]*</ETag>", b"<ETag></ETag>", await reply.whole_body())
    head = reply.head.without("content-length", "transfer-encoding")
    await exchange.write(head.with_header(f"Content-Length: {len(body)}").raw + body)
    return True


async def test_a_store_that_obeys_them_at_writes_only_and_names_no_etag_is_found_out(
    ministack: S3Server, bucket: str, boto: Boto
) -> None:
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        front.add(as_ceph_16_does, "^POST .*uploadId=")
        answer = await checked(Side.TARGET, replace(ministack, endpoint=front.endpoint), bucket)
    found = answer.capabilities
    assert (found.conditional_put, found.conditional_completion) == (True, False)
    (note,) = answer.problems
    assert "knows no condition for the completion of uploads" in note.message
    assert everything_in(boto(ministack), bucket) == {"first"}


async def test_a_store_that_refuses_them_is_found_out(
    ministack: S3Server, bucket: str, boto: Boto
) -> None:
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        front.add(status(501, "NotImplemented"), OF_THE_CONDITION, skip=1)
        answer = await checked(Side.TARGET, replace(ministack, endpoint=front.endpoint), bucket)
    assert answer.capabilities.conditional_put is False
    assert everything_in(boto(ministack), bucket) == {"first"}


async def test_without_the_right_to_delete_nothing_is_written(
    ministack: S3Server, bucket: str, boto: Boto
) -> None:
    writer = user(ministack, bucket, ("s3:ListBucket", "s3:GetBucketVersioning", *WRITE_ONLY))
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        answer = await checked(Side.TARGET, replace(writer, endpoint=front.endpoint), bucket)
        assert front.count("^PUT [^?]* ") == 0
    (note,) = answer.problems
    assert not note.blocks
    assert "s3:DeleteObject" in note.message
    assert everything_in(boto(ministack), bucket) == {"first"}


@pytest.mark.parametrize("state", ["Enabled", "Suspended"])
async def test_a_bucket_that_keeps_versions_is_not_asked(
    ministack: S3Server, bucket: str, boto: Boto, state: Literal["Enabled", "Suspended"]
) -> None:
    """Neither a version nor a marker stays, and no lock can keep what was never written."""
    boto(ministack).put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": state})
    answer = await checked(Side.TARGET, ministack, bucket)
    (note,) = answer.problems
    assert "its bucket keeps versions" in note.message
    found = answer.capabilities
    assert (found.conditional_put, found.unkept_keys, found.unkept_headers) == (None, None, None)
    assert everything_in(boto(ministack), bucket) == {"first"}


@pytest.mark.parametrize("fault", [status(500, "InternalError"), reset_before, lost_answer])
@pytest.mark.parametrize(
    ("request_line", "skip"),
    [
        (OF_THE_CONDITION, 1),
        ("^POST .*uploads", 0),
        ("^POST .*uploadId=", 0),
        ("^PUT /[^/]*//", 0),  # of a key that begins with a slash
        ("^PUT /[^/]*/[^/?]*/", 3),
        ("^GET /[^/]*/[^/?]*/", 0),
        ("^GET .*prefix=.slurper", 0),
    ],
)
async def test_whatever_goes_wrong_with_the_question_nothing_stays(
    ministack: S3Server, bucket: str, boto: Boto, fault: Fault, request_line: str, skip: int
) -> None:
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        front.add(fault, request_line, skip=skip)
        await check(Side.TARGET, replace(ministack, endpoint=front.endpoint), bucket)
    assert everything_in(boto(ministack), bucket) == {"first"}


@pytest.mark.parametrize("fault", [deaf(30), delayed(30)])
@pytest.mark.parametrize(
    ("request_line", "notes"), [("^PUT [^?]* ", 2), ("^PUT .*-b ", 1), ("^POST .*uploadId=", 1)]
)
async def test_a_store_that_is_too_slow_for_the_question_is_used_and_keeps_nothing(
    ministack: S3Server,
    bucket: str,
    boto: Boto,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    request_line: str,
    notes: int,
) -> None:
    monkeypatch.setattr(precheck, "CHECK_SECONDS", 2.0)
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        front.add(fault, request_line)
        answer = await checked(Side.TARGET, replace(ministack, endpoint=front.endpoint), bucket)
    assert len(answer.problems) == notes
    assert not any(note.blocks for note in answer.problems)
    assert all("no answer in time" in note.message for note in answer.problems)
    found = answer.capabilities
    assert None in (found.conditional_completion, found.unkept_keys)
    assert everything_in(boto(ministack), bucket) == {"first"}


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        (4, status(501, "NotImplemented")),
        (4, status(400, "IncompleteBody")),
        (4, status(500, "InternalError")),
        (5, answer('200 OK\r\nETag: "e"')),
        (5, status(501, "NotImplemented")),
        (5, deaf(10)),
    ],
    ids=["refused", "not read", "fails", "a wrong one is taken", "not known", "no answer"],
)
async def test_a_checksum_behind_the_bytes_is_used_only_where_it_is_verified(
    ministack: S3Server, bucket: str, boto: Boto, part: int, fault: Fault
) -> None:
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        front.add(fault, f"^PUT .*partNumber={part}")
        found = await checked(Side.TARGET, replace(ministack, endpoint=front.endpoint), bucket)
    assert not any(note.blocks for note in found.problems)
    assert found.capabilities.trailing_checksum is False
    assert found.capabilities.verifies_checksum
    assert everything_in(boto(ministack), bucket) == {"first"}


@pytest.mark.parametrize("request_line", ["^PUT .*partNumber=1", "^POST .*uploads"])
async def test_a_second_checksum_that_cannot_be_tried_is_no_reason_to_refuse(
    ministack: S3Server, bucket: str, boto: Boto, request_line: str
) -> None:
    """A store that takes a part with a wrong CRC32C, and fails at the part or upload for MD5."""
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        front.add(answer('200 OK\r\nETag: "e"'), "^PUT .*partNumber=2", times=1)
        front.add(status(500, "InternalError"), request_line, skip=1, times=2)
        found = await checked(Side.TARGET, replace(ministack, endpoint=front.endpoint), bucket)
    assert not any(note.blocks for note in found.problems)
    assert (found.capabilities.checksum, found.capabilities.verifies_checksum) == (None, False)
    assert "whether the target verifies MD5" in found.problems[0].message
    assert everything_in(boto(ministack), bucket) == {"first"}


async def test_an_object_that_cannot_be_deleted_after_all_is_named(
    ministack: S3Server, bucket: str, boto: Boto
) -> None:
    """As where an object got a lock and the bucket does not mention locks."""
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        front.add(status(403, "AccessDenied"), "^DELETE [^?]* ", skip=1)
        notes = await check(Side.TARGET, replace(ministack, endpoint=front.endpoint), bucket)
    assert not any(note.blocks for note in notes)
    listed = boto(ministack).list_objects_v2(Bucket=bucket)["Contents"]
    left = {item["Key"] for item in listed} - {"first"}
    (alone,) = [key for key in left if "/" not in key]
    texts = {note.message.split(" (")[0] for note in notes}
    names = {key.lstrip("/").split("/")[0] for key in left - {alone}}
    assert len(names) == 1
    assert texts == {
        f"an object of the check is left: delete {alone}",
        f"objects of the check may be left: delete what begins with {names.pop()}, also after '/'",
    }


# Which keys and headers are kept


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Server]:
    """It checks no signature, so that something between us and it may change a request."""
    server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield S3Server(
        endpoint=f"http://{host}:{port}", access_key_id="AKIAMOTO", secret_access_key="secret"
    )
    server.stop()


IN_FOLDERS = {
    "leading-slash",
    "empty-segment",
    "dot-segment",
    "double-dot-segment",
    "long-segment",
    "backslash",
    "folder-with-bytes",
    "folder-with-headers",
}

REWRITTEN: list[tuple[str, tuple[str, str] | None, set[str]]] = [
    ("ministack", None, set()),
    ("seaweedfs", None, IN_FOLDERS),
    ("moto", None, {"line-break"}),
    # Proxies before it: the first as MinIO's gateway does with the first slash of a key.
    ("moto", (r"^(\S+ /[^/?]+/)/+", r"\1"), {"line-break", "leading-slash"}),
    (
        "moto",
        (r"(?<=.)//+", "/"),
        {"line-break", "leading-slash", "empty-segment"},
    ),
    ("moto", (r"/\./", "/"), {"line-break", "dot-segment"}),
    ("moto", (r"/[^/ ]+/\.\./", "/"), {"line-break", "double-dot-segment"}),
    ("moto", ("%5C", "/"), {"line-break", "backslash"}),
    ("moto", ("%252?", "%2"), {"line-break", "percent"}),
    ("moto", ("%2B", "%20"), {"line-break", "plus"}),
    ("moto", ("u%CC%88", "%C3%BC"), {"line-break", "decomposed"}),
    ("moto", ("%C3%BC", "u%CC%88"), {"line-break", "composed"}),
    ("moto", ("%(0[1-9]|7F)", "_"), {"line-break", "control-character"}),
]


@pytest.mark.parametrize(
    ("name", "rewrite", "unkept"), REWRITTEN, ids=[f"{row[0]}-{row[1]}" for row in REWRITTEN]
)
async def test_a_target_that_rewrites_keys_is_found_out_and_nothing_stays(
    request: pytest.FixtureRequest,
    name: str,
    rewrite: tuple[str, str] | None,
    unkept: set[str],
    make_bucket: MakeBucket,
    boto: Boto,
) -> None:
    server: S3Server = request.getfixturevalue(name)
    bucket = make_bucket(server)
    users = ["a", "b/c", "c", "f"]
    for key in users:
        boto(server).put_object(Bucket=bucket, Key=key, Body=b"theirs")
    with proxy.FaultProxy(server.endpoint).running() as front:
        if rewrite is not None:  # the keys of objects: a listing shows what is there
            front.add(with_request_line(*rewrite), "^(PUT|GET|HEAD|DELETE) /[^/?]+/[^?]+ ")
        answer = await checked(Side.TARGET, replace(server, endpoint=front.endpoint), bucket)
    assert set(answer.capabilities.unkept_keys or ()) == unkept
    assert answer.capabilities.unkept_headers == ()
    assert not any(note.blocks for note in answer.problems)
    listed = boto(server).list_objects_v2(Bucket=bucket, Delimiter="/")
    assert [item["Prefix"] for item in listed.get("CommonPrefixes", ())] == ["b/"]
    assert [
        item["Key"] for item in boto(server).list_objects_v2(Bucket=bucket)["Contents"]
    ] == users
    for key in users:
        assert boto(server).get_object(Bucket=bucket, Key=key)["Body"].read() == b"theirs"


@pytest.mark.parametrize("name", ["ministack", "seaweedfs"])
async def test_what_a_killed_check_left_is_removed_by_the_next(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    make_bucket: MakeBucket,
    boto: Boto,
) -> None:
    server: S3Server = request.getfixturevalue(name)
    bucket = make_bucket(server)
    boto(server).put_object(Bucket=bucket, Key="theirs", Body=b"1")
    with monkeypatch.context() as patch:
        patch.setattr(Specimens, "remove", _killed)
        await check(Side.TARGET, server, bucket)
    assert boto(server).list_objects_v2(Bucket=bucket)["KeyCount"] > 1
    monkeypatch.setattr(clean_up, "STALE_SECONDS", -60.0)
    await check(Side.TARGET, server, bucket)
    listed = boto(server).list_objects_v2(Bucket=bucket, Delimiter="/")
    assert "CommonPrefixes" not in listed
    assert [item["Key"] for item in listed["Contents"]] == ["theirs"]


async def _killed(*_: object) -> None:
    """Nothing is removed any more."""


@pytest.mark.parametrize(
    "lost",
    [
        ("content-encoding", "content-language", "expires"),
        ("cache-control",),
        ("content-disposition",),
        ("x-amz-meta-slurper-precheck",),
    ],
)
async def test_headers_that_a_target_does_not_keep_are_found_out(
    ministack: S3Server, bucket: str, boto: Boto, lost: tuple[str, ...]
) -> None:
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        front.add(with_headers(without=lost), "^(GET|HEAD) [^?]+ ")
        answer = await checked(Side.TARGET, replace(ministack, endpoint=front.endpoint), bucket)
    names = {"metadata" if name.startswith("x-amz-meta-") else name for name in lost}
    assert set(answer.capabilities.unkept_headers or ()) == names
    texts = [note.message for note in answer.problems]
    assert any(f"the target does not keep {', '.join(sorted(names))}" in text for text in texts)
    assert everything_in(boto(ministack), bucket) == {"first"}


async def test_without_the_right_to_delete_keys_and_headers_are_not_known(
    ministack: S3Server, bucket: str, boto: Boto
) -> None:
    writer = user(ministack, bucket, ("s3:ListBucket", "s3:GetBucketVersioning", *WRITE_ONLY))
    answer = await checked(Side.TARGET, writer, bucket)
    assert (answer.capabilities.unkept_keys, answer.capabilities.unkept_headers) == (None, None)
    (note,) = answer.problems
    assert "which keys and headers the target keeps" in note.message
    assert everything_in(boto(ministack), bucket) == {"first"}


async def test_what_works_and_is_worth_knowing_is_told(
    ministack: S3Server, bucket: str, boto: Boto
) -> None:
    """A store that takes a part whose checksum is wrong, and whose clock is an hour slow."""
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        front.add(answer('200 OK\r\nETag: "e"'), "^PUT .*partNumber=2")
        front.add(
            with_headers("Date: " + format_datetime(an_hour_ago(), usegmt=True), without=("date",)),
            "list-type",
        )
        notes = await check(Side.TARGET, replace(ministack, endpoint=front.endpoint), bucket)
    assert [note.blocks for note in notes] == [False, False]
    assert "seconds behind this machine's" in notes[0].message
    assert "it verifies no checksums" in notes[1].message
    assert uploads_of(boto(ministack), bucket) == 0


def an_hour_ago() -> datetime:
    return datetime.now(UTC) - timedelta(hours=1)


async def test_the_stub_of_r2_keeps_nothing_of_a_check(
    r2_stub: R2Stub, r2_server: S3Server, make_bucket: MakeBucket
) -> None:
    bucket = make_bucket(r2_server)
    assert await check(Side.TARGET, r2_server, bucket) == ()
    assert list(r2_stub.buckets[bucket].after("", "")) == []
    assert r2_stub.buckets[bucket].uploads("") == []
