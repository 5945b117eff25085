"""What a store cannot hold beside the bytes, told before anything is sent to it."""

from __future__ import annotations

import unicodedata

from slurper import errors
from slurper.objectstore import encoded_words
from slurper.objectstore.base import ObjectHeaders
from slurper.objectstore.dialects import Dialect

_MAX_BYTES_PER_CHARACTER = 4


def check(key: str, headers: ObjectHeaders, dialect: Dialect, *, size: int | None = None) -> None:
    """Pass what the store can keep; `size` as in `check_key`.

    Raises:
        NotStorable: as `check_key` says, or the metadata is longer than the dialect allows.
        NotStorableInFolders: as `check_key` says, or a folder would lose its headers.
    """
    check_key(key, dialect, size=size)
    if dialect.keeps_folders and key.endswith("/"):
        _check_folder_headers(key, headers)
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


def check_key(key: str, dialect: Dialect, *, size: int | None = None) -> None:
    """Pass a key under which the store can keep an object of `size` bytes; None: of many.

    Raises:
        NotStorable: the key is longer than the dialect allows.
        NotStorableInFolders: the object would become another.
    """
    if len(key) * _MAX_BYTES_PER_CHARACTER > dialect.max_key_bytes:
        _check_length(key, dialect)
    if dialect.keeps_folders:
        _check_folders(key, size)


def _check_folders(key: str, size: int | None) -> None:
    kept = _path(key)
    if kept != key:
        raise errors.NotStorableInFolders(
            f"the target keeps objects as files in folders and would keep {key!a} as {kept!a}"
        )
    if key.endswith("/") and size != 0:
        raise errors.NotStorableInFolders(
            f"the target keeps objects as files in folders and would keep {key!a} as a folder, "
            "without its bytes"
        )


def _check_folder_headers(key: str, headers: ObjectHeaders) -> None:
    lost = sorted((*(headers.content.keys() - {"content-type"}), *headers.metadata))
    if lost:
        raise errors.NotStorableInFolders(
            f"the target keeps objects as files in folders and would keep {key!a} as a folder, "
            f"without its {', '.join(lost)}"
        )


def _path(key: str) -> str:
    """The key under which a store finds again what it has put into folders by this one."""
    key = key.replace("\\", "/")
    path = "/".join(filter(None, key.split("/")))
    return f"{path}/" if path and key.endswith("/") else path


def _check_length(key: str, dialect: Dialect) -> None:
    limit = dialect.max_key_bytes
    kept = unicodedata.normalize("NFC", key) if dialect.normalises_keys else key
    size = len(kept.encode("utf-8", "surrogateescape"))
    if size > limit:
        raise errors.NotStorable(
            f"the key has {size} bytes; {dialect.name} takes keys of at most {limit}"
        )


def _stored_bytes(value: str, dialect: Dialect) -> int:
    """How much of the limit a value takes: of words, what they stand for."""
    text = encoded_words.decoded(value) if dialect.decodes_metadata else None
    return len(value) if text is None else len(text.encode())
