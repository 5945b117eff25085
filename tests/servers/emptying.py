"""Drops every bucket of a server, whatever its keys are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold (section 2.2). No DeleteObjects can name a key with one."""


def drop_buckets(client: S3Client) -> None:
    """Delete all objects, versions and uploads of all buckets, and the buckets."""
    for bucket in client.list_buckets()["Buckets"]:
        name = bucket["Name"]
        _drop_objects(client, name)
        for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=name):
            for upload in page.get("Uploads", []):
                client.abort_multipart_upload(
                    Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"]
                )
        client.delete_bucket(Bucket=name)


def _drop_objects(client: S3Client, bucket: str) -> None:
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
        found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        plain: list[ObjectIdentifierTypeDef] = []
        for one in found:
            key, version = one["Key"], one["VersionId"]
            if _UNWRITABLE.search(key):
                client.delete_object(Bucket=bucket, Key=key, VersionId=version)
            else:
                plain.append({"Key": key, "VersionId": version})
        if plain:
            client.delete_objects(Bucket=bucket, Delete={"Objects": plain, "Quiet": True})
