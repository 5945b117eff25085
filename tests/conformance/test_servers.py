"""The fixtures themselves: four endpoints, each a real server that checks signatures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import botocore.exceptions
import pytest

from slurper.demo.servers import S3Server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SERVERS = ("ministack", "seaweedfs", "ministack_tls", "seaweedfs_tls")


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> S3Server:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, S3Server)
    return found


def test_objects_survive_the_round_trip(
    server: S3Server,
    boto: Callable[[S3Server], S3Client],
    make_bucket: Callable[[S3Server], str],
) -> None:
    bucket, body = make_bucket(server), bytes(range(256)) * 5000
    boto(server).put_object(Bucket=bucket, Key="x y/ü", Body=body)
    assert boto(server).get_object(Bucket=bucket, Key="x y/ü")["Body"].read() == body


def test_a_wrong_secret_is_refused(server: S3Server) -> None:
    client = replace(server, secret_access_key="wrong").client()
    with pytest.raises(botocore.exceptions.ClientError, match="SignatureDoesNotMatch"):
        client.list_buckets()
    client.close()
