"""A hostile source, in a process of its own: it lists archived objects for ever.

    python -m tests.security.endless

prints its port, and serves until its standard input ends.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from slurper.demo.servers import HOST, S3Server

_ROW = (
    "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
    "<ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>1</Size>"
    "<StorageClass>GLACIER</StorageClass></Contents>"
)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        if "list-type" not in asked:
            self._answer(404, "<Error><Code>NoSuchKey</Code><Message>none</Message></Error>")
            return
        prefix = asked.get("prefix", [""])[0]
        after = asked.get("start-after", [""])[0].removeprefix(prefix)
        first = int(after) + 1 if after.isdecimal() else 0
        count = int(asked.get("max-keys", ["1000"])[0])
        rows = "".join(
            _ROW.format(key=f"{prefix}{number:020}") for number in range(first, first + count)
        )
        self._answer(
            200,
            f"<ListBucketResult><Name>b</Name><Prefix>{prefix}</Prefix><KeyCount>{count}</KeyCount>"
            f"<MaxKeys>{count}</MaxKeys><IsTruncated>true</IsTruncated>"
            f"<NextContinuationToken>more</NextContinuationToken>{rows}</ListBucketResult>",
        )

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("content-type", "application/xml")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Print nothing: a task that ends reads no more of the listing."""


@contextmanager
def running() -> Iterator[S3Server]:
    """Run it until the block ends."""
    command = [sys.executable, "-m", "tests.security.endless"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            endpoint = f"http://{HOST}:{port}"
            yield S3Server(
                endpoint=endpoint, access_key_id="id", secret_access_key="key", region="us-east-1"
            )
        finally:
            process.stdin.close()
            process.wait(30)


def main() -> None:
    """Serve."""
    server = _Server((HOST, 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
