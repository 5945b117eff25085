"""AWS Signature Version 4 as S3 wants it: pure functions, and a `Signer` that caches between calls.

S3 differs from other AWS services in two ways that matter here: the path is encoded once and never
normalised, and the payload may stay out of the signature (`UNSIGNED-PAYLOAD`). Integrity of bodies
is the business of the checksum headers, which are signed.

Signed are `host`, `content-type`, `content-md5` and every `x-amz-*` header; all others may be
changed by a proxy without harm. https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import quote

from slurper.http.messages import Request
from slurper.secrets import S3Credentials

UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
ALGORITHM = "AWS4-HMAC-SHA256"

_SPACES = re.compile(" +")
_ALWAYS_SIGNED = frozenset({"host", "content-type", "content-md5"})
_MAX_CACHED_NAMES = 1024


def canonical_query(parameters: Iterable[tuple[str, str]]) -> str:
    """Encode and sort query parameters; the result serves on the wire and in the signature."""
    pairs = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in parameters
    )
    return "&".join(f"{name}={value}" for name, value in pairs)


def canonical_request(
    method: str, path: str, query: str, headers: Mapping[str, str], payload_hash: str
) -> bytes:
    """Build what is hashed into the signature.

    Args:
        method: HTTP method.
        path: Encoded path, exactly as on the wire.
        query: Result of `canonical_query`.
        headers: All headers to sign: lower-case names, values with one character per byte.
        payload_hash: Hex SHA-256 of the body, or `UNSIGNED_PAYLOAD`.
    """
    names = sorted(headers)
    block = "".join(f"{name}:{_trimmed(headers[name])}\n" for name in names)
    text = f"{method}\n{path}\n{query}\n{block}\n{';'.join(names)}\n{payload_hash}"
    return text.encode("latin-1")


def string_to_sign(amz_date: str, scope: str, canonical: bytes) -> str:
    """Combine the time (`20130524T000000Z`), the scope and the canonical request's hash."""
    return f"{ALGORITHM}\n{amz_date}\n{scope}\n{hashlib.sha256(canonical).hexdigest()}"


def signing_key(secret: str, day: str, region: str, service: str = "s3") -> bytes:
    """Derive the key that signs for one day (`20130524`), region and service."""
    key = f"AWS4{secret}".encode()
    for step in (day, region, service, "aws4_request"):
        key = hmac.digest(key, step.encode(), "sha256")
    return key


def signature(key: bytes, text: str) -> str:
    """Sign the string to sign; hexadecimal."""
    return hmac.digest(key, text.encode(), "sha256").hex()


def _trimmed(value: str) -> str:
    return _SPACES.sub(" ", value.strip(" \t"))


class Signer:
    """Signs requests for one host, region and key pair in a few microseconds each.

    Cached are the signing key (per day), date and scope (per second), and which of a request's
    header names are signed (per set of names). One event loop uses a signer; it is not for threads.
    """

    __slots__ = (
        "_authorization",
        "_clock",
        "_credentials",
        "_day",
        "_fixed",
        "_key",
        "_names",
        "_second",
        "_to_sign",
        "region",
        "skew_seconds",
    )

    def __init__(
        self,
        credentials: S3Credentials,
        *,
        host: str,
        region: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._credentials = credentials
        self._clock = clock
        self._fixed = {"host": host, "x-amz-content-sha256": UNSIGNED_PAYLOAD, "x-amz-date": ""}
        if credentials.session_token is not None:
            self._fixed["x-amz-security-token"] = credentials.session_token
        self._names: dict[tuple[str, ...], tuple[tuple[str, ...], str]] = {}
        self._second = -1
        self._day = ""
        self.region = region
        self.skew_seconds = 0.0
        """Added to the local clock; set when the store says that the clocks differ."""

    def __call__(self, request: Request) -> dict[str, str]:
        """Return the headers of one send: the request's own, those added here, and the signature.

        `request.target` must carry its query in canonical form (`canonical_query`).
        """
        second = int(self._clock() + self.skew_seconds)
        if second != self._second:
            self._advance(second)
        path, _, query = request.target.partition("?")
        headers = request.headers | self._fixed
        names, signed = self._signed_names(headers)
        block = "".join([f"{name}:{headers[name]}\n" for name in names])
        if "  " in block or ": " in block or " \n" in block or "\t" in block:
            block = "".join([f"{name}:{_trimmed(headers[name])}\n" for name in names])
        canonical = f"{request.method}\n{path}\n{query}\n{block}\n{signed}\n{UNSIGNED_PAYLOAD}"
        digest = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
        proof = hmac.digest(self._key, f"{self._to_sign}{digest}".encode(), "sha256").hex()
        headers["authorization"] = f"{self._authorization}{signed}, Signature={proof}"
        return headers

    def _advance(self, second: int) -> None:
        amz_date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        day = amz_date[:8]
        scope = f"{day}/{self.region}/s3/aws4_request"
        if day != self._day:
            self._key = signing_key(self._credentials.secret_access_key, day, self.region)
            owner = f"{self._credentials.access_key_id}/{scope}"
            self._authorization = f"{ALGORITHM} Credential={owner}, SignedHeaders="
            self._day = day
        self._fixed["x-amz-date"] = amz_date
        self._to_sign = f"{ALGORITHM}\n{amz_date}\n{scope}\n"
        self._second = second

    def _signed_names(self, headers: Mapping[str, str]) -> tuple[tuple[str, ...], str]:
        """Pick the signed headers. Users name metadata as they like, so the cache is bounded."""
        key = tuple(headers)
        found = self._names.get(key)
        if found is None:
            if len(self._names) >= _MAX_CACHED_NAMES:
                self._names.clear()
            names = tuple(sorted(n for n in key if n in _ALWAYS_SIGNED or n.startswith("x-amz-")))
            found = self._names[key] = names, ";".join(names)
        return found
