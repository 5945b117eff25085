"""Real S3 servers for the whole session, and an environment free of the developer's settings."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from slurper.demo import servers
from slurper.demo.servers import S3Server
from tests.pairs.stores import Kind, Store, google_store, s3_store
from tests.servers import gateways as compat
from tests.servers import seaweedfs as seaweed
from tests.servers.gcs.fake import (
    Guard,
    binary,
    fake_gcs_server,
    gcp_storage_emulator,
    has_emulator,
)
from tests.servers.gcs.server import Front, GcsServer, gcs_server
from tests.servers.r2 import server as r2
from tests.servers.r2.server import R2Stub
from tests.servers.seaweedfs import TlsFiles
from tests.servers.tls_forwarder import TlsForwarder, issue

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

_PRIVATE = ("AWS_", "CLOUDFLARE_", "SLURPER_", "GOOGLE_")


@pytest.fixture(scope="session", autouse=True)
def _scrubbed_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in tuple(os.environ):
            if name.startswith(_PRIVATE):
                patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        yield


@pytest.fixture(scope="session", autouse=True)
def _signals_heard() -> None:
    """Undo what a shell does to its background jobs: they, and their children, ignore SIGINT."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """A server certificate for 127.0.0.1 and localhost, issued by a CA nobody else trusts."""
    return issue(tmp_path_factory.mktemp("tls"), "127.0.0.1", "localhost")


Forget = Callable[[], None]


@pytest.fixture(scope="session")
def in_memory() -> list[Forget]:
    """For each running server that keeps objects in memory: a call that drops all its buckets."""
    return []


@pytest.fixture(scope="module", autouse=True)
def _forgotten(in_memory: list[Forget]) -> Iterator[None]:
    """Drop what a file has written. The servers outlive it, and would grow to gigabytes."""
    yield
    for forget in in_memory:
        forget()


@pytest.fixture(scope="session")
def ministack(
    tmp_path_factory: pytest.TempPathFactory, in_memory: list[Forget]
) -> Iterator[S3Server]:
    """Closest to S3 of the servers; in memory; checks signatures."""
    folder = tmp_path_factory.mktemp("ministack")
    with servers.ministack(folder) as server:
        in_memory.append(partial(servers.empty_ministack, server))
        yield server


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Disk-backed; checks signatures, checksums and clocks; not faithful to hostile keys."""
    with seaweed.seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def r2_stub(in_memory: list[Forget]) -> Iterator[R2Stub]:
    """A server of ours that keeps R2's documented rules and refuses what R2 refuses."""
    with r2.running() as stub:
        in_memory.append(stub.buckets.clear)
        yield stub


@pytest.fixture(scope="session")
def r2_server(r2_stub: R2Stub) -> S3Server:
    """Where the stub of R2 is."""
    return r2_stub.address


@pytest.fixture(scope="session")
def other_r2_server(in_memory: list[Forget]) -> Iterator[S3Server]:
    """R2 once more: another account's."""
    with r2.running() as stub:
        in_memory.append(stub.buckets.clear)
        yield stub.address


@pytest.fixture(scope="session")
def ministack_tls(ministack: S3Server, tls_files: TlsFiles) -> Iterator[S3Server]:
    """The same ministack behind a TLS front that passes bytes through unchanged.

    Not ministack's own TLS, which would listen on port 443 of this machine as well.
    """
    with TlsForwarder(ministack.endpoint, tls_files) as front:
        yield replace(ministack, endpoint=front.endpoint, ca_file=tls_files.ca)


@pytest.fixture(scope="session")
def seaweedfs_tls(
    tmp_path_factory: pytest.TempPathFactory, tls_files: TlsFiles
) -> Iterator[S3Server]:
    """A SeaweedFS of its own that speaks TLS itself."""
    with seaweed.seaweedfs(tmp_path_factory.mktemp("seaweedfs-tls"), tls=tls_files) as server:
        yield server


@pytest.fixture(scope="session")
def gcs(in_memory: list[Forget]) -> Iterator[GcsServer]:
    """Ours: it enforces what Google documents."""
    with gcs_server() as server:
        in_memory.append(server.buckets.clear)
        yield server


@pytest.fixture(scope="session")
def fakegcs() -> Iterator[Guard]:
    """Somebody else's, without uploads in parts."""
    if binary() is None:
        pytest.skip("fake-gcs-server is not installed: there is none for this platform")
    with fake_gcs_server() as guard:
        yield guard


@pytest.fixture(scope="session")
def gcsemulator() -> Iterator[Guard]:
    """Somebody else's, in Python."""
    if not has_emulator():
        pytest.skip("gcp-storage-emulator is not installed")
    with gcp_storage_emulator() as guard:
        yield guard


@pytest.fixture(scope="session")
def juicefs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """MinIO's gateway code, told to keep what it can."""
    with compat.juicefs(tmp_path_factory.mktemp("juicefs"), *compat.KEEP) as server:
        yield server


@pytest.fixture(scope="session")
def juicefs_plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The same as it comes."""
    with compat.juicefs(tmp_path_factory.mktemp("juicefs-plain")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A folder behind `rclone serve s3`."""
    with compat.rclone(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Ceph's gateway before a cluster in memory."""
    with compat.ceph(tmp_path_factory.mktemp("ceph")) as server:
        yield server


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """OpenStack Swift's s3api."""
    with compat.swift(tmp_path_factory.mktemp("swift")) as server:
        yield server


@pytest.fixture(scope="session")
def gcs_tls(gcs: GcsServer, tls_files: TlsFiles) -> Iterator[Front]:
    """The same behind TLS, its token endpoint too."""
    with TlsForwarder(gcs.origin, tls_files) as forwarder:
        yield Front(gcs, origin=forwarder.endpoint, ca_file=tls_files.ca)


@pytest.fixture(scope="session")
def boto() -> Iterator[Callable[[S3Server], S3Client]]:
    """`boto(server)` is an independent client, the same one each time for a server."""
    clients: dict[S3Server, S3Client] = {}

    def client(server: S3Server) -> S3Client:
        if server not in clients:
            clients[server] = server.client()
        return clients[server]

    yield client
    for opened in clients.values():
        opened.close()


@pytest.fixture(scope="session")
def store_of(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Kind], Store]]:
    """`store_of(kind)` is the running store of a kind, started when it is first asked for."""
    opened: dict[Kind, Store] = {}
    with ExitStack() as stack:

        def open_store(kind: Kind) -> Store:
            server = request.getfixturevalue(_FIXTURES[kind])
            if not isinstance(server, S3Server):
                return stack.enter_context(google_store(server, tmp_path_factory.mktemp(kind)))
            return stack.enter_context(s3_store(server, "r2" if server.region == "auto" else "s3"))

        def store(kind: Kind) -> Store:
            if kind not in opened:
                opened[kind] = open_store(kind)
            return opened[kind]

        yield store


_FIXTURES = {
    Kind.S3: "ministack",
    Kind.SEAWEEDFS: "seaweedfs",
    Kind.R2: "r2_server",
    Kind.R2_ELSEWHERE: "other_r2_server",
    Kind.GCS: "gcs",
    Kind.FAKEGCS: "fakegcs",
    Kind.JUICEFS: "juicefs",
    Kind.JUICEFS_PLAIN: "juicefs_plain",
    Kind.RCLONE: "rclone",
    Kind.CEPH: "ceph",
    Kind.SWIFT: "swift",
}


@pytest.fixture(scope="session")
def make_bucket(boto: Callable[[S3Server], S3Client]) -> Callable[[S3Server], str]:
    """`make_bucket(server)` creates a bucket that no other test has and returns its name."""

    def make(server: S3Server) -> str:
        name = f"test-{secrets.token_hex(8)}"
        boto(server).create_bucket(Bucket=name)
        return name

    return make
