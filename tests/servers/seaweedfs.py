"""SeaweedFS from its wheel, a store that keeps objects as files in folders."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slurper import errors
from slurper.demo.servers import GRPC_OFFSET, HOST, Plan, S3Server, free_ports, served


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files of a server certificate; clients trust `ca`."""

    certificate: Path
    key: Path
    ca: Path


@contextmanager
def seaweedfs(directory: Path, *, tls: TlsFiles | None = None) -> Iterator[S3Server]:
    """Run SeaweedFS with its data in `directory`, over https when `tls` is given."""
    with served(lambda: _plan_seaweedfs(directory, tls)) as server:
        yield server


def _plan_seaweedfs(directory: Path, tls: TlsFiles | None) -> Plan:
    master, volume, filer, http, https, admin = free_ports(6)
    key, secret = "AKIASEAWEEDFS", secrets.token_hex(20)
    _write_identities(directory / "identities.json", key, secret)
    ports = {"master": master, "volume": volume, "filer": filer, "s3": http, "admin": admin}
    options: dict[str, object] = dict(_SEAWEEDFS_OPTIONS)
    for name, port in ports.items():
        options |= {f"{name}.port": port, f"{name}.port.grpc": port + GRPC_OFFSET}
    if tls is not None:
        files = {"s3.cert.file": tls.certificate, "s3.key.file": tls.key}
        options |= files | {"s3.port.https": https}
    return Plan(
        name="seaweedfs",
        server=S3Server(
            endpoint=f"https://{HOST}:{https}" if tls else f"http://{HOST}:{http}",
            access_key_id=key,
            secret_access_key=secret,
            ca_file=tls.ca if tls else None,
        ),
        command=[_weed(), "mini", *(f"-{name}={value}" for name, value in options.items())],
        directory=directory,
        environment={"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},
        grace_seconds=0.2,  # it takes seconds to tidy up what is thrown away
        leftovers=tuple(
            Path(f"/tmp/seaweedfs-{name}-grpc-{port + GRPC_OFFSET}.sock")  # noqa: S108 - fixed by it
            for name, port in ports.items()
        ),
    )


_SEAWEEDFS_OPTIONS: Mapping[str, object] = {
    "admin.ui": "false",
    "dir": ".",
    "filer.localSocket": "filer.sock",
    "ip": HOST,
    "ip.bind": HOST,
    "master.telemetry": "false",
    "s3.autoCreateBucket": "false",
    "s3.config": "identities.json",
    "s3.iam": "false",
    "s3.localSocket": "s3.sock",
    "s3.port.iceberg": 0,
    "s3.port.lance": 0,
    "volume.max": 10_000,  # every bucket takes a volume of its own
    "webdav": "false",
}


def _write_identities(path: Path, access_key_id: str, secret_access_key: str) -> None:
    pair = {"accessKey": access_key_id, "secretKey": secret_access_key}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    owner = {"name": "owner", "credentials": [pair], "actions": actions}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"identities": [owner]}))


def _weed() -> str:
    """Find the program in the interpreter's folder. It need not be on PATH."""
    path = Path(sys.executable).parent / "weed"
    if not path.exists():
        raise errors.ConfigurationError(f"weed is not installed beside {sys.executable}")
    return str(path)
