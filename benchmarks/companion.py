"""Answers beside an nginx endpoint what nginx cannot: LIST, and the ends of multipart uploads.

It runs in the benchmark's own process, outside of what is measured. A run of 20,000 objects sends
twenty requests here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit

from benchmarks.listing import Listing
from benchmarks.uploads import Uploads

HOST = "127.0.0.1"


class Companion(ThreadingHTTPServer):
    """Knows an endpoint's folder of buckets."""

    daemon_threads = True
    request_queue_size = 128
    """More at once than that wait a second and come again."""

    def __init__(self, data: Path) -> None:
        super().__init__((HOST, 0), _Handler)
        self.uploads = Uploads(data)
        self._data = data
        self._settled: dict[str, Listing] = {}

    def settle(self, bucket: str) -> None:
        """Read a bucket that will not change any more, so that no later LIST has to."""
        self._settled[bucket] = Listing(self._data / bucket)

    def listing(self, bucket: str) -> Listing:
        """The bucket's keys as they are now."""
        return self._settled.get(bucket) or Listing(self._data / bucket)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body together; the second of two small packets would wait for an ACK
    server: Companion

    @property
    def _query(self) -> dict[str, str]:
        given = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        return {name: values[0] for name, values in given.items()}

    @property
    def _path(self) -> str:
        return unquote(urlsplit(self.path).path)

    def do_GET(self) -> None:
        """ListObjectsV2; of uploads under way there are never any to tell."""
        query = self._query
        if "uploads" in query:
            self._answer(200, b"<ListMultipartUploadsResult></ListMultipartUploadsResult>")
        else:
            self._answer(200, self.server.listing(self._path.split("/")[1]).page(query))

    def do_POST(self) -> None:
        """CreateMultipartUpload and CompleteMultipartUpload."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        upload_id = self._query.get("uploadId")
        if upload_id is None:
            self._answer(200, self.server.uploads.create())
            return
        try:
            self._answer(200, self.server.uploads.complete(self._path, upload_id, body))
        except OSError:
            self._answer(404, b"<Error><Code>NoSuchUpload</Code></Error>")

    def do_DELETE(self) -> None:
        """AbortMultipartUpload."""
        self.server.uploads.abort(self._query["uploadId"])
        self._answer(204, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if body:
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def serve(data: Path) -> Iterator[Companion]:
    """Answer for the buckets below `data`, on the server's own port."""
    with Companion(data) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
