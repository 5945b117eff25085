"""Drops a bucket of any server, whatever its keys are."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

_PLAIN = re.compile(r"[\w./-]*", re.ASCII)
"""Keys that every server reads alike in a list of keys in XML."""

_AT_ONCE = 1000
"""The most keys of one DeleteObjects."""

_ATTEMPTS = 50
"""How often a bucket is emptied and dropped before its test fails."""


def drop_bucket(client: S3Client, name: str) -> None:
    """Delete all that a bucket holds, and the bucket.

    A job that a test left running may still write into the bucket, so this tries a few times.
    """
    for _ in range(_ATTEMPTS):
        _empty(client, name)
        try:
            client.delete_bucket(Bucket=name)
        except client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "BucketNotEmpty":
                raise
            time.sleep(0.2)
        else:
            return
    client.delete_bucket(Bucket=name)


def _empty(client: S3Client, name: str) -> None:
    _delete(client, name, _objects(client, name))
    for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=name):
        for upload in page.get("Uploads", []):
            client.abort_multipart_upload(
                Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"]
            )


def _objects(client: S3Client, bucket: str) -> Iterator[ObjectIdentifierTypeDef]:
    if "Status" not in client.get_bucket_versioning(Bucket=bucket):
        # Ministack cannot list versions of keys that are no text, and there are none.
        for objects in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for one in objects.get("Contents", []):
                yield {"Key": one["Key"], "VersionId": "null"}
        return
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for version in (*page.get("Versions", []), *page.get("DeleteMarkers", [])):
            yield {"Key": version["Key"], "VersionId": version["VersionId"]}


def _delete(client: S3Client, bucket: str, objects: Iterable[ObjectIdentifierTypeDef]) -> None:
    found = list(objects)
    plain = [one for one in found if _PLAIN.fullmatch(one["Key"])]
    for start in range(0, len(plain), _AT_ONCE):
        client.delete_objects(
            Bucket=bucket, Delete={"Objects": plain[start : start + _AT_ONCE], "Quiet": True}
        )
    for one in found:
        if not _PLAIN.fullmatch(one["Key"]):
            client.delete_object(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])
