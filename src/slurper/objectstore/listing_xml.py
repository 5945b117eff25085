"""Reads XML documents of listings: unzipped, without document types, and complete.

Listings of multipart uploads are read here as a whole. They are short and rare. Pages of objects
have readers of their own, in `s3.pages`.
"""

from __future__ import annotations

import functools
import math
import re
import zlib
from datetime import datetime
from xml.etree import ElementTree as ET

from slurper import errors
from slurper.http.dates import iso_date
from slurper.http.messages import Response
from slurper.objectstore import documents, listings, texts, urls
from slurper.objectstore.base import UploadMeta
from slurper.objectstore.listings import UploadsPage

Summary = dict[str, str]
"""Text of the elements beside the rows."""


def parse_uploads(document: bytes, *, now: datetime) -> UploadsPage:
    """Read one page of a listing of uploads; `now` is the store's time.

    Raises:
        ListingError: not a complete ListMultipartUploadsResult.
    """
    rows: list[Summary] = []
    summary: Summary = {}
    for child in parse(as_text(document), "ListMultipartUploadsResult"):
        if local_name(child.tag) == "Upload":
            rows.append({local_name(leaf.tag): leaf.text or "" for leaf in child})
        else:
            summary[local_name(child.tag)] = child.text or ""
    encoded = summary.get("EncodingType", "").lower() == "url"
    read_key = urls.unquoted if encoded else str
    uploads = [
        UploadMeta(read_key(row.get("Key", "")), upload_id, _age_seconds(row, now))
        for row in rows
        if (upload_id := row.get("UploadId", "")) and row.get("Key")
    ]
    if is_finished(summary) or not uploads:
        return UploadsPage(uploads, None)
    last = uploads[-1]
    key_marker = read_key(summary.get("NextKeyMarker", "")) or last.key
    return UploadsPage(uploads, (key_marker, summary.get("NextUploadIdMarker") or last.upload_id))


def _age_seconds(row: Summary, now: datetime) -> float:
    """An upload whose beginning is not told counts as infinitely old. It is never aborted."""
    begun_at = iso_date(row.get("Initiated", ""))
    return math.inf if begun_at is None else (now - begun_at).total_seconds()


def is_finished(summary: Summary) -> bool:
    """Whether no page follows. Raises ListingError: the page does not say."""
    truncated = summary.get("IsTruncated", "").strip().lower()
    if truncated not in ("true", "false"):
        raise errors.ListingError("the listing does not say whether it is truncated")
    return truncated == "false"


def refuse_coded(document: bytes, coding: str) -> None:
    """Explain a document that a proxy in front of the store may have compressed.

    Raises:
        NotAListing: it came with a coding that cannot be undone.
    """
    begins = document[:_BEGIN_BYTES].lstrip(_BEFORE_XML)
    is_told = coding.lower() not in ("", "identity")
    if is_told and begins and not begins.startswith((b"<", b"{", *_ZIPPED)):
        raise errors.NotAListing(
            f"the listing is compressed (Content-Encoding {texts.cleaned(coding)}), though that "
            "was not asked for"
        )


def unpacked(response: Response, *, most: int) -> bytes:
    """Return the document. Google's S3 interface zips it, because requests accept gzip there."""
    document = documents.unpacked(response, most=most)
    refuse_coded(document, response.headers.get("content-encoding", ""))
    return document


def as_text(document: bytes, *, max_bytes: int = listings.MAX_DOCUMENT_BYTES) -> str:
    """Return the document's text, unzipped if need be; it may have `max_bytes` then.

    Raises:
        ListingError: it has a document type, or markup that no listing has. NotAListing: it is no
            XML document.
    """
    document = _unzipped(document, max_bytes).lstrip(_BEFORE_XML)
    if documents.is_web_page(document):
        raise _stranger(document, "the answer is not a store's but a web page")
    if document.startswith((b"{", b"[")):
        raise _stranger(document, "the server speaks JSON, not S3")
    if b"<!DOCTYPE" in document or b"<!ENTITY" in document:
        raise errors.ListingError("the listing holds a document type declaration")
    try:
        text = document.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _stranger(document, f"the listing is not UTF-8: {error}") from error
    if text and not text.startswith("<"):
        raise _stranger(document, f"the answer is text of {len(document)} bytes, and no listing")
    _bound_markup(document)
    return text


def _stranger(document: bytes, what: str) -> errors.NotAListing:
    """The error for an answer of another program. Its text does not tell what that says."""
    text = document[: documents.MAX_TEXT_BYTES].decode("utf-8", "replace")
    return errors.NotAListing(what, documents.words(text))


_KNOWN_ROOTS = frozenset(
    {
        "EnumerationResults",
        "Error",
        "ListAllMyBucketsResult",
        "ListBucketResult",
        "ListMultipartUploadsResult",
        "ListVersionsResult",
        "LocationConstraint",
        "html",
        "multistatus",
    }
)
"""Documents of stores, and of programs that are taken for stores."""


def _bound_markup(document: bytes) -> None:
    """Refuse what would cost a parser far more than a listing does. Raises ListingError."""
    # A tag has three bytes at least. So most pages need not be counted, which takes a while.
    if len(document) > 3 * _MAX_TAGS and document.count(b"<") > _MAX_TAGS:
        raise errors.ListingError(f"the listing has more than {_MAX_TAGS} tags")
    # A longer tag or text without a tag covers one of these windows.
    ends = range(_MAX_RUN_BYTES, len(document) + 1, _MAX_RUN_BYTES)
    if any(document.find(b"<", end - _MAX_RUN_BYTES, end) < 0 for end in ends):
        raise errors.ListingError(
            f"the listing has a tag, or text without a tag, of more than {_MAX_RUN_BYTES} bytes"
        )


_MAX_TAGS = 250_000
"""A thousand rows have less than 40,000."""

_MAX_RUN_BYTES = 16 << 10
"""A key has at most 1,024 bytes, and no form of writing a byte is longer than 10."""

_MAX_DEPTH = 8
"""The deepest element of a row is three below the root."""

_PIECE_CHARACTERS = 16 << 10

_BEFORE_XML = b"\xef\xbb\xbf \t\r\n"
"""A byte order mark, and white space that some programs print before the document."""

_BEGIN_BYTES = 40
_LOGGED_CHARACTERS = 4096
_ZIPPED = (b"\x1f\x8b", b"x\x01", b"x\x5e", b"x\x9c", b"x\xda")
"""How gzip data begins, and data that HTTP calls deflate."""


def is_zipped(document: bytes) -> bool:
    """Whether it is compressed. No XML document begins like a compressed one."""
    return document.startswith(_ZIPPED)


def _unzipped(document: bytes, max_bytes: int) -> bytes:
    """Undo compression that was not asked for."""
    if not is_zipped(document):
        return document
    try:
        unzip = zlib.decompressobj(wbits=47)
        text = unzip.decompress(document, max_bytes)
    except zlib.error as error:
        raise errors.NotAListing(
            f"the listing is compressed, though that was not asked for, and damaged: {error}"
        ) from error
    if not unzip.eof:
        raise errors.NotAListing(
            "the listing is compressed, though that was not asked for, and cut off or too large"
        )
    return text


def parse(text: str, expected: str) -> ET.Element:
    """Return the root of a document that `as_text` has returned; `expected` is the root's name.

    Raises:
        ListingError: it is not complete XML. NotAListing: its root has another name.
    """
    try:
        root = _parse_xml(text)
    except ET.ParseError as error:
        text = texts.cleaned(str(error))
        raise errors.ListingError(f"the listing is not complete XML: {text}") from error
    name = local_name(root.tag)
    if name != expected:
        got = repr(name) if name in _KNOWN_ROOTS else "another document"
        raise _stranger(text[:_LOGGED_CHARACTERS].encode(), f"expected a {expected}, got {got}")
    _bound_depth(root)
    return root


def _bound_depth(root: ET.Element) -> None:
    """Refuse elements that are nested deeper than in any listing. Raises ListingError."""
    level = [child for child in root if len(child)]
    for _ in range(_MAX_DEPTH):
        level = [child for element in level for child in element if len(child)]
    if level:
        raise errors.ListingError("the listing has elements that are nested too deeply")


def _parse_xml(text: str) -> ET.Element:
    try:
        return _tree(text)
    except ET.ParseError:
        escaped = _CONTROL_REFERENCE.sub(_stand_in, text)
        if escaped == text or _STAND_IN.search(text):
            raise
    root = _tree(escaped)
    for element in root.iter():
        element.text = (element.text or "").translate(_STOOD_FOR)
    return root


def _tree(text: str) -> ET.Element:
    """Parse piece by piece, because other threads have to wait while a piece is parsed."""
    parser = ET.XMLParser()  # noqa: S314 - without a DTD, see as_text
    for begin in range(0, len(text), _PIECE_CHARACTERS):
        parser.feed(text[begin : begin + _PIECE_CHARACTERS])
    root: ET.Element = parser.close()
    return root


_CONTROL_REFERENCE = re.compile(r"&#(?:x0*(1?[0-9a-fA-F])|0*([12]?[0-9]|3[01]));")
"""References to control characters, which XML does not allow. Ceph and rclone encode keys, but not
the key after which a page begins. They repeat that key in this form."""
_STAND_IN = re.compile("[\U000f0000-\U000f001f]")
_STOOD_FOR = {0xF0000 + code: code for code in range(32)}


def _stand_in(found: re.Match[str]) -> str:
    return chr(0xF0000 + (int(found[1], 16) if found[1] else int(found[2])))


@functools.lru_cache(maxsize=64)  # a listing has about twenty names, each a thousand times
def local_name(tag: str) -> str:
    """The name of an element without its namespace."""
    return tag.rpartition("}")[2]
