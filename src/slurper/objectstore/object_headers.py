"""Translates between HTTP headers and what a store keeps beside an object's bytes."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from slurper import errors
from slurper.http.dates import http_date
from slurper.objectstore import checksums, encoded_words
from slurper.objectstore.base import CONTENT_HEADERS, ObjectHeaders, ObjectMeta, StoredObject

METADATA_PREFIX = "x-amz-meta-"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def from_response(key: str, size: int, headers: Mapping[str, str]) -> StoredObject:
    """Describe an object of `size` bytes by the headers of a GET or HEAD answer."""
    kept, described, telling = _kept(tuple(headers))
    content = {name: headers[name] for name in kept}
    metadata = {name: headers[METADATA_PREFIX + name] for name in described}
    if "content-encoding" in content:
        strip_transfer_coding(content)
    meta = ObjectMeta(
        key,
        size,
        headers.get("etag", ""),
        http_date(headers.get("last-modified", "")),
        _storage_class(headers),
    )
    stored = StoredObject(meta, ObjectHeaders(content, metadata))
    if telling:
        _note_checksums(stored, headers)
    return stored


@functools.lru_cache(maxsize=1024)  # the answers of a store mostly have the same headers
def _kept(names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """The content headers of a response, and the names of the user's metadata.

    Also whether it has headers that tell checksums.
    """
    metadata = (name for name in names if name.startswith(METADATA_PREFIX))
    return (
        tuple(name for name in names if name in CONTENT_HEADERS),
        tuple(name.removeprefix(METADATA_PREFIX) for name in metadata),
        any(name in _TELLING for name in names),
    )


_KMS = "x-amz-server-side-encryption"
_OWN_KEY = "x-amz-server-side-encryption-customer-algorithm"
_OBJECT_TYPE = "x-oss-object-type"
_TELLING = frozenset({*checksums.TOLD_IN, _KMS, _OWN_KEY, _OBJECT_TYPE})


def _note_checksums(stored: StoredObject, headers: Mapping[str, str]) -> None:
    stored.etag_may_be_md5 = (
        headers.get(_KMS, "AES256") == "AES256"
        and _OWN_KEY not in headers
        and headers.get(_OBJECT_TYPE) != "Appendable"
    )
    of_parts = headers.get("x-amz-checksum-type", "").upper() == "COMPOSITE"
    for name, algorithm in checksums.TOLD_IN.items():
        value = headers.get(name)
        if not value:  # some stores send every checksum header, and leave some empty
            continue
        told = checksums.Told(algorithm, value)
        if of_parts or "-" in value:
            stored.told_of_parts = stored.told_of_parts or told
        else:
            stored.told = stored.told or told


def _storage_class(headers: Mapping[str, str]) -> str:
    """The class or tier that decides whether the object can be read.

    Empty for an archived object that has been restored: it keeps its class, but can be read. For an
    Intelligent-Tiering object in an archive tier it is that tier, because other objects of that
    class can be read.
    """
    if 'ongoing-request="false"' in headers.get("x-amz-restore", ""):
        return ""
    return headers.get("x-amz-archive-status") or headers.get("x-amz-storage-class", "")


def to_request(headers: ObjectHeaders, *, as_words: bool = False) -> dict[str, str]:
    """The request headers that give a new object these headers and metadata, and no others.

    `as_words` puts metadata beyond ASCII into RFC 2047 words, for stores that decode them. A value
    that no header can carry, such as one with blanks at an end, becomes words for every store.

    Raises:
        ConfigurationError: names of metadata differ in case only; Google allows that.
        NotStorable: a name of metadata cannot be part of a header's name.
    """
    sent = dict(headers.content)
    if "content-encoding" in sent:
        strip_transfer_coding(sent)
    kept = len(sent)
    if headers.metadata:
        _check_names(tuple(headers.metadata))
    for name, value in headers.metadata.items():
        sent[METADATA_PREFIX + name.lower()] = encoded_words.encoded(value, ascii_only=as_words)
    if len(sent) < len(headers.metadata) + kept:
        raise errors.ConfigurationError("names of its metadata differ in upper and lower case only")
    return sent


@functools.lru_cache(maxsize=1024)  # the objects of a bucket mostly have the same names
def _check_names(names: tuple[str, ...]) -> None:
    for name in names:
        if _TOKEN.fullmatch(name) is None:
            raise errors.NotStorable(
                f"its metadata is named {name!a}, which cannot be part of an HTTP header's name"
            )


def strip_transfer_coding(content: dict[str, str]) -> None:
    """Drop the token `aws-chunked`: it tells how bytes were once sent, and not what they are.

    Some stores keep it by mistake, and refuse it when it is sent to them.
    """
    value = content["content-encoding"]
    if "aws-chunked" not in value.lower():
        return
    tokens = [token.strip() for token in value.split(",")]
    kept = [token for token in tokens if token and token.lower() != "aws-chunked"]
    if kept:
        content["content-encoding"] = ", ".join(kept)
    else:
        del content["content-encoding"]
