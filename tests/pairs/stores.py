"""The kinds of store that are copied between: how each is run, looked at, and told to Slurper."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import httpx
from botocore.exceptions import ConnectionClosedError

from slurper.demo import servers
from slurper.demo.servers import S3Server
from slurper.objectstore import dialects
from slurper.objectstore.base import StoreAddress
from slurper.secrets import S3Credentials
from tests.pairs.referee import Bucket, GoogleBucket, S3Bucket
from tests.servers import seaweedfs as seaweed
from tests.servers.gcs.server import Google, address_of, gcs_server
from tests.servers.gcs.tokens import ACCOUNT
from tests.servers.r2 import server as r2

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class Kind(StrEnum):
    """What keeps the objects."""

    S3 = "s3"
    """ministack."""
    SEAWEEDFS = "seaweedfs"
    R2 = "r2"
    """The strict stub of it."""
    R2_ELSEWHERE = "r2-elsewhere"
    """Another account's."""
    GCS = "gcs"
    """The strict stand-in."""
    FAKEGCS = "fakegcs"
    """fake-gcs-server behind its guard."""
    JUICEFS = "juicefs"
    """MinIO's gateway code before JuiceFS, told to keep what it can."""
    JUICEFS_PLAIN = "juicefs-plain"
    """The same as it comes."""
    RCLONE = "rclone"
    """`rclone serve s3` on a folder."""
    CEPH = "ceph"
    """Its RADOS gateway."""
    SWIFT = "swift"
    """OpenStack's, with s3api."""


class Store(Protocol):
    """A running store."""

    @property
    def origin(self) -> str:
        """Where Slurper finds it; the referee goes another way."""

    def at(self, origin: str) -> Store:
        """The same store, to be found elsewhere: behind a proxy."""

    def new_bucket(self) -> Bucket:
        """Make an empty bucket that nobody else has."""

    def url(self, bucket: Bucket) -> str:
        """What the command line calls a bucket."""

    def variables(self, side: str) -> dict[str, str]:
        """The environment of a `slurper copy` with this store as its "source" or "target"."""

    @property
    def settings(self) -> dict[str, str]:
        """The environment of a service that copies from or to it."""

    def described(self, bucket: Bucket) -> dict[str, Any]:
        """A side of a job, as the API wants it."""

    def address(self, bucket: Bucket) -> StoreAddress:
        """What a task holds."""


@dataclass(frozen=True, slots=True)
class S3Store:
    """One that speaks S3, or R2's part of it."""

    server: S3Server
    client: S3Client
    vendor: str = "s3"

    @property
    def origin(self) -> str:
        return self.server.endpoint

    def at(self, origin: str) -> S3Store:
        return replace(self, server=replace(self.server, endpoint=origin))

    def new_bucket(self) -> S3Bucket:
        name = f"test-{secrets.token_hex(8)}"
        try:
            self.client.create_bucket(Bucket=name)
        except ConnectionClosedError:  # Ceph hangs up after a bad request, without saying so
            self.client.create_bucket(Bucket=name)
        return S3Bucket(self.client, name)

    def url(self, bucket: Bucket) -> str:
        return f"{self.vendor}://{bucket.name}"

    def variables(self, side: str) -> dict[str, str]:
        told = {
            "ENDPOINT": self.origin,
            "ACCESS_KEY_ID": self.server.access_key_id,
            "SECRET_ACCESS_KEY": self.server.secret_access_key,
        }
        if self.vendor == "s3":  # R2 has none
            told["REGION"] = self.server.region
        return {f"SLURPER_{side.upper()}_{name}": value for name, value in told.items()}

    @property
    def settings(self) -> dict[str, str]:
        return {"SLURPER_R2_ENDPOINT": self.origin} if self.vendor == "r2" else {}

    def described(self, bucket: Bucket) -> dict[str, Any]:
        secret = {
            "accessKeyId": self.server.access_key_id,
            "secretAccessKey": self.server.secret_access_key,
        }
        side = {"vendor": self.vendor, "bucket": bucket.name, "secret": secret}
        if self.vendor == "s3":
            side |= {"endpoint": self.origin, "region": self.server.region}
        return side

    def address(self, bucket: Bucket) -> StoreAddress:
        return StoreAddress(
            origin=self.origin,
            bucket=bucket.name,
            region=self.server.region,
            dialect=dialects.R2 if self.vendor == "r2" else dialects.GENERIC,
            credentials=S3Credentials(
                access_key_id=self.server.access_key_id,
                secret_access_key=self.server.secret_access_key,
            ),
            trusted=True,
        )


@dataclass(frozen=True, slots=True)
class GoogleStore:
    """One that speaks Google's API. All that one program copies to and from are at one origin."""

    server: Google
    client: httpx.Client
    key_file: Path
    origin: str

    def at(self, origin: str) -> GoogleStore:
        return replace(self, origin=origin)

    def new_bucket(self) -> GoogleBucket:
        server = self.server
        return GoogleBucket(self.client, server.origin, server.tokens, server.make_bucket())

    def url(self, bucket: Bucket) -> str:
        return f"gs://{bucket.name}"

    def variables(self, side: str) -> dict[str, str]:
        named = {f"SLURPER_{side.upper()}_CREDENTIALS_FILE": str(self.key_file)}
        return {**self.settings, **named}

    @property
    def settings(self) -> dict[str, str]:
        return {
            "SLURPER_GCS_ENDPOINT": self.origin,
            "SLURPER_GCS_TOKEN_URI": f"{self.origin}/token",
        }

    def described(self, bucket: Bucket) -> dict[str, Any]:
        secret = {"clientEmail": ACCOUNT.client_email, "privateKey": ACCOUNT.private_key}
        return {"vendor": "gcs", "bucket": bucket.name, "secret": secret}

    def address(self, bucket: Bucket) -> StoreAddress:
        address = address_of(self.server, bucket.name)
        return replace(address, origin=self.origin, token_uri=f"{self.origin}/token")


@contextmanager
def google_store(server: Google, directory: Path) -> Iterator[GoogleStore]:
    """A store at a running server; the account's key file is written into the directory."""
    account = {"client_email": ACCOUNT.client_email, "private_key": ACCOUNT.private_key}
    key_file = directory / "account.json"
    key_file.write_text(json.dumps({"type": "service_account", **account}))
    with httpx.Client(timeout=60) as client:
        yield GoogleStore(server, client, key_file, server.origin)


@contextmanager
def s3_store(server: S3Server, vendor: str = "s3") -> Iterator[S3Store]:
    """A store at a running server."""
    client = server.client()
    yield S3Store(server, client, vendor)
    client.close()


@contextmanager
def started(directory: Path) -> Iterator[Mapping[Kind, Store]]:
    """Run the stores that are copied between under kills and faults, while the block lasts."""
    with ExitStack() as stack:
        enter = stack.enter_context
        for kind in (Kind.S3, Kind.SEAWEEDFS, Kind.GCS):
            (directory / kind).mkdir()
        s3 = enter(servers.ministack(directory / Kind.S3))
        seaweedfs = enter(seaweed.seaweedfs(directory / Kind.SEAWEEDFS))
        yield {
            Kind.S3: enter(s3_store(s3)),
            Kind.SEAWEEDFS: enter(s3_store(seaweedfs)),
            Kind.R2: enter(s3_store(enter(r2.running()).address, "r2")),
            Kind.GCS: enter(google_store(enter(gcs_server()), directory / Kind.GCS)),
        }
