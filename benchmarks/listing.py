"""Answers ListObjectsV2 for the folders of an nginx endpoint, which cannot do it itself.

Twenty requests of a run of 20,000 objects come here; what they cost is the server's, not measured.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

HOST = "127.0.0.1"
PAGE = 1000


class _Lister(ThreadingHTTPServer):
    """Knows a folder of buckets; reads a bucket's keys once, when first asked."""

    daemon_threads = True

    def __init__(self, data: Path) -> None:
        super().__init__((HOST, 0), _Handler)
        self._data = data
        self._rows: dict[str, tuple[list[str], list[str]]] = {}

    def rows(self, bucket: str) -> tuple[list[str], list[str]]:
        """Keys in order, and the XML of each. Only the source's buckets are asked for twice."""
        if bucket not in self._rows:
            found = sorted(_entries(self._data / bucket))
            rows = ([key for key, _ in found], [row for _, row in found])
            if not found:
                return rows
            self._rows[bucket] = rows
        return self._rows[bucket]


def _entries(folder: Path) -> Iterator[tuple[str, str]]:
    for path, _, names in os.walk(folder):
        for name in names:
            file = Path(path, name)
            status = file.stat()
            size, modified = status.st_size, int(status.st_mtime)
            key = str(file.relative_to(folder))
            yield (
                key,
                (
                    f"<Contents><Key>{escape(key)}</Key>"
                    "<LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                    f"<ETag>&quot;{modified:x}-{size:x}&quot;</ETag><Size>{size}</Size>"
                    "<StorageClass>STANDARD</StorageClass></Contents>"
                ),
            )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Lister

    def do_GET(self) -> None:
        """Answer one page."""
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        keys, rows = self.server.rows(parts.path.split("/")[1])
        after = query.get("continuation-token") or query.get("start-after") or query.get("marker")
        begin = bisect_right(keys, after) if after else 0
        count = min(int(query.get("max-keys", PAGE)), PAGE)
        self._answer(keys[begin : begin + count], rows[begin : begin + count], begin + count, keys)

    def _answer(self, keys: list[str], rows: list[str], end: int, everything: list[str]) -> None:
        more = end < len(everything)
        token = f"<NextContinuationToken>{escape(keys[-1])}</NextContinuationToken>" if more else ""
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Prefix></Prefix>'
            f"<KeyCount>{len(keys)}</KeyCount><MaxKeys>{PAGE}</MaxKeys>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{''.join(rows)}"
            "</ListBucketResult>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def serve(data: Path) -> Iterator[int]:
    """Answer for the buckets below `data` on the port yielded."""
    with _Lister(data) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
