"""Two light S3 endpoints: nginx with WebDAV PUT and static LIST pages.

They check no signature, so they cost a twelfth of a real store, and what is measured is the client.
Every client still does its real work, signing included. LIST answers come from files that
`datasets` writes; GET and PUT are plain files; multipart calls are answered but join nothing.
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
  map $args $page {{
    default 0;
    "~continuation-token=(?<token>[A-Za-z0-9]+)" $token;
    "~start-after=p(?<prefix>[0-9]+)(%2F|/)obj-(?<number>[0-9]+)" s${{prefix}}_$number;
  }}
  map $request_method$is_list $kind {{ default object; GET1 list; }}
  server {{
    listen {host}:{port} backlog=4096; root {root}/data;
    location = / {{
      default_type application/xml;
      return 200 '<?xml version="1.0"?><ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>';
    }}
    location / {{
      default_type application/octet-stream;
      if ($kind = list) {{ rewrite ^/(?<bucket>[^/]+)/?.*$ /__list/$bucket/$page.xml last; }}
      if ($request_method = POST) {{ rewrite ^ /__upload last; }}
      if ($arg_uploadId) {{ add_header ETag '"part"'; }}
      dav_methods PUT DELETE; create_full_put_path on; dav_access user:rw group:r all:r;
    }}
    location = /__upload {{
      internal; default_type application/xml;
      return 200 '{upload}';
    }}
    location /__list/ {{
      internal; alias {root}/pages/; default_type application/xml; error_page 404 =200 /__empty.xml;
    }}
    location = /__empty.xml {{
      internal; default_type application/xml;
      return 200 '{empty_page}';
    }}
  }}
}}
"""

_UPLOAD = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
_EMPTY_PAGE = (
    "<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"
)


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
    for name in ("data", "pages", "tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    port = _free_port()
    user = "user root;\n" if os.geteuid() == 0 else ""
    config = root / "nginx.conf"
    config.write_text(
        _CONFIGURATION.format(
            root=root, host=HOST, port=port, user=user, upload=_UPLOAD, empty_page=_EMPTY_PAGE
        )
    )
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
