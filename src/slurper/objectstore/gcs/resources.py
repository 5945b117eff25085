"""Translates between the object resources of Google's JSON API and the types of the protocol.

Two things have no counterpart on the other side, and travel as metadata:

    Google's customTime         user metadata `goog-custom-time` elsewhere, and back again
    the Expires header          custom metadata `http-expires` at Google, and back again

Google keeps metadata as text, not bytes. Bytes that are not UTF-8 are read as ISO 8859-1.
"""

from __future__ import annotations

import base64
import json
import re
from datetime import datetime
from typing import Any

from slurper import errors
from slurper.http.dates import iso_date
from slurper.objectstore import documents, object_headers
from slurper.objectstore.base import UNKNOWN_SIZE, ObjectHeaders, ObjectMeta, StoredObject
from slurper.objectstore.checksums import Algorithm, Told

Resource = dict[str, Any]
"""An object's description, as Google sends it."""

_CONTENT_MEMBERS = {
    "cacheControl": "cache-control",
    "contentDisposition": "content-disposition",
    "contentEncoding": "content-encoding",
    "contentLanguage": "content-language",
    "contentType": "content-type",
}

CUSTOM_TIME = "goog-custom-time"
EXPIRES = "http-expires"
PACKED = "slurper-metadata"
"""Holds all metadata of an object that was just made of parts, as base64 of JSON."""

_UNREADABLE = (ValueError, TypeError, LookupError, RecursionError)
"""What reading JSON raises that holds no description: it is cut off, of other types, or nested too
deeply."""

_MOST_GENERATION_CHARACTERS = 64

_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")

FIELDS = ",".join(
    (
        "name,size,generation,metageneration,timeCreated,storageClass,crc32c,md5Hash,metadata,customTime",
        *_CONTENT_MEMBERS,
    )
)
"""The members of a resource that we use."""


def read_object(text: bytes) -> Resource:
    """Read one resource.

    Raises:
        UnavailableStore: it is no resource.
        StoreError: it tells no size, so it cannot be copied.
    """
    try:
        resource = json.loads(text)
        meta = to_meta(resource)
    except _UNREADABLE as error:
        detail = "the answer describes no object"
        raise errors.UnavailableStore("objects.get", status=200, detail=detail) from error
    if meta.size == UNKNOWN_SIZE:
        detail = f"the answer does not tell the size of {meta.key!a}"
        raise errors.StoreError("objects.get", status=200, detail=detail, key=meta.key)
    return dict(resource)


def read_rewrite(text: bytes) -> tuple[Resource | None, str]:
    """Read the answer to a request for a copy: the new object, or the token to go on with.

    Raises:
        UnavailableStore: it holds neither.
    """
    try:
        answer = json.loads(text)
        if not answer["done"] and isinstance(token := answer["rewriteToken"], str):
            return None, token
        if to_meta(answer["resource"]).size == UNKNOWN_SIZE:
            raise LookupError("size or generation")
    except _UNREADABLE as error:
        detail = "the answer describes no copy"
        raise errors.UnavailableStore("objects.rewrite", status=200, detail=detail) from error
    return dict(answer["resource"]), ""


def read_page(text: bytes) -> tuple[list[Resource], str]:
    """Read a page of a listing and its nextPageToken, empty when it is the last.

    Raises:
        ListingError: it is no listing, or is cut off.
    """
    try:
        page = json.loads(text)
        items, token = page.get("items", []), page.get("nextPageToken", "")
        if isinstance(items, list) and isinstance(token, str) and _are_resources(items):
            return items, token
    except (ValueError, AttributeError, RecursionError) as error:
        raise errors.ListingError(f"the listing is not complete JSON: {error}") from error
    raise errors.ListingError("the listing has no items of the kind that it should have")


def _are_resources(items: list[object]) -> bool:
    return all(isinstance(item, dict) for item in items)


def to_meta(resource: Resource) -> ObjectMeta:
    """One line of a listing. Raises TypeError, ValueError or LookupError: it has no name.

    Only the name has to be there. A line without a size or a version gets `UNKNOWN_SIZE`, because
    it is not enough for a copy. The reader of the listing then asks for the object by name.
    """
    name = resource["name"]
    if not isinstance(name, str):
        raise TypeError("the name is no text")
    name.encode()  # JSON can write half of a surrogate pair, which is no character
    etag = etag_of(resource.get("generation"))
    return ObjectMeta(
        name,
        _size(resource.get("size")) if etag else UNKNOWN_SIZE,
        etag,
        iso_date(resource.get("timeCreated")),
        str(resource.get("storageClass") or ""),
    )


def _size(told: object) -> int:
    size = documents.count_of(str(told))
    return UNKNOWN_SIZE if size is None else size


def to_stored(resource: Resource) -> StoredObject:
    """Everything that is kept beside the bytes."""
    content = {
        header: _header_text(str(resource[member]))
        for member, header in _CONTENT_MEMBERS.items()
        if resource.get(member)
    }
    kept = unpacked(resource) or _told_metadata(resource)
    metadata = {name: _header_text(str(value)) for name, value in kept.items()}
    if "content-encoding" in content:
        object_headers.strip_transfer_coding(content)
    if EXPIRES in metadata:
        content["expires"] = metadata.pop(EXPIRES)
    if resource.get("customTime"):
        metadata[CUSTOM_TIME] = _header_text(str(resource["customTime"]))
    headers = ObjectHeaders(content, metadata)
    crc32c = str(resource.get("crc32c") or "")
    told = Told(Algorithm.CRC32C, crc32c) if crc32c else None
    return StoredObject(to_meta(resource), headers, crc32c, told)


def from_headers(headers: ObjectHeaders) -> Resource:
    """The resource of a new object with these headers and metadata."""
    resource: Resource = {
        member: _plain_text(headers.content[header])
        for member, header in _CONTENT_MEMBERS.items()
        if header in headers.content
    }
    metadata = _metadata(headers)
    if _holds_time(metadata):
        resource["customTime"] = metadata.pop(CUSTOM_TIME)
    resource["metadata"] = {_plain_text(k): _plain_text(v) for k, v in metadata.items()}
    return resource


def to_xml_headers(headers: ObjectHeaders) -> dict[str, str]:
    """The same as `from_headers`, for the XML API.

    Header names ignore case, and header values hold ASCII only. If some metadata does not fit, all
    metadata is packed into one header. `unpacked` reads it later.
    """
    sent = {name: value for name, value in headers.content.items() if name != "expires"}
    metadata = _metadata(headers)
    if _holds_time(metadata):
        sent["x-goog-custom-time"] = metadata.pop(CUSTOM_TIME)
    if not all(_fits_header(name, value) for name, value in metadata.items()):
        plain = {_plain_text(name): _plain_text(value) for name, value in metadata.items()}
        metadata = {PACKED: base64.b64encode(json.dumps(plain).encode()).decode()}
    for name, value in metadata.items():
        sent[f"x-goog-meta-{name}"] = value
    return sent


def unpacked(resource: Resource) -> dict[str, str] | None:
    """The metadata that `to_xml_headers` packed into one header; None: it did not."""
    packed = _told_metadata(resource).get(PACKED)
    if packed is None:
        return None
    try:
        metadata = json.loads(base64.b64decode(packed, validate=True))
    except _UNREADABLE:
        return None
    return {str(k): str(v) for k, v in metadata.items()} if isinstance(metadata, dict) else None


def _told_metadata(resource: Resource) -> dict[str, Any]:
    """The custom metadata, as the resource has it; empty if it is none."""
    metadata = resource.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _fits_header(name: str, value: str) -> bool:
    is_plain = value.isascii() and value.isprintable() and value == value.strip() != ""
    return is_plain and _HEADER_NAME.fullmatch(name) is not None


def _holds_time(metadata: dict[str, str]) -> bool:
    """Whether the custom time is a time. At other stores, users can write any text there."""
    try:
        return datetime.fromisoformat(metadata.get(CUSTOM_TIME, "")).tzinfo is not None
    except ValueError:
        return False


def _metadata(headers: ObjectHeaders) -> dict[str, str]:
    metadata = dict(headers.metadata)
    if "expires" in headers.content:
        metadata[EXPIRES] = headers.content["expires"]
    return metadata


def etag_of(generation: object) -> str:
    """The identity token of a generation, which names one version; empty if it is not told."""
    told = str(generation) if isinstance(generation, str | int) else ""
    is_one = len(told) <= _MOST_GENERATION_CHARACTERS and told.isascii() and told.isalnum()
    return f'"{told}"' if is_one and generation else ""


def generation_of(etag: str) -> str:
    """The generation that an identity token of ours names."""
    return etag.strip('"')


def _header_text(text: str) -> str:
    """The text of a header: one character per byte."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def _plain_text(text: str) -> str:
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text
