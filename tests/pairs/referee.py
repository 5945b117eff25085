"""Buckets as somebody sees them who owes nothing to the code that copies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote
from xml.etree import ElementTree as ET

import httpx
from botocore.exceptions import ClientError

from tests.servers.gcs.server import write_related
from tests.servers.gcs.tokens import TokenEndpoint

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

GOOGLE = {
    "CacheControl": "cacheControl",
    "ContentDisposition": "contentDisposition",
    "ContentEncoding": "contentEncoding",
    "ContentLanguage": "contentLanguage",
    "ContentType": "contentType",
    "Metadata": "metadata",
}
"""boto3's names for what is kept beside the bytes, and Google's."""

HEADERS = {
    "cache-control": "cacheControl",
    "content-disposition": "contentDisposition",
    "content-encoding": "contentEncoding",
    "content-language": "contentLanguage",
    "content-type": "contentType",
    "expires": "",
}
"""The headers that tell it to a reader, and Google's names for them."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as a reader of the bucket sees it."""

    body: bytes = field(repr=False)
    headers: Mapping[str, str]
    """Content headers by their names in lower case."""
    metadata: Mapping[str, str]


class Bucket(Protocol):
    """A bucket, read and written past every proxy."""

    @property
    def name(self) -> str:
        """What the programs are told."""

    def put(self, key: str, body: bytes, **more: Any) -> None:  # noqa: ANN401 - boto3's arguments
        """Write an object, with headers and metadata by boto3's names."""

    def get(self, key: str) -> Stored:
        """Read an object."""

    def delete(self, key: str) -> None:
        """Remove an object."""

    def read_keys(self) -> list[str]:
        """List every object."""

    def read_all(self) -> dict[str, Stored]:
        """Read every object."""

    def uploads(self) -> list[str]:
        """Keys of uploads in parts that are neither completed nor aborted."""


def read_all(bucket: Bucket, keys: Sequence[str] | None = None) -> dict[str, Stored]:
    """Read every object of a bucket, or only some."""
    keys = bucket.read_keys() if keys is None else keys
    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(keys, pool.map(lambda key: _read(bucket, key), keys), strict=True))
    return {key: stored for key, stored in found.items() if stored is not None}


def _read(bucket: Bucket, key: str) -> Stored | None:
    """None: there is no such object. Rclone lists for minutes what it has refused to write."""
    try:
        return bucket.get(key)
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchKey":
            return None
        raise


@dataclass(frozen=True, slots=True)
class S3Bucket:
    """A bucket of S3's kind as boto3 sees it."""

    client: S3Client
    name: str

    def put(self, key: str, body: bytes, **more: Any) -> None:  # noqa: ANN401 - boto3's arguments
        self.client.put_object(Bucket=self.name, Key=key, Body=body, **more)

    def get(self, key: str) -> Stored:
        answer = self.client.get_object(Bucket=self.name, Key=key)
        sent = answer["ResponseMetadata"]["HTTPHeaders"]
        headers = {name: sent[name] for name in HEADERS if name in sent}
        # They are headers, whose case does not count: rclone writes it as it likes.
        metadata = {name.lower(): value for name, value in answer["Metadata"].items()}
        return Stored(answer["Body"].read(), headers, metadata)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)

    def read_keys(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def read_all(self) -> dict[str, Stored]:
        return read_all(self)

    def uploads(self) -> list[str]:
        try:
            answer = self.client.list_multipart_uploads(Bucket=self.name)
        except self.client.exceptions.NoSuchUpload:
            return []  # so rclone says that there are none
        return [upload["Key"] for upload in answer.get("Uploads", ())]


@dataclass(frozen=True, slots=True)
class GoogleBucket:
    """A bucket of Google's kind as plain HTTP shows it."""

    client: httpx.Client
    origin: str
    tokens: TokenEndpoint
    name: str

    def put(self, key: str, body: bytes, **more: Any) -> None:  # noqa: ANN401 - boto3's arguments
        resource = {"name": key, **{GOOGLE[name]: value for name, value in more.items()}}
        kind, content = write_related(resource, body)
        path = f"/upload/storage/v1/b/{self.name}/o?uploadType=multipart"
        self._ask("POST", path, headers={"content-type": kind}, content=content)

    def get(self, key: str) -> Stored:
        about = self._ask("GET", self._object(key)).json()
        headers = {name: about[member] for name, member in HEADERS.items() if about.get(member)}
        with self.client.stream(
            "GET", self._url(f"{self._object(key)}?alt=media"), headers=self._headers()
        ) as answer:
            body = b"".join(answer.iter_raw())
        return Stored(body, headers, about.get("metadata", {}))

    def delete(self, key: str) -> None:
        self._ask("DELETE", self._object(key))

    def read_keys(self) -> list[str]:
        return [item["name"] for page in self._pages() for item in page.get("items", ())]

    def read_all(self) -> dict[str, Stored]:
        return read_all(self)

    def uploads(self) -> list[str]:
        listed = ET.fromstring(self._ask("GET", f"/{self.name}?uploads").content)  # noqa: S314
        return [upload.findtext("{*}Key", "") for upload in listed.iter("Upload")]

    def _pages(self) -> Iterator[Any]:
        token = ""
        while True:
            page = self._ask("GET", f"/storage/v1/b/{self.name}/o?pageToken={quote(token)}").json()
            yield page
            if not (token := page.get("nextPageToken", "")):
                return

    def _object(self, key: str) -> str:
        return f"/storage/v1/b/{self.name}/o/{quote(key, safe='')}"

    def _url(self, path: str) -> httpx.URL:
        return httpx.URL(self.origin).copy_with(raw_path=path.encode())

    def _headers(self) -> dict[str, str]:
        # With that, what is kept as gzip is sent as it is kept.
        return {"authorization": f"Bearer {self.tokens.grant()}", "accept-encoding": "gzip"}

    def _ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
    ) -> httpx.Response:
        sent = {**self._headers(), **(headers or {})}
        answer = self.client.request(method, self._url(path), headers=sent, content=content)
        return answer.raise_for_status()
