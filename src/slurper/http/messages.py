"""Requests and responses as values, and the bytes of a request's head.

Nothing here normalises: a target goes on the wire exactly as given. What could end a line early
and so smuggle a header or a second request is refused instead.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from slurper import errors

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
"""Never a caller's: by these a request would go elsewhere or change how its connection works."""


class Digest(Protocol):
    """Takes in the bytes of one body, in order."""

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take in the next bytes; they may change afterwards."""
        ...


@dataclass(slots=True)
class Request:
    """One HTTP request, as often as it has to be sent."""

    method: str
    target: str
    """Encoded path, "?" and query: exactly what goes on the wire, printable ASCII."""
    headers: dict[str, str]
    """Lower-case names; values one character per byte (latin-1)."""
    body: Sequence[bytes] = ()
    idempotent: bool = True
    """Sending it twice does no harm, so it may be sent again when its fate is unknown."""
    awaited_bytes: int = 0
    """How long the answer's body is expected to be; a long one is then read to where it stays."""
    digest: Callable[[Mapping[str, str]], Digest | None] | None = None
    """Makes, by the answer's headers, what takes in a long body while it comes: then its bytes are
    still in the caches of the processor."""


@dataclass(slots=True)
class Response:
    """One HTTP response, complete."""

    status: int
    headers: dict[str, str]
    """Lower-case names; values one character per byte; repeated fields joined with ", "."""
    body: list[bytes]
    """The chunks as they came in, never decompressed. Those of large bodies are bytearrays."""
    length: int
    """Bytes of `body`."""
    retries: int = 0
    """How often the request was sent again before this answer."""
    digest: Digest | None = None
    """What the request asked for, if it has taken in the whole body; short ones it does not see."""


@functools.lru_cache(maxsize=1024)
def _layout(method: str, names: tuple[str, ...]) -> str:
    """Check method and header names once per combination; the rest is string formatting."""
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
    """Build request line and header block; add `content-length` where the method wants one.

    `added` are more lines, of `header_lines`. Those that are the same for thousands of requests
    need not be made, nor looked through, for each.

    Raises:
        ConfigurationError: a line break or NUL in a value, a target that is not printable ASCII
            without spaces, a name that is no token, or a `content-length` other than
            `body_bytes`. No text of these errors holds a value.
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
"""How an alert begins, and a handshake."""


def fault_in(data: bytes) -> str:
    """What an answer that no parser takes still tells; empty: nothing."""
    if data.startswith(_TLS_RECORDS):
        return " (it answers in TLS)"
    for line in data.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        raw, colon, value = line.partition(b":")
        name = raw.decode("latin-1")
        if not colon or _TOKEN.fullmatch(name) is None or _FORBIDDEN.search(value):
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
