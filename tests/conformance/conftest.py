"""The stores that run the conformance suite, and where each is known to differ from S3."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import pytest
from moto.server import ThreadedMotoServer

from slurper.demo.servers import HOST, S3Server
from slurper.http.client import TransportOptions
from slurper.objectstore import dialects
from slurper.objectstore.base import ObjectStore, StoreAddress
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.dialects import Dialect
from slurper.objectstore.factory import open_store
from slurper.secrets import Credentials, S3Credentials
from tests.conformance.differences import DIFFERENCES
from tests.memory.store import MemoryStore
from tests.servers.gcs.server import Google, address_of
from tests.servers.gcs.tokens import ACCOUNT, pem

# Which dialect a server is spoken to in; between them they cover CRC64NVME of whole objects, CRC32C
# of parts (generic) and plain MD5.
_WHOLE = replace(
    dialects.GENERIC, name="whole", checksum=Algorithm.CRC64NVME, full_object_checksum=True
)
DIALECTS: dict[str, Dialect] = {
    "memory": dialects.GENERIC,
    "moto": replace(dialects.GENERIC, name="md5", checksum=Algorithm.MD5),
    "ministack": _WHOLE,
    "seaweedfs": dialects.GENERIC,
    "r2_server": dialects.R2,
    "ministack_tls": dialects.GENERIC,
    "seaweedfs_tls": _WHOLE,
    "gcs": dialects.GCS,
    "gcs_tls": dialects.GCS,
    "fakegcs": dialects.GCS,
    "gcsemulator": dialects.GCS,
}
PLAIN = ("memory", "moto", "ministack", "seaweedfs", "r2_server", "gcs", "fakegcs", "gcsemulator")


@dataclass(frozen=True)
class Subject:
    """A kind of store under test."""

    name: str
    dialect: Dialect
    server: S3Server | Google | None
    """None: in memory."""
    make_bucket: Callable[[], str]


@pytest.fixture(params=PLAIN)
def subject(request: pytest.FixtureRequest, make_bucket: Callable[[S3Server], str]) -> Subject:
    name: str = request.param
    if name == "memory":
        return Subject(name, DIALECTS[name], None, lambda: name)
    server = request.getfixturevalue(name)
    make = partial(make_bucket, server) if isinstance(server, S3Server) else server.make_bucket
    return Subject(name, DIALECTS[name], server, make)


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield S3Server(endpoint=f"http://{host}:{port}", access_key_id="a", secret_access_key="s")
    server.stop()


Open = Callable[..., ObjectStore]


@pytest.fixture
async def open_bucket(subject: Subject) -> AsyncIterator[Open]:
    """`open_bucket(name)` opens a bucket; `credentials` replace the right ones."""
    opened: list[ObjectStore] = []

    def start(bucket: str, *, credentials: Credentials | None = None) -> ObjectStore:
        opened.append(_open(subject, bucket, credentials))
        return opened[-1]

    yield start
    for store in opened:
        await store.close()


def _open(subject: Subject, bucket: str, credentials: Credentials | None) -> ObjectStore:
    server = subject.server
    if server is None:
        return MemoryStore(dialect=subject.dialect, bucket=bucket)
    if not isinstance(server, S3Server):
        address = replace(address_of(server, bucket), credentials=credentials or ACCOUNT)
        return open_store(address, TransportOptions(ca_file=server.ca_file, request_retries=1))
    address = StoreAddress(
        origin=server.endpoint,
        bucket=bucket,
        region=server.region,
        dialect=subject.dialect,
        credentials=credentials or pair_of(server),
        trusted=True,
    )
    return open_store(address, TransportOptions(ca_file=server.ca_file, request_retries=1))


def wrong_credentials(server: S3Server | Google, wrong: str) -> Credentials:
    """The right ones but for the "secret" or the "key-id"."""
    if not isinstance(server, S3Server):
        if wrong == "secret":
            return replace(ACCOUNT, private_key=pem("wrong"))
        return replace(ACCOUNT, client_email="nobody@project.iam.gserviceaccount.com")
    if wrong == "secret":
        return replace(pair_of(server), secret_access_key="wrong")
    return replace(pair_of(server), access_key_id="AKIAWRONG")


def pair_of(server: S3Server) -> S3Credentials:
    return S3Credentials(
        access_key_id=server.access_key_id, secret_access_key=server.secret_access_key
    )


@pytest.fixture(scope="module")
def shared_buckets() -> dict[str, str]:
    """One bucket per store for the tests that need none of their own, by the store's name."""
    return {}


@pytest.fixture
def store(
    subject: Subject,
    open_bucket: Open,
    shared_buckets: dict[str, str],
) -> ObjectStore:
    """A bucket that other tests write to as well: see `prefix`."""
    if subject.name not in shared_buckets:
        shared_buckets[subject.name] = subject.make_bucket()
    return open_bucket(shared_buckets[subject.name])


@pytest.fixture
def empty_store(subject: Subject, open_bucket: Open) -> ObjectStore:
    """A new bucket."""
    return open_bucket(subject.make_bucket())


@pytest.fixture
def prefix() -> str:
    """What the keys of this test begin with, so that it sees no others."""
    return f"{secrets.token_hex(6)}/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expect the known differences to fail, strictly: one that is gone must leave the table."""
    for item in items:
        reason = DIFFERENCES.get(item.name)
        if reason is not None:
            item.add_marker(pytest.mark.xfail(strict=True, reason=reason))
