"""Reads the objects of a bucket with few steps: hundreds of tests compare some thousand objects.

What a test looks at is read as boto3 would read it, and signed by botocore, but boto3 takes four
times the CPU for it.
"""

from __future__ import annotations

import http.client
import threading
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from typing_extensions import override

from slurper.demo.servers import S3Server
from tests.pairs.referee import HEADERS, S3Bucket, Stored

_META = "x-amz-meta-"


class Reader:
    """Reads objects of one server; one request after the other."""

    def __init__(self, server: S3Server) -> None:
        credentials = Credentials(server.access_key_id, server.secret_access_key)
        self._auth = S3SigV4Auth(credentials, "s3", server.region)
        self._endpoint = server.endpoint
        self._connection: http.client.HTTPConnection | None = None
        self._lock = threading.Lock()

    def get(self, bucket: str, key: str) -> Stored | None:
        """Read an object; None: boto3 is to be asked, which tells every error."""
        path = f"/{bucket}/{quote(key, safe='/~')}"
        request = AWSRequest("GET", f"{self._endpoint}{path}")
        self._auth.add_auth(request)
        with self._lock:
            try:
                return self._read(path, dict(request.headers.items()))
            except (OSError, http.client.HTTPException):
                self.close()
                return None

    def close(self) -> None:
        """Close the connection. The next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _read(self, path: str, headers: dict[str, str]) -> Stored | None:
        if self._connection is None:
            host = urlsplit(self._endpoint).netloc
            self._connection = http.client.HTTPConnection(host, timeout=60)
        self._connection.request("GET", path, headers=headers)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            return None
        sent = {name.lower(): value for name, value in answer.getheaders()}
        return Stored(
            body,
            {name: sent[name] for name in HEADERS if name in sent},
            {n.removeprefix(_META): value for n, value in sent.items() if n.startswith(_META)},
        )


@dataclass(frozen=True, slots=True)
class QuickBucket(S3Bucket):
    """A bucket whose objects are read in that way; everything else is boto3's."""

    reader: Reader

    @override
    def get(self, key: str) -> Stored:
        return self.reader.get(self.name, key) or S3Bucket.get(self, key)

    @override
    def read_all(self) -> dict[str, Stored]:
        return {key: self.get(key) for key in self.read_keys()}
