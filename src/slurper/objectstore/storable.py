"""Finds objects that a store cannot keep as they are, before anything is sent to it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from slurper import errors
from slurper.objectstore import encoded_words, key_shapes
from slurper.objectstore.base import CONTENT_HEADERS, ObjectHeaders
from slurper.objectstore.dialects import Dialect

_MAX_BYTES_PER_CHARACTER = 4


HEADERS = (
    *sorted(CONTENT_HEADERS),
    "metadata",
    "metadata-beyond-ascii",
    "long-metadata",
    "underscored-metadata",
)
"""What a store may lose beside the bytes: a header, or one kind of user metadata."""

LONG_METADATA_BYTES = 255
"""A longer metadata value counts as long. Some stores cut off the rest."""


def required(names: Iterable[str]) -> frozenset[str]:
    """Which of `HEADERS` are meant by these names from `job.rules.REQUIRABLE`."""
    wanted = set(names)
    if "headers" in wanted:
        return frozenset(HEADERS)
    if "metadata" in wanted:
        wanted |= set(HEADERS) - CONTENT_HEADERS
    return frozenset(wanted)


def check(key: str, headers: ObjectHeaders, dialect: Dialect, *, size: int | None = None) -> None:
    """Raise if the store cannot keep an object of this key, headers and size.

    `size` is as in `check_key`.

    Raises:
        NotStorable: as `check_key` says, or the metadata is longer than the dialect allows.
        KeyNotKept: as `check_key` says, also if the key is kept only for objects without headers.
        HeadersNotKept: the object has a header that the dialect refuses.
    """
    check_key(key, dialect, size=size, headers=headers)
    if dialect.refused_headers:
        _check_refused(headers, dialect)
    limit = dialect.max_metadata_bytes
    if limit is None or not headers.metadata:
        return
    size = sum(
        len(name) + _stored_bytes(value, dialect) for name, value in headers.metadata.items()
    )
    if size > limit:
        raise errors.NotStorable(
            f"the object's metadata has {size} bytes; {dialect.name} holds at most {limit}"
        )


def check_key(
    key: str, dialect: Dialect, *, size: int | None = None, headers: ObjectHeaders | None = None
) -> None:
    """Raise if the store cannot keep an object of `size` bytes under this key.

    `size` None: the object has bytes.

    Raises:
        NotStorable: the key is longer than the dialect allows.
        KeyNotKept: the store would change the key, or refuse the object.
    """
    if len(key) * _MAX_BYTES_PER_CHARACTER > dialect.max_key_bytes:
        _check_length(key, dialect)
    if dialect.unkept_keys and not key_shapes.is_plain(key):
        _check_shape(key, dialect, size, headers)


def _check_shape(
    key: str, dialect: Dialect, size: int | None, headers: ObjectHeaders | None
) -> None:
    has_headers = headers is not None and bool(
        headers.metadata or headers.content.keys() - {"content-type"}
    )
    shape = key_shapes.found_in(key, dialect.unkept_keys, size=size, has_headers=has_headers)
    if shape is not None:
        raise errors.KeyNotKept(
            f"the target does not keep {key_shapes.text_of(shape)}: it would change "
            f"{key!a}, or refuse it"
        )


def _check_refused(headers: ObjectHeaders, dialect: Dialect) -> None:
    lost = [name for name in HEADERS if name in dialect.refused_headers and _has(headers, name)]
    if lost:
        raise errors.HeadersNotKept(
            f"the target would keep the object without its {', '.join(lost)}, which "
            "options.require asks for"
        )


def _has(headers: ObjectHeaders, name: str) -> bool:
    match name:
        case "metadata":
            return bool(headers.metadata)
        case "metadata-beyond-ascii":
            return not all(map(str.isascii, headers.metadata.values()))
        case "long-metadata":
            return any(len(value) > LONG_METADATA_BYTES for value in headers.metadata.values())
        case "underscored-metadata":
            return any("_" in named for named in headers.metadata)
        case _:
            return name in headers.content


def _check_length(key: str, dialect: Dialect) -> None:
    limit = dialect.max_key_bytes
    kept = unicodedata.normalize("NFC", key) if dialect.normalises_keys else key
    size = len(kept.encode("utf-8", "surrogateescape"))
    if size > limit:
        raise errors.NotStorable(
            f"the key has {size} bytes; {dialect.name} takes keys of at most {limit}"
        )


def _stored_bytes(value: str, dialect: Dialect) -> int:
    """How many bytes of the limit a value takes. RFC 2047 words count in decoded form."""
    text = encoded_words.decoded(value) if dialect.decodes_metadata else None
    return len(value) if text is None else len(text.encode())
