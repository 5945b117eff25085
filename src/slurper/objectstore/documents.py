"""Reads small documents: errors, also Google's in JSON, and the answers of multipart uploads.

They come gzipped, cut off, as HTML or not at all, so they are searched, not parsed.
"""

from __future__ import annotations

import html
import json
import re
import zlib
from collections.abc import Iterable

from slurper.http.messages import Response

MAX_ANSWER_BYTES = 1 << 20
"""Only listings and objects may be longer."""

MAX_TEXT_BYTES = 16 * 1024
"""So much of an answer is looked at."""
MAX_WORDS_CHARACTERS = 300
"""So much of a text is looked at for words that tell its cause."""
_MAX_PLAIN_CHARACTERS = 4096
_MAX_ELEMENT_CHARACTERS = 4096
"""Python reads no number of more than 4,300 digits, and a character may be written as one."""
_MAX_PARTS = 20_000
"""Twice as many as an upload may have."""
_MOST_DIGITS = 19
_MAX_COUNT = (1 << 63) - 1
"""What fits into an integer of the database."""

# No expression may need more than linear time, whatever text comes: hence the atomic groups, and
# the texts that end at the next tag.
_PART_TAG = re.compile(r"</?(?:\w+:)?Part>")
_ERROR_ROOT = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?<(?:\w+:)?Error[\s>]")
_WEB_PAGE = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*)?(?>(?:<!--.*?-->\s*)*)<(?:!doctype\s+html|html|head|body)\b",
    re.DOTALL | re.IGNORECASE,
)
_MARKUP = re.compile(r"<(style|script)\b.*?(?:</\1>|\Z)|<[^<>]*>", re.DOTALL | re.IGNORECASE)


def text_of(response: Response) -> str:
    """The first 16 KiB of a document as text, unzipped if need be. Never raises."""
    return unpacked(response, most=MAX_TEXT_BYTES).decode("utf-8", "replace")


def unpacked(response: Response, *, most: int) -> bytes:
    """The first bytes of a document, unzipped if need be; nothing if that fails. Never raises."""
    body = b"".join(response.body)
    if response.headers.get("content-encoding", "").lower() not in ("gzip", "x-gzip"):
        # A store that takes long to answer sends white space first, to keep the connection.
        return body if len(body) <= most else body.lstrip()[:most]
    try:
        return zlib.decompressobj(wbits=31).decompress(body, most)
    except zlib.error:
        return b""


def element(text: str, name: str) -> str:
    """Text of the first element of this name, on one line; empty when there is none."""
    return _tidy(raw_element(text, name))


def raw_element(text: str, name: str) -> str:
    """Text of the first element of this name as it came; empty when there is none."""
    found = re.search(rf"<(?:\w+:)?{name}>([^<]*)</", text)
    return _unescaped(found[1]) if found else ""


def _unescaped(text: str) -> str:
    return html.unescape(text[:_MAX_ELEMENT_CHARACTERS])


def count_of(text: str) -> int | None:
    """A number of bytes or things, in a header or an element; None when it is none we can use."""
    if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS):
        return None
    count = int(text)
    return count if count <= _MAX_COUNT else None


def has_root(text: str, name: str) -> bool:
    """Whether a document is of this kind."""
    return re.match(rf"\s*(?:<\?xml[^>]*>\s*)?<(?:\w+:)?{name}[\s/>]", text) is not None


def parts(document: bytes) -> dict[int, tuple[str, int]]:
    """ETag and size of each part of a ListPartsResult, by number."""
    found: dict[int, tuple[str, int]] = {}
    # Every second piece is between an opening and a closing tag.
    pieces = _PART_TAG.split(document.decode("utf-8", "replace"), 2 * _MAX_PARTS)
    for row in pieces[1::2]:
        number, size = count_of(element(row, "PartNumber")), count_of(element(row, "Size"))
        if number is not None and size is not None:
            found[number] = (element(row, "ETag"), size)
    return found


def member(text: str, name: str) -> str:
    """The first text member of this name in JSON, cut off or not, as it came; empty: none."""
    found = re.search(rf'"{name}"\s*:\s*("(?:[^"\\]|\\.)*")', text)
    try:
        return str(json.loads(found[1], strict=False)) if found else ""
    except ValueError:
        return ""


def words(text: str) -> str:
    """The beginning of an answer that is no S3 document, without markup. It is not for users."""
    return _MARKUP.sub(" ", text[:_MAX_PLAIN_CHARACTERS])


def is_web_page(body: bytes) -> bool:
    """Whether an answer is a web page."""
    return _WEB_PAGE.match(body[:_MAX_PLAIN_CHARACTERS]) is not None


def holds_error(response: Response) -> bool:
    """Whether the document is an error. In a 200, the store failed after it began to answer."""
    return _ERROR_ROOT.match(unpacked(response, most=MAX_TEXT_BYTES)) is not None


def _tidy(text: str) -> str:
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


def complete_upload(parts: Iterable[tuple[int, str, str, str]]) -> bytes:
    """Write a CompleteMultipartUpload document.

    Args:
        parts: Number, ETag, and name and value of the checksum element (empty: none), in order.
    """
    rows = []
    for number, etag, name, value in parts:
        checksum = f"<{name}>{_escaped(value)}</{name}>" if name else ""
        rows.append(
            f"<Part>{checksum}<ETag>{_escaped(etag)}</ETag><PartNumber>{number}</PartNumber></Part>"
        )
    head = '<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    return f"{head}{''.join(rows)}</CompleteMultipartUpload>".encode()


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)
