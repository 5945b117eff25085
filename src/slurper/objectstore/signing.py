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
import operator
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from slurper.http.messages import Request
from slurper.secrets import S3Credentials

UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
ALGORITHM = "AWS4-HMAC-SHA256"

_SPACES = re.compile(" +")
_ALWAYS_SIGNED = frozenset({"host", "content-type", "content-md5"})
_SET_BY_US = frozenset(
    {
        "content-md5",
        "host",
        "x-amz-checksum-mode",
        "x-amz-content-sha256",
        "x-amz-date",
        "x-amz-request-payer",
        "x-amz-security-token",
    }
)
_MAX_LAYOUTS = 1024


def canonical_query(parameters: Iterable[tuple[str, str]]) -> str:
    """Encode and sort query parameters; the result serves on the wire and in the signature."""
    pairs = sorted((_encoded(name), _encoded(value)) for name, value in parameters)
    return "&".join(f"{name}={value}" for name, value in pairs)


def _encoded(text: str) -> str:
    return quote(text, safe="-_.~", errors="surrogateescape")


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


def _has_loose_spaces(block: str) -> bool:
    """Whether a value holds spaces that the signature must not see."""
    if "\t" in block:
        return True
    # Most blocks hold no space at all, and one character is found 20 times as fast as two.
    return " " in block and ("  " in block or ": " in block or " \n" in block)


class Signer:
    """Signs requests for one host, region and key pair in a few microseconds each.

    Cached are the signing key (per day), date and scope (per second), and how the signed headers
    are laid out (per set of header names). One event loop uses a signer; it is not for threads.
    """

    __slots__ = (
        "_authorization",
        "_clock",
        "_credentials",
        "_day",
        "_fixed",
        "_inner",
        "_layouts",
        "_outer",
        "_second",
        "_start",
        "region",
        "skew_seconds",
    )

    def __init__(
        self,
        credentials: S3Credentials,
        *,
        host: str,
        region: str,
        requester_pays: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._credentials = credentials
        self._clock = clock
        self._fixed = {"host": host, "x-amz-content-sha256": UNSIGNED_PAYLOAD, "x-amz-date": ""}
        if credentials.session_token is not None:
            self._fixed["x-amz-security-token"] = credentials.session_token
        if requester_pays:
            self._fixed["x-amz-request-payer"] = "requester"
        self._layouts: dict[tuple[str, ...], _Layout] = {}
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
        headers = request.headers | self._fixed
        names = tuple(headers)
        layout = self._layouts.get(names) or self._lay_out(names)
        path, _, query = request.target.partition("?")
        block = layout.template % layout.pick(headers)
        if layout.free_text and _has_loose_spaces(block):
            block = layout.template % tuple(map(_trimmed, layout.pick(headers)))
        canonical = f"{request.method}\n{path}\n{query}\n{block}"
        digest = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(digest.encode())
        outer.update(inner.digest())
        headers["authorization"] = f"{self._authorization}{layout.signed}{outer.hexdigest()}"
        return headers

    def _advance(self, second: int) -> None:
        amz_date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        day = amz_date[:8]
        scope = f"{day}/{self.region}/s3/aws4_request"
        if day != self._day:
            key = signing_key(self._credentials.secret_access_key, day, self.region)
            self._start, self._outer = _hmac_states(key)
            owner = f"{self._credentials.access_key_id}/{scope}"
            self._authorization = f"{ALGORITHM} Credential={owner}, SignedHeaders="
            self._day = day
        self._fixed["x-amz-date"] = amz_date
        self._inner = self._start.copy()
        self._inner.update(f"{ALGORITHM}\n{amz_date}\n{scope}\n".encode())
        self._second = second

    def _lay_out(self, names: tuple[str, ...]) -> _Layout:
        """Arrange the signed headers. Users name metadata as they like: the cache is bounded."""
        if len(self._layouts) >= _MAX_LAYOUTS:
            self._layouts.clear()
        signed = sorted(n for n in names if n in _ALWAYS_SIGNED or n.startswith("x-amz-"))
        lines = "".join(f"{name.replace('%', '%%')}:%s\n" for name in signed)
        joined = ";".join(signed)
        layout = self._layouts[names] = _Layout(
            template=f"{lines}\n{joined.replace('%', '%%')}\n{UNSIGNED_PAYLOAD}",
            pick=operator.itemgetter(*signed),
            signed=f"{joined}, Signature=",
            free_text=not _SET_BY_US.issuperset(signed),
        )
        return layout


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the end of a canonical request is made of a certain set of headers."""

    template: str
    pick: Callable[[Mapping[str, str]], tuple[str, ...]]
    signed: str
    free_text: bool
    """Holds headers whose values may have spaces that the signature must not see."""


def _hmac_states(key: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """The two hashes of HMAC-SHA256 (RFC 2104), begun: a copy of each saves half of its cost."""
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
    return inner, hashlib.sha256(bytes(byte ^ 0x5C for byte in block))
