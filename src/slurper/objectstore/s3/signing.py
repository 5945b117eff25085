"""AWS Signature Version 4 as S3 wants it: a `Signer` that caches between calls.

S3 differs from other AWS services in two ways that matter here: the path is encoded once and never
normalised, and the payload may stay out of the signature (`UNSIGNED-PAYLOAD`). The checksum headers
protect the bodies, and these headers are signed. A checksum that comes behind a body is not signed.

`host`, `content-type`, `content-md5` and every `x-amz-*` header are signed. A proxy may change any
other header without harm.
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html

In the signature, each run of white space in a value becomes one space, and white space at the ends
is dropped. The value itself is sent unchanged. White space means the six characters of ASCII, and
beyond ASCII those that botocore, MinIO and SeaweedFS fold. Amazon and R2 get only ASCII values.
"""

from __future__ import annotations

import hashlib
import hmac
import operator
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from slurper import errors
from slurper.http.messages import Request, header_lines
from slurper.secrets import S3Credentials

UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
"""For a body in chunks with a checksum behind it (`s3.trailing`)."""
ALGORITHM = "AWS4-HMAC-SHA256"

_WHITE_SPACE = re.compile(
    r"(?:[\t-\r ]|\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f"
    r"|\xe3\x80\x80)+"
)
"""For values with one character per byte: characters beyond ASCII appear as their UTF-8 bytes."""
_ALWAYS_SIGNED = frozenset({"host", "content-type", "content-md5"})
_NEVER_SPACED = frozenset({"content-md5", "x-amz-checksum-mode"})
"""Signed headers of requests whose values are no free text."""
_MAX_LAYOUTS = 1024


def signing_key(secret: str, day: str, region: str, service: str = "s3") -> bytes:
    """Derive the key that signs for one day (`20130524`), region and service."""
    key = f"AWS4{secret}".encode()
    for step in (day, region, service, "aws4_request"):
        key = hmac.digest(key, step.encode(), "sha256")
    return key


def trimmed(value: str) -> str:
    """The value as it is signed: each run of white space is one space, and none is at the ends."""
    return _WHITE_SPACE.sub(" ", value).strip(" ")


def _has_loose_spaces(block: str) -> bool:
    """Whether a value may hold white space that must be folded in the signature."""
    if not block.isascii() or "\t" in block or "\v" in block or "\f" in block:
        return True
    # Most blocks hold no space at all, and one character is found 20 times as fast as two.
    return " " in block and ("  " in block or ": " in block or " \n" in block)


class Signer:
    """Signs requests for one host, region and key pair in a few microseconds each.

    It caches the signing key for a day, and the date and the scope for a second. For each set of
    header names it caches, also for a second, a layout of the signed headers. The values that are
    the same for every request are already in the layout. A signer belongs to one event loop, and is
    not for threads.
    """

    __slots__ = (
        "_authorization",
        "_clock",
        "_credentials",
        "_day",
        "_fixed",
        "_host",
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
        self._host = host
        self._fixed = {"x-amz-date": ""}
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

    def __call__(self, request: Request) -> str:
        """Return the header lines to add to one request, beside its own headers and Host.

        `request.target` must carry its query in canonical form (`urls.canonical_query`).
        """
        second = int(self._clock() + self.skew_seconds)
        if second != self._second:
            self._advance(second)
        own = request.headers
        names = tuple(own)
        layout = self._layouts.get(names) or self._lay_out(names)
        path, _, query = request.target.partition("?")
        block = layout.template % layout.pick(own)
        if layout.free_text and _has_loose_spaces(block):
            block = layout.template % tuple(map(trimmed, layout.pick(own)))
        canonical = f"{request.method}\n{path}\n{query}\n{block}"
        digest = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(digest.encode())
        outer.update(inner.digest())
        return f"{layout.lines}{outer.hexdigest()}\r\n"

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
        self._layouts.clear()
        self._second = second

    def _lay_out(self, names: tuple[str, ...]) -> _Layout:
        """Make the layout for these header names.

        Metadata can have any names, so the cache is bounded.
        """
        if len(self._layouts) >= _MAX_LAYOUTS:
            self._layouts.clear()
        payload = UNSIGNED_TRAILER if "x-amz-trailer" in names else UNSIGNED_PAYLOAD
        fixed = {**self._fixed, "x-amz-content-sha256": payload}
        host_and_fixed = {"host": self._host, **fixed}
        if not host_and_fixed.keys().isdisjoint(names):
            raise errors.ConfigurationError("a header that the signature sets is set already")
        values = {name: _escaped(trimmed(value)) for name, value in host_and_fixed.items()}
        own = sorted(n for n in names if n in _ALWAYS_SIGNED or n.startswith("x-amz-"))
        signed = sorted((*own, *values))
        block = "".join(f"{_escaped(name)}:{values.get(name, '%s')}\n" for name in signed)
        joined = ";".join(signed)
        authorization = f"{self._authorization}{joined}, Signature="
        added = header_lines({**fixed, "authorization": authorization})
        layout = self._layouts[names] = _Layout(
            template=f"{block}\n{_escaped(joined)}\n{payload}",
            pick=_picker(own),
            lines=added.removesuffix("\r\n"),
            free_text=not _NEVER_SPACED.issuperset(own),
        )
        return layout


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the end of a canonical request is made for one set of header names."""

    template: str
    pick: Callable[[Mapping[str, str]], tuple[str, ...]]
    """Takes the values for the template from a request's own headers."""
    lines: str
    """What is added to the request's head, up to the signature."""
    free_text: bool
    """Some of the headers may hold white space that must be folded in the signature."""


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _picker(names: Sequence[str]) -> Callable[[Mapping[str, str]], tuple[str, ...]]:
    if not names:
        return lambda _: ()
    if len(names) == 1:  # with one name, an itemgetter returns no tuple
        (name,) = names
        return lambda headers: (headers[name],)
    return operator.itemgetter(*names)


def _hmac_states(key: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """The two hashes of HMAC-SHA256 (RFC 2104), already begun: copying them saves half the cost."""
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
    return inner, hashlib.sha256(bytes(byte ^ 0x5C for byte in block))
