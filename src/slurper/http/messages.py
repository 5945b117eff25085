"""Requests and responses as values, and the bytes of a request's head.

Nothing is normalised: a target is sent exactly as given. A character that could end a line early
is refused, because it could smuggle in a header or a second request.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from slurper import errors
from slurper.http.streams import BodyStream, Feed

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = frozenset(
    {
        "connection",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that no caller may set. They could send a request elsewhere or change its connection."""


class Digest(Protocol):
    """Takes in the bytes of one body, in order."""

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take in the next bytes. Their memory may change afterwards."""
        ...


@dataclass(slots=True)
class Request:
    """One HTTP request. It may be sent several times."""

    method: str
    target: str
    """Encoded path, "?" and query, exactly as they are sent: printable ASCII."""
    headers: dict[str, str]
    """Lower-case names; values one character per byte (latin-1)."""
    body: Sequence[bytes] = ()
    idempotent: bool = True
    """Sending it twice does no harm. So it may be sent again when its result is not known."""
    retried: bool = True
    """False: it is sent once. Only a kept connection that is found dead is replaced."""
    awaited_bytes: int = 0
    """The expected length of the answer's body. A long body is then received without copying."""
    digest: Callable[[Mapping[str, str]], Digest | None] | None = None
    """Makes a digest from the answer's headers, for a long body only. The digest takes in the bytes
    as they come, while they are still in the processor's caches."""
    feed: Feed | None = None
    """Where the body comes from, instead of `body`. Each send opens it anew."""
    may_stream: Callable[[Mapping[str, str]], bool] | None = None
    """Says by the answer's headers whether its body is streamed. If not, the request ends with
    StreamDeclined. None: the answer is collected. Answers that are errors always are."""

    def body_bytes(self) -> int:
        """How long the body is."""
        if self.feed is not None:
            return self.feed.length
        return sum(map(len, self.body)) if self.body else 0


@dataclass(slots=True)
class Response:
    """One HTTP response, complete."""

    status: int
    headers: dict[str, str]
    """Lower-case names; values one character per byte; repeated fields joined with ", "."""
    body: list[bytes]
    """The chunks as they came in, not decompressed. The chunks of large bodies are bytearrays."""
    length: int
    """Bytes of `body`."""
    retries: int = 0
    """How often the request was sent again before this answer."""
    digest: Digest | None = None
    """The digest that the request made for this body, if it has taken in the whole body. A short
    body has none."""
    stream: BodyStream | None = None
    """The body, if the request asked for a stream; `body` is empty then. The caller reads it to its
    end, or closes it."""


@functools.lru_cache(maxsize=1024)
def _layout(method: str, names: tuple[str, ...]) -> str:
    """Check method and header names, once per combination, and return a format of the head."""
    for token in (method, *names):
        if _TOKEN.fullmatch(token) is None:
            raise errors.ConfigurationError(f"{token!r} cannot be a method or header name")
    if refused := _OURS.intersection(name.lower() for name in names):
        raise errors.ConfigurationError(f"header {min(refused)} is not a caller's to set")
    lines = "".join(name.replace("%", "%%") + ": %s\r\n" for name in names)
    return f"{method} %s HTTP/1.1\r\n{lines}"


def header_lines(headers: Mapping[str, str]) -> str:
    """Write headers as the lines of a head, each with its line break.

    Raises:
        ConfigurationError: as `encode_head`.
    """
    head = encode_head("GET", "/", headers, 0).decode("latin-1")
    return head.partition("\r\n")[2].removesuffix("\r\n")


def encode_head(
    method: str, target: str, headers: Mapping[str, str], body_bytes: int, *, added: str = ""
) -> bytes:
    """Build request line and header block. Add `content-length` if the request needs one.

    `added` are more lines, made by `header_lines`. They are not checked again. So lines that are
    the same for thousands of requests can be made once.

    Raises:
        ConfigurationError: a value holds a line break or NUL, the target is not printable ASCII
            without spaces, a name is no token, or `content-length` is not `body_bytes`. The texts
            of these errors hold no header's value.
    """
    counted = body_bytes > 0 or method in ("PUT", "POST", "PATCH")
    if "content-length" in headers:
        if headers["content-length"] != str(body_bytes):
            raise errors.ConfigurationError(f"content-length is not the body's {body_bytes} bytes")
        counted = False
    layout = _layout(method, tuple(headers))
    values = (target, *headers.values())
    given = "".join(values)
    if "\n" in given or "\r" in given or "\0" in given:
        raise errors.ConfigurationError(_first_broken(target, headers))
    if not (target.isascii() and target.isprintable() and " " not in target and target):
        raise errors.ConfigurationError("request target is not printable ASCII without spaces")
    end = f"content-length: {body_bytes}\r\n\r\n" if counted else "\r\n"
    try:
        return f"{layout % values}{added}{end}".encode("latin-1")
    except UnicodeEncodeError:
        raise errors.ConfigurationError(_first_wide(headers)) from None


_FORBIDDEN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_TLS_RECORDS = (b"\x15\x03", b"\x16\x03")
"""The first bytes of an alert, and of a handshake."""


def fault_in(data: bytes) -> str:
    """Say what is wrong with an answer that cannot be parsed; "" if that is not known."""
    if data.startswith(_TLS_RECORDS):
        return " (it answers in TLS)"
    if not data.startswith(b"HTTP/"):  # it may be any program's
        return ""
    for line in data.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        raw, colon, value = line.partition(b":")
        name = raw.decode("latin-1")
        if not colon:
            return " (a header line without a colon)"
        if _TOKEN.fullmatch(name) is None or _FORBIDDEN.search(value):
            return f" (header {name[:80]!a})"
    return ""


def _first_broken(target: str, headers: Mapping[str, str]) -> str:
    for name, value in {"request target": target, **headers}.items():
        if not {"\r", "\n", "\0"}.isdisjoint(value):
            return f"{name} holds a line break or NUL"
    return "the request head holds a line break or NUL"


def _first_wide(headers: Mapping[str, str]) -> str:
    for name, value in headers.items():
        if any(character > "\xff" for character in value):
            return f"header {name} holds characters beyond one byte"
    return "a header holds characters beyond one byte"
