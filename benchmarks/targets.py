"""Light S3 endpoints: nginx with WebDAV PUT for objects, a `companion` for LIST and uploads.

They check no signature, so they cost a twelfth of a real store, and what is measured is the client.
Every client still does its real work, signing included.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.seaweedfs import TlsFiles

from benchmarks import companion
from benchmarks.companion import HOST, Companion
from benchmarks.datasets import Dataset
from benchmarks.errors import MeasurementFailed
from benchmarks.uploads import PARTS_FOLDER

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

_CONFIGURATION = """
{user}worker_processes 1; daemon off; pid {root}/nginx.pid; error_log {root}/error.log error;
events {{ worker_connections 8192; }}
http {{
  access_log off; sendfile on; tcp_nodelay on;
  keepalive_requests 100000000; keepalive_timeout 600s;
  client_max_body_size 0; client_body_buffer_size 1m; client_body_temp_path {root}/tmp;
  default_type application/octet-stream;
  map "$request_method:$args" $kind {{
    default object;
    "~^GET:(.*&)?(list-type=2|prefix=|delimiter=|max-keys=|uploads)" companion;
    "~^POST:" companion;
    "~^DELETE:(.*&)?uploadId=" companion;
    "~^PUT:(.*&)?partNumber=" part;
  }}
  map $request_method $written {{ default $sent_http_etag; PUT '"written"'; }}
  server {{
    listen {host}:{port} {tls} backlog=4096; root {root}/data;
    dav_methods PUT DELETE; create_full_put_path on; dav_access user:rw group:r all:r;
    location = / {{
      default_type application/xml;
      return 200 '<?xml version="1.0"?><ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>';
    }}
    location ~ ^/[^/]+/?$ {{
      if ($kind = companion) {{ proxy_pass http://{host}:{companion}; break; }}
      return 200 '';
    }}
    location / {{
      proxy_read_timeout 600s;
      if ($kind = companion) {{ proxy_pass http://{host}:{companion}; break; }}
      if ($kind = part) {{ rewrite ^ /{parts}/$arg_uploadid/$arg_partnumber last; }}
      add_header ETag $written;
    }}
    location /{parts}/ {{ internal; add_header ETag $written; }}
  }}
}}
"""


class Endpoint(ABC):
    """A running server that tools copy to, or from."""

    name: str
    version: str
    url: str
    access_key_id: str
    secret_access_key: str

    @abstractmethod
    def create(self, bucket: str) -> None:
        """Make an empty bucket."""

    @abstractmethod
    def fill(self, bucket: str, dataset: Dataset, source: Path) -> None:
        """Make a bucket that holds the data set of the folder `source`, as if it were copied."""

    @abstractmethod
    def verify(self, bucket: str, dataset: Dataset, source: Path) -> None:
        """Check that a bucket holds every byte of the data set.

        Raises:
            MeasurementFailed: it does not.
        """

    @abstractmethod
    def remove(self, bucket: str) -> None:
        """Remove a bucket with all that it holds."""


class Nginx(Endpoint):
    """One running nginx, whose buckets are folders."""

    name = "nginx"
    # It takes any; tools that sign need some.
    access_key_id = "benchkey"
    secret_access_key = "benchsecret123"  # noqa: S105 - no secret

    def __init__(self, url: str, root: Path, version: str, helper: Companion) -> None:
        self.url = url
        self.version = version
        self.root = root
        self._companion = helper

    def folder(self, bucket: str) -> Path:
        """Where a bucket's objects are."""
        return self.root / "data" / bucket

    def settle(self, bucket: str) -> None:
        """Say that a bucket does not change any more."""
        self._companion.settle(bucket)

    def create(self, bucket: str) -> None:
        """Make an empty bucket."""
        self.folder(bucket).mkdir(parents=True)

    def fill(self, bucket: str, dataset: Dataset, source: Path) -> None:  # noqa: ARG002
        """Link the objects. None is overwritten: nginx puts a new file in place of an old."""
        shutil.copytree(source, self.folder(bucket), copy_function=os.link)
        self.settle(bucket)

    def verify(self, bucket: str, dataset: Dataset, source: Path) -> None:
        """Compare all files."""
        for key in dataset.keys:
            copied = self.folder(bucket) / key
            if not copied.exists() or not _same(source / key, copied):
                raise MeasurementFailed(f"{key} is missing or differs at the target")

    def remove(self, bucket: str) -> None:
        """Remove the folder, and the parts of uploads that were not completed."""
        shutil.rmtree(self.folder(bucket), ignore_errors=True)
        shutil.rmtree(self.folder(PARTS_FOLDER), ignore_errors=True)


def _same(one: Path, other: Path) -> bool:
    with one.open("rb") as first, other.open("rb") as second:
        while chunk := first.read(1 << 20):
            if chunk != second.read(1 << 20):
                return False
        return not second.read(1)


@contextmanager
def nginx(root: Path, tls: TlsFiles | None = None) -> Iterator[Nginx]:
    """Run an endpoint over the files below `root` until the block ends."""
    if NGINX is None:
        raise SystemExit("nginx is not installed; it is the endpoint of this benchmark")
    for name in ("data", "tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    with companion.serve(root / "data") as helper:
        config = root / "nginx.conf"
        port = _free_port()
        config.write_text(_configuration(root, port, helper.server_port, tls))
        process = subprocess.Popen(
            [NGINX, "-e", str(root / "error.log"), "-p", str(root), "-c", str(config)],
            stdin=subprocess.DEVNULL,
        )
        try:
            _wait_for(port, process)
            scheme = "https" if tls else "http"
            yield Nginx(f"{scheme}://{HOST}:{port}", root, _version(NGINX), helper)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=10)


def _configuration(root: Path, port: int, companion_port: int, tls: TlsFiles | None) -> str:
    text = _CONFIGURATION.format(
        root=root,
        host=HOST,
        port=port,
        tls="ssl" if tls else "",
        companion=companion_port,
        parts=PARTS_FOLDER,
        user="user root;\n" if os.geteuid() == 0 else "",
    )
    if tls is None:
        return text
    files = f"ssl_certificate {tls.certificate}; ssl_certificate_key {tls.key};"
    return text.replace("access_log off;", f"access_log off; {files}")


def _version(program: str) -> str:
    shown = subprocess.run([program, "-v"], check=True, capture_output=True, text=True)
    return shown.stderr.strip().removeprefix("nginx version: ").replace("/", " ")


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise SystemExit(f"nginx ended at start with status {process.returncode}")
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("nginx does not listen")
