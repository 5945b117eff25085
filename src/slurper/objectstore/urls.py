"""Percent-encodes keys and buckets for paths, and parameters for queries.

A key is any text. Bytes that are not UTF-8 are surrogates in it, and are sent as the same bytes.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from urllib.parse import quote_from_bytes, unquote_to_bytes

from slurper import errors

_SEGMENT_SAFE = "-_.~"
_PATH_SAFE = f"{_SEGMENT_SAFE}/"
_UNCHANGED = (string.ascii_letters + string.digits + _PATH_SAFE).encode()


def path(text: str) -> str:
    """Encode a bucket or key for a path in which it keeps its slashes."""
    raw = text.encode("utf-8", "surrogateescape")
    # Most keys need no encoding. Finding that out takes a fifth of the time of encoding.
    return quote_from_bytes(raw, _PATH_SAFE) if raw.translate(None, _UNCHANGED) else text


def segment(text: str) -> str:
    """Encode a text for one segment of a path, or for a query: its slashes are encoded too."""
    return quote_from_bytes(text.encode("utf-8", "surrogateescape"), _SEGMENT_SAFE)


def object_path(bucket: str, key: str) -> str:
    """Name an object of any bucket, as the header `x-amz-copy-source` does."""
    return f"/{path(bucket)}/{path(key)}"


def canonical_query(parameters: Iterable[tuple[str, str]]) -> str:
    """Encode and sort query parameters; the result is used in the request and in its signature."""
    pairs = sorted((segment(name), segment(value)) for name, value in parameters)
    return "&".join(f"{name}={value}" for name, value in pairs)


def not_empty(key: str) -> str:
    """Return the key. An empty one would name the bucket. Raises ConfigurationError."""
    if not key:
        raise errors.ConfigurationError("an object's key cannot be empty")
    return key


def unquoted(text: str) -> str:
    """Undo encoding-type=url, in which `+` is a space, exactly once.

    Bytes that are not UTF-8 are kept.
    """
    return unquote_to_bytes(text.replace("+", " ")).decode("utf-8", "surrogateescape")
