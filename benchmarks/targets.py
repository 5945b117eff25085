"""Light S3 endpoints: nginx with WebDAV PUT for objects, `listing` for LIST.

They check no signature, so they cost a twelfth of a real store, and what is measured is the client.
Every client still does its real work, signing included. Multipart calls are answered but join
nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import listing

HOST = "127.0.0.1"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

_CONFIGURATION = """
{user}worker_processes 1; daemon off; pid {root}/nginx.pid; error_log {root}/error.log error;
events {{ worker_connections 8192; }}
http {{
  access_log off; sendfile on; tcp_nodelay on;
  keepalive_requests 100000000; keepalive_timeout 600s;
  client_max_body_size 0; client_body_buffer_size 1m; client_body_temp_path {root}/tmp;
  default_type application/octet-stream;
  map $args $is_list {{ default 0; "~(^|&)(list-type=2|prefix=|delimiter=|max-keys=)" 1; }}
  map $request_method$is_list $kind {{ default object; GET1 list; }}
  map $request_method $written {{ default ''; PUT '"written"'; }}
  server {{
    listen {host}:{port} backlog=4096; root {root}/data;
    location = / {{
      default_type application/xml;
      return 200 '<?xml version="1.0"?><ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>';
    }}
    location / {{
      default_type application/octet-stream;
      if ($kind = list) {{ proxy_pass http://{host}:{listing}; }}
      if ($request_method = POST) {{ rewrite ^ /__upload last; }}
      add_header ETag $written;
      dav_methods PUT DELETE; create_full_put_path on; dav_access user:rw group:r all:r;
    }}
    location = /__upload {{
      internal; default_type application/xml;
      return 200 '{upload}';
    }}
  }}
}}
"""

_UPLOAD = "<Result><UploadId>u</UploadId><ETag>joined</ETag></Result>"
"""Answers the creation and the completion of an upload."""


@dataclass(frozen=True)
class Endpoint:
    """One running nginx: where it answers and where its files are."""

    url: str
    root: Path
    pid: int

    @property
    def data(self) -> Path:
        """Buckets are the folders in here."""
        return self.root / "data"


@contextmanager
def nginx(root: Path) -> Iterator[Endpoint]:
    """Run an endpoint over the files below `root` until the block ends."""
    if NGINX is None:
        raise SystemExit("nginx is not installed; it is the endpoint of this benchmark")
    for name in ("data", "tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    with listing.serve(root / "data") as listing_port:
        config = root / "nginx.conf"
        port = _free_port()
        config.write_text(_configuration(root, port, listing_port))
        process = subprocess.Popen(
            [NGINX, "-e", str(root / "error.log"), "-p", str(root), "-c", str(config)],
            stdin=subprocess.DEVNULL,
        )
        try:
            _wait_for(port, process)
            yield Endpoint(f"http://{HOST}:{port}", root, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=10)


def _configuration(root: Path, port: int, listing_port: int) -> str:
    return _CONFIGURATION.format(
        root=root,
        host=HOST,
        port=port,
        listing=listing_port,
        upload=_UPLOAD,
        user="user root;\n" if os.geteuid() == 0 else "",
    )


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
